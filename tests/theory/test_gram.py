"""Gram matrices of the theory lab, against plain NumPy in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import theory_reference as reference

from prdarts_jax.theory import gram, kernel
from prdarts_jax.theory import model as net
from prdarts_jax.theory.model import Model

NETWORKS = [
    Model(4, 5, 1, "softplus"),
    Model(6, 5, 2, "tanh"),
    Model(2, 5, 1, "sigmoid"),
    Model(2, 5, 2, "softplus"),  # without edges
]


@pytest.mark.parametrize("model", NETWORKS, ids=str)
def test_blocks_are_inner_products_of_gradients_and_add_up_to_the_whole(float64, model):
    params, alpha, inputs, _ = reference.draw(model, 0)
    blocks = jax.jit(lambda *args: gram.blocks(model, *args))(params, alpha, inputs)
    whole = gram.whole(blocks)
    expected = reference.gram_blocks(model, params, alpha, inputs)
    assert set(blocks) == set(expected)
    for name, part in expected.items():
        reference.close(blocks[name], part)
        for block in np.asarray(blocks[name]):
            np.testing.assert_allclose(block, block.T, rtol=1e-12)
            eigenvalues = np.linalg.eigvalsh(block)
            assert eigenvalues[0] > -1e-12 * eigenvalues[-1]
    samples = [reference.gradients(model, params, alpha, x) for x in inputs]
    flat = np.array([np.concatenate([g.ravel() for g in sample.values()]) for sample in samples])
    reference.close(whole, flat @ flat.T)


def test_the_smallest_eigenvalue_is_the_first_one_with_its_sign(float64):
    basis = np.linalg.qr(np.random.default_rng(2).normal(size=(4, 4)))[0]
    for eigenvalues in ([3.0, 0.5, 2.0, 7.0], [3.0, 0.5, -2.0, 7.0]):
        matrix = basis * eigenvalues @ basis.T
        reference.close(gram.smallest_eigenvalue(jnp.array(matrix)), min(eigenvalues))


def test_the_conditioning_does_not_depend_on_scale(float64):
    basis = np.linalg.qr(np.random.default_rng(2).normal(size=(3, 3)))[0]
    for scale in (1.0, 100.0):
        reference.close(gram.conditioning(jnp.array(basis * [0.5, 2.0, 8.0] @ basis.T * scale)), 1 / 16)


# Of any function ------------------------------------------------------------------------------------------------------


def test_the_gram_matrix_of_a_function_is_that_of_the_network_of_the_analysis(float64):
    model = NETWORKS[1]
    params, alpha, inputs, _ = reference.draw(model, 1)
    found = jax.jit(
        lambda params: gram.of(
            lambda params, x: net.outputs(model, params, alpha, x), params, inputs, lambda name: name[:4]
        )
    )(params)
    expected = {name[:4]: part.sum(0) for name, part in reference.gram_blocks(model, params, alpha, inputs).items()}
    assert set(found) == set(expected) == {"stem", "conv", "read"}
    for name, part in expected.items():
        reference.close(found[name], part)
    of_all = jax.jit(lambda params: gram.of(lambda params, x: net.outputs(model, params, alpha, x), params, inputs))
    (everything,) = of_all(params).items()
    assert everything[0] == "all"
    reference.close(everything[1], sum(expected.values()))


def test_outputs_may_have_any_shape_and_depend_on_all_inputs(float64):
    """A layer behind batch normalisation; gradients by central differences."""
    inputs = np.random.default_rng(0).normal(size=(3, 2))
    params = {"layer": {"w": jnp.array([[0.3, -1.0], [2.0, 0.5]]), "b": jnp.array([0.1, 0.2])}}

    def f(params, x):
        hidden = jnp.tanh(x @ params["layer"]["w"] + params["layer"]["b"])
        return (hidden - hidden.mean(0)) / hidden.std(0)

    found = jax.jit(lambda params: gram.of(f, params, jnp.array(inputs), groups=lambda name: name))(params)
    assert set(found) == {"layer/w", "layer/b"}
    for name in ("w", "b"):
        columns = []
        for index in np.ndindex(params["layer"][name].shape):
            ends = []
            for sign in (1, -1):
                moved = {"layer": params["layer"] | {name: params["layer"][name].at[index].add(sign * 1e-5)}}
                ends.append(np.ravel(f(moved, inputs)))
            columns.append((ends[0] - ends[1]) / 2e-5)
        jacobian = np.stack(columns, axis=1)
        np.testing.assert_allclose(found[f"layer/{name}"], jacobian @ jacobian.T, rtol=1e-6, atol=1e-8)


def test_the_precision_is_that_of_the_arrays():
    model = Model(2, 3)
    params, alpha, inputs, _ = reference.draw(model, 5)

    def everything(dtype):
        *arguments, x = jax.tree.map(lambda a: jnp.asarray(a, dtype), (params, alpha, inputs))
        blocks = gram.blocks(model, *arguments, x)
        whole = gram.whole(blocks)
        return [
            *(blocks, whole, gram.smallest_eigenvalue(whole), gram.conditioning(whole)),
            gram.of(lambda params, x: net.outputs(model, params, arguments[1], x), arguments[0], x),
            *(kernel.input_kernel(x, reading) for reading in ("printed", "activations")),
            kernel.infinite_blocks(model, arguments[1], x),
        ]

    reference.accept_precision(everything)
