"""A table of published cells in a short notation, and how to read it. `genotypes.named` returns them as genotypes."""

from collections.abc import Mapping
from types import MappingProxyType

from prdarts_jax.refusals import listed, shown

Cell = tuple[tuple[tuple[str, int], ...], tuple[int, ...]]

ABBREVIATIONS: Mapping[str, str] = MappingProxyType(
    {
        "skip": "skip_connect",
        "sep3": "sep_conv_3x3",
        "sep5": "sep_conv_5x5",
        "sep7": "sep_conv_7x7",
        "dil3": "dil_conv_3x3",
        "dil5": "dil_conv_5x5",
        "conv7": "conv_7x1_1x7",
        "avg": "avg_pool_3x3",
        "max": "max_pool_3x3",
        "none": "none",
    }
)

# name: (normal cell, reduction cell), "op input, op input | next node ... -> concatenated nodes".
_PUBLISHED = MappingProxyType(
    {
        # Zhou et al., Theory-Inspired Path-Regularized Differentiable NAS, NeurIPS 2020
        "PRDARTS": (
            "skip 0, sep3 1 | dil3 2, sep3 0 | dil3 3, sep3 1 | dil3 4, dil3 1 -> 2 3 4 5",
            "avg 0, dil5 1 | sep3 0, dil5 2 | sep5 1, dil3 3 | dil5 4, dil5 1 -> 2 3 4 5",
        ),
        # Liu, Simonyan, Yang, DARTS, ICLR 2019: first order
        "DARTS_V1": (
            "sep3 1, sep3 0 | skip 0, sep3 1 | skip 0, sep3 1 | sep3 0, skip 2 -> 2 3 4 5",
            "max 0, max 1 | skip 2, max 0 | max 0, skip 2 | skip 2, avg 0 -> 2 3 4 5",
        ),
        # the same paper: second order
        "DARTS_V2": (
            "sep3 0, sep3 1 | sep3 0, sep3 1 | sep3 1, skip 0 | skip 0, dil3 2 -> 2 3 4 5",
            "max 0, max 1 | skip 2, max 1 | max 0, skip 2 | skip 2, max 1 -> 2 3 4 5",
        ),
        # Chen et al., Progressive Differentiable Architecture Search, ICCV 2019: CIFAR-10
        "PDARTS": (
            "skip 0, dil3 1 | skip 0, sep3 1 | sep3 1, sep3 3 | sep3 0, dil5 4 -> 2 3 4 5",
            "avg 0, sep5 1 | sep3 0, dil5 2 | max 0, dil3 1 | dil3 1, dil5 3 -> 2 3 4 5",
        ),
        # Xu et al., PC-DARTS, ICLR 2020: searched on CIFAR-10
        "PCDARTS": (
            "sep3 1, skip 0 | sep3 0, dil3 1 | sep5 0, sep3 1 | avg 0, dil3 1 -> 2 3 4 5",
            "sep5 1, max 0 | sep5 1, sep5 2 | sep3 0, sep3 3 | sep3 1, sep3 2 -> 2 3 4 5",
        ),
        # the same paper: searched on ImageNet
        "PCDARTS_IMAGENET": (
            "skip 1, sep3 0 | sep3 0, skip 1 | sep3 1, sep3 3 | sep3 1, dil5 4 -> 2 3 4 5",
            "sep3 0, skip 1 | dil5 2, max 1 | sep3 2, sep3 1 | sep5 0, sep3 3 -> 2 3 4 5",
        ),
        # Dong, Yang, Searching for a Robust Neural Architecture in Four GPU Hours, CVPR 2019
        "GDAS": (
            "skip 0, skip 1 | skip 0, sep5 2 | sep3 3, skip 0 | sep5 4, sep3 3 -> 2 3 4 5",
            "sep5 0, sep3 1 | sep5 2, sep5 1 | dil5 2, sep3 1 | sep5 0, sep5 1 -> 2 3 4 5",
        ),
        # Chu et al., Fair DARTS, ECCV 2020: node 3 of the first normal cell has no entry and is not concatenated
        "FAIRDARTS_A": (
            "sep3 0, sep5 1 | none 0, none 1 | max 0, none 1 | sep3 0, none 1 -> 2 4 5",
            "max 0, avg 1 | avg 0, dil5 1 | avg 0, sep5 1 | skip 0, skip 1 -> 2 3 4 5",
        ),
        "FAIRDARTS_B": (
            "sep3 0, sep3 1 | sep3 1, none 0 | dil3 0, sep5 1 | dil5 1, none 0 -> 2 3 4 5",
            "skip 0, dil3 1 | skip 0, dil3 1 | max 0, sep3 1 | skip 2, max 0 -> 2 3 4 5",
        ),
        # Zoph et al., Learning Transferable Architectures, CVPR 2018: NASNet-A
        "NASNet": (
            "sep5 1, sep3 0 | sep5 0, sep3 0 | avg 1, skip 0 | avg 0, avg 0 | sep3 1, skip 1 -> 2 3 4 5 6",
            "sep5 1, sep7 0 | max 1, sep7 0 | avg 1, sep5 0 | skip 3, avg 2 | sep3 2, max 1 -> 4 5 6",
        ),
        # Real et al., Regularized Evolution for Image Classifier Search, AAAI 2019: AmoebaNet-A
        "AmoebaNet": (
            "avg 0, max 1 | sep3 0, sep5 2 | sep3 0, avg 3 | sep3 1, skip 1 | skip 0, avg 1 -> 4 5 6",
            "avg 0, sep3 1 | max 0, sep7 2 | sep7 0, avg 1 | max 0, max 1 | conv7 0, sep3 5 -> 3 4 6",
        ),
    }
)


def names() -> tuple[str, ...]:
    """The names of the published cells."""
    return tuple(_PUBLISHED)


def parsed(name: str) -> tuple[Cell, Cell]:
    """(normal cell, reduction cell) of a name in any case; each cell is ((op, input) entries, concatenated nodes).

    Raises:
      ValueError: no published cell has this name.
    """
    known = [of for of in _PUBLISHED if isinstance(name, str) and of.lower() == name.lower()]
    if not known:
        raise ValueError(f"genotype {shown(name)} is unknown; allowed are {listed(name, _PUBLISHED)}")
    normal, reduce = _PUBLISHED[known[0]]
    return _cell(normal), _cell(reduce)


def _cell(text: str) -> Cell:
    entries, concat = text.split("->")
    pairs = (entry.split() for entry in entries.replace("|", ",").split(","))
    return tuple((ABBREVIATIONS[op], int(source)) for op, source in pairs), tuple(map(int, concat.split()))
