"""Gram matrices: of any function, and of the network of the analysis.

G_ij = <d u_i / d W, d u_j / d W> over all weights W. A step of gradient descent on F changes the outputs by
-eta / n G (u - y), so the smallest eigenvalue of G bounds the speed.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from prdarts_jax.theory.model import Alpha, Model, Params, forward


def of(
    f: Callable[[Any, Any], jax.Array], params: Any, inputs: Any, groups: Callable[[str], str] = lambda name: "all"
) -> dict[str, jax.Array]:
    """The Gram matrices of the gradients of any function, one for each group of its weights; their sum is G.

    It keeps the gradient of every output in every weight.

    Args:
      f: (params, inputs) -> outputs of any shape, of which there are n. Outputs may depend on all inputs, as with batch
        normalisation.
      params: a tree of arrays.
      inputs: given to f.
      groups: the name of a weight, such as 'cell_0/conv/kernel', -> the name of its group.

    Returns:
      {group: f[n, n]}

    >>> f = lambda params, x: params["w"] * x + params["b"]
    >>> found = of(f, {"w": 2.0, "b": 1.0}, jnp.array([1.0, 3.0]), groups=lambda name: name)
    >>> found["b"].tolist(), found["w"].tolist()
    ([[1.0, 1.0], [1.0, 1.0]], [[1.0, 3.0], [3.0, 9.0]])
    """
    gradients = jax.jacrev(lambda params: jnp.ravel(f(params, inputs)))(params)
    result: dict[str, jax.Array] = {}
    for path, gradient in jax.tree.leaves_with_path(gradients):
        group = groups(jax.tree_util.keystr(path, simple=True, separator="/"))
        flat = gradient.reshape(len(gradient), -1)
        result[group] = result.get(group, 0.0) + flat @ flat.T
    return result


def blocks(model: Model, params: Params, alpha: Alpha, inputs: jax.Array) -> Params:
    """The parts of G, one for each array of weights: `stem` f[branches, n, n], `conv` f[edges, n, n] (the proof's
    G^{ls}), `readout` f[h, n, n] (the proof's G^s).

    With D = d u / d (W Phi) the gradient in W is D Phi^T. So <D_i Phi_i^T, D_j Phi_j^T> is the sum over both positions
    of the elementwise product of D_i^T D_j and Phi_i^T Phi_j, and no gradient in a weight is ever formed.
    """
    m, positions = model.width, inputs.shape[-1]
    counts = {"stem": model.branches, "conv": len(model.edges)}
    shifts = {name: jnp.zeros((count, m, positions), inputs.dtype) for name, count in counts.items()}

    def sensitivities(x):
        def output(shifts):
            trace = forward(model, params, alpha, x, shifts)
            return trace.output, trace

        return jax.grad(output, has_aux=True)(shifts)

    sensitivity, trace = jax.vmap(sensitivities)(inputs)

    def convolution(d, phi):
        return jnp.einsum("imp,jmq,icp,jcq->ij", d, d, phi, phi, optimize=[(0, 1), (0, 1), (0, 1)])

    result = {name: jax.vmap(convolution, 1)(sensitivity[name], trace.patches[name]) for name in counts}
    result["readout"] = jnp.einsum("ismp,jsmp->sij", trace.nodes, trace.nodes)
    return result


def whole(parts: Params) -> jax.Array:
    """G: the sum of its `blocks`, f[n, n]."""
    return jnp.sum(jnp.concatenate(list(parts.values())), axis=0)


def smallest_eigenvalue(matrix: jax.Array) -> jax.Array:
    """The smallest eigenvalue of a symmetric matrix, f[]."""
    return jnp.linalg.eigvalsh(matrix)[0]


def conditioning(matrix: jax.Array) -> jax.Array:
    """The smallest eigenvalue of a symmetric matrix over its largest, f[].

    It is the relative speed of the slowest direction with the largest stable step, and does not depend on scale.
    """
    eigenvalues = jnp.linalg.eigvalsh(matrix)
    return eigenvalues[0] / eigenvalues[-1]
