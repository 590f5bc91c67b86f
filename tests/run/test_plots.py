"""Pictures: what they show, and that no text lies on another."""

import itertools

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text
from shared import diagnosed, one_cell_type, record

from prdarts_jax import ops, spaces
from prdarts_jax.run import cell_plot, plots
from prdarts_jax.search.diagnostics import DIAGNOSTICS
from prdarts_jax.spaces import genotypes

SEP3, SKIP, DIL5, MAX = "sep_conv_3x3", "skip_connect", "dil_conv_5x5", "max_pool_3x3"

# Two ops on one edge, as the paper's derivation allows: a chain, and all from the inputs.
DOUBLE = genotypes.Genotype(
    normal=tuple((op, node) for node in (1, 2, 3, 4) for op in (SEP3, SKIP)),
    normal_concat=(2, 3, 4, 5),
    reduce=tuple((op, node) for node in (0, 0, 1, 1) for op in (DIL5, MAX)),
    reduce_concat=(2, 3, 4, 5),
)
# Entries of none, as a threshold or NAS-Bench-201 leaves them.
SPARSE = genotypes.Genotype(
    normal=(("noise", 0), ("none", 1), (SEP3, 2), (SKIP, 0), ("none", 0), ("none", 1), (MAX, 3), ("none", 0)),
    normal_concat=(2, 3, 4, 5),
    reduce=(("none", 0), ("none", 1)) * 4,
    reduce_concat=(2, 3, 4, 5),
)
BENCH_OPS = spaces.nas_bench_201().ops

DRAWN = {
    "PRDARTS": genotypes.named("PRDARTS"),
    "DARTS_V2": genotypes.named("DARTS_V2"),
    "NASNet": genotypes.named("NASNet"),
    "two ops an edge": DOUBLE,
    "entries of none": SPARSE,
}
# The best cell, one with a node that leads nowhere, one without any connection, all skips and all convolutions.
DRAWN |= {
    f"edges {ops}": genotypes.EdgeGenotype(tuple(BENCH_OPS[int(op)] for op in ops))
    for ops in ("333123", "301040", "000000", "111111", "333333")
}
# A chain of eight nodes, with long names.
CHAIN = tuple((op, source) for source in range(1, 9) for op in ("sep_conv_3x3_with_skip", "none"))
DRAWN["deep"] = genotypes.Genotype(CHAIN, (6, 7, 8, 9), CHAIN, (6, 7, 8, 9))


def overlap(a, b):
    return min(a.x1, b.x1) > max(a.x0, b.x0) and min(a.y1, b.y1) > max(a.y0, b.y0)


def with_gid(figure, gid):
    return figure.findobj(lambda artist: artist.get_gid() == gid)


def drawn_ticks(axis):
    low, high = axis.get_view_interval()
    return [tick for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]


@pytest.mark.parametrize("name, cell_type", [(name, t) for name in DRAWN for t in genotypes.cells(DRAWN[name])])
def test_cell_drawing_is_complete_and_nothing_overlaps(name, cell_type):
    genotype = DRAWN[name]
    figure = cell_plot.cell_figure(genotype, cell_type)
    FigureCanvasAgg(figure).draw()
    labels, nodes = with_gid(figure, "op"), with_gid(figure, "node")
    cell = genotypes.cells(genotype)[cell_type]
    drawn = [op for op, _, _ in cell if op != "none"]
    assert sorted(label.get_text().replace("\n", "_") for label in labels) == sorted(drawn)
    of_darts = isinstance(genotype, genotypes.Genotype)
    inner = [str(number) for number in range(len(cell) // 2)] if of_darts else ["1", "2"]
    names = ["$c_{k-2}$"] * of_darts + ["$c_{k-1}$", *inner, "$c_k$"]
    assert [text.get_text() for text in figure.axes[0].texts if text.get_gid() != "op"][1:] == names
    assert len(nodes) == len(names)
    assert len(with_gid(figure, "edge")) == len(drawn) + len(getattr(genotype, f"{cell_type}_concat", ()))
    kinds = {text.get_text() for text in figure.axes[0].get_legend().get_texts()}
    assert kinds == {ops.group(op) for op in drawn} | ({"concatenation"} if of_darts else set())

    boxes = [label.get_bbox_patch().get_window_extent() for label in labels]
    boxes += [node.get_window_extent() for node in nodes]
    assert min(box.width for box in boxes) > 50
    assert not any(overlap(a, b) for a, b in itertools.combinations(boxes, 2))
    width, height = figure.bbox.size
    assert all(0 < b.x0 and b.x1 < width and 0 < b.y0 and b.y1 < height for b in boxes)


@pytest.mark.parametrize("name", ["PRDARTS", "NASNet", "edges 333123"])
def test_edges_join_their_nodes_bear_their_labels_and_avoid_the_others(name):
    genotype = DRAWN[name]
    cell = genotypes.cells(genotype)["normal"]
    figure = cell_plot.cell_figure(genotype, "normal")
    FigureCanvasAgg(figure).draw()
    labels, edges = with_gid(figure, "op"), with_gid(figure, "edge")
    boxes = [node.get_window_extent() for node in with_gid(figure, "node")]
    ends = [(source, target) for _, source, target in cell]
    ends += [(node, len(boxes) - 1) for node in getattr(genotype, "normal_concat", ())]
    for i, (edge, (source, target)) in enumerate(zip(edges, ends, strict=True)):
        points = edge.axes.transData.transform(edge.get_path().vertices[:60])  # what follows is the arrow head
        assert boxes[source].padded(15).contains(*points[0])
        assert boxes[target].padded(15).contains(*points[-1])
        for node in set(range(len(boxes))) - {source, target}:
            assert not any(boxes[node].contains(*point) for point in points)
        if i < len(labels):
            box = labels[i].get_bbox_patch().get_window_extent()
            assert any(box.contains(*point) for point in points)
            assert labels[i].get_text() == cell[i][0]


@pytest.mark.parametrize("make, epochs", [(diagnosed, 1), (diagnosed, 50), (diagnosed, 600), (one_cell_type, 50)])
@pytest.mark.parametrize(
    "draw", [plots.activation_figure, plots.skip_share_figure, plots.curves_figure, plots.diagnostics_figure]
)
def test_texts_of_a_plot_do_not_overlap_and_ticks_are_whole_epochs(draw, make, epochs):
    figure = draw([make(epoch) for epoch in range(epochs)])
    FigureCanvasAgg(figure).draw()
    ticks = {axis: drawn_ticks(axis) for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)}
    hidden = {label for axis in ticks for label in axis.get_ticklabels()}
    hidden -= {tick.label1 for drawn in ticks.values() for tick in drawn}
    texts = [t for t in figure.findobj(Text) if t.get_visible() and t.get_text()]
    boxes = [t.get_window_extent() for t in texts if t not in hidden]
    assert len(boxes) > 8
    assert not any(overlap(a, b) for a, b in itertools.combinations(boxes, 2))
    for axes in figure.axes:
        places = [tick.get_loc() for tick in ticks[axes.xaxis]]
        assert places and all(place == round(place) for place in places)
        assert axes.get_xlabel() == "epoch"


def test_plots_show_the_records_in_their_units():
    records = [record(epoch) for epoch in range(10)]
    figure = plots.activation_figure(records)
    for axes in figure.axes:
        assert axes.get_ylim() == pytest.approx((0, 1), abs=0.05)
        lines = {line.get_label(): line for line in axes.get_lines()}
        assert set(lines) == {"skip", "conv", "pool", "none", "all ops"}
        np.testing.assert_allclose(lines["skip"].get_ydata(), 0.97 ** np.arange(10))
        widths = {name: line.get_linewidth() for name, line in lines.items()}
        assert widths.pop("all ops") > max(widths.values())
        assert lines["all ops"].get_color() == "black"
    loss, accuracy = plots.curves_figure(records).axes
    np.testing.assert_allclose(loss.get_lines()[1].get_ydata(), 2.3 * 0.98 ** np.arange(10))
    np.testing.assert_allclose(accuracy.get_lines()[0].get_ydata()[0], 10)
    (shares,) = plots.skip_share_figure(records).axes
    np.testing.assert_allclose(shares.get_lines()[0].get_ydata()[:5], [0, 12.5, 25, 37.5, 50])


def test_small_activations_fill_their_panel():
    shares = {"skip": 0.13, "conv": 0.12, "all": 0.125}
    (axes,) = plots.activation_figure([{"epoch": 0, "activation": {"normal": shares}}]).axes
    assert axes.get_ylim() == pytest.approx((0, 0.13), abs=0.01)


def test_each_of_many_compared_cells_has_room_for_its_name():
    rows = {f"random_{n}": {"accuracy": 0.9 + n / 1000, "standard_error": 0.01, "params": n} for n in range(40)}
    figure = plots.comparison_figure(rows)
    FigureCanvasAgg(figure).draw()
    boxes = [label.get_window_extent() for label in figure.axes[0].get_yticklabels()]
    assert len(boxes) == 40 and not any(overlap(a, b) for a, b in itertools.pairwise(boxes))


def test_high_accuracies_fill_their_panel():
    records = [record(epoch) | {"train_accuracy": 0.97, "val_accuracy": 0.98 + epoch / 1000} for epoch in range(11)]
    (axes,) = plots.curves_figure(records, quantities=["accuracy"]).axes
    assert axes.get_ylim() == pytest.approx((97, 99), abs=0.15)


def test_records_of_one_cell_type_have_one_panel():
    records = [one_cell_type(epoch) for epoch in range(3)]
    (axes,) = plots.activation_figure(records).axes
    assert axes.get_title() == "normal cell" and len(axes.get_lines()) == 5
    (shares,) = plots.skip_share_figure(records).axes
    assert [line.get_label() for line in shares.get_lines()] == ["normal cell"]


def test_diagnostics_are_those_of_the_records():
    records = [diagnosed(epoch) for epoch in range(11)]
    entropy, skips, depth, alignment, eigenvalue = plots.diagnostics_figure(records).axes
    for axes, field in ((skips, "skip_share"), (depth, "depth"), (entropy, "entropy")):
        lines = {line.get_label(): line.get_ydata() for line in axes.get_lines()}
        assert set(lines) == {"normal cell", "reduction cell"}
        np.testing.assert_allclose(lines["normal cell"], [r[field]["normal"] for r in records])
        np.testing.assert_allclose(lines["reduction cell"], [r[field]["reduce"] for r in records])
    lines = {line.get_label(): line.get_ydata() for line in alignment.get_lines()}
    np.testing.assert_allclose(lines["validation"], [r["alignment_val"] for r in records])
    np.testing.assert_allclose(lines["training"], [r["alignment_train"] for r in records])
    assert skips.get_ylim() == pytest.approx((0, 1), abs=0.06)
    for axes in (entropy, depth, alignment, eigenvalue):
        values = np.concatenate([line.get_ydata() for line in axes.get_lines()])
        (low, high), (bottom, top) = (values.min(), values.max()), axes.get_ylim()
        assert bottom < low and high < top and high - low > 0.85 * (top - bottom)
    (line,) = eigenvalue.get_lines()
    np.testing.assert_allclose(line.get_xydata(), [(0, 0), (5, 0.05), (10, 0.1)])
    assert eigenvalue.get_xlim() == skips.get_xlim() == (-0.5, 10.5)

    records = [{"epoch": epoch, "entropy": {"normal": 1.6 + 1e-7 * (epoch % 2)}} for epoch in range(4)]
    (constant,) = plots.diagnostics_figure(records).axes
    assert np.ptp(constant.get_ylim()) > 0.003  # a rounding error does not fill the panel

    (alone,) = plots.diagnostics_figure([{"epoch": 0}, {"epoch": 1, "alignment_val": 0.5}]).axes
    assert [line.get_label() for line in alone.get_lines()] == ["validation"]
    with pytest.raises(ValueError) as error:
        plots.diagnostics_figure([{"epoch": 0}])
    fields = ", ".join(diagnostic.field for diagnostic in DIAGNOSTICS)
    assert str(error.value) == f"records have none of the fields {fields}"


def test_a_confusion_has_labels_in_rows_in_percent():
    figure = plots.confusion_figure([[3, 1], [0, 0]])
    (image,) = figure.axes[0].images
    np.testing.assert_allclose(image.get_array(), [[75, 25], [0, 0]])
    texts = {(text.get_position(), text.get_text()) for text in figure.axes[0].texts}
    assert texts == {((0, 0), "75"), ((1, 0), "25")}
    assert (figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()) == ("classified as", "label")
    assert not plots.confusion_figure(np.eye(30)).axes[0].texts  # too many to be read


def test_a_comparison_is_ranked():
    rows = {"found": {"accuracy": 0.9, "params": 5}, "random_0": {"accuracy": 0.95, "params": 7}}
    rows = {name: row | {"standard_error": 0.01} for name, row in rows.items()}
    left, right = plots.comparison_figure(rows).axes
    assert [label.get_text() for label in left.get_yticklabels()] == ["found", "random 0"]
    points = [line.get_xydata()[0].tolist() for line in right.lines]
    np.testing.assert_allclose(points, [[5, 90], [7, 95]])
    assert left.lines[0].get_color() != left.lines[1].get_color()


def test_curves_of_a_training_show_the_test():
    records = [{"epoch": 0, "train_loss": 2, "train_accuracy": 0.1, "test_loss": 1, "test_accuracy": 0.4}]
    losses, accuracies = plots.curves_figure(records, held_out="test").axes
    assert [line.get_ydata()[0] for line in losses.lines] == [2, 1]
    np.testing.assert_allclose([line.get_ydata()[0] for line in accuracies.lines], [10, 40])
    assert [line.get_label() for line in losses.lines] == ["training", "test"]
