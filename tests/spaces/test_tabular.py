import dataclasses
import itertools
import os
import pathlib
import time

import numpy as np
import pytest
from shared import refused

from prdarts_jax import spaces
from prdarts_jax.spaces import tabular
from prdarts_jax.spaces.genotypes import EdgeGenotype, depth, named

OPS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
CELLS = list(itertools.product(range(5), repeat=6))
FORM = (
    "must be [o1, o2, o3, o4, o5, o6],accuracy with ops from 0 to 4 and an accuracy from 0 to 100; "
    "the first line may be: dataset NAME"
)


def score(cell):
    """Percent, a multiple of 1/8 below 98: some cells are equal."""
    return sum((i + 1) * op for i, op in enumerate(cell)) * 7 % 784 / 8


def genotype(cell):
    return EdgeGenotype(tuple(OPS[op] for op in cell))


@pytest.fixture
def lines():
    shuffled = np.random.default_rng(0).permutation(len(CELLS))
    return [f"[{', '.join(map(str, CELLS[i]))}],{score(CELLS[i])}" for i in shuffled]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "table.txt"


@pytest.mark.parametrize(
    "other", [EdgeGenotype(("sep_conv_3x3",) * 6), EdgeGenotype(OPS[:3]), EdgeGenotype(OPS * 2), named("DARTS_V2")]
)
def test_a_cell_that_is_not_in_the_table_is_refused(other):
    with pytest.raises(ValueError, match="must be an EdgeGenotype of six of the ops none, skip_connect, "):
        tabular.Table(np.zeros((5,) * 6), "cifar10").rank(other)


def test_the_table_answers_for_every_cell(path, lines):
    path.write_text("\n".join(lines) + "\n")
    table = tabular.load(path)
    assert table.accuracies.shape == (5,) * 6 and table.accuracies.dtype == np.float64
    scores = [score(cell) for cell in CELLS]
    falling = sorted(scores, reverse=True)
    for cell in CELLS[::97]:
        found = genotype(cell)
        assert table.accuracy(found) == score(cell)
        assert table.rank(found) == falling.index(score(cell)) + 1
        no_better = sum(other <= score(cell) for other in scores)
        assert table.percentile(found) == pytest.approx(100 * no_better / 15625)
    best, worst = genotype(CELLS[np.argmax(scores)]), genotype(CELLS[np.argmin(scores)])
    assert (table.rank(best), table.percentile(best)) == (1, 100)
    assert table.rank(worst) == 15625 - scores.count(min(scores)) + 1


def test_it_covers_the_spaces_whose_cells_it_has():
    covered = [name for name in spaces.NAMED if tabular.covers(spaces.named(name))]
    assert "nas_bench_201" in covered and not {"darts", "s1", "s2", "s3", "s4"} & {*covered}
    bench = spaces.nas_bench_201()
    assert bench.ops == OPS
    assert tabular.covers(dataclasses.replace(bench, name="fewer", ops=OPS[1:]))
    assert not tabular.covers(dataclasses.replace(bench, nodes=5))
    assert not tabular.covers(dataclasses.replace(bench, ops=(*OPS, "max_pool_3x3")))


@pytest.mark.parametrize(
    "line",
    [
        "[0, 1, 2, 3, 4],90.5",
        "[0, 1, 2, 3, 4, 5],90.5",
        "[0, 1, 2, 3, 4, 0]",
        "[0, 1, 2, 3, 4, 0],",
        "[0, 1, 2, 3, 4, 0],nan",
        "[0, 1, 2, 3, 4, 0],100.5",
        "[0, 1, 2, 3, 4, 0],-1",
        "__import__('os').abort(),1",
        "",
    ],
)
def test_a_malformed_line_is_named(path, lines, line):
    lines[41] = line
    path.write_text("\n".join(lines))
    with refused(f"accuracy table {path} line 42 is {line!r}, but {FORM}"):
        tabular.load(path)


def test_the_first_line_names_the_data_set(path, lines):
    path.write_text("\n".join(lines))
    assert tabular.load(path).dataset == "cifar10"
    path.write_text("\n".join(["dataset ImageNet16-120", *lines]))
    table = tabular.load(path)
    assert table.dataset == "ImageNet16-120"
    np.testing.assert_array_equal(table.accuracies.ravel(), list(map(score, CELLS)))
    found = {
        name: table.is_of(name) for name in ("ImageNet16-120", "/data/ImageNet16-120.npz", "ImageNet16", "cifar10")
    }
    assert list(found.values()) == [True, True, False, False]
    for first in ("dataset", "dataset ", "dataset:cifar10"):
        path.write_text("\n".join([first, *lines]))
        with refused(f"accuracy table {path} line 1 is {first!r}, but {FORM}"):
            tabular.load(path)
    path.write_text("\n".join([lines[0], "dataset cifar10", *lines[1:]]))
    with refused(f"accuracy table {path} line 2 is 'dataset cifar10', but {FORM}"):
        tabular.load(path)


def test_another_file_is_refused_in_one_sentence(path):
    path.write_bytes(bytes(range(128, 256)) * 100)
    with pytest.raises(ValueError) as error:
        tabular.load(path)
    assert FORM in str(error.value) and "\n" not in str(error.value) and len(str(error.value)) < 500


def test_missing_and_repeated_cells_and_a_missing_file_are_refused(path, lines):
    path.write_text("\n".join(lines[:-2]))
    with refused(f"accuracy table {path} has 15623 cells, but must have all 15625"):
        tabular.load(path)
    path.write_text("\n".join([*lines, lines[0]]))
    cell = lines[0].partition("]")[0] + "]"
    with refused(f"accuracy table {path} line 15626 is a second one of the cell {cell}"):
        tabular.load(path)
    path.unlink()
    with refused(f"accuracy table {path} does not exist or is not a file", FileNotFoundError):
        tabular.load(path)


def test_the_published_accuracies():
    folder = os.environ.get("PRDARTS_DATA_DIR")
    if not folder:
        pytest.skip("PRDARTS_DATA_DIR, the folder of nasbench201_cifar10.txt, is not set")
    start = time.perf_counter()
    table = tabular.load(pathlib.Path(folder) / "nasbench201_cifar10.txt")
    assert time.perf_counter() - start < 1
    skips = EdgeGenotype(("skip_connect",) * 6)
    assert round(table.accuracy(skips), 2) == 54.30
    assert round(table.accuracies.max(), 2) == 94.37
    assert table.rank(skips) > 15000
    # Cells without a path guess: this tells whether ops and edges are in our order.
    guessing = [depth(genotype(cell))["normal"] == 0 for cell in CELLS]
    accuracies = table.accuracies.ravel()
    assert max(accuracies[guessing]) < 10.01 < min(accuracies[np.logical_not(guessing)])
