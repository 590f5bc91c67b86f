"""Builds registered ops such that one that does not do what `Op` says is refused by its name."""

import contextlib
from collections.abc import Iterator, Mapping

import jax
import jax.numpy as jnp

from prdarts_jax.ops.op import Op, running
from prdarts_jax.ops.registry import find
from prdarts_jax.refusals import cut, shown


def build(name: str, channels: int, stride: int) -> Op:
    """Builds the registered op `name`. Each call of its `apply` is checked when JAX traces it; nothing is computed for
    that.

    Raises:
      ValueError: there is no such op, its function fails or returns no `Op`. `apply` raises it if the op fails, or does
        not do what `Op` says.
    """
    entry = find(name)

    @contextlib.contextmanager
    def named() -> Iterator[None]:
        try:
            yield
        except Exception as error:  # whatever the op raises
            reason = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
            raise ValueError(f"op {name!r} with channels={channels}, stride={stride}: {cut(reason, 400)}") from error

    with named():
        op = entry.build(channels, stride)
        if not isinstance(op, Op):
            raise ValueError(f"the registered function must return an Op, not {shown(op)}")

    def apply(params, stats, x, norm):
        with named():
            return _apply(op, channels, stride, params, stats, x, norm)

    return Op(apply, op.shapes, op.norms, op.draws)


def _apply(op, channels, stride, params, stats, x, norm):
    """What `op.apply` returns, if that is what it should."""
    found = {}  # name of a normalisation -> the moments that `norm` returned

    def norm_once(x, given):
        if not isinstance(given, tuple):
            raise ValueError(f"norm must be called with running(stats, name), not with {shown(given)}")
        name, own = given
        if name in found:
            raise ValueError(f"norm is called twice for {name!r}, but each normalisation must have a name of its own")
        if x.shape[-1] != channels:
            raise ValueError(f"the normalisation {name!r} has {x.shape[-1]} channels, but must have {channels}")
        y, found[name] = norm(x, own)
        return y, found[name]

    result = op.apply(params or {}, {name: (name, running(stats, name)) for name in op.norms}, x, norm_once)
    if not (isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], Mapping)):
        raise ValueError(f"apply must return (y, moments), where moments is a dict, not {shown(result)}")
    y, moments = result
    sides = [-(-side // stride) if isinstance(side, int) else None for side in x.shape[1:3]]  # others are symbolic
    shape, dtype = (x.shape[0], *sides, channels), jnp.result_type(y)
    fits = len(jnp.shape(y)) == 4 and all(b in (a, None) for a, b in zip(y.shape, shape, strict=True))
    if not fits or dtype != x.dtype:
        raise ValueError(
            f"y has the shape {jnp.shape(y)} and dtype {dtype}, but must have the shape {shape} and the dtype of x, "
            f"{x.dtype}"
        )
    for name in op.norms:
        if name not in found:
            raise ValueError(f"norm is not called for {name!r}, which is one of norms={op.norms}")
    for name in {**found, **moments}:
        others = [found[other] for other in found if other != name]
        same = name in found and jax.tree.map(jnp.shape, found[name]) == jax.tree.map(jnp.shape, moments.get(name))
        if not same or any(moments[name] is other for other in others):
            raise ValueError(
                f"moments must map each of norms={op.norms} to what norm returned for it, but do not for {name!r}"
            )
    return y, moments
