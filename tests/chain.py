"""A supernet of a few numbers, twice differentiable: three layers of two edges with three ops each."""

import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

from prdarts_jax.ops import kernels
from prdarts_jax.search import methods
from prdarts_jax.search.problem import SearchProblem, SearchState, init_search
from prdarts_jax.search.step import search_step
from prdarts_jax.spaces import SearchSpace

SPACE = SearchSpace("chain", ("skip_connect", "sep_conv_3x3", "max_pool_3x3"), nodes=3, cell_types=("normal",))
SHAPE = SPACE.shape  # of two edges; their ops are functions of a number here
LAYERS, EDGES, WIDTH, CLASSES = 3, 2, 3, 4


def op_results(h):
    """[...] -> [3, ...]: what the ops of an edge give."""
    return jnp.stack([jnp.tanh(h), jnp.sin(2 * h), h * h / (1 + h * h)])


def predict(params, layer_weights, images):
    """Class logits [B, CLASSES], of weights [LAYERS, EDGES, 3]."""
    x = images.reshape(len(images), WIDTH)
    for kernel, weights in zip(params["kernel"], layer_weights, strict=True):
        x = x + jnp.einsum("oebg,eo->bg", op_results(jnp.einsum("bf,efg->ebg", x, kernel)), weights)
    return x @ params["head"]


def loss(params, layer_weights, batch):
    """The mean cross entropy."""
    log_p = jax.nn.log_softmax(predict(params, layer_weights, batch["image"]))
    return -jnp.mean(jnp.take_along_axis(log_p, batch["label"][:, None], axis=1))


def make_params(seed):
    rng = np.random.default_rng(seed)
    return {
        "kernel": jnp.array(rng.normal(size=(LAYERS, EDGES, WIDTH, WIDTH))),
        "head": jnp.array(rng.normal(size=(WIDTH, CLASSES))),
    }


def make_batch(seed, size=6):
    rng = np.random.default_rng(seed)
    return {
        "image": jnp.array(rng.normal(size=(size, 1, 1, WIDTH))),
        "label": jnp.array(rng.integers(0, CLASSES, size)),
    }


def make_logits(seed):
    return jnp.array(np.random.default_rng(seed).normal(size=SHAPE))


def weights_of(logits):
    """The softmax, the same in every layer."""
    return jnp.broadcast_to(jax.nn.softmax(logits), (LAYERS, *SHAPE))


class Chain(nn.Module):
    """`predict` as a supernet of normal cells alone."""

    space: SearchSpace = SPACE

    @property
    def layers(self):
        return {"normal": LAYERS}

    @nn.compact
    def __call__(self, images, op_weights=None, *, train):
        logits = self.variable("arch", "normal", jnp.zeros, SHAPE).value
        params = {
            "kernel": self.param("kernel", nn.initializers.normal(1.0), (LAYERS, EDGES, WIDTH, WIDTH)),
            "head": self.param("head", nn.initializers.normal(1.0), (WIDTH, CLASSES)),
        }
        weights = weights_of(logits) if op_weights is None else op_weights["normal"]
        return predict(params, weights, self.stem(images))

    def stem(self, images):
        return images


class Normed(Chain):
    """After a matrix and batch normalisation, whose moments parts of a batch share."""

    axis_name: str | None = None

    def stem(self, images):
        kernel = self.param("stem", nn.initializers.normal(1.0), (WIDTH, WIDTH))
        return kernels.batch_norm(images @ kernel, self.axis_name)[0]


MOMENTUM = optax.chain(optax.add_decayed_weights(0.05), optax.sgd(0.4, momentum=0.9))


def make_problem(supernet=Chain(), method=methods.darts(), weights=MOMENTUM):  # noqa: B008
    """Five steps, by default of first order DARTS, in which the logits move by their gradient."""
    return SearchProblem(supernet, method, weights, arch_optimizer=optax.sgd(1.0), total_steps=5)


start = jax.jit(init_search, static_argnums=0)
jit_step = jax.jit(search_step, static_argnums=0)


def state_of(problem, step, logits):
    """A state with `make_params(0)`, before which nothing was done."""
    variables = {"params": make_params(0), "arch": {"normal": logits}}
    state = problem.optimizer.init(variables)
    return SearchState(jnp.int32(step), **variables, batch_stats={}, opt_state=state, key=jax.random.key(0))


def split(batch, parts=4, axis=0):
    """The parts of a batch, stacked along the axis that was the batch's."""
    return jax.tree.map(lambda a: a.reshape(*a.shape[:axis], parts, -1, *a.shape[axis + 1 :]), batch)


def slopes(function, at, step=1e-5):
    """Central differences of a scalar function of a pytree, in every number of it."""
    flat, unravel = ravel_pytree(at)
    values = jax.jit(jax.vmap(lambda shift: function(unravel(flat + shift))))
    shifts = step * jnp.eye(flat.size, dtype=flat.dtype)
    return unravel((values(shifts) - values(-shifts)) / (2 * step))


def flat(tree):
    """All numbers of a pytree."""
    return np.asarray(ravel_pytree(tree)[0])


def assert_near(found, expected, relative):
    """The largest error, as a fraction of the largest number; in float64."""
    found, expected = flat(found), flat(expected)
    assert found.shape == expected.shape and found.dtype == np.float64
    assert np.abs(found - expected).max() <= relative * np.abs(expected).max()


def assert_shrinks_by_squares(errors):
    """A hundredth of the error at a tenth of the step, as of central differences."""
    for large, small in itertools.pairwise(errors):
        assert 80 < large / small < 125
