"""Forward mode through gradients: Hessian-vector products against those of XLA's own convolutions and windows."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from plain_executor import in_supernets

from prdarts_jax.nets.supernet import Supernet
from prdarts_jax.ops import kernels
from prdarts_jax.spaces import SearchSpace

pytestmark = pytest.mark.usefixtures("compiled_quickly")


def draw(seed, tree):
    """N(0, 1) in the shapes of a tree."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda a: jnp.array(rng.normal(size=a.shape), jnp.float32), tree)


def along(function, at, direction):
    """The derivative of a function of one argument, for a gradient a Hessian-vector product."""
    return jax.jvp(function, (at,), (direction,))[1]


def assert_near(found, expected):
    """Every array is within 1e-4 of the largest entry expected in it, and that is not 0."""
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for f, e in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert np.abs(e).max() > 0
        np.testing.assert_allclose(f, e, rtol=0, atol=1e-4 * np.abs(e).max())


# The kernels with XLA's own derivatives -------------------------------------------------------------------------------


def conv(x, kernel, strides, dilation=1, groups=1):
    return lax.conv_general_dilated(
        x,
        kernel,
        strides,
        [(dilation * (size // 2),) * 2 for size in kernel.shape[:2]],
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def depthwise_conv(x, kernel, stride, dilation):
    return conv(x, kernel[:, :, None], (stride, stride), dilation, groups=x.shape[-1])


def window(x, stride, init, combine):
    pads = ((0, 0), (1, 1), (1, 1), (0, 0))
    return lax.reduce_window(x, init, combine, (1, 3, 3, 1), (1, stride, stride, 1), pads)


def max_pool(x, stride):
    return window(x, stride, -jnp.inf, lax.max)


def avg_pool(x, stride):
    return window(x, stride, 0.0, lax.add) / window(jnp.ones_like(x), stride, 0.0, lax.add)


def batch_norm(x, axis_name):
    axes, count = (0, 1, 2), x.size // x.shape[-1]
    moments = {"mean": x.mean(axes), "var": x.var(axes) * count / (count - 1)}
    return (x - x.mean(axes)) / jnp.sqrt(x.var(axes) + 1e-5), moments


KERNELS = {"conv": conv, "depthwise_conv": depthwise_conv, "max_pool": max_pool, "avg_pool": avg_pool}
KERNELS["batch_norm"] = batch_norm


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
    assert_near(*(product(kernel, arguments, direction) for kernel in (getattr(kernels, name), KERNELS[name])))


def test_batch_norm_again_follows_its_moments():
    x, direction = draw(0, jnp.zeros((2, 5, 4, 3))), draw(1, jnp.zeros((2, 5, 4, 3)))

    def gradient(x):
        moments = batch_norm(x, None)[1]
        return jax.grad(lambda x: loss(kernels.batch_norm_again(x, moments)))(x)

    assert_near(
        jax.jit(functools.partial(along, gradient))(x, direction),
        jax.jit(functools.partial(along, jax.grad(lambda x: loss(batch_norm(x, None)[0]))))(x, direction),
    )


def test_batch_norm_over_a_mapped_axis_is_that_of_the_global_batch():
    x, direction = draw(0, jnp.zeros((4, 4, 3, 2))), draw(1, jnp.zeros((4, 4, 3, 2)))

    def product(norm, x, direction):
        return along(jax.grad(lambda x: jnp.sum(jnp.sin(norm(x)[0]))), x, direction)

    spread = jax.vmap(functools.partial(product, lambda x: kernels.batch_norm(x, "devices")), axis_name="devices")
    halves = (a.reshape(2, 2, *a.shape[1:]) for a in (x, direction))
    whole = jax.jit(functools.partial(product, lambda x: batch_norm(x, None)))
    assert_near(jax.jit(spread)(*halves).reshape(x.shape), whole(x, direction))


# The supernet ---------------------------------------------------------------------------------------------------------

SMALL = SearchSpace("small", ("none", "skip_connect", "sep_conv_3x3", "max_pool_3x3"), nodes=3)
NET = Supernet(space=SMALL, channels=4, cells=3, num_classes=3)  # a normal cell and two reductions


def product(outer, inner):
    """A function and a direction for it: the derivative of the loss's gradient in `inner` as `outer` moves along it."""
    images = draw(1, jnp.zeros((4, 8, 8, 3)))
    variables = jax.jit(functools.partial(NET.init, train=True))(jax.random.key(0), images)
    rng = np.random.default_rng(0)
    weights = {t: rng.random(SMALL.shape, np.float32) for t in ("normal", "reduce")}
    weights = {t: np.where(np.arange(w.size).reshape(w.shape) % 5 == 2, np.float32(0), w) for t, w in weights.items()}
    weights = {t: np.repeat(w[None], NET.layers[t], axis=0) for t, w in weights.items()}
    at = {"params": variables["params"], "weights": weights, "images": images}

    def of(chosen, others):
        given = others | chosen
        x, params = given["images"], given["params"]
        logits = NET.apply(variables | {"params": params}, x, given["weights"], train=True, mutable=["batch_stats"])[0]
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
        for name, kernel in KERNELS.items():
            patch.setattr(kernels, name, kernel)
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
