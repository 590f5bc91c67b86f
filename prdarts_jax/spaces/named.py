"""The search spaces that a config can name: those of `NAMED`, to which a new one is added, and functions of the user's
own."""

import dataclasses
from collections.abc import Callable, Mapping
from types import MappingProxyType

from prdarts_jax.refusals import cut, listed, shown
from prdarts_jax.spaces import own
from prdarts_jax.spaces.notations import NAS_BENCH_201_OPS
from prdarts_jax.spaces.published import ABBREVIATIONS
from prdarts_jax.spaces.space import SearchSpace


def darts() -> SearchSpace:
    """The DARTS space (Liu, Simonyan, Yang, ICLR 2019): 14 edges, eight ops."""
    convolutions = ("sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3", "dil_conv_5x5")
    return SearchSpace(name="darts", ops=("none", "skip_connect", *convolutions, "avg_pool_3x3", "max_pool_3x3"))


def darts_no_none() -> SearchSpace:
    """The DARTS space without the op `none`, as Lambda-DARTS and Fair DARTS search it."""
    return SearchSpace(name="darts_no_none", ops=darts().ops[1:])


# R-DARTS's S1 (Zela et al., ICLR 2020, appendix): the two candidates of each edge.
_S1_NORMAL = "skip dil3, skip dil5, skip dil5, skip sep3, skip dil3, max skip, skip sep3, skip sep3, skip dil3, skip sep3, max skip, skip dil3, dil3 dil5, dil3 dil5"  # noqa: E501
_S1_REDUCE = "max avg, max dil3, max avg, max avg, skip dil5, max avg, max sep3, skip dil3, skip dil5, max avg, max avg, skip dil5, skip dil5, skip dil5"  # noqa: E501


def s1() -> SearchSpace:
    """S1 (Zela et al., Understanding and Robustifying DARTS, ICLR 2020): two preselected ops on each edge."""

    def edge_ops(text):
        return tuple(tuple(ABBREVIATIONS[name] for name in pair.split()) for pair in text.split(","))

    return SearchSpace(
        name="s1",
        ops=tuple(op for op in darts().ops if op not in ("none", "sep_conv_5x5")),
        edge_ops=(edge_ops(_S1_NORMAL), edge_ops(_S1_REDUCE)),
    )


def s2() -> SearchSpace:
    """S2 of the same paper: a skip connection or a 3x3 separable convolution."""
    return SearchSpace(name="s2", ops=("skip_connect", "sep_conv_3x3"))


def s3() -> SearchSpace:
    """S3 of the same paper: the ops of S2, and the op `none`."""
    return SearchSpace(name="s3", ops=("none", "skip_connect", "sep_conv_3x3"))


def s4() -> SearchSpace:
    """S4 of the same paper: a 3x3 separable convolution, or noise, which puts N(0, 1) in place of its input."""
    return SearchSpace(name="s4", ops=("noise", "sep_conv_3x3"))


def nas_bench_201() -> SearchSpace:
    """NAS-Bench-201 (Dong, Yang, ICLR 2020): one cell type with four nodes; every edge keeps one of five ops."""
    return SearchSpace(
        name="nas_bench_201",
        ops=NAS_BENCH_201_OPS,
        nodes=4,
        inputs=1,
        cell_types=("normal",),
        entries_per_node=0,
        macro="nas_bench_201",
    )


def transnas_bench_101() -> SearchSpace:
    """The cells of TransNAS-Bench-101's micro space (Duan et al., CVPR 2021), those of NAS-Bench-201 without a pool.

    Their network here is that of NAS-Bench-201. In TransNAS-Bench-101 cells, too, halve the image and double the width.
    """
    benchmark = nas_bench_201()
    return dataclasses.replace(benchmark, name="transnas_bench_101", ops=benchmark.ops[:-1])


def darts_no_skip() -> SearchSpace:
    """The DARTS space without skip connections, as in confopt's suite of benchmarks (Jha et al., AutoML 2025)."""
    ops = tuple(op for op in darts().ops if op != "skip_connect")
    return SearchSpace(name="darts_no_skip", ops=ops)


def darts_all_skip() -> SearchSpace:
    """The DARTS space with a skip connection beside every op, the op `none` included, as in the same suite."""
    return SearchSpace(name="darts_all_skip", ops=tuple(f"{op}_with_skip" for op in darts().ops))


def single_cell() -> SearchSpace:
    """The space of the same suite for a network of one cell: eight nodes beside the inputs, of which the last four are
    concatenated."""
    return _of_a_single_cell(darts(), "single_cell")


def single_cell_no_skip() -> SearchSpace:
    """`single_cell` with the ops of `darts_no_skip`."""
    return _of_a_single_cell(darts_no_skip(), "single_cell_no_skip")


def single_cell_all_skip() -> SearchSpace:
    """`single_cell` with the ops of `darts_all_skip`."""
    return _of_a_single_cell(darts_all_skip(), "single_cell_all_skip")


def _of_a_single_cell(space, name):
    return dataclasses.replace(space, name=name, nodes=10, outputs=4)


NAMED: Mapping[str, Callable[[], SearchSpace]] = MappingProxyType(
    {
        make.__name__: make
        for make in (
            *(darts, darts_no_none, darts_no_skip, darts_all_skip, s1, s2, s3, s4, nas_bench_201, transnas_bench_101),
            *(single_cell, single_cell_no_skip, single_cell_all_skip),
        )
    }
)


def named(name: str) -> SearchSpace:
    """The space that a config calls `name`: a key of `NAMED`, or 'module:function' or 'file.py:function', where the
    function takes no arguments and returns a `SearchSpace`.

    Raises:
      ValueError: no space has this name, or the function fails or returns something else.
    """
    if isinstance(name, str) and ":" in name:
        return _own(name)
    if not isinstance(name, str) or name not in NAMED:
        raise ValueError(f"space {shown(name)} is unknown; allowed are {listed(name, NAMED)}")
    return NAMED[name]()


def _own(name):
    build = own.object_of("space", name)
    try:
        if isinstance(made := build(), SearchSpace):
            return made
        reason = f"it returns {shown(made)}"
    except Exception as error:  # whatever the function raises
        reason = cut(f"{type(error).__name__}: {error}", 400)
    raise ValueError(f"space={shown(name)} must be a function without arguments that returns a SearchSpace: {reason}")
