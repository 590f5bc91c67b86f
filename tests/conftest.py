"""What all tests share: one persistent compilation cache, so that a second run compiles nothing again."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import jax
import pytest
from absl import app, flags
from absl.testing import flagsaver
from shared import make_toy, without_pictures

from prdarts_jax.ops import registry
from prdarts_jax.run import problems

# Most of the time of all tests is compilation, so the compiler leaves out what it can, here and in processes that tests
# start. What is given is kept: `XLA_FLAGS= JAX_DISABLE_MOST_OPTIMIZATIONS=0 make test` compiles as for users.
_QUICK = {"XLA_FLAGS": "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"}
if "XLA_FLAGS" not in os.environ:  # of a version that has not these flags, JAX does not start
    start = [sys.executable, "-c", "import jax; jax.devices()"]
    known = subprocess.run(start, env=os.environ | _QUICK, capture_output=True).returncode == 0
    os.environ.update(_QUICK if known else {"XLA_FLAGS": ""})
if "JAX_DISABLE_MOST_OPTIMIZATIONS" not in os.environ:
    os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
    jax.config.update("jax_disable_most_optimizations", True)  # JAX has read its own settings already

_CACHE = Path(os.environ.get("XDG_CACHE_HOME", tempfile.gettempdir())) / "prdarts_jax_tests"
jax.config.update("jax_compilation_cache_dir", str(_CACHE))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)

# Begun last, the few long tests of one of these would keep one of several workers while the others have nothing to do.
_LONG_FILES = (
    "test_cell test_supernet test_docs test_forward_mode test_main test_devices test_train test_step "
    "test_notebook test_hypergradients test_networks test_diagnostics test_search_job test_population test_processes "
    "test_benchmarks test_composed test_theorem1 test_theorem2 test_theorem4 test_kernel test_bilevel test_verdicts"
).split()


def pytest_configure():
    """JAX begins, with one device, so that a command line run in here does not make each core one. Files are not forced
    to the disk: no test loses the power, and each time costs milliseconds."""
    jax.devices()
    os.fsync = lambda file: None


def pytest_addoption(parser):
    """`--slow`: also the tests that carry `@pytest.mark.slow`. `--fuzz`: how long test_fuzz.py looks for faults.
    `--kills`: how often test_kill.py kills."""
    parser.addoption("--slow", action="store_true", help="also run the tests that take minutes")
    parser.addoption(
        "--fuzz", type=float, default=0, help="minutes for which test_fuzz.py draws inputs; 0: a few inputs"
    )
    parser.addoption("--kills", type=int, default=4, help="random moments at which test_kill.py kills, with --slow")


def pytest_collection_modifyitems(config, items):
    """Skips slow tests unless asked for. Order of `pytest --no-loadscope-reorder`: the longest files first."""
    if not config.getoption("slow"):
        for item in items:
            if item.get_closest_marker("slow"):
                item.add_marker(pytest.mark.skip(reason="takes minutes: runs with --slow"))
    place = {name: number for number, name in enumerate(_LONG_FILES)}
    items.sort(key=lambda item: place.get(item.path.stem, len(place)))


@pytest.fixture(scope="module")
def no_pictures():
    with without_pictures():
        yield


@pytest.fixture(scope="module")
def toy():
    """Searches of the module train a stand-in for the supernet, which compiles faster."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(problems, "make_supernet", make_toy)
        yield


@pytest.fixture
def own_registry(monkeypatch):
    """Ops that a test registers are gone after it."""
    monkeypatch.setattr(registry, "_CANDIDATES", dict(registry._CANDIDATES))


@pytest.fixture
def float64():
    with jax.enable_x64(True):
        yield


class Ended(NamedTuple):
    """How a command ended: 0, or what it gave to sys.exit."""

    code: int | str
    out: str
    err: str


@pytest.fixture
def command(monkeypatch, capsys):
    """Runs a command line in this process, with the compilation cache of the tests."""
    from prdarts_jax import command_line, main  # not above, since they import all there is

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["prdarts", *arguments])
        monkeypatch.setattr(app, "run", lambda run, flags_parser: run(flags_parser(sys.argv)))
        monkeypatch.setattr(command_line, "use_compilation_cache", lambda folder: None)
        capsys.readouterr()
        code = 0
        with flagsaver.flagsaver():  # flags that are defined within are gone afterwards
            try:
                main.cli()
            except SystemExit as ended:
                code = ended.code
        flags.FLAGS.unparse_flags()
        return Ended(code, *capsys.readouterr())

    return run
