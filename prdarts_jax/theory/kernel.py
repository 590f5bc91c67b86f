"""Kernels: of the inputs, and of the network of the analysis with infinitely many channels."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from prdarts_jax.theory.model import ACTIVATIONS, Alpha, Model, patches

Kernel = Literal["printed", "activations"]


class Moments(NamedTuple):
    """Of Gaussian variables a of mean 0 and their images: E[sigma(a)], E[sigma(a_i) sigma(a_j)] and
    E[sigma'(a_i) sigma'(a_j)]."""

    mean: jax.Array
    product: jax.Array
    slopes: jax.Array


_TERMS = 160  # of Mehler's formula


def _hermite(terms: int, places: np.ndarray) -> np.ndarray:
    """The orthonormal Hermite polynomials of N(0, 1): f[terms, places]."""
    found = [np.ones_like(places), places]
    for k in range(1, terms - 1):
        found.append((places * found[k] - k**0.5 * found[k - 1]) / (k + 1) ** 0.5)
    return np.stack(found)


def moments(sigma: Callable[[jax.Array], jax.Array], covariance: jax.Array) -> Moments:
    """The moments of Gaussian variables of mean 0 with this covariance f[n, n], whose diagonal is positive.

    Mehler's formula: with f_ik = E[f(a_i) h_k(a_i / s_i)], s_i the standard deviation and h_k a Hermite polynomial,
    E[f(a_i) f(a_j)] is the sum over k of f_ik f_jk corr(a_i, a_j)^k.
    """
    places = np.linspace(-10.0, 10.0, 401)
    density = np.exp(-(places**2) / 2)
    weights = jnp.asarray(_hermite(_TERMS, places) * density / density.sum(), covariance.dtype)
    deviation = jnp.sqrt(jnp.diag(covariance))
    a = deviation[:, None] * places.astype(covariance.dtype)
    values = jnp.stack([sigma(a), jax.vmap(jax.grad(sigma))(a.ravel()).reshape(a.shape)])
    coefficients = jnp.einsum("fip,kp->kfi", values, weights)
    correlation = covariance / jnp.outer(deviation, deviation)

    def horner(total, of_term):
        return total * correlation + of_term[:, :, None] * of_term[:, None, :], None

    start = jnp.zeros((len(values), *covariance.shape), covariance.dtype)
    (product, slopes), _ = jax.lax.scan(horner, start, coefficients, reverse=True)
    return Moments(coefficients[0, 0], product, slopes)


def input_kernel(inputs: jax.Array, reading: Kernel = "activations", activation: str = "softplus") -> jax.Array:
    """The kernel K of the inputs, in one of two readings of the paper; k_ij = <X_i, X_j>.

    Args:
      inputs: f[n, c, p].
      reading: 'printed': the symmetric part of the matrix of blocks [[k_ij, k_ij], [k_ji, k_jj]], as printed in the
        paper. 'activations': E[sigma(a) sigma(b)] with (a, b) ~ N(0, [[k_ii, k_ij], [k_ji, k_jj]]), as in the source of
        the proof (Du et al., 2019, section 6).
      activation: sigma; not used for 'printed'.

    Returns:
      'printed': f[2n, 2n]; 'activations': f[n, n].
    """
    flat = inputs.reshape(len(inputs), -1)
    k = flat @ flat.T
    if reading == "activations":
        return moments(ACTIVATIONS[activation], k).product
    own = jnp.broadcast_to(jnp.diag(k), k.shape)
    full = jnp.stack([jnp.stack([k, k], axis=-1), jnp.stack([k, own], axis=-1)], axis=-2)  # [i, j, row, column]
    full = full.transpose(0, 2, 1, 3).reshape(2 * len(k), 2 * len(k))
    return (full + full.T) / 2


def infinite_blocks(model: Model, alpha: Alpha, inputs: jax.Array) -> dict[str, jax.Array]:
    """The limit of `gram.blocks` for infinitely many channels: `stem` f[branches, n, n], `conv` f[edges, n, n],
    `readout` f[h, n, n].

    It is a recursion over pairs of nodes and pairs (sample, position). Forward: with C_st the covariance of a channel
    of X_s and X_t, times m, and mu_s its mean, times sqrt(m),

        mu_l = sum_s alpha^skip mu_s + alpha^conv E[sigma],       C_lt = sum_s alpha^skip_{s,l} C_st  for t < l,
        C_ll = sum_{s,t} alpha^skip_{s,l} alpha^skip_{t,l} C_st + sum_s (alpha^conv_{s,l})^2 Cov[sigma],

    where sigma is that of the convolution of X_s: a Gaussian field whose covariance is the sum of C_ss + mu_s mu_s over
    the three positions of a patch. Backward: P_st, the covariance of d u / d X_s and d u / d X_t, by the same rule from
    the last node to the first, in which convolutions multiply P_tt by E[sigma' sigma'] and sum over the patch. A block
    of G is the product of E[sigma' sigma'], P and the covariance of the patches, summed over positions.
    """
    sigma, h, size = ACTIVATIONS[model.activation], model.nodes, model.nodes // model.branches
    n, positions = len(inputs), inputs.shape[-1]
    at = {edge: index for index, edge in enumerate(model.edges)}

    def over_patch(c):  # the sum over the three neighbours of both positions
        padded = jnp.pad(c.reshape(n, positions, n, positions), ((0, 0), (1, 1), (0, 0), (1, 1)))
        parts = [padded[:, d : d + positions, :, d : d + positions] for d in range(3)]
        return (parts[0] + parts[1] + parts[2]).reshape(n * positions, n * positions)

    def over_positions(c):
        return jnp.einsum("ipjp->ij", c.reshape(n, positions, n, positions))

    read = patches(inputs).transpose(0, 2, 1).reshape(n * positions, -1)
    of_input = read @ read.T
    stem = moments(sigma, of_input)
    covariance: dict[tuple[int, int], jax.Array] = {}
    mean: list[jax.Array] = []
    patch: list[jax.Array] = []
    of_node: list[Moments] = []  # of the convolutions of each node
    for target in range(h):
        sources = range(target - target % size, target)
        skip, conv = ({s: alpha[op][at[s, target]] for s in sources} for op in ("skip", "conv"))
        if sources:
            start = jnp.zeros_like(stem.mean)
            mean.append(sum((skip[s] * mean[s] + conv[s] * of_node[s].mean for s in sources), start))
            own = jnp.zeros_like(of_input)
            for s in sources:
                own += conv[s] ** 2 * (of_node[s].product - jnp.outer(of_node[s].mean, of_node[s].mean))
        else:
            mean.append(stem.mean)
            own = stem.product - jnp.outer(stem.mean, stem.mean)
        for other in range(target):
            total = sum((skip[s] * covariance[s, other] for s in sources), jnp.zeros_like(of_input))
            covariance[target, other], covariance[other, target] = total, total.T
        covariance[target, target] = sum((skip[s] * covariance[s, target] for s in sources), own)
        patch.append(over_patch(covariance[target, target] + jnp.outer(mean[target], mean[target])))
        of_node.append(moments(sigma, patch[target]))

    gradient: dict[tuple[int, int], jax.Array] = {}
    same_position = jnp.tile(jnp.eye(positions, dtype=inputs.dtype), (n, n))  # of the readout's weights
    for source in reversed(range(h)):
        targets = [t for s, t in model.edges if s == source]
        for other in reversed(range(source + 1, h)):
            total = sum((alpha["skip"][at[source, t]] * gradient[t, other] for t in targets), jnp.zeros_like(of_input))
            gradient[source, other], gradient[other, source] = total, total.T
        gradient[source, source] = same_position + sum(
            alpha["skip"][at[source, t]] * gradient[t, source]
            + alpha["conv"][at[source, t]] ** 2 * over_patch(of_node[source].slopes * gradient[t, t])
            for t in targets
        )

    def summed(c):
        return jnp.sum(c.reshape(n, positions, n, positions), axis=(1, 3))

    roots = range(0, h, size)
    conv_blocks = [
        alpha["conv"][e] ** 2 * summed(of_node[s].slopes * gradient[t, t] * patch[s])
        for e, (s, t) in enumerate(model.edges)
    ]
    readout = [over_positions(covariance[s, s] + jnp.outer(mean[s], mean[s])) for s in range(h)]
    return {
        "stem": jnp.stack([summed(stem.slopes * gradient[root, root] * of_input) for root in roots]),
        "conv": jnp.stack(conv_blocks) if conv_blocks else jnp.zeros((0, n, n), inputs.dtype),
        "readout": jnp.stack(readout),
    }
