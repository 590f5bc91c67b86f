"""The oracle of the tests of the theory lab: the model of the analysis in plain NumPy, float64, one sample at a time.

Written after Zhou et al. (2020): equations 3 to 5, the gradients of the supplement's Lemma 8, and Theorem 1's S(alpha).
"""

import itertools
import math

import jax
import numpy as np


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


ACTIVATIONS = {
    "softplus": (lambda z: np.log(1 + np.exp(z)), sigmoid),
    "sigmoid": (sigmoid, lambda z: sigmoid(z) * (1 - sigmoid(z))),
    "tanh": (np.tanh, lambda z: 1 / np.cosh(z) ** 2),
}


def edges(model):
    """(s, l), by l, then s, of nodes of the same branch."""
    half = model.nodes // model.branches
    return [(s, t) for t in range(model.nodes) for s in range(t) if s // half == t // half]


def phi(z):
    """Row 3-neighbour k, channel c of column q: channel c at position q + k - 1, or 0 outside."""
    channels, positions = z.shape
    result = np.zeros((3 * channels, positions))
    for k, c, q in itertools.product(range(3), range(channels), range(positions)):
        if 0 <= q + k - 1 < positions:
            result[k * channels + c, q] = z[c, q + k - 1]
    return result


def psi(d):
    """The adjoint of phi: <psi(D), Z> = <D, phi(Z)>."""
    channels, positions = d.shape[0] // 3, d.shape[1]
    result = np.zeros((channels, positions))
    for k, c, q in itertools.product(range(3), range(channels), range(positions)):
        if 0 <= q + k - 1 < positions:
            result[c, q + k - 1] += d[k * channels + c, q]
    return result


def draw(model, seed, samples=3, channels=2, positions=4):
    """(params, alpha, inputs, targets), with alphas that do not add up to 1."""
    rng = np.random.default_rng(seed)
    count, m = len(edges(model)), model.width
    params = {
        "stem": rng.normal(size=(model.branches, m, 3 * channels)),
        "conv": rng.normal(size=(count, m, 3 * m)),
        "readout": rng.normal(size=(model.nodes, m, positions)),
    }
    alpha = {op: rng.uniform(0.2, 1, count) for op in ("skip", "conv", "zero")}
    return params, alpha, rng.normal(size=(samples, channels, positions)), rng.normal(size=samples)


def nodes(model, params, alpha, x):
    """X_0..X_{h-1}."""
    sigma, tau = ACTIVATIONS[model.activation][0], 1 / math.sqrt(model.width)
    half, where = model.nodes // model.branches, edges(model)
    result = []
    for t in range(model.nodes):
        if t % half == 0:
            result.append(tau * sigma(params["stem"][t // half] @ phi(x)))
            continue
        node = np.zeros_like(result[0])
        for e, (s, upper) in enumerate(where):
            if upper == t:
                node += alpha["skip"][e] * result[s]
                node += alpha["conv"][e] * tau * sigma(params["conv"][e] @ phi(result[s]))
        result.append(node)
    return result


def output(model, params, alpha, x):
    return sum(np.sum(w * node) for w, node in zip(params["readout"], nodes(model, params, alpha, x), strict=True))


def outputs(model, params, alpha, inputs):
    return np.array([output(model, params, alpha, x) for x in inputs])


def loss(model, params, alpha, inputs, targets):
    total = 0.0
    for x, y in zip(inputs, targets, strict=True):
        total += (output(model, params, alpha, x) - y) ** 2
    return total / (2 * len(targets))


def gradients(model, params, alpha, x):
    """Of u in every weight, in closed form."""
    slope, tau = ACTIVATIONS[model.activation][1], 1 / math.sqrt(model.width)
    half, where = model.nodes // model.branches, edges(model)
    values = nodes(model, params, alpha, x)
    upstream = [None] * model.nodes  # d u / d X_l
    result = {name: np.zeros_like(w) for name, w in params.items()}
    for t in reversed(range(model.nodes)):
        d = params["readout"][t].copy()
        for e, (s, upper) in enumerate(where):
            if s == t:
                w, patches = params["conv"][e], phi(values[t])
                local = slope(w @ patches) * upstream[upper]
                d += alpha["skip"][e] * upstream[upper] + alpha["conv"][e] * tau * psi(w.T @ local)
                result["conv"][e] = alpha["conv"][e] * tau * local @ patches.T
        upstream[t] = d
        result["readout"][t] = values[t]
        if t % half == 0:
            local = slope(params["stem"][t // half] @ phi(x)) * d
            result["stem"][t // half] = tau * local @ phi(x).T
    return result


def gram_blocks(model, params, alpha, inputs):
    """The inner products of the samples' gradients, for each weight matrix."""
    all_gradients = [gradients(model, params, alpha, x) for x in inputs]
    n = len(inputs)
    result = {name: np.zeros((len(w), n, n)) for name, w in params.items()}
    for name, part in result.items():
        for b, i, j in itertools.product(range(len(part)), range(n), range(n)):
            part[b, i, j] = np.sum(all_gradients[i][name][b] * all_gradients[j][name][b])
    return result


def gram(model, params, alpha, inputs):
    return sum(part.sum(0) for part in gram_blocks(model, params, alpha, inputs).values())


def descend(model, params, alpha, inputs, targets, step_size, steps):
    """(weights at the end, loss before each step and at the end) of gradient descent."""
    losses = []
    for _ in range(steps):
        losses.append(loss(model, params, alpha, inputs, targets))
        moved = {name: w.copy() for name, w in params.items()}
        for x, y in zip(inputs, targets, strict=True):
            error = output(model, params, alpha, x) - y
            for name, g in gradients(model, params, alpha, x).items():
                moved[name] -= step_size / len(targets) * error * g
        params = moved
    losses.append(loss(model, params, alpha, inputs, targets))
    return params, losses


def path_strength(model, alpha, reading, branch=0):
    """S(alpha), path by path."""
    size = model.nodes // model.branches
    skip, conv = (
        {
            (s % size, t % size): float(a)
            for (s, t), a in zip(edges(model), alpha[op], strict=True)
            if s // size == branch
        }
        for op in ("skip", "conv")
    )
    last, total = size - 1, 0.0
    for s in range(size):
        if reading.startswith("printed"):
            coefficient = math.prod(skip[t, s] for t in range(s))
        elif reading.startswith("chain"):
            coefficient = math.prod(skip[t, t + 1] for t in range(s))
        else:
            coefficient = 0.0 if s else 1.0
            for between in itertools.chain.from_iterable(itertools.combinations(range(1, s), r) for r in range(s)):
                coefficient += math.prod(skip[hop] for hop in itertools.pairwise((0, *between, s)))
        if reading.endswith("readout"):
            total += coefficient**2
        elif s < last:
            total += conv[s, last] ** 2 * coefficient**2
    return total


def printed_kernel(inputs):
    """K in its 2x2 blocks, not yet made symmetric."""
    flat = inputs.reshape(len(inputs), -1)
    k, n = flat @ flat.T, len(inputs)
    full = np.zeros((2 * n, 2 * n))
    for i, j in itertools.product(range(n), range(n)):
        full[2 * i : 2 * i + 2, 2 * j : 2 * j + 2] = [[k[i, j], k[i, j]], [k[j, i], k[j, j]]]
    return full


def accept_precision(everything):
    """All that everything(dtype) gives has this dtype, and may have the largest that is switched on."""

    def dtypes(dtype):
        return {a.dtype for a in jax.tree.leaves(jax.eval_shape(lambda: everything(dtype)))}

    assert dtypes(float) == {np.dtype(np.float32)}
    with jax.enable_x64(True):
        assert dtypes(float) == {np.dtype(np.float64)}
        assert dtypes(np.float32) == {np.dtype(np.float32)}


def close(actual, expected):
    """In float64: a float32 anywhere on the way would show."""
    assert np.shape(actual) == np.shape(expected)
    np.testing.assert_allclose(actual, expected, rtol=1e-8, atol=1e-12)
