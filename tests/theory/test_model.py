"""The model of the analysis against plain NumPy in float64, and what its weights, inputs and alphas are drawn from."""

import jax
import numpy as np
import pytest
import scipy.stats
import theory_reference as reference
from shared import LEVEL, refused

from prdarts_jax.theory import model as net
from prdarts_jax.theory.model import Model

NETWORKS = [Model(4, 5), Model(4, 5, activation="sigmoid"), Model(4, 5, activation="tanh"), Model(6, 5, 2, "tanh")]

forward, init = (jax.jit(f, static_argnums=0) for f in (net.forward, lambda *args: net.init(*args[:2], 3, 5)))


def test_the_edges_are_in_the_order_of_the_arrays():
    assert Model(4, 5).edges == ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
    assert Model(6, 5, branches=2).edges == ((0, 1), (0, 2), (1, 2), (3, 4), (3, 5), (4, 5))


@pytest.mark.parametrize("positions", [1, 2, 5])
def test_patches_are_the_three_neighbours_with_zeros_outside(positions):
    batch = np.arange(1.0, 1 + 6 * positions).reshape(3, 2, positions)
    np.testing.assert_array_equal(jax.jit(net.patches)(batch), [reference.phi(z) for z in batch])
    np.testing.assert_array_equal(jax.jit(net.patches)(batch[0]), reference.phi(batch[0]))


@pytest.mark.parametrize("model", NETWORKS, ids=str)
def test_the_forward_pass_is_equations_3_to_5(float64, model):
    params, alpha, inputs, _ = reference.draw(model, 0)
    trace = forward(model, params, alpha, inputs[1])
    nodes = reference.nodes(model, params, alpha, inputs[1])
    reference.close(trace.nodes, nodes)
    reference.close(trace.output, reference.output(model, params, alpha, inputs[1]))
    reference.close(trace.patches["stem"], [reference.phi(inputs[1])] * model.branches)
    read = [reference.phi(nodes[s]) for s, _ in reference.edges(model)]
    reference.close(trace.patches["conv"], read)


@pytest.mark.parametrize("model", NETWORKS[2:], ids=str)
def test_outputs_and_loss_are_those_of_every_sample(float64, model):
    params, alpha, inputs, targets = reference.draw(model, 1)
    outputs, loss = jax.jit(
        lambda *args: (net.outputs(model, *args[:3]), net.loss(model, *args)),
    )(params, alpha, inputs, targets)
    reference.close(outputs, reference.outputs(model, params, alpha, inputs))
    reference.close(loss, reference.loss(model, params, alpha, inputs, targets))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"nodes": 0}, "nodes=0, width=3 and branches=1 must be at least 1"),
        ({"nodes": 3, "branches": 2}, "branches=2 must divide nodes=3"),
        ({"activation": "relu"}, "activation='relu' must be one of softplus, sigmoid, tanh"),
    ],
)
def test_an_impossible_shape_is_refused(fields, message):
    with refused(message):
        Model(**{"nodes": 4, "width": 3} | fields)


def test_a_branch_may_have_one_node_and_no_edges(float64):
    model = Model(2, 5, branches=2)
    params, alpha, inputs, _ = reference.draw(model, 1)
    trace = forward(model, params, alpha, inputs[0])
    reference.close(trace.nodes, reference.nodes(model, params, alpha, inputs[0]))
    assert trace.patches["conv"].shape == (0, 15, 4)


@pytest.mark.parametrize("h, branches", [(4, 1), (6, 2)])
def test_shifts_are_added_to_what_each_convolution_has_before_sigma(float64, h, branches):
    model = Model(h, 5, branches)
    params, alpha, inputs, _ = reference.draw(model, 2)
    moves, *_ = reference.draw(model, 3)
    moved = {name: w + moves[name] if name != "readout" else w for name, w in params.items()}
    expected = forward(model, moved, alpha, inputs[0])
    shifts = {name: moves[name] @ read for name, read in expected.patches.items()}
    reference.close(forward(model, params, alpha, inputs[0], shifts).nodes, expected.nodes)


@pytest.mark.parametrize("h, branches", [(3, 1), (4, 2)])
def test_descend_takes_the_steps_of_gradient_descent(float64, h, branches):
    model = Model(h, 5, branches)
    params, alpha, inputs, targets = reference.draw(model, 4)
    expected_params, expected = reference.descend(model, params, alpha, inputs, targets, 0.03, 4)
    descend = jax.jit(net.descend, static_argnums=(0, 6))
    weights, losses = descend(model, params, alpha, inputs, targets, 0.03, 4)
    assert losses.shape == (5,) and expected[4] < 0.8 * expected[0]
    reference.close(losses, expected)
    for name, w in expected_params.items():
        reference.close(weights[name], w)


def test_weights_are_standard_normal_and_no_two_the_same():
    model = Model(6, 7, branches=2)
    params = init(model, jax.random.key(0))
    shapes = {"stem": (2, 7, 9), "conv": (6, 7, 21), "readout": (6, 7, 5)}
    assert {name: w.shape for name, w in params.items()} == shapes
    for w in params.values():
        assert scipy.stats.kstest(np.ravel(w), "norm").pvalue > LEVEL / 3
    values = np.concatenate([np.ravel(w) for w in params.values()])
    assert len(np.unique(values)) > 0.99 * len(values)  # not all float32 normals are distinct


def test_inputs_have_norm_1_and_any_direction_and_targets_are_standard_normal():
    inputs, targets = jax.jit(lambda key: net.draw_data(key, 1000, 2, 3))(jax.random.key(1))
    assert inputs.shape == (1000, 2, 3) and targets.shape == (1000,)
    flat = np.asarray(inputs, np.float64).reshape(1000, 6)
    np.testing.assert_allclose((flat**2).sum(1), 1, rtol=1e-5)
    square = scipy.stats.beta(0.5, 2.5)  # of a coordinate of a uniform direction in 6 dimensions
    for coordinate in flat.T:
        law = scipy.stats.kstest(coordinate, lambda v: (1 + np.sign(v) * square.cdf(v**2)) / 2)
        assert law.pvalue > LEVEL / 6
    assert scipy.stats.kstest(targets, "norm").pvalue > LEVEL
    # Targets drawn with the key of the inputs would be the first normals of these.
    assert scipy.stats.pearsonr(flat.ravel()[:1000], targets).pvalue > LEVEL


def test_the_alphas_of_an_edge_are_uniform_among_those_that_add_up_to_1():
    model = Model(140, 1)
    drawn = jax.jit(net.draw_alpha, static_argnums=1)(jax.random.key(2), model)
    alpha = {op: np.asarray(a, np.float64) for op, a in drawn.items()}
    assert set(alpha) == {"skip", "conv", "zero"} and alpha["skip"].shape == (9730,)
    np.testing.assert_allclose(sum(alpha.values()), 1, rtol=1e-5)
    for op in alpha:
        assert scipy.stats.kstest(alpha[op], scipy.stats.beta(1, 2).cdf).pvalue > LEVEL / 4
    share = alpha["skip"] / (alpha["skip"] + alpha["conv"])
    assert scipy.stats.kstest(share, "uniform").pvalue > LEVEL / 4


def everything(dtype):
    """All arrays that the functions return."""
    model = Model(2, 3)
    drawn = (
        net.init(model, jax.random.key(0), 2, 3),
        *net.draw_data(jax.random.key(1), 2, 2, 3),
        net.draw_alpha(jax.random.key(2), model),
    )
    params, inputs, targets, alpha = jax.tree.map(lambda a: a if dtype is float else a.astype(dtype), drawn)
    return [
        *(params, inputs, targets, alpha),
        net.forward(model, params, alpha, inputs[0]),
        net.loss(model, params, alpha, inputs, targets),
        net.descend(model, params, alpha, inputs, targets, 0.1, 2),
    ]


def test_the_precision_is_that_which_is_switched_on_unless_the_arrays_have_another():
    reference.accept_precision(everything)
