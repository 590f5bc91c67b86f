"""What all tests share: one persistent compilation cache, so that a second run compiles nothing again."""

import os
import tempfile
from pathlib import Path

import jax

_CACHE = Path(os.environ.get("XDG_CACHE_HOME", tempfile.gettempdir())) / "prdarts_jax_tests"
jax.config.update("jax_compilation_cache_dir", str(_CACHE))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
