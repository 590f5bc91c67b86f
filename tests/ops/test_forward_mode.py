"""Forward mode through gradients: Hessian-vector products against those of XLA's own convolutions and windows."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import trees
import xla_kernels as xla
from plain_executor import in_supernets
from shared import sparse_weights

from prdarts_jax.nets import discrete
from prdarts_jax.nets.supernet import Supernet
from prdarts_jax.ops import kernels
from prdarts_jax.spaces import SearchSpace


def draw(seed, tree):
    """N(0, 1) in the shapes of a tree."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda a: jnp.array(rng.normal(size=a.shape), jnp.float32), tree)


def along(function, at, direction):
    """The derivative of a function of one argument, for a gradient a Hessian-vector product."""
    return jax.jvp(function, (at,), (direction,))[1]


def assert_near(found, expected):
    trees.assert_near(found, expected)
    assert all(np.abs(e).max() > 0 for e in jax.tree.leaves(expected))


# The kernels with XLA's own derivatives -------------------------------------------------------------------------------


NAMES = ("conv", "depthwise_conv", "max_pool", "avg_pool", "batch_norm")


def loss(y):
    return jnp.sum(jnp.sin(y + jnp.arange(y.size).reshape(y.shape)))


@pytest.mark.parametrize(
    "name, options, shape",
    (
        ("depthwise_conv", (1, 2), (5, 5, 3)),
        ("depthwise_conv", (2, 1), (3, 3, 3)),
        ("conv", ((1, 1),), (3, 3, 3, 4)),
        ("conv", ((2, 1),), (7, 1, 3, 4)),
        ("max_pool", (1,), None),
        ("max_pool", (2,), None),
        ("avg_pool", (1,), None),
        ("avg_pool", (2,), None),
        ("batch_norm", (None,), None),
    ),
)
def test_kernels(name, options, shape):
    @functools.partial(jax.jit, static_argnums=0)
    def product(kernel, arguments, direction):
        def of(arguments):
            return loss(jax.tree.leaves(kernel(*arguments, *options))[0])

        return along(jax.grad(of), arguments, direction)

    like = [jnp.zeros((2, 7, 6, 3)), *([] if shape is None else [jnp.zeros(shape)])]
    arguments, direction = draw(0, like), draw(1, like)
    assert_near(*(product(kernel, arguments, direction) for kernel in (getattr(kernels, name), getattr(xla, name))))


def test_batch_norm_again_follows_its_moments():
    x, direction = draw(0, jnp.zeros((2, 5, 4, 3))), draw(1, jnp.zeros((2, 5, 4, 3)))

    def gradient(x):
        moments = xla.batch_norm(x)[1]
        return jax.grad(lambda x: loss(kernels.batch_norm_again(x, moments)))(x)

    assert_near(
        jax.jit(functools.partial(along, gradient))(x, direction),
        jax.jit(functools.partial(along, jax.grad(lambda x: loss(xla.batch_norm(x)[0]))))(x, direction),
    )


def test_batch_norm_over_a_mapped_axis_is_that_of_the_global_batch():
    x, direction = draw(0, jnp.zeros((4, 4, 3, 2))), draw(1, jnp.zeros((4, 4, 3, 2)))

    def product(norm, x, direction):
        return along(jax.grad(lambda x: jnp.sum(jnp.sin(norm(x)[0]))), x, direction)

    spread = jax.vmap(functools.partial(product, lambda x: kernels.batch_norm(x, "devices")), axis_name="devices")
    halves = (a.reshape(2, 2, *a.shape[1:]) for a in (x, direction))
    whole = jax.jit(functools.partial(product, xla.batch_norm))
    assert_near(jax.jit(spread)(*halves).reshape(x.shape), whole(x, direction))


# The supernet ---------------------------------------------------------------------------------------------------------

# A reduction: a loop over the edges of stride 2, and one over that of stride 1 which follows, as in a normal cell.
OPS = ("none", "skip_connect", "dil_conv_3x3", "max_pool_3x3")
SMALL = SearchSpace("small", OPS, nodes=4)
NET = Supernet(space=SMALL, channels=4, cells=1, num_classes=3)
NORMAL = {"normal": np.zeros((0, *SMALL.shape), np.float32)}  # op weights of no cell


def product(outer, inner):
    """A function and a direction for it: the derivative of the loss's gradient in `inner` as `outer` moves along it."""
    images = draw(1, jnp.zeros((4, 8, 8, 3)))
    variables = discrete.init_variables(NET, jax.random.key(0), images.shape)
    variables |= {"arch": {t: jnp.zeros(SMALL.shape) for t in NET.layers}}
    at = {"params": variables["params"], "weights": {"reduce": sparse_weights(NET)["reduce"]}, "images": images}

    def of(chosen, others):
        given = others | chosen
        params, weights = given["params"], NORMAL | given["weights"]
        of_net = variables | {"params": params}
        logits = NET.apply(of_net, given["images"], weights, train=True, mutable=["batch_stats"])[0]
        return -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(4), jnp.arange(4) % 3])

    def gradient(moved):
        given = at | moved
        return jax.grad(of)({name: given[name] for name in inner}, given)

    moved = {name: at[name] for name in outer}
    return jax.jit(functools.partial(along, gradient, moved)), {name: draw(2, a) for name, a in moved.items()}


@pytest.fixture(scope="module")
def expected():
    """The derivative of every gradient, of the supernet written out with the kernels above."""
    with pytest.MonkeyPatch.context() as patch, in_supernets():
        for name in NAMES:
            patch.setattr(kernels, name, getattr(xla, name))
        run, direction = product(("params", "weights"), ("params", "weights", "images"))
        still = jax.tree.map(np.zeros_like, direction)
        return {name: run(still | {name: direction[name]}) for name in direction}


@pytest.mark.parametrize(
    "outer, inner",
    (("params", ("weights", "images")), ("weights", ("params",)), ("weights", ("weights",))),
)
def test_supernet(expected, outer, inner):
    run, direction = product((outer,), inner)
    assert_near(run(direction), {name: expected[outer][name] for name in inner})
