"""Wrong files of a run, and of PyTorch: of each (folder) -> (what is drawn, what reads it)."""

import contextlib
import dataclasses
import io
import json
import math
import shutil

import jax
import numpy as np
import pytest
from hypothesis import strategies as st
from shared import CELL, read_records, record
from wrong import changed, damaged, reader, refused

import prdarts_jax as pdx
from prdarts_jax.evaluation import training
from prdarts_jax.nets import discrete, torch_weights
from prdarts_jax.run import architecture, checkpoints, finished, loop, reporting, run_log, settings
from prdarts_jax.spaces import tabular


def metrics(folder):
    lines = "".join(json.dumps(record(epoch)) + "\n" for epoch in range(3)).encode()
    lists = changed([record(epoch) for epoch in range(3)])
    made = lists.map(lambda values: "".join(json.dumps(value) + "\n" for value in values).encode())
    return damaged(lines) | made | st.just(b"[" * 10**5 + b"\n"), reader(folder / "metrics.jsonl", run_log.read_records)


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
    architecture.save(folder, 0, arrays, arrays)
    path = folder / "architecture" / "epoch_0000.npz"
    return damaged(path.read_bytes()), reader(path, lambda _: architecture.read_probabilities(folder, 1))


def tables(folder):
    cells = [f"[{', '.join(map(str, cell))}],{sum(cell)}" for cell in np.ndindex((5,) * 6)]
    return damaged("\n".join(["dataset digits", *cells]).encode()), reader(
        folder / "table.txt", lambda _: tabular.load(folder / "table.txt")
    )


NETWORK = discrete.network(CELL, channels=2, cells=1)


def checkpoint_of_pytorch(path):
    return torch_weights.load(path, NETWORK)


def pytorch_files(folder):
    torch = pytest.importorskip("torch", reason="PyTorch is missing: pip install torch")
    entries = list(torch_weights._entries(NETWORK, 3))
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
