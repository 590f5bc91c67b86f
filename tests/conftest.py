"""What all tests share: one persistent compilation cache, so that a second run compiles nothing again."""

import contextlib
import os
import tempfile
from pathlib import Path

import jax
import pytest

from prdarts_jax import reporting

_CACHE = Path(os.environ.get("XDG_CACHE_HOME", tempfile.gettempdir())) / "prdarts_jax_tests"
jax.config.update("jax_compilation_cache_dir", str(_CACHE))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


@contextlib.contextmanager
def quick_compiler():
    """Within it the compiler takes half of its time, for slower code."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module")
def compiled_quickly():
    """For files whose time is that of the compiler. test_cell.py, test_main.py and others run what users run."""
    with quick_compiler():
        yield


@pytest.fixture(scope="module")
def no_pictures():
    """Runs leave none, since drawing takes longer than a tiny search."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("write_pictures", "write_training_pictures"):
            patch.setattr(reporting, name, lambda *_: None)
        yield


@pytest.fixture
def float64():
    with jax.enable_x64(True):
        yield
