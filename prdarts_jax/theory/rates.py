"""How fast gradient descent is predicted to be, and which op weights decide it."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from prdarts_jax.theory.model import Alpha, Model

# The product of Theorem 1's S(alpha), as printed and otherwise; and with the readout as a further node h.
READINGS = ("printed", "chain", "paths", "printed, readout", "chain, readout", "paths, readout")


def path_strength(model: Model, alpha: Alpha, reading: str, branch: int = 0) -> jax.Array:
    """S(alpha) = sum_s (alpha^conv_{s,l})^2 prod_{t < s} (alpha^skip)^2 of Theorem 1 in one of its readings.

    Args:
      model: static.
      alpha: `skip` and `conv`, each f[edges].
      reading: what the product runs over. 'printed': (t, s), all skips into node s; 'chain': (t, t+1), the path from
        the first node to s; 'paths': the sum over all paths of skips from the first node to s, which is the
        coefficient of X_0 in X_s. l is the last node, and s runs to the one before it (h-2); with ', readout' l is
        the readout, whose weights count as 1, and s runs to the last node (h-1), as in the supplement's proof.
      branch: of which; its nodes count from the branch's first.

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
    """A step size eta that gradient descent on F with this Gram matrix is stable for: `fraction` n / lambda_max(G).

    The linearised descent converges for fractions below 2, without oscillation below 1. Theorem 1 asks for an eta
    below a constant that it does not name times lambda_min / (n |G|^2), a smaller one.
    """
    return fraction * gram.shape[0] / jnp.linalg.eigvalsh(gram)[-1]


def elasticities(value: Callable[[dict[str, jax.Array]], jax.Array], alpha: dict[str, jax.Array]) -> dict:
    """d log value / d log alpha of every weight, by differentiating through alpha -> f[], eigenvalues and all.

    A weight that the value does not depend on, as that of the zero op, has 0. All must be above 0.
    """
    return jax.grad(lambda logs: jnp.log(value(jax.tree.map(jnp.exp, logs))))(jax.tree.map(jnp.log, alpha))


def normalized_elasticities(raw: dict[str, jax.Array], alpha: dict[str, jax.Array]) -> dict:
    """The same where raising one weight of an edge lowers the others, as under a softmax: d log value / d logit.

    E_o - alpha_o sum_o' E_o', for weights that add up to 1 on each edge.
    """
    total = sum(raw.values())
    return {op: raw[op] - alpha[op] * total for op in raw}
