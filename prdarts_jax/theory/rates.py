"""The predicted speed of gradient descent, and its dependence on the op weights."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from prdarts_jax.theory.model import Alpha, Model

# Readings of the product in Theorem 1's S(alpha): as printed and two others, each also with the readout as node h.
READINGS = ("printed", "chain", "paths", "printed, readout", "chain, readout", "paths, readout")


def path_strength(model: Model, alpha: Alpha, reading: str, branch: int = 0) -> jax.Array:
    """S(alpha) = sum_s (alpha^conv_{s,l})^2 P_s^2 of Theorem 1, f[], in one of the readings of the product P_s.

    Args:
      model: static.
      alpha: `skip` and `conv`, each f[edges].
      reading: one of `READINGS`. P_s is for 'printed' the product of alpha^skip_{t,s} over all t < s; for 'chain' that
        of alpha^skip_{t,t+1} over all t < s, the path from the first node to s; for 'paths' the sum over all paths from
        the first node to s of the product of their alpha^skip, which is the coefficient of X_0 in X_s. l is the last
        node h-1, and s runs to h-2. If the reading ends in ', readout', as in 'chain, readout', l is the readout, whose
        weights are taken as 1, and s runs to h-1, as in the supplement's proof.
      branch: index of the branch; its first node is then the first node of the formula.

    Raises:
      ValueError: an unknown reading.
    """
    if reading not in READINGS:
        raise ValueError(f"reading={reading!r} must be one of {'; '.join(READINGS)}")
    product, _, readout = reading.partition(", ")
    size = model.nodes // model.branches
    first, last = branch * size, branch * size + size - 1
    at = {edge: index for index, edge in enumerate(model.edges)}
    skip = {edge: alpha["skip"][index] for edge, index in at.items()}

    coefficients: dict[int, jax.Array] = {}
    for s in range(first, last + 1):
        before = range(first, s)
        if product == "printed":
            factors = [skip[t, s] for t in before]
        elif product == "chain":
            factors = [skip[t, t + 1] for t in before]
        else:
            factors = [jnp.sum(jnp.stack([skip[t, s] * coefficients[t] for t in before]))] if s > first else []
        coefficients[s] = jnp.prod(jnp.stack([jnp.ones_like(alpha["skip"][0]), *factors]))
    if readout:
        terms = [coefficients[s] for s in range(first, last + 1)]
    else:
        terms = [alpha["conv"][at[s, last]] * coefficients[s] for s in range(first, last)]
    return jnp.sum(jnp.stack(terms) ** 2)


def stable_step(gram: jax.Array, fraction: float = 0.5) -> jax.Array:
    """The step size eta = `fraction` n / lambda_max(G), for which gradient descent on F with this G is stable.

    The linearised descent converges for fractions below 2, and without oscillation for fractions below 1. Theorem 1
    requires a smaller eta, below C lambda_min / (n |G|^2) with a constant C that it does not give.
    """
    return fraction * gram.shape[0] / jnp.linalg.eigvalsh(gram)[-1]


def elasticities(value: Callable[[dict[str, jax.Array]], jax.Array], alpha: dict[str, jax.Array]) -> dict:
    """The elasticity d log value / d log alpha of every weight, with the shapes of `alpha`.

    `value`, alpha -> f[], is differentiated exactly, with its eigenvalues; it and all weights must be above 0. The
    elasticity is 0 for a weight on which the value does not depend, such as that of the zero op.
    """
    return jax.grad(lambda logs: jnp.log(value(jax.tree.map(jnp.exp, logs))))(jax.tree.map(jnp.log, alpha))


def normalized_elasticities(raw: dict[str, jax.Array], alpha: dict[str, jax.Array]) -> dict:
    """The derivative d log value / d logit, if the weights of each edge are the softmax of logits: raising one weight
    lowers the others.

    It is E_o - alpha_o sum_o' E_o', with E the elasticities `raw` and weights `alpha` that add up to 1 on each edge.
    """
    total = sum(raw.values())
    return {op: raw[op] - alpha[op] * total for op in raw}
