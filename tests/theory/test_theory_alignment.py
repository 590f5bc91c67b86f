"""Lambda-DARTS's claims: the layers' gradients, and what is compared of the searches."""

import chain
import jax
import jax.numpy as jnp
import numpy as np

from prdarts_jax import spaces
from prdarts_jax.nets import discrete
from prdarts_jax.nets.nas_bench_201 import Supernet201
from prdarts_jax.nets.supernet import init_logits
from prdarts_jax.search.problem import SearchState
from prdarts_jax.theory import alignment

SPACE = spaces.SearchSpace(
    "small", ("none", "skip_connect", "nor_conv_1x1"), nodes=2, inputs=1, cell_types=("normal",), entries_per_node=0
)


def state_of(**variables):
    """What `layer_gradients` reads of a state."""
    others = {"batch_stats": {}, "opt_state": (), "key": jax.random.key(0)}
    return SearchState(jnp.int32(0), **others | variables)


def shifted_loss(predict, weights, labels):
    """A function of a shift of the op weights of each layer: the mean cross entropy."""

    def loss(shift):
        return -jnp.mean(jax.nn.log_softmax(predict(weights + shift))[jnp.arange(len(labels)), labels])

    return loss


def test_layer_gradients_are_central_differences_in_each_layers_weights():
    """In float64, of a model without kinks."""
    with jax.enable_x64(True):
        params, logits, batch = chain.make_params(1), chain.make_logits(2), chain.make_batch(3)
        state = state_of(params=params, arch={"normal": logits})
        found = jax.jit(alignment.layer_gradients, static_argnums=0)(chain.make_problem(), state, batch)
        weights = chain.weights_of(logits)
        loss = shifted_loss(lambda w: chain.predict(params, w, batch["image"]), weights, batch["label"])
        expected = chain.slopes(loss, jnp.zeros_like(weights))
    assert found.dtype == np.float64 and np.abs(found).max() > 0.01
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9)


def test_layer_gradients_of_a_supernet_are_central_differences():
    """In float32, through ReLUs: within a hundredth of the largest, where no ReLU turns within a step."""
    supernet = Supernet201(space=SPACE, channels=2, cells=1, num_classes=3)
    images, labels = jax.random.normal(jax.random.key(3), (4, 5, 4, 1)), jnp.array([0, 1, 2, 0])
    variables = discrete.init_variables(supernet, jax.random.key(0), images.shape)
    logits = 3 * init_logits(jax.random.key(4), SPACE, "normal")
    logits = logits + jnp.arange(3.0) / 4
    state = state_of(**variables | {"arch": {"normal": logits}})
    batch = {"image": images, "label": labels}
    found = jax.jit(alignment.layer_gradients, static_argnums=0)(chain.make_problem(supernet), state, batch)
    weights = jnp.broadcast_to(jax.nn.softmax(logits), (3, *SPACE.shape))

    def predict(weights):
        given = variables | {"arch": {"normal": logits}}
        return supernet.apply(given, images, {"normal": weights}, train=True, mutable=["batch_stats"])[0]

    expected = chain.slopes(shifted_loss(predict, weights, labels), jnp.zeros_like(weights), step=3e-4)
    largest = np.abs(expected).max()
    assert found.shape == (3, *SPACE.shape) and largest > 0.01
    assert np.abs(expected).max(axis=(1, 2)).min() > 0.1 * largest  # no layer is negligible
    np.testing.assert_allclose(found, expected, rtol=0, atol=0.01 * largest)


def test_alignment_compares_the_ends_of_the_searches_that_it_makes_in_float32(monkeypatch):
    rng, dtypes = np.random.default_rng(7), []
    made = {
        name: {
            "alignment": rng.uniform(size=(4, 7)),
            "entropy": rng.uniform(size=(4, 7)),
            "shares": rng.dirichlet(np.ones(6), (4, 7)),
        }
        for name in ("DARTS", "Lambda-DARTS")
    }

    def searches(key, *sizes):
        dtypes.append((jax.random.normal(key).dtype, *sizes))
        return made

    monkeypatch.setattr(alignment, "searches", searches)
    with jax.enable_x64(True):
        found = alignment.alignment(jax.random.key(0), channels=3, draws=4, epochs=7)
    assert dtypes == [(np.dtype(np.float32), 3, 4, 7)]
    early, late = ({name: made[name]["alignment"][:, part].mean(1) for name in made} for part in ([0, 1], [5, 6]))
    np.testing.assert_allclose(found["ahead"], late["Lambda-DARTS"] - late["DARTS"])
    for name, runs in made.items():
        np.testing.assert_allclose(found[f"{name}: fall"], early[name] - late[name])
        np.testing.assert_allclose(found[f"{name}: entropy"], runs["entropy"][:, 6] / np.log(5))
        np.testing.assert_allclose(found[f"{name}: last layer"], runs["shares"][:, 6, 5] * 6)
