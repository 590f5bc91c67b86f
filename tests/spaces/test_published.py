"""The published cells against their papers and the authors' code."""

import dataclasses
import hashlib

import pytest

from prdarts_jax import spaces
from prdarts_jax.spaces import genotypes, published


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
        before_last, last = last, 4 * c
    return total + last * classes + classes


def count_cifar10(genotype):
    stem = 27 * 108 + 2 * 108
    return count_weights(genotype, 36, 20, stem, stem_channels=108, classes=10)


def count_imagenet(genotype):
    stem = (27 * 24 + 2 * 24) + (9 * 24 * 48 + 2 * 48) + (9 * 48 * 48 + 2 * 48)
    return count_weights(genotype, 48, 14, stem, stem_channels=48, classes=1000)


def test_named_refuses_other_names():
    with pytest.raises(ValueError) as error:
        genotypes.named("DARTS_V3")
    assert str(error.value) == (
        "genotype 'DARTS_V3' is unknown; allowed are PRDARTS, DARTS_V1, DARTS_V2, PDARTS, "
        "PCDARTS, PCDARTS_IMAGENET, GDAS, NASNet, AmoebaNet"
    )


def test_prdarts_is_the_published_cell():
    genotype = genotypes.named("PRDARTS")
    skip, sep3, sep5, dil3, dil5 = "skip_connect", "sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3", "dil_conv_5x5"
    assert genotype.normal == (
        *((skip, 0), (sep3, 1)),
        *((dil3, 2), (sep3, 0)),
        *((dil3, 3), (sep3, 1)),
        *((dil3, 4), (dil3, 1)),
    )
    assert genotype.reduce == (
        *(("avg_pool_3x3", 0), (dil5, 1)),
        *((sep3, 0), (dil5, 2)),
        *((sep5, 1), (dil3, 3)),
        *((dil5, 4), (dil5, 1)),
    )
    assert genotype.normal_concat == genotype.reduce_concat == (2, 3, 4, 5)


@pytest.mark.parametrize(
    ("name", "digest"),
    [
        ("PRDARTS", "808af1178e71"),
        ("DARTS_V1", "ee5da56053c1"),
        ("DARTS_V2", "8af19d19f701"),
        ("PDARTS", "a22e7d5a4ff0"),
        ("PCDARTS", "5afa7b29b462"),
        ("PCDARTS_IMAGENET", "407331c4cfbf"),
        ("GDAS", "bfbd4a6476dd"),
        ("NASNet", "e78036359e8b"),
        ("AmoebaNet", "8da07c6c87af"),
    ],
)
def test_named_cells_are_those_the_authors_released(name, digest):
    # Digests of the lists as the authors' code has them, which the weights below cannot tell apart.
    lists = tuple(map(list, dataclasses.astuple(genotypes.named(name))))
    assert hashlib.sha256(repr(lists).encode()).hexdigest()[:12] == digest


@pytest.mark.parametrize(
    ("name", "cifar10", "imagenet"),
    [
        ("PRDARTS", 3_444_814, 4_981_312),
        ("DARTS_V1", 3_169_414, 4_510_432),
        ("DARTS_V2", 3_349_342, 4_718_752),
    ],
)
def test_published_cells_have_the_published_number_of_weights(name, cifar10, imagenet):
    assert count_cifar10(genotypes.named(name)) == cifar10
    assert count_imagenet(genotypes.named(name)) == imagenet


@pytest.mark.parametrize(
    ("name", "cifar10", "imagenet"),
    [("PDARTS", 3.4, 4.9), ("PCDARTS", 3.6, 5.3), ("PCDARTS_IMAGENET", None, 5.3), ("GDAS", 3.4, None)],
)
def test_other_cells_have_the_millions_of_weights_of_their_papers(name, cifar10, imagenet):
    for count, published_millions in ((count_cifar10, cifar10), (count_imagenet, imagenet)):
        assert published_millions in (None, round(count(genotypes.named(name)) / 1e6, 1))


@pytest.mark.parametrize("name", ["NASNet", "AmoebaNet"])
def test_evolved_and_controller_cells_concatenate_the_unused_of_five_nodes(name):
    genotype = genotypes.named(name)
    for cell in spaces.CELL_TYPES:
        entries, concat = getattr(genotype, cell), getattr(genotype, f"{cell}_concat")
        assert len(entries) == 10
        assert set(concat) == set(range(2, 7)) - {source for _, source in entries}


@pytest.mark.parametrize("name", [n for n in published.names() if n not in ("NASNet", "AmoebaNet")])
def test_cells_of_the_darts_space_have_distinct_inputs(name):
    genotype = genotypes.named(name)
    for entries in (genotype.normal, genotype.reduce):
        assert len(entries) == 8
        assert {op for op, _ in entries} < set(spaces.darts().ops)
        for (_, first), (_, second) in zip(entries[::2], entries[1::2], strict=True):
            assert first != second


@pytest.mark.parametrize(
    ("name", "normal"), [("NASNet", 1), ("PCDARTS", 1), ("DARTS_V2", 2), ("AmoebaNet", 3), ("PRDARTS", 4)]
)
def test_depth_of_published_cells(name, normal):
    assert genotypes.depth(genotypes.named(name))["normal"] == normal
