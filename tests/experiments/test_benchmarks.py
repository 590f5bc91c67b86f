"""Every benchmark runs, at a tiny size; what it takes is not looked at."""

import contextlib
import dataclasses
import functools
import io
import re
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scripts
import trees
from shared import Toy, without_pictures
from table import make_table

from prdarts_jax import spaces
from prdarts_jax.nets import executor
from prdarts_jax.nets.nas_bench_201 import Supernet201
from prdarts_jax.nets.program import EdgeGroup
from prdarts_jax.nets.supernet import Supernet
from prdarts_jax.run import problems, settings

TINY = spaces.SearchSpace("tiny", ops=("none", "dil_conv_3x3"), nodes=3)


class Quick(Supernet):
    """Has all attributes of a supernet, and computes what a `Toy` does."""

    __call__, layers = Toy.__call__, Toy.layers


@pytest.fixture
def stand_in(monkeypatch):
    """In place of the supernet."""
    monkeypatch.setattr(problems, "make_supernet", make_table)


def test_kernels(capsys):
    benchmark_kernels = scripts.load("benchmark_kernels")
    names = list(benchmark_kernels.cases(batch_size=1, channels=2))
    assert [name for name in names if not name.startswith("depthwise")] == [
        "max pool, stride 1",
        "average pool, stride 1",
        "max pool, stride 2",
        "average pool, stride 2",
        "batch norm",
        "pointwise",
    ]
    only = "depthwise 5x5, dilation 2, stride 2", "average pool, stride 2", "batch norm", "pointwise"
    scripts.run("benchmark_kernels", "--rounds=1", "--batch_size=1", "--channels=2", "--only", *only)
    rows = [line.split("|")[1:-1] for line in capsys.readouterr().out.splitlines()[2:]]
    assert [name.strip() for name, *_ in rows] == 3 * [only[0]] + [name for name in only[1:] for _ in range(2)]
    assert np.isfinite([float(number) for row in rows for number in row[2:] if number.strip()]).all()


def test_methods(stand_in, capsys):
    method = "gdas:end_temperature=0.2"
    scripts.run("benchmark_methods", "--rounds=1", "--set=batch_size=4,cells=1", "--methods", method)
    (row,) = capsys.readouterr().out.splitlines()[2:]
    name, *numbers = row.strip("| ").split(" | ")
    assert name == f"`{method}`" and np.isfinite([float(number) for number in numbers]).all()


def test_hypergradients(stand_in, tmp_path, monkeypatch, capsys):
    hypergradients = scripts.load("hypergradients")
    few = [hypergradients.Neumann(1), hypergradients.ConjugateGradient(4, 0.5)]
    monkeypatch.setattr(hypergradients, "ways", lambda damping: few)
    monkeypatch.chdir(tmp_path)  # it may be run from any folder
    tiny = "--set=num_examples=64,batch_size=4"
    scripts.run("hypergradients", "--rounds=1", tiny, "--damping=0.5", "--iterations=4", "--after", 0, 3)
    rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| `")]
    assert [name for name, *_ in rows] == [f"`{way}`" for way in few]
    assert np.isfinite([float(number) for _, *numbers in rows for number in numbers]).all()
    assert rows[1][-1] == "1.000"  # it is the exact one, as far as four iterations go


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["hypergradients", "--set=batch_size=999"], "config.batch_size=999 must be at most 450"),
        (["benchmark_methods", "--methods", "enas"], "method='enas' must be one of pr_darts,"),
        (["benchmark_methods", "--methods", "darts:speed=1"], "config.darts.speed is not a field"),
        (["benchmark_step", "--config=configs/digits.py:enas"], "method='enas' must be one of pr_darts,"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_one_sentence(arguments, error, monkeypatch):
    monkeypatch.chdir(scripts.ROOT)
    with pytest.raises(SystemExit, match=f"^error: {error}"):
        scripts.run(*arguments)


def test_growth(stand_in, tmp_path, monkeypatch, capsys):
    benchmark_growth = scripts.load("benchmark_growth")
    smaller = {field: sizes[:2] for field, sizes in benchmark_growth.SIZES.items()}  # each is a compilation
    monkeypatch.setattr(benchmark_growth, "SIZES", smaller)
    figure = tmp_path / "figures/growth.png"
    scripts.run("benchmark_growth", "--rounds=1", "--set=batch_size=2", f"--figure={figure}")
    lines = capsys.readouterr().out.splitlines()
    sizes = [re.findall(r"(\d+): ", line.partition(": ")[2]) for line in lines[::2]]
    assert sizes == [["14", "28", "56", "98"], ["2", "4"], ["8", "16"], ["64", "256"]]
    assert all(line.startswith("  line: ") for line in lines[1::2]) and figure.exists()


def test_cells(capsys, monkeypatch):
    """Two cells of one training step, and one of them as a network of its own."""
    monkeypatch.chdir(scripts.ROOT)
    few = "space=darts,nodes=3,ops=skip_connect,dil_conv_3x3,num_examples=16"
    tiny = f"{few},evaluation.cells=1,evaluation.channels=2,evaluation.batch_size=8,evaluation.epochs=1"
    try:
        with without_pictures():
            scripts.run("benchmark_cells", "--cells=2", "--alone=1", f"--set={tiny}")
    finally:
        jax.config.update("jax_enable_compilation_cache", True)
    assert re.fullmatch(r"ratio \d+\.\d", capsys.readouterr().out.splitlines()[-1])


def test_random_ops_are_as_many_as_asked_for():
    benchmark_growth = scripts.load("benchmark_growth")
    space = spaces.darts()
    logits = {t: np.zeros(space.shape, np.float32) for t in space.cell_types}
    weigh = jax.jit(lambda key, progress: benchmark_growth.RandomOps().weigh(space, logits, key, progress))
    for i, count in enumerate(benchmark_growth.PER_EDGE):
        for weights in weigh(jax.random.key(i), i / 3).values():
            np.testing.assert_array_equal((np.asarray(weights) != 0).sum(axis=1), count)
            assert (np.asarray(weights)[:, space.ops.index("none")] == 0).all()


def test_scale(monkeypatch, capsys):
    """The processes of weak scaling are this one, where they have one device, and replaced where they have two."""
    benchmark_scale = scripts.load("benchmark_scale")

    class Process:
        def __init__(self, command, env, **_):
            assert command[:2] == ["taskset", "-c"]
            self.flags = command[command.index(benchmark_scale.__file__) + 1 :]
            assert f"--xla_force_host_platform_device_count={self.flags[0][-1]}" in env["XLA_FLAGS"]

        def communicate(self):
            return (of_one_device(tuple(self.flags)) if "--devices=1" in self.flags else "0.5 0.25\n"), None

    @functools.cache
    def of_one_device(flags):
        with contextlib.redirect_stdout(io.StringIO()) as out:
            scripts.run("benchmark_scale", *flags)
        return out.getvalue()

    monkeypatch.setattr(benchmark_scale.subprocess, "Popen", Process)
    monkeypatch.setattr(benchmark_scale, "Supernet", functools.partial(Quick, space=TINY))
    size = "2", "1", "4", "8"
    scripts.run("benchmark_scale", "--rounds=1", "--small", *size, "--whole", *size, "--methods", "darts")
    text = capsys.readouterr().out
    assert "together: logits differ from those of each seed alone by at most 0\n" in text
    assert "two together 0.500 s, without exchange 0.250 s" in text
    assert re.search("^darts: [1-9][0-9]* all-reduces of ", text, re.MULTILINE) and "  256 devices: " in text


@pytest.mark.parametrize(
    "supernet",
    [
        Supernet(channels=2, cells=3, partial=2),
        Supernet(channels=2, cells=2, form="imagenet", pool_norm=False),
        Supernet201(channels=2, cells=1, dropout="skip"),
    ],
    ids=["partial", "imagenet", "nas_bench_201"],
)
def test_the_groups_whose_ops_are_measured_are_those_that_run(monkeypatch, supernet):
    ran, images = [], jnp.zeros((1, 36, 36, 3))

    def execute(group, params, stats, inputs, states, weights):
        x = states if inputs is None else inputs
        ran.append((dataclasses.replace(group, train=True), x.shape[1:]))
        return states, group.init_stats()

    monkeypatch.setattr(executor, "execute", execute)
    jax.eval_shape(lambda: supernet.init(jax.random.key(0), images, train=True))
    groups = scripts.load("benchmark_step").edge_groups(supernet, images)
    assert [(group, shape) for _, _, group, shape in groups] == ran


def test_step(monkeypatch, capsys):
    monkeypatch.chdir(scripts.ROOT)
    monkeypatch.setattr(spaces, "named", lambda name: TINY)
    monkeypatch.setattr(problems, "make_supernet", lambda config, *_: Quick(TINY, channels=2, cells=1))
    tiny = "evaluation.epochs=0,batch_size=8,channels=2,cells=1,num_examples=32"
    scripts.run("benchmark_step", "--config=configs/digits.py", f"--set={tiny}", "--rounds=1")
    text = capsys.readouterr().out
    for line in ("warm: tracing", "gradient of the weights: median", "gradient of the logits: median", "GFLOP a step"):
        assert line in text
    assert "inside search_epoch / step, paired" in text


@pytest.fixture
def tiny_network(monkeypatch):
    """Of one reduction cell, whose step is that of a stand-in."""
    monkeypatch.chdir(scripts.ROOT)
    monkeypatch.setattr(spaces, "named", lambda name: TINY)
    monkeypatch.setattr(problems, "make_supernet", lambda config, *_: Quick(TINY, channels=2, cells=1))


def table_rows(text):
    """The cells of all rows but the heads of tables."""
    rows = [[cell.strip() for cell in line[1:-1].split("|")] for line in text.splitlines() if line.startswith("| ")]
    return [row for row in rows if row[0] not in ("dtype, images", "edges")]


def test_accelerator(tiny_network, tmp_path, monkeypatch, capsys):
    """On the CPU, beside a step that stands in for the authors'; the larger batch finds no memory."""
    benchmark = scripts.load("benchmark_accelerator")
    compile_twice = benchmark.compile_twice

    def with_little_memory(function, *arguments):
        if len(arguments[-1]["label"]) > 4:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes.")
        return compile_twice(function, *arguments)

    monkeypatch.setattr(benchmark, "compile_twice", with_little_memory)
    monkeypatch.setattr(benchmark, "torch_device", lambda: "cpu")
    monkeypatch.setattr(benchmark.authors_code, "make_step", lambda *_: lambda images, labels: time.sleep(1e-3))
    monkeypatch.setattr(benchmark.authors_code, "tensors", lambda images, labels, device: (images, labels))
    tiny = "--set=image_size=4", "--dtypes=float32", "--rounds=1", f"--workdir={tmp_path}", f"--authors={tmp_path}"
    scripts.run("benchmark_accelerator", *tiny, "--batch_sizes", "4", "8")
    text = capsys.readouterr().out
    step, loop, large = table_rows(text)
    assert len(step) == 9 and large == ["float32, 8", "out of memory"]
    assert loop[:3] == ["reduce, stride 2, 4 pixels, C = 4", "1", "2"] and len(loop) == 6
    assert re.search(r"^1 of 1 rows, .* 4 ops .* -?\d+\.\d % of the step of", text, re.MULTILINE)
    assert list((tmp_path / "trace_float32_4").rglob("*.xplane.pb"))


def test_no_row_begins_after_the_time_limit(tiny_network, tmp_path, capsys):
    scripts.run("benchmark_accelerator", "--minutes=0", f"--workdir={tmp_path}")
    rows = table_rows(capsys.readouterr().out)
    names = [f"{dtype}, {size}" for size in (64, 250) for dtype in ("bfloat16", "float32")]
    assert rows == [[name, "left out: may not end within --minutes"] for name in names]


@pytest.mark.parametrize("stride", [1, 2])
def test_the_loop_and_the_ops_in_a_row_compute_the_same(stride):
    unrolled = scripts.load("unrolled")
    edges = ((0, 1), (0, 2), (1, 2)) if stride == 1 else ((0, 0), (1, 0))
    group = EdgeGroup(edges, ("none", "skip_connect", "sep_conv_3x3"), channels=2, stride=stride)
    weights = jnp.array([[1.0, 0.5, 2.0], [0.0, 0.0, 0.5], [0.0, 2.0, 1.0]][: len(edges)])
    ways = unrolled.both_ways(group, (2, 4, 4, 2), jnp.float32, weights)
    found = [jax.jit(functools.partial(unrolled.with_gradients, run))(*given) for run, *given in ways]
    (expected, (dparams, *dread, dweights)), (states, (each, *dread_too, dw)) = found
    trees.assert_close((states, dread_too), (expected, dread), rtol=1e-4, atol=1e-5)
    places = [(int(e), int(o)) for e, o in np.argwhere(np.asarray(weights)) if o]
    trees.assert_close(dw, [dweights[place] for place in places], rtol=1e-4, atol=1e-5)
    for (e, o), own in zip(places, each, strict=True):
        stacked = dparams.get(group.op_names[o], {})
        trees.assert_close(own, jax.tree.map(lambda a, e=e: a[e], stacked), rtol=1e-4, atol=1e-5)


# The authors' code ----------------------------------------------------------------------------------------------------

NETWORK = """
import torch
from torch import nn

class {name}(nn.Module):
    def __init__(self, *arguments):
        super().__init__()
        self.classifier = nn.Linear(3, 10)
        self.alphas = nn.Parameter(torch.ones(10))

    def forward(self, x):
        logits = self.classifier(x.mean((2, 3))) * self.alphas
        return {result}

    def arch_parameters(self):
        return [self.alphas]

    get_alphas = arch_parameters

    def get_weights(self):
        return self.classifier.parameters()
"""


def test_a_checkout_that_cannot_be_compared_with_is_refused(tmp_path):
    authors_code = scripts.load("authors_code")
    with pytest.raises(
        ValueError, match="config.method='gdas' must have code of its authors: pr_darts_released, darts"
    ):
        authors_code.make_step(tmp_path, settings.search("gdas"), 10)
    with pytest.raises(ValueError, match="has no folder cnn, where the code of darts is expected"):
        authors_code.make_step(tmp_path, settings.search("darts"), 10)
    (tmp_path / "cnn").mkdir()
    config = settings.search("darts")
    config.darts.second_order = True
    with pytest.raises(ValueError, match="config.darts.second_order=True must be False for the authors' code"):
        authors_code.make_step(tmp_path, config, 10)
    (tmp_path / "PRDARTS_search").mkdir()
    config = settings.search("pr_darts_released")
    config.cells = 8
    with pytest.raises(ValueError, match="config.cells=8 must be 6 for the authors' code"):
        authors_code.make_step(tmp_path, config, 10)


@pytest.mark.parametrize("method", ["pr_darts_released", "darts"])
def test_the_authors_step_moves_weights_and_logits(method, tmp_path):
    """Of a network that stands in for theirs; in a process of its own, since their modules have no package."""
    pytest.importorskip("torch", reason="needs PyTorch, as the authors' code does")
    cnn, released = tmp_path / "cnn", tmp_path / "PRDARTS_search"
    cnn.mkdir()
    released.mkdir()
    (cnn / "model_search.py").write_text(NETWORK.format(name="Network", result="logits"))
    (released / "cell_operations.py").write_text("SearchSpaceNames = {'darts': []}")
    theirs = NETWORK.format(name="NASNetworkPRDARTS", result="x, logits, self.alphas.square().sum()")
    (released / "search_model_prdarts_nasnet.py").write_text(theirs)
    script = f"""
import gc, sys
from pathlib import Path
sys.path[:0] = [{str(scripts.ROOT)!r}, {str(scripts.ROOT / "experiments")!r}]
import numpy as np, torch
import authors_code
from prdarts_jax.run import settings
step = authors_code.make_step(Path({str(tmp_path)!r}), settings.search({method!r}), 10)
(network,) = [o for o in gc.get_objects() if type(o).__name__ in ("Network", "NASNetworkPRDARTS")]
before = [p.detach().clone() for p in network.parameters()]
step(*authors_code.tensors(np.ones((4, 8, 8, 3), np.float32), np.arange(4)))
assert all((a != b).any() for a, b in zip(before, network.parameters())), before
"""
    subprocess.run([sys.executable, "-c", script], check=True)
