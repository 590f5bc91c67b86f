"""Compiling measurements, and many draws of one in one compiled function."""

import inspect
from collections.abc import Callable
from typing import Any

import jax


def quickly(function: Callable, **options: Any) -> Callable:
    """`jax.jit` without the optimizations that take longer than they save: what is compiled here is called a few times
    only."""
    if not jax.config.read("jax_disable_most_optimizations"):  # which asks for less
        options["compiler_options"] = {"xla_backend_optimization_level": 1}
    return jax.jit(function, **options)


def compiled(measure: Callable) -> Callable:
    """A decorator: compiles a function of a key whose keyword arguments are sizes, once for each choice of sizes."""
    sizes = [name for name, given in inspect.signature(measure).parameters.items() if given.kind is given.KEYWORD_ONLY]
    return quickly(measure, static_argnames=sizes)


def each(function: Callable, keys: jax.Array, floats: int) -> Any:
    """The results of a function for every key of key[draws], stacked. As many draws are computed at once as memory
    allows if one draw keeps about `floats` floats, and as divide their number, so that one batch is compiled."""
    most = max(1, 2_000_000 // max(floats, 1))
    at_once = next(size for size in range(min(len(keys), most), 0, -1) if len(keys) % size == 0)
    return jax.lax.map(function, keys, batch_size=at_once)
