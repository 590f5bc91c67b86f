"""What an op is: the shapes of its parameters and a pure apply function."""

import dataclasses
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

Params = Mapping[str, jax.Array]
Moments = dict[str, dict[str, jax.Array]]
Norm = Callable[..., tuple[jax.Array, dict[str, jax.Array]]]


@dataclasses.dataclass(frozen=True)
class Op:
    """One op at a given width and stride.

    Attributes:
      apply: (params, stats, x, norm) -> (y, moments). x [B, H, W, C] and y [B, h, w, D] have one dtype. `params` has
        the arrays of `shapes`, f32, and what `draws` names. `norm(x, stats) -> (y, moments)` is the batch normalisation
        to use, called once for each name of `norms` with the `running` statistics of that name. `moments` has what it
        gave for each of those names.
      shapes: name -> shape of each kernel, its last axis that of the output.
      norms: the names of the normalisations.
      draws: what the op draws with, among its `params`: `seed` f32[] (a whole number, see `random_key`), `rate` f32[]
        of dropout, and `keep` f32[B], the factors of drop-path.
    """

    apply: Callable[..., tuple[jax.Array, Moments]]
    shapes: Mapping[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    norms: tuple[str, ...] = ()
    draws: tuple[str, ...] = ()


def running(stats: Moments | None, name: str) -> dict[str, jax.Array] | None:
    """The running statistics of one normalisation of an op, or None where there are none."""
    return None if stats is None else stats[name]


def random_key(params: Params) -> jax.Array:
    """The key of an op that has `seed` among its `draws`."""
    return jax.random.key(params["seed"].astype(jnp.uint32))
