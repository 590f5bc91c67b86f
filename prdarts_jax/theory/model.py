"""The network of PR-DARTS's analysis (Zhou et al., 2020, equations 3 to 5), and gradient descent on it.

An input is f[c, p], channels by positions, of any floating-point dtype. The cell has nodes X_0..X_{h-1}, each f[m, p],

    X_0 = conv(W_0; X),    X_l = sum_{s < l} alpha^skip_{s,l} X_s + alpha^conv_{s,l} conv(W_{s,l}; X_s),
    conv(W; Z) = tau sigma(W Phi(Z)),    tau = 1 / sqrt(m),    u = sum_s <W_s, X_s>;

Phi stacks each position and its two neighbours, with zeros outside. The zero op adds nothing, so it is left out here.
"""

import dataclasses
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import jax
import jax.numpy as jnp

from prdarts_jax.refusals import shown

Params = dict[str, jax.Array]
Alpha = Mapping[str, jax.Array]

ACTIVATIONS: Mapping[str, Callable[[jax.Array], jax.Array]] = MappingProxyType(
    {"softplus": jax.nn.softplus, "sigmoid": jax.nn.sigmoid, "tanh": jnp.tanh}
)

_KERNEL = 3


@dataclasses.dataclass(frozen=True)
class Model:
    """The shape of the network: a static, hashable argument.

    Attributes:
      nodes: number of nodes h of the cell.
      width: m.
      branches: 1 is the deep cell; 2 is the shallow one of Theorem 4, in which the nodes from h/2 on form a second
        branch that starts from the input again. No edge joins the branches.
      activation: sigma, a key of `ACTIVATIONS`.

    Raises:
      ValueError: a size is below 1, `branches` does not divide `nodes`, or there is no such activation.
    """

    nodes: int
    width: int
    branches: int = 1
    activation: str = "softplus"

    def __post_init__(self) -> None:
        if min(self.nodes, self.width, self.branches) < 1:
            raise ValueError(f"nodes={self.nodes}, width={self.width} and branches={self.branches} must be at least 1")
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"activation={shown(self.activation)} must be one of {', '.join(ACTIVATIONS)}")
        if self.nodes % self.branches:
            raise ValueError(f"branches={self.branches} must divide nodes={self.nodes}")

    @property
    def edges(self) -> tuple[tuple[int, int], ...]:
        """The edges (s, l) in the order of the arrays: by l, then s."""
        size = self.nodes // self.branches
        return tuple((s, target) for target in range(self.nodes) for s in range(target - target % size, target))


class Trace(NamedTuple):
    """The results of a forward pass.

    Attributes:
      output: f[], u.
      nodes: f[h, m, p], X_0..X_{h-1}.
      patches: Phi of the input of each convolution: `stem` f[branches, 3c, p], `conv` f[edges, 3m, p].
    """

    output: jax.Array
    nodes: jax.Array
    patches: dict[str, jax.Array]


def init(model: Model, key: jax.Array, channels: int, positions: int) -> Params:
    """Draws all weights from N(0, 1): `stem` f[branches, m, 3c], `conv` f[edges, m, 3m], `readout` f[h, m, p].

    `channels` and `positions` are c and p of the inputs; `key` is consumed.
    """
    m = model.width
    shapes = {
        "stem": (model.branches, m, _KERNEL * channels),
        "conv": (len(model.edges), m, _KERNEL * m),
        "readout": (model.nodes, m, positions),
    }
    keys = jax.random.split(key, len(shapes))
    return {name: jax.random.normal(k, shape) for k, (name, shape) in zip(keys, shapes.items(), strict=True)}


def patches(z: jax.Array) -> jax.Array:
    """Phi: f[..., c, p] -> f[..., 3c, p], the left neighbours' channels first."""
    margin = [(0, 0)] * (z.ndim - 1) + [(_KERNEL // 2, _KERNEL // 2)]
    padded = jnp.pad(z, margin)
    return jnp.concatenate([padded[..., i : i + z.shape[-1]] for i in range(_KERNEL)], axis=-2)


def forward(model: Model, params: Params, alpha: Alpha, x: jax.Array, shifts: Params | None = None) -> Trace:
    """A forward pass of one sample.

    Args:
      model: static.
      params: from `init`.
      alpha: `skip` and `conv`, each f[edges].
      x: f[c, p].
      shifts: arrays that are added to W Phi(Z) of each convolution, `stem` f[branches, m, p] and `conv` f[edges, m, p].
        The gradient of the output in them, at 0, is d u / d (W Phi(Z)).
    """
    sigma, tau = ACTIVATIONS[model.activation], model.width**-0.5
    size = model.nodes // model.branches

    def conv(weights, read, shift):
        return tau * sigma(weights @ read + shift)

    if shifts is None:
        shifts = {name: jnp.zeros((len(params[name]), 1, 1), x.dtype) for name in ("stem", "conv")}
    # The edges into a node lie side by side, and are computed at once. The arrays are split, not sliced, so that their
    # gradient is put together once instead of summed from arrays full of zeros.
    ends = [index for index, (_, target) in enumerate(model.edges) if index and target != model.edges[index - 1][1]]
    arrays = (params["conv"], shifts["conv"], alpha["skip"], alpha["conv"])
    groups = zip(*(jnp.split(array, ends) for array in arrays), strict=True)
    read = {"stem": jnp.broadcast_to(patches(x), (model.branches, _KERNEL * x.shape[0], x.shape[1]))}
    roots = conv(params["stem"], read["stem"], shifts["stem"])
    nodes: list[jax.Array] = []
    reads = []
    for target in range(model.nodes):
        if target % size == 0:
            nodes.append(roots[target // size])
            continue
        weights, shift, skip, convolution = next(groups)
        sources = jnp.stack(nodes[target - target % size :])
        reads.append(patches(sources))
        nodes.append(
            jnp.einsum("s,smp->mp", skip, sources)
            + jnp.einsum("s,smp->mp", convolution, conv(weights, reads[-1], shift))
        )
    stacked = jnp.stack(nodes)
    read["conv"] = jnp.concatenate(reads or [jnp.zeros((0, _KERNEL * model.width, x.shape[1]), x.dtype)])
    return Trace(output=jnp.vdot(params["readout"], stacked), nodes=stacked, patches=read)


def outputs(model: Model, params: Params, alpha: Alpha, inputs: jax.Array) -> jax.Array:
    """The output u of every sample: f[n, c, p] -> f[n]."""
    return jax.vmap(lambda x: forward(model, params, alpha, x).output)(inputs)


def loss(model: Model, params: Params, alpha: Alpha, inputs: jax.Array, targets: jax.Array) -> jax.Array:
    """F = 1 / (2n) sum_i (u_i - y_i)^2, f[]."""
    return jnp.mean((outputs(model, params, alpha, inputs) - targets) ** 2) / 2


def draw_data(key: jax.Array, samples: int, channels: int, positions: int) -> tuple[jax.Array, jax.Array]:
    """Draws (inputs f[n, c, p] of Frobenius norm 1, targets f[n] from N(0, 1)); consumes `key`.

    No two inputs are parallel.
    """
    key_inputs, key_targets = jax.random.split(key)
    inputs = jax.random.normal(key_inputs, (samples, channels, positions))
    inputs /= jnp.linalg.norm(inputs, axis=(1, 2), keepdims=True)
    return inputs, jax.random.normal(key_targets, (samples,))


def draw_alpha(key: jax.Array, model: Model) -> dict[str, jax.Array]:
    """Draws `skip`, `conv` and `zero`, each f[edges], on each edge uniformly from the simplex; consumes `key`."""
    weights = jax.random.dirichlet(key, jnp.ones(3), (len(model.edges),))
    return dict(zip(("skip", "conv", "zero"), weights.T, strict=True))


def descend(
    model: Model,
    params: Params,
    alpha: Alpha,
    inputs: jax.Array,
    targets: jax.Array,
    step_size: jax.Array | float,
    steps: int,
) -> tuple[Params, jax.Array]:
    """Gradient descent on F: (weights after the last step, F before each step and after the last one, f[steps + 1])."""

    def step(params, _):
        value, gradient = jax.value_and_grad(loss, argnums=1)(model, params, alpha, inputs, targets)
        return jax.tree.map(lambda w, g: w - step_size * g, params, gradient), value

    params, losses = jax.lax.scan(step, params, length=steps)
    return params, jnp.append(losses, loss(model, params, alpha, inputs, targets))
