"""Gram matrices of the network of the analysis, and the kernel of its inputs.

G_ij = <d u_i / d W, d u_j / d W> over all weights W. A step of gradient descent on F changes the outputs by
-eta / n G (u - y), so the smallest eigenvalue of G bounds the speed.
"""

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from prdarts_jax.theory.model import ACTIVATIONS, Alpha, Model, Params, forward

Kernel = Literal["printed", "activations"]


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


def input_kernel(inputs: jax.Array, reading: Kernel = "activations", activation: str = "softplus") -> jax.Array:
    """The kernel K of the inputs, in one of two readings of the paper; k_ij = <X_i, X_j>.

    Args:
      inputs: f[n, c, p].
      reading: 'printed': the symmetric part of the matrix of blocks [[k_ij, k_ij], [k_ji, k_jj]], as printed in the
        paper. 'activations': E[sigma(a) sigma(b)] with (a, b) ~ N(0, [[k_ii, k_ij], [k_ji, k_jj]]), by quadrature, as
        in the source of the proof (Du et al., 2019, section 6).
      activation: sigma; not used for 'printed'.

    Returns:
      'printed': f[2n, 2n]; 'activations': f[n, n].
    """
    flat = inputs.reshape(len(inputs), -1)
    k = flat @ flat.T
    if reading == "printed":
        own = jnp.broadcast_to(jnp.diag(k), k.shape)
        full = jnp.stack([jnp.stack([k, k], axis=-1), jnp.stack([k, own], axis=-1)], axis=-2)  # [i, j, row, column]
        full = full.transpose(0, 2, 1, 3).reshape(2 * len(k), 2 * len(k))
        return (full + full.T) / 2
    sigma = ACTIVATIONS[activation]
    places, weights = (jnp.asarray(a, k.dtype) for a in np.polynomial.hermite_e.hermegauss(60))
    weights /= jnp.sum(weights)

    def expectation(kii, kij, kjj):
        a = jnp.sqrt(kii) * places
        spread = jnp.sqrt(jnp.maximum(kjj - kij**2 / kii, 0.0))
        b = kij / jnp.sqrt(kii) * places[:, None] + spread * places
        return jnp.einsum("a,b,a,ab->", weights, weights, sigma(a), sigma(b))

    own = jnp.diag(k)
    return jax.vmap(jax.vmap(expectation, (None, 0, 0)), (0, 0, None))(own, k, own)
