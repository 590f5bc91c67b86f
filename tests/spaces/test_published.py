"""The published cells against their papers and the authors' code."""

import dataclasses
import hashlib

import pytest
from shared import refused

from prdarts_jax.nets import sizes
from prdarts_jax.spaces import genotypes, published

# Digests of the lists as the authors' code has them.
RELEASED = {
    "PRDARTS": "808af1178e71",
    "DARTS_V1": "ee5da56053c1",
    "DARTS_V2": "8af19d19f701",
    "PDARTS": "a22e7d5a4ff0",
    "PCDARTS": "5afa7b29b462",
    "PCDARTS_IMAGENET": "407331c4cfbf",
    "GDAS": "bfbd4a6476dd",
    "NASNet": "e78036359e8b",
    "AmoebaNet": "8da07c6c87af",
}


def count_weights(genotype, channels, cells, stem, stem_channels, classes):
    """Weights of the evaluation network, convolution by convolution, as the papers describe it."""
    total = stem
    before_last = last = stem_channels
    c = channels
    for i in range(cells):
        reduction = i in (cells // 3, 2 * cells // 3)
        c *= 2 if reduction else 1
        total += (before_last + last) * c + 4 * c
        for op, source in genotype.reduce if reduction else genotype.normal:
            pointwise_and_norm = c * c + 2 * c
            if op.startswith("sep_conv"):
                total += 2 * (int(op[-1]) ** 2 * c + pointwise_and_norm)
            elif op.startswith("dil_conv"):
                total += int(op[-1]) ** 2 * c + pointwise_and_norm
            elif op == "skip_connect" and reduction and source < 2:
                total += pointwise_and_norm
        before_last, last = last, c * len(genotype.reduce_concat if reduction else genotype.normal_concat)
    return total + last * classes + classes


def count_cifar10(genotype):
    stem = 27 * 108 + 2 * 108
    return count_weights(genotype, 36, 20, stem, stem_channels=108, classes=10)


def count_imagenet(genotype):
    stem = (27 * 24 + 2 * 24) + (9 * 24 * 48 + 2 * 48) + (9 * 48 * 48 + 2 * 48)
    return count_weights(genotype, 48, 14, stem, stem_channels=48, classes=1000)


def test_named_refuses_other_names():
    like = "did you mean 'DARTS_V2' or 'DARTS_V1' or 'PDARTS'?"
    with refused(f"genotype 'DARTS_V3' is unknown; allowed are {', '.join(published.names())}; {like}"):
        genotypes.named("DARTS_V3")


@pytest.mark.parametrize("name", RELEASED)
def test_named_cells_are_those_the_authors_released(name):
    lists = tuple(map(list, dataclasses.astuple(genotypes.named(name))))
    assert hashlib.sha256(repr(lists).encode()).hexdigest()[:12] == RELEASED[name]


@pytest.mark.parametrize(
    ("name", "cifar10", "imagenet"),
    [("PDARTS", 3.4, 4.9), ("PCDARTS", 3.6, 5.3), ("PCDARTS_IMAGENET", None, 5.3), ("GDAS", 3.4, None)],
)
def test_cells_have_the_millions_of_weights_of_their_papers(name, cifar10, imagenet):
    for count, published_millions in ((count_cifar10, cifar10), (count_imagenet, imagenet)):
        assert published_millions in (None, round(count(genotypes.named(name)) / 1e6, 1))


@pytest.mark.parametrize("name, millions", [("FAIRDARTS_A", 2.83), ("FAIRDARTS_B", 3.88)])
def test_cells_of_fair_darts_have_the_weights_that_its_authors_count_with_the_auxiliary_head(name, millions):
    genotype = genotypes.named(name)
    head = sizes.describe(genotype)["aux_params"]
    assert int((count_cifar10(genotype) + head) / 1e4) / 100 == millions


def test_names_are_found_in_any_case():
    assert genotypes.named("FairDARTS_a") == genotypes.find("fairdarts_a") == genotypes.named("FAIRDARTS_A")
    assert genotypes.find("nasnet") == genotypes.named("NASNet")


@pytest.mark.parametrize(
    ("name", "normal"), [("NASNet", 1), ("PCDARTS", 1), ("DARTS_V2", 2), ("AmoebaNet", 3), ("PRDARTS", 4)]
)
def test_depth_of_published_cells(name, normal):
    assert genotypes.depth(genotypes.named(name))["normal"] == normal
