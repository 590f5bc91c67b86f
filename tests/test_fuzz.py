"""Whatever stands in a file, on the command line or in a call is taken, or refused by one short sentence, and soon.

In `make test` each kind of input is drawn a few times, the same in every run; `make fuzz` draws others for minutes.
"""

import contextlib
import copy
import dataclasses
import io
import json
import math
import pickle
import shutil
import time

import hypothesis
import imagenet_folder
import jax
import numpy as np
import pytest
import yaml
from hypothesis import strategies as st
from ml_collections import ConfigDict
from PIL import Image
from shared import CELL, ROOT, read_records, record

import prdarts_jax as pdx
from prdarts_jax import command_line, spaces
from prdarts_jax.data import pictures, sources
from prdarts_jax.evaluation import training
from prdarts_jax.nets import discrete, torch_weights
from prdarts_jax.run import checkpoints, finished, loop, reporting, settings
from prdarts_jax.spaces import genotypes, published, tabular

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("compiled_quickly")]

FEW, MANY = 10, 500  # examples at once
SECONDS, CHARACTERS = 20, 830  # of an input, of a sentence

ODD = [
    None,
    True,
    -1,
    0,
    1,
    2**31,
    2**63,
    10**400,
    0.5,
    math.nan,
    math.inf,
    [],
    {},
    [[]],
    "",
    "\0",
    "\ud800",
    "~no such user/x",
]
ODD += ["x" * 5000, "[" * 5000, "{", "nan", "../..", "a\nb", "1" * 5000, [[0] * 50] * 50]
LEAVES = st.sampled_from(ODD) | st.integers() | st.floats() | st.text(max_size=9) | st.sampled_from(pdx.ops.names())
JSON = st.recursive(LEAVES, lambda of: st.lists(of, max_size=4) | st.dictionaries(st.text(max_size=9), of, max_size=3))
ANYTHING = JSON | st.binary(max_size=9) | st.tuples(JSON) | st.complex_numbers() | st.builds(object)


@st.composite
def changed(draw, value):
    """A value of JSON with one part, somewhere in it, replaced, left out or added."""
    value = copy.deepcopy(value)
    where = value
    while isinstance(where, dict | list) and where:
        at = draw(st.sampled_from(sorted(where) if isinstance(where, dict) else range(len(where))))
        deeper = isinstance(where[at], dict | list) and where[at] and draw(st.booleans())
        if not deeper:
            if draw(st.integers(0, 3)):
                where[at] = draw(JSON)
            elif isinstance(where, dict):
                where[draw(st.text(max_size=9))] = where.pop(at)
            else:
                del where[at]
            break
        where = where[at]
    return value


@st.composite
def damaged(draw, content):
    """Bytes of which a few parts are overwritten, left out or added."""
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(content)))
        stop = start + draw(st.integers(0, 9) | st.just(len(content)))
        content = content[:start] + draw(st.binary(max_size=9)) + content[stop:]
    return content


# Kinds of input: (folder) -> (what is drawn, what reads it) -----------------------------------------------------------


def genotype_texts(folder):
    values = [json.loads(genotypes.to_json(genotypes.named(name))) for name in ("PRDARTS", "NASNet")]
    values += [{"ops": ["none"] * 6}]
    made = st.sampled_from(values).flatmap(changed).map(json.dumps)
    texts = made | made.map(str.encode).flatmap(damaged).map(lambda content: content.decode("latin1"))
    return texts, genotype_reader(folder)


def genotype_notations(folder):
    nodes = [[["skip_connect", 0], ["none", 1]], [["sep_conv_3x3", 2]]]
    triples = [["skip_connect", 2, 0], ["max_pool_3x3", 2, 1], ["none", 4, 3]]
    weighted = [["dil_conv_3x3", 0, 0.5], ["sep_conv_3x3", 1, 0.25]]
    edges = {"0->2": "none", "(1, 2)": "skip_connect", "3<-2": "avg_pool_3x3"}
    cells = [nodes, triples, weighted, edges, [["noise", 0], ["none", 0]]]
    values = [{"normal": n, "normal_concat": [2, 3], "reduce": r, "reduce_concat": [2]} for n in cells for r in cells]
    of_edges = [[3, 1, 0, 4, 2, 1], [[["none", 0]]], {"0-1": "none"}, {"ops": edges}]
    changes = st.sampled_from(values + of_edges).flatmap(changed)

    def call(fields):
        inside = (
            ", ".join(f"{name}={value!r}" for name, value in fields.items()) if isinstance(fields, dict) else fields
        )
        return f"INFO genotype = Genotype({inside})\n".replace("[2, 3]", "range(2, 4)").replace(
            "[2]", "array([np.int64(2)])"
        )

    strings = [
        "|none~0|",
        "|none~0|+|skip_connect~0|nor_conv_3x3~1|",
        "Genotype(",
        "range(2, 6)",
        "&a [*a, *a]",
        "- " * 99,
    ]
    writers = [
        call,
        json.dumps,
        str,
        lambda value: yaml.dump(value),
        lambda value: yaml.dump(value, default_flow_style=True),
    ]
    made = st.builds(lambda write, value: write(value), st.sampled_from(writers), changes) | st.sampled_from(strings)
    return made | made.map(str.encode).flatmap(damaged).map(lambda text: text.decode("latin1")), genotype_reader(folder)


def genotype_reader(folder):
    """Reads a text as such and from a file; what it makes, it prints so that it is read again."""

    def found(text):
        genotype = genotypes.find(text)
        assert genotypes.find(repr(genotype)) == genotypes.find(genotypes.to_json(genotype)) == genotype

    def read(text):
        path = folder / "genotype.json"
        path.write_text(text, encoding="utf-8", errors="surrogateescape")
        refused(found, text)
        refused(genotypes.load, path)

    return read


def calls(folder):
    named = genotypes.named("GDAS")
    functions = [genotypes.find, genotypes.named, genotypes.load, genotypes.from_json, spaces.named, pdx.methods.find]
    functions += [tabular.load, sources.load, pdx.ops.find, pdx.ops.group, pdx.EdgeGenotype, pdx.describe]
    functions += [settings.validate, settings.search, checkpoint_of_pytorch]
    functions += [
        lambda value: pdx.describe(named, value),
        lambda value: pdx.Genotype(value, value, value, value),
        lambda value: pdx.Genotype([[value, 0], ["none", value]], [2], [["none", 0]] * 2, [value]),
        lambda value: spaces.SearchSpace("own", value),
        lambda value: spaces.SearchSpace("own", (value,)),
        lambda value: sources.load("cifar10", value or "nowhere"),
        lambda value: sources.load("digits", split=value),
        lambda value: sources.load("digits", num_examples=value),
        lambda value: sources.load("digits", image_size=value, num_examples=2),
    ]
    names = st.sampled_from([*published.names(), *spaces.NAMED, *pdx.methods.NAMED, *pdx.ops.names()])
    # A module of the user's own may do what it likes when it is imported.
    values = (ANYTHING | names).filter(lambda value: not (isinstance(value, str) and ":" in value))
    return st.tuples(st.sampled_from(functions), values), lambda drawn: refused(*drawn)


def configs(folder):
    made = [settings.search().to_dict(), settings.training().to_dict()]

    def read(fields):
        try:
            config = ConfigDict(fields)
        except (ValueError, TypeError):  # of ml_collections, which are no configs
            return
        refused(settings.validate, config)

    return st.sampled_from(made).flatmap(changed), read


def command_lines(folder, command, monkeypatch):
    """Fields of the command line; a search or training that is not refused does not begin."""
    monkeypatch.setattr(command_line.search, "run", lambda config, workdir: [settings.validate(config)] and {})
    monkeypatch.setattr(
        command_line.train, "run", lambda config, workdir: settings.validate(config) or {"top1": 1, "top5": 1}
    )
    for name in ("check", "run"):
        monkeypatch.setattr(command_line.compare, name, lambda *_: "")
    files = {"digits": settings.search(), "cifar10_eval": settings.training()}
    flat = {name: sorted(settings.fields.flatten_dict(config.to_dict(), sep=".")) for name, config in files.items()}
    fields = st.sampled_from(sorted(flat)).flatmap(
        lambda name: st.tuples(
            st.just(name), st.sampled_from(flat[name]) | st.text("abc._=\0-", max_size=9), JSON.map(str) | st.text()
        )
    )

    def read(drawn):
        name, field, value = drawn
        workdir = value if field == "" else folder / "run"
        ended = command(f"--config={ROOT}/configs/{name}.py", f"--workdir={workdir}", f"--config.{field}={value}")
        if ended.code != 0:
            assert_sentence(ended.code)
            assert ended.code.startswith("error: ")

    return fields.filter(lambda drawn: "=" not in drawn[1]), read


def metrics(folder):
    lines = "".join(json.dumps(record(epoch)) + "\n" for epoch in range(3)).encode()
    lists = changed([record(epoch) for epoch in range(3)])
    made = lists.map(lambda values: "".join(json.dumps(value) + "\n" for value in values).encode())
    return damaged(lines) | made | st.just(b"[" * 10**5 + b"\n"), reader(
        folder / "metrics.jsonl", reporting.read_records
    )


def config_files(folder):
    fields = settings.training().to_dict()
    made = changed(fields).map(json.dumps).map(str.encode)
    read = reader(folder / "config.json", lambda folder: checkpoints.check_config(folder, fields))
    return made | made.flatmap(damaged) | st.just(b"[" * 10**5), read


def checkpoint_files(folder):
    """Of a run that has ended: its files and folders damaged, moved, removed, doubled; or what is beside the state
    changed together with the sums. The run is resumed to the same end, or refused."""
    whole, workdir = folder / "whole" / "checkpoints", folder / "run"
    expected = _count(folder / "whole", epochs=4)
    paths = [path.relative_to(whole) for path in sorted(whole.rglob("*"))]
    files = [path for path in paths if (whole / path).is_file()]
    runs = [path for path in files if path.name == "run.json"]
    assert len(runs) == 2

    def change(path, how, argument):
        if how == "write":
            path.write_bytes(argument)
        elif how == "sum":
            path.write_bytes(argument)
            path.with_name("SHA256SUMS").write_text(checkpoints._sums(path.parent))
        elif how == "remove":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        elif how == "move":
            path.rename(path.with_name(argument))
        elif path.is_dir():
            shutil.copytree(path, path.with_name(argument))
        else:
            shutil.copy(path, path.with_name(argument))

    def read(drawn):
        shutil.rmtree(workdir, ignore_errors=True)
        shutil.copytree(whole.parent, workdir)
        for path, *what in drawn:
            with contextlib.suppress(OSError):  # after another change
                change(workdir / "checkpoints" / path, *what)
        found = []
        refused(lambda: found.append(_count(workdir, epochs=4)))
        for total, records in found:
            assert total == expected[0] and [record["epoch"] for record in records] == [0, 1, 2, 3]
            assert records == expected[1] or "sum" in [how for _, how, _ in drawn]  # whoever has the sums can change it

    def written(path):
        content = damaged((whole / path).read_bytes())
        return st.tuples(st.just(path), st.just("write"), content)

    def summed(path):
        content = changed(json.loads((whole / path).read_bytes())).map(json.dumps).map(str.encode)
        return st.tuples(st.just(path), st.just("sum"), content)

    names = st.sampled_from(["1", "2", "3", "4", "7", "state", "d", "x", "run.json", "SHA256SUMS"])
    moved = st.tuples(st.sampled_from(paths), st.sampled_from(["remove", "move", "double"]), names)
    one = st.sampled_from(files).flatmap(written) | st.sampled_from(runs).flatmap(summed) | moved
    return st.lists(one, min_size=1, max_size=3), read


def _count(workdir, epochs):
    """(the last state, the records) of a run of one step an epoch, or of the rest of it."""
    config = {"seed": 0, "epochs": epochs}
    checkpoints.check_config(workdir, config)
    with (
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
        loop.Run("search", workdir, config, [workdir], epochs, steps_per_epoch=1, steps_per_call=1) as run,
    ):
        zero = np.float32(0)
        state = run.restore({"sum": zero}, {"loss": zero}) or {"sum": zero}
        for steps in run.calls():
            state = {"sum": np.float32(state["sum"] + run.step)}
            run.add(steps, {"loss": state["sum"] / 3})
            run.record(run.means(), "")
            run.save_if_due(state)
    return float(state["sum"]), read_records(workdir)


def architectures(folder):
    arrays = {"normal": np.zeros((14, 8), np.float32)}
    reporting.save_architecture(folder, 0, arrays, arrays)
    path = folder / "architecture" / "epoch_0000.npz"
    return damaged(path.read_bytes()), reader(path, lambda _: reporting.read_probabilities(folder, 1))


def tables(folder):
    cells = [f"[{', '.join(map(str, cell))}],{sum(cell)}" for cell in np.ndindex((5,) * 6)]
    return damaged("\n".join(cells).encode()), reader(
        folder / "table.txt", lambda _: tabular.load(folder / "table.txt")
    )


def tfds_folders(folder):
    import tensorflow_datasets as tfds

    features = {"image": tfds.features.Image(shape=(4, 4, 1)), "label": tfds.features.ClassLabel(num_classes=10)}
    version = folder / "whole" / "fashion_mnist" / "3.0.1"
    imagenet_folder.describe(version, features, {"train": [3]})
    image = imagenet_folder.encoded(np.zeros((4, 4), np.uint8), "PNG")
    good = {"image": image, "label": 3}
    records = version / "fashion_mnist-train.array_record-00000-of-00001"
    imagenet_folder.write_file(records, [good] * 3)
    files = {path.name: path.read_bytes() for path in version.iterdir()}
    described = ("dataset_info.json", "features.json")
    form = st.sampled_from(["PNG", "JPEG", "GIF", "BMP"])
    pixels = st.sampled_from([(4, 4), (5, 4), (4, 4, 3), (4, 4, 4)]).map(lambda shape: np.zeros(shape, np.uint8))
    images = damaged(image) | st.builds(_encoded, pixels, form)
    examples = st.builds(lambda image, label: {"image": image, "label": label}, images, st.integers(-(2**62), 2**62))

    def contents(name):
        made = damaged(files[name])
        if name in described:
            made |= changed(json.loads(files[name])).map(json.dumps).map(str.encode)
        return st.tuples(st.just(name), made)

    def read(drawn):
        name, content = drawn
        shutil.rmtree(folder / "data", ignore_errors=True)
        shutil.copytree(folder / "whole", folder / "data")
        path = folder / "data" / "fashion_mnist" / "3.0.1" / (name or records.name)
        if name:
            path.write_bytes(content)
        else:
            imagenet_folder.write_file(path, [good, content, good])
        refused(sources.load, "fashion_mnist", folder / "data")

    names = st.sampled_from([*described, records.name, "label.labels.txt"])
    files["label.labels.txt"] = b"\n".join(b"%d" % label for label in range(10))
    return names.flatmap(contents) | st.tuples(st.just(""), examples), read


def image_folders(folder):
    rng = np.random.default_rng(0)
    shapes = {"a/0.png": (5, 4, 3), "a/1.jpg": (9, 9, 3), "b/0.gif": (6, 6), "b/1.bmp": (6, 7, 3), "b/2.tif": (4, 4)}
    files = {
        name: _encoded(rng.integers(0, 256, shape).astype(np.uint8), Image.registered_extensions()[name[3:]])
        for name, shape in shapes.items()
    }
    of_classes = st.text("abc. /\0", min_size=1, max_size=3)
    contents = st.sampled_from(sorted(files)).flatmap(lambda name: st.tuples(st.just(name), damaged(files[name])))
    renamed = st.tuples(of_classes.map(lambda name: f"{name}/0.png"), st.just(files["a/0.png"]))

    def read(drawn):
        shutil.rmtree(folder / "own", ignore_errors=True)
        for name, content in [*files.items(), drawn]:
            path = folder / "own" / name
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            except (OSError, ValueError):  # no name of a file
                return
        refused(lambda: sources.load(str(folder / "own"), image_size=4))

    return contents | renamed, read


def npz_files(folder):
    images, labels = np.zeros((4, 3, 5), np.uint8), np.arange(4) % 2
    kinds = [images, labels, images[0], images / 255, labels[:, None], labels.astype(str), np.array([{}]), images[:0]]
    names = st.sampled_from(["images", "labels", "x_train", "y_train", "x_test", "y_test", ""])
    made = st.dictionaries(names, st.sampled_from(kinds), max_size=4)

    def saved(arrays, compressed):
        file = io.BytesIO()
        (np.savez_compressed if compressed else np.savez)(file, **{"images": images, "labels": labels} | arrays)
        return file.getvalue()

    files = st.builds(saved, made, st.booleans())
    path = folder / "own.npz"
    return files | files.flatmap(damaged), reader(path, lambda _: sources.load(str(path)))


def cifar_folders(folder):
    batch = {b"labels": [0, 1], b"data": np.zeros((2, 3072), np.uint8)}
    whole = {name: pickle.dumps(batch, protocol=2) for name in ("data_batch_1", "data_batch_2", "test_batch")}
    whole["batches.meta"] = pickle.dumps({b"label_names": [b"a", b"b"]}, protocol=2)
    odd = st.sampled_from([None, [], {}, "x", 10**400, batch[b"data"], batch[b"data"][0], [0, -1], [0, 2**80], [b"a"]])
    values = st.dictionaries(st.sampled_from([b"labels", b"data", b"label_names", b"more"]), odd)
    made = values.map(lambda changes: pickle.dumps(batch | changes, protocol=2)) | odd.map(pickle.dumps)
    contents = st.sampled_from(sorted(whole)).flatmap(
        lambda name: st.tuples(st.just(name), made | damaged(whole[name]))
    )

    def read(drawn):
        for name, content in (whole | dict([drawn])).items():
            (folder / name).write_bytes(content)
        refused(sources.load, str(folder))

    return contents, read


def _encoded(pixels, form):
    return imagenet_folder.encoded(pixels[..., :3] if form == "JPEG" else pixels, form)


def checkpoint_of_pytorch(path):
    return torch_weights.load(path, CELL, "cifar", 2, 1, 10)


def pytorch_files(folder):
    torch = pytest.importorskip("torch", reason="PyTorch is missing: pip install 'prdarts_jax[torch]'")
    entries = list(torch_weights._entries(CELL, "cifar", 2, 1, 10, False))
    state = {entry.name: torch.ones(entry.layout.torch_shape(entry.shape)) for entry in entries}
    of_kinds = {
        "sparse": lambda tensor: tensor.to_sparse(),
        "meta": lambda tensor: tensor.to("meta"),
        "nested": lambda tensor: torch.nested.nested_tensor([tensor, tensor]),
        "negative": torch._neg_view,
        "complex": lambda tensor: torch.complex(tensor, tensor),
        "large": lambda tensor: torch.zeros(1, dtype=torch.float16).expand(10**10),
        "whole": lambda tensor: tensor.to(torch.int8),
        "nan": lambda tensor: tensor * math.nan,
        "none": lambda tensor: None,
        "text": lambda tensor: "text",
    }

    def saved(value, old=False):
        file = io.BytesIO()
        torch.save(value, file, _use_new_zipfile_serialization=not old)
        return file.getvalue()

    with_kind = st.builds(
        lambda name, kind: saved(state | {name: of_kinds[kind](state[name])}),
        st.sampled_from(sorted(state)),
        st.sampled_from(sorted(of_kinds)),
    )
    contained = {"model": {f"module.{name}": tensor for name, tensor in state.items()}, "best": np.float64(97)}
    whole = st.sampled_from(
        [saved(state), saved(state, old=True), saved(contained), saved({"net": [state]}), saved({"net": {}}), saved(3)]
    )
    path = folder / "model.pt"
    return with_kind | whole | whole.flatmap(damaged), reader(path, lambda _: checkpoint_of_pytorch(path))


def runs(folder):
    network = pdx.network(CELL, channels=2, cells=1)
    variables = discrete.init_variables(network, jax.random.key(0), (1, 8, 8, 3))
    plain = pdx.Augmentation((0.5,) * 3, (0.5,) * 3)
    whole = folder / "whole"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "export_classifier", lambda *_: b"")
        finished.write(whole, network, variables, plain, (8, 8, 3), False, "abcdefghij")
    fields = settings.training().to_dict() | {"channels": 2, "cells": 1}
    checkpoints.write_config(whole, fields)
    reporting.write_json(whole / "result.json", {"top1": 0.5})
    reporting.write_json(whole / "genotype.json", dataclasses.asdict(CELL))
    checkpoints.save(whole / "checkpoints", 3, (variables, {}), fields, [])
    assert pdx.load(whole).genotype == CELL
    names = ("config", "classifier", "result", "genotype")
    files = {f"{name}.json": (whole / f"{name}.json").read_bytes() for name in names}
    files |= {
        str(path.relative_to(whole)): path.read_bytes() for path in whole.glob("checkpoints/3/**/*") if path.is_file()
    }

    def contents(name):
        made = damaged(files[name])
        if not name.startswith("checkpoints"):
            made |= changed(json.loads(files[name])).map(json.dumps).map(str.encode)
        return st.tuples(st.just(name), made)

    def read(drawn):
        name, content = drawn
        shutil.rmtree(folder / "run", ignore_errors=True)
        shutil.copytree(whole, folder / "run")
        (folder / "run" / name).write_bytes(content)
        refused(pdx.load, folder / "run")

    return st.sampled_from(sorted(files)).flatmap(contents), read


def image_files(folder):
    good = [_encoded(np.zeros((5, 4, 3), np.uint8), form) for form in ("PNG", "JPEG", "GIF", "BMP")]
    path = folder / "image"
    return st.sampled_from(good).flatmap(damaged), reader(path, lambda _: pictures.read(path, 3))


def reader(path, read):
    """Writes a file and reads what is in its folder."""
    path.parent.mkdir(exist_ok=True)

    def write_and_read(content):
        path.write_bytes(content)
        refused(read, path.parent)

    return write_and_read


# ----------------------------------------------------------------------------------------------------------------------

KINDS = [genotype_texts, calls, configs, command_lines, metrics, config_files, architectures, tables, tfds_folders]
KINDS += [pytorch_files, genotype_notations, checkpoint_files, runs, image_files]
KINDS += [image_folders, npz_files, cifar_folders]


def assert_sentence(text):
    assert text and "\n" not in text and len(text) <= CHARACTERS, text[: 2 * CHARACTERS]


def refused(call, *arguments):
    """Whether a call was refused, in one sentence."""
    try:
        call(*arguments)
    except (ValueError, OSError) as error:
        assert_sentence(str(error))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_what_is_wrong_is_refused_by_one_sentence(kind, tmp_path, request, monkeypatch):
    more = [request.getfixturevalue("command"), monkeypatch] if kind is command_lines else []
    inputs, read = kind(tmp_path, *more)
    minutes, count, start = request.config.getoption("fuzz"), 0, time.monotonic()

    def once(value):
        nonlocal count
        count, begin = count + 1, time.monotonic()
        read(value)
        assert time.monotonic() - begin < SECONDS

    number = time.time_ns() if minutes else 0
    checks = [hypothesis.HealthCheck.too_slow, hypothesis.HealthCheck.data_too_large]
    examples = hypothesis.settings(
        max_examples=MANY if minutes else FEW, deadline=None, database=None, suppress_health_check=checks
    )
    while not count or time.monotonic() - start < 60 * minutes / len(KINDS):
        hypothesis.seed(number)(examples(hypothesis.given(inputs)(once)))()
        number += 1
    print(f"\n{kind.__name__}: {count} inputs in {time.monotonic() - start:.0f} s")
