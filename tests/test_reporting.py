"""Files of a run: whole after any kill; pictures: valid, and no text lies on another."""

import itertools
import json
import signal
import struct
import subprocess
import sys
import time

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text
from tensorboardX.proto import event_pb2

from prdarts_jax import genotypes, plots, reporting, spaces

SEP3, SKIP, DIL5, MAX = "sep_conv_3x3", "skip_connect", "dil_conv_5x5", "max_pool_3x3"

# Two ops on one edge, as the paper's derivation allows: a chain, and all from the inputs.
DOUBLE = genotypes.Genotype(
    normal=tuple((op, node) for node in (1, 2, 3, 4) for op in (SEP3, SKIP)),
    normal_concat=(2, 3, 4, 5),
    reduce=tuple((op, node) for node in (0, 0, 1, 1) for op in (DIL5, MAX)),
    reduce_concat=(2, 3, 4, 5),
)


def record(epoch):
    """What main.py appends after an epoch, falling probabilities and all."""
    activation = {"skip": 0.97**epoch, "conv": 0.99**epoch, "pool": 0.98**epoch, "none": 0.9**epoch}
    activation["all"] = sum(activation.values()) / 4
    return {
        "epoch": epoch,
        "step": 11 * (epoch + 1),
        "train_loss": 2.3 * 0.97**epoch,
        "train_accuracy": 1 - 0.9 * 0.97**epoch,
        "val_loss": 2.3 * 0.98**epoch,
        "val_accuracy": 1 - 0.9 * 0.98**epoch,
        "activation": {"normal": activation, "reduce": activation},
        "skip_share": {"normal": epoch % 5 / 8, "reduce": 0.125},
        "genotype": {"normal": [["skip_connect", 0]], "normal_concat": [2, 3, 4, 5]},
    }


def log_epochs(workdir, epochs, write=record):
    log = reporting.RunLog(workdir, epochs[0])
    for epoch in epochs:
        log.append(write(epoch))
    log.close()


def age_events(workdir):
    """Renames the event file as if it came from long ago: its name has the second it was made."""
    (path,) = (workdir / "tensorboard").iterdir()
    return path.rename(path.with_name("events.out.tfevents.0000000001.host"))


def shown_scalars(workdir):
    """{name: [(step, value), ...]} that TensorBoard shows, parsed from its file format here.

    A record is u64 length, u32 checksum, bytes, u32 checksum; a session start at step s hides what
    came before it at steps >= s.
    """
    shown = {}
    for path in sorted((workdir / "tensorboard").iterdir()):
        data = path.read_bytes()
        while len(data) > 8 and len(data) >= 16 + (length := struct.unpack_from("<Q", data)[0]):
            event = event_pb2.Event.FromString(data[12 : 12 + length])
            data = data[16 + length :]
            if event.session_log.status == event_pb2.SessionLog.START:
                for name in shown:
                    shown[name] = [point for point in shown[name] if point[0] < event.step]
            for value in event.summary.value:
                shown.setdefault(value.tag, []).append((event.step, value.simple_value))
    return shown


def overlap(a, b):
    return min(a.x1, b.x1) > max(a.x0, b.x0) and min(a.y1, b.y1) > max(a.y0, b.y0)


def with_gid(figure, gid):
    return figure.findobj(lambda artist: artist.get_gid() == gid)


def drawn_ticks(axis):
    low, high = axis.get_view_interval()
    return [tick for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]


def png_size(path):
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n" and data[-8:-4] == b"IEND"
    return struct.unpack(">II", data[16:24])


def test_write_json_replaces_the_whole_file_and_leaves_no_other(tmp_path):
    path = tmp_path / "value.json"
    reporting.write_json(path, {"long": list(range(100))})
    reporting.write_json(path, {"loss": np.float32(0.5), "logits": np.eye(2)})
    assert json.loads(path.read_text()) == {"loss": 0.5, "logits": [[1.0, 0.0], [0.0, 1.0]]}
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_write_keeps_the_old_file(tmp_path):
    path = tmp_path / "value.json"
    reporting.write_json(path, 1)
    with pytest.raises(AttributeError):
        reporting.write_json(path, object())
    assert json.loads(path.read_text()) == 1


def test_records_survive_a_line_cut_by_a_kill(tmp_path):
    assert reporting.read_records(tmp_path) == []
    log_epochs(tmp_path, range(4))
    path = tmp_path / "metrics.jsonl"
    whole = path.read_bytes()
    for cut in (1, 20, 200):
        path.write_bytes(whole[:-cut])
        assert reporting.read_records(tmp_path) == [record(e) for e in range(3)]
    log_epochs(tmp_path, range(3, 5))
    assert reporting.read_records(tmp_path) == [record(e) for e in range(5)]


def test_resuming_earlier_drops_the_records_from_there(tmp_path):
    log_epochs(tmp_path, range(5))
    log_epochs(tmp_path, range(2, 4), lambda epoch: record(epoch) | {"train_loss": 7.0})
    records = reporting.read_records(tmp_path)
    assert [r["epoch"] for r in records] == [0, 1, 2, 3]
    assert [r["train_loss"] == 7.0 for r in records] == [False, False, True, True]


def test_damage_elsewhere_is_reported_with_its_line(tmp_path):
    log_epochs(tmp_path, range(3))
    path = tmp_path / "metrics.jsonl"
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([lines[0], lines[1][:30], *lines[2:]]))
    with pytest.raises(ValueError, match=r"metrics\.jsonl line 2 is damaged"):
        reporting.read_records(tmp_path)


def test_tensorboard_has_every_number_once_and_nothing_else(tmp_path):
    log_epochs(tmp_path, range(3))
    age_events(tmp_path)
    log_epochs(tmp_path, range(2, 4), lambda epoch: record(epoch) | {"train_loss": 7.0})
    shown = shown_scalars(tmp_path)
    groups = [f"activation/{c}/{g}" for c in spaces.CELL_TYPES for g in record(0)["activation"][c]]
    plain = ["step", "train_loss", "train_accuracy", "val_loss", "val_accuracy"]
    assert set(shown) == {*plain, *groups, "skip_share/normal", "skip_share/reduce"}
    assert all([step for step, _ in points] == [0, 1, 2, 3] for points in shown.values())
    np.testing.assert_allclose(shown["train_loss"], [(0, 2.3), (1, 2.3 * 0.97), (2, 7), (3, 7)], rtol=1e-6)
    np.testing.assert_allclose(shown["activation/normal/skip"][3][1], 0.97**3, rtol=1e-6)


def test_curves_that_tensorboard_lost_in_a_kill_come_back(tmp_path):
    log_epochs(tmp_path, range(3))
    path = age_events(tmp_path)
    path.write_bytes(path.read_bytes()[:100])
    log_epochs(tmp_path, [3])
    assert [step for step, _ in shown_scalars(tmp_path)["val_loss"]] == [0, 1, 2, 3]


# A run in small: a record, then the checkpoint, for as long as it lives.
ENDLESS_RUN = """
import sys, json, pathlib
from prdarts_jax import reporting
workdir = pathlib.Path(sys.argv[1])
checkpoint = workdir / "checkpoint.json"
epoch = json.loads(checkpoint.read_text()) if checkpoint.exists() else 0
log = reporting.RunLog(workdir, epoch)
while True:
    log.append({"epoch": epoch, "loss": 0.5, "filler": "x" * 100_000})
    epoch += 1
    reporting.write_json(checkpoint, epoch)
"""


def test_killed_thrice_each_epoch_is_there_once(tmp_path):
    checkpoint = tmp_path / "checkpoint.json"
    for delay in (0.01, 0.04, 0.07):
        before = checkpoint.read_text() if checkpoint.exists() else ""
        process = subprocess.Popen([sys.executable, "-c", ENDLESS_RUN, str(tmp_path)])
        while process.poll() is None and (not checkpoint.exists() or checkpoint.read_text() == before):
            time.sleep(0.005)
        time.sleep(delay)
        process.kill()
        assert process.wait() == -signal.SIGKILL
    done = json.loads(checkpoint.read_text())
    log_epochs(tmp_path, [done])
    assert [r["epoch"] for r in reporting.read_records(tmp_path)] == list(range(done + 1))


def test_architecture_file_holds_the_four_arrays(tmp_path):
    rng = np.random.default_rng(0)
    logits = {c: rng.normal(size=(14, 8)).astype(np.float32) for c in spaces.CELL_TYPES}
    probabilities = {c: 1 / (1 + np.exp(-value)) for c, value in logits.items()}
    reporting.save_architecture(tmp_path, 3, logits, probabilities)
    with np.load(tmp_path / "architecture" / "epoch_0003.npz") as file:
        assert len(file.files) == 4
        for c in spaces.CELL_TYPES:
            np.testing.assert_array_equal(file[f"logits_{c}"], logits[c])
            np.testing.assert_array_equal(file[f"probability_{c}"], probabilities[c])
            assert file[f"logits_{c}"].dtype == np.float32


@pytest.mark.parametrize("without", [(), ("none",), ("avg_pool_3x3", "max_pool_3x3")])
def test_activation_by_group_against_loops(without):
    ops = tuple(op for op in spaces.darts().ops if op not in without)
    space = spaces.SearchSpace("part", ops)
    rng = np.random.default_rng(1)
    probabilities = {c: rng.random(space.shape, np.float32) for c in spaces.CELL_TYPES}
    found = reporting.activation_by_group(space, probabilities)
    for c in spaces.CELL_TYPES:
        members = {"all": []}
        for row in probabilities[c]:
            for op, p in zip(ops, row, strict=True):
                kind = next(k for k in ("none", "skip", "pool", "conv") if k in op)
                members.setdefault(kind, []).append(float(p))
                members["all"].append(float(p))
        assert found[c] == pytest.approx({k: sum(v) / len(v) for k, v in members.items()})


@pytest.mark.parametrize("cell_type", spaces.CELL_TYPES)
@pytest.mark.parametrize("name", ["PRDARTS", "DARTS_V2", "two ops an edge"])
def test_cell_drawing_is_complete_and_nothing_overlaps(name, cell_type):
    genotype = DOUBLE if name == "two ops an edge" else genotypes.named(name)
    figure = plots.cell_figure(genotype, cell_type)
    FigureCanvasAgg(figure).draw()
    labels, nodes = with_gid(figure, "op"), with_gid(figure, "node")
    entries = getattr(genotype, cell_type)
    assert sorted(label.get_text() for label in labels) == sorted(op for op, _ in entries)
    assert len(nodes) == 7
    assert len(with_gid(figure, "edge")) == 8 + 4

    boxes = [label.get_bbox_patch().get_window_extent() for label in labels]
    boxes += [node.get_window_extent() for node in nodes]
    assert min(box.width for box in boxes) > 50
    assert not any(overlap(a, b) for a, b in itertools.combinations(boxes, 2))
    width, height = figure.bbox.size
    assert all(0 < b.x0 and b.x1 < width and 0 < b.y0 and b.y1 < height for b in boxes)


def test_edges_join_their_nodes_bear_their_labels_and_avoid_the_others():
    genotype = genotypes.named("PRDARTS")
    figure = plots.cell_figure(genotype, "normal")
    FigureCanvasAgg(figure).draw()
    labels, edges = with_gid(figure, "op"), with_gid(figure, "edge")
    boxes = [node.get_window_extent() for node in with_gid(figure, "node")]
    ends = [(source, i // 2 + 2) for i, (_, source) in enumerate(genotype.normal)]
    ends += [(node, 6) for node in genotype.normal_concat]
    for i, (edge, (source, target)) in enumerate(zip(edges, ends, strict=True)):
        curve = edge.get_path().vertices[:4]  # what follows is the arrow head
        t = np.linspace(0, 1, 201)[:, None]
        weights = (1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3
        points = edge.axes.transData.transform(sum(w * p for w, p in zip(weights, curve, strict=True)))
        assert boxes[source].padded(15).contains(*points[0])
        assert boxes[target].padded(15).contains(*points[-1])
        for node in set(range(7)) - {source, target}:
            assert not any(boxes[node].contains(*point) for point in points)
        if i < len(labels):
            box = labels[i].get_bbox_patch().get_window_extent()
            assert any(box.contains(*point) for point in points)
            assert labels[i].get_text() == genotype.normal[i][0]


@pytest.mark.parametrize("epochs", [1, 50, 600])
@pytest.mark.parametrize("draw", [plots.activation_figure, plots.skip_share_figure, plots.curves_figure])
def test_texts_of_a_plot_do_not_overlap_and_ticks_are_whole_epochs(draw, epochs):
    figure = draw([record(epoch) for epoch in range(epochs)])
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


def test_write_pictures_writes_five_pngs(tmp_path):
    reporting.write_pictures(tmp_path, [record(0)], genotypes.named("PRDARTS"))
    names = {"cell_normal", "cell_reduce", "activation", "skip_share", "curves"}
    assert {path.name for path in tmp_path.iterdir()} == {f"{name}.png" for name in names}
    sizes = {name: png_size(tmp_path / f"{name}.png") for name in names}
    assert sizes["cell_normal"] == sizes["cell_reduce"] == (1800, 900)
    assert all(width >= 1000 and height >= 600 for width, height in sizes.values())


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
