"""Each reason to doubt a search is given where it should be, and none where a search is sound."""

import numpy as np
import pytest

from prdarts_jax.search import trust
from prdarts_jax.spaces import genotypes

CELLS = {"normal": 2, "reduce": 2}


def made_up(epochs=50, accuracy=0.8, drift=0.02, noise=0.002, changes_at=10):
    """A search whose logits drift apart by `drift` an epoch, and whose cell is another one before an epoch."""
    rng = np.random.default_rng(0)
    walk = np.cumsum(noise * rng.normal(size=(epochs, 5, 4)), axis=0)
    walk[:, 0, 0] += drift * np.arange(epochs)
    records = [
        {"step": 8 * (e + 1), "train_accuracy": accuracy, "genotype": {"ops": [int(e >= changes_at)]}}
        for e in range(epochs)
    ]
    return records, {"normal": 1 + walk, "reduce": 1 + walk}


def test_a_sound_search_is_not_doubted():
    assert trust.doubts(CELLS, 10, *made_up()) == []


@pytest.mark.parametrize(
    ("cells", "fields", "expected"),
    [
        ({"normal": 0, "reduce": 1}, {}, ["no cell of the supernet is of the type normal"]),
        (CELLS, {"accuracy": 0.14}, ["the weights are hardly trained: training accuracy 14.0 %, chance is 10.0 %"]),
        (
            CELLS,
            {"drift": 0.0},
            ["the ops of the normal cell moved apart no", "the ops of the reduce cell moved apart no"],
        ),
        (CELLS, {"changes_at": 47}, ["the derived cell still changed in the last 5 of 50 epochs"]),
    ],
)
def test_each_reason_is_given(cells, fields, expected):
    found = trust.doubts(cells, 10, *made_up(**fields))
    assert len(found) == len(expected) and all(map(str.startswith, found, expected))


@pytest.mark.parametrize(("classes", "doubted", "trusted"), [(2, 0.59, 0.61), (10, 0.14, 0.16), (1000, 0.0014, 0.0016)])
def test_what_counts_as_hardly_trained(classes, doubted, trusted):
    assert len(trust.doubts(CELLS, classes, *made_up(accuracy=doubted))) == 1
    assert trust.doubts(CELLS, classes, *made_up(accuracy=trusted)) == []


def test_with_one_class_all_are_right():
    assert trust.doubts(CELLS, 1, *made_up(accuracy=1.0)) == []


@pytest.mark.parametrize("unread", [0, 1])
def test_a_cell_that_does_not_read_one_of_its_inputs_is_doubted(unread):
    read, ops = 1 - unread, ("sep_conv_3x3", "dil_conv_3x3")
    of_one = [(op, source) for source in (read, 2, 3, 4) for op in ops]
    of_both = [(op, source) for source in (0, 2, 3, 4) for op, source in zip(ops, (source, 1), strict=True)]
    cell = genotypes.Genotype(of_one, (2, 3, 4, 5), of_both, (2, 3, 4, 5))
    (found,) = trust.doubts(CELLS, 10, *made_up(), cell)
    assert found.startswith("the normal cell reads only one of its two inputs, since both ops of a node may be on one")
    assert found.endswith(f": no op takes input {unread}")
    for published in ("PRDARTS", "DARTS_V2"):
        assert trust.doubts(CELLS, 10, *made_up(), genotypes.named(published)) == []
    assert trust.doubts(CELLS, 10, *made_up(), genotypes.EdgeGenotype(("none",) * 6)) == []


@pytest.mark.parametrize(("activation", "doubted"), [(0.0, False), (1e-9, True), (0.9 / 400, True), (1.1 / 400, False)])
def test_an_op_that_hardly_any_gradient_reached_is_doubted(activation, doubted):
    """In 400 steps; an op that never took part at all is no candidate of its edge."""
    records, found = made_up()
    normal = found["normal"].copy()
    normal[:, 3, 1:] = activation
    doubts = trust.doubts(CELLS, 10, records, found | {"normal": normal})
    count = 20 if activation else 17
    assert doubts == doubted * [
        f"hardly any gradient reached some ops of the normal cell: by their activations 3 of {count} took part in less "
        "than one step; search longer"
    ]


def test_a_temperature_that_moves_all_ops_alike_is_no_movement():
    records, activation = made_up(drift=0.0)
    falling = {t: a + np.linspace(1, 0, len(a))[:, None, None] for t, a in activation.items()}
    assert len(trust.doubts(CELLS, 10, records, falling)) == 2


def test_cells_that_are_drawn_have_no_logits_that_could_move():
    records, activation = made_up()
    drawn = {t: (np.random.default_rng(1).uniform(size=a.shape) < 0.3).astype("f") for t, a in activation.items()}
    changing = [record | {"genotype": {"ops": [epoch]}} for epoch, record in enumerate(records)]
    assert trust.doubts(CELLS, 10, changing, drawn) == []
    assert len(trust.doubts(CELLS, 10, changing, activation)) == 1


def test_a_search_of_two_epochs_is_not_judged_by_its_movement():
    records, activation = made_up(epochs=2, drift=0.0)
    assert trust.doubts(CELLS, 10, records, activation) == []
