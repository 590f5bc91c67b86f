"""An op that does not do what `Op` says is refused by its name, in supernets and in discrete networks."""

import jax
import jax.numpy as jnp
import pytest
from shared import refused
from trees import assert_close

from prdarts_jax import ops
from prdarts_jax.nets.discrete_201 import DiscreteNetwork201
from prdarts_jax.nets.nas_bench_201 import Supernet201
from prdarts_jax.ops.op import normalizing
from prdarts_jax.spaces import SearchSpace
from prdarts_jax.spaces.genotypes import EdgeGenotype

pytestmark = pytest.mark.usefixtures("own_registry")

OF = "op 'own' with channels=4, stride=2: "
MOMENTS = "moments must map each of norms={} to what norm returned for it, but do not for {!r}"
Y = "y has the shape {} and dtype {}, but must have the shape (2, 3, 2, 4) and the dtype of x, float32"


def twice(names, keys=("a", "b"), norms=("a", "b")):
    """Two normalisations, for which `norm` is called with `names`, and whose moments are returned under `keys`."""

    def apply(params, stats, x, norm):
        y, first = norm(x[:, ::2, ::2] * 2, ops.running(stats, names[0]))
        y, second = norm(y**2, ops.running(stats, names[1]))
        return y, dict(zip(keys, (first, second), strict=False))

    return ops.Op(apply, norms=norms)


def wide(channels):
    def apply(params, stats, x, norm):
        y, moments = norm(x[:, ::2, ::2] @ params["into"], ops.running(stats, "norm"))
        return y @ params["out"], {"norm": moments}

    return ops.Op(apply, {"into": (4, channels), "out": (channels, 4)}, ("norm",))


def simple(function):
    return ops.Op(lambda params, stats, x, norm: function(params, x[:, ::2, ::2]))


WRONG = {
    "other_keys": (twice("ab", "zb"), MOMENTS.format(("a", "b"), "a")),
    "no_keys": (twice("ab", ""), MOMENTS.format(("a", "b"), "a")),
    "further_keys": (simple(lambda params, x: (x, {"a": x})), MOMENTS.format((), "a")),
    "exchanged": (twice("ab", "ba"), MOMENTS.format(("a", "b"), "a")),
    "one_name": (twice("aa"), "norm is called twice for 'a', but each normalisation must have a name of its own"),
    "not_in_norms": (twice("ac"), "normalisation 'c' must be one of the op's norms=('a', 'b')"),
    "not_called": (
        twice("ab", norms=("a", "b", "c")),
        "norm is not called for 'c', which is one of norms=('a', 'b', 'c')",
    ),
    "without_statistics": (
        ops.Op(lambda params, stats, x, norm: (x, {"a": norm(x, None)[1]}), norms=("a",)),
        "norm must be called with running(stats, name), not with None",
    ),
    "wide": (wide(8), "the normalisation 'norm' has 8 channels, but must have 4"),
    "narrow": (wide(2), "the normalisation 'norm' has 2 channels, but must have 4"),
    "no_stride": (ops.Op(lambda params, stats, x, norm: (x, {})), Y.format((2, 5, 4, 4), "float32")),
    "other_dtype": (simple(lambda params, x: (x > 0, {})), Y.format((2, 3, 2, 4), "bool")),
    "other_width": (simple(lambda params, x: (x[..., :3], {})), Y.format((2, 3, 2, 3), "float32")),
    "nothing": (simple(lambda *_: None), "apply must return (y, moments), where moments is a dict, not None"),
    "no_dict": (simple(lambda *_: (1, 2)), "apply must return (y, moments), where moments is a dict, not (1, 2)"),
    "own_fault": (simple(lambda params, x: (params["w"], {})), "KeyError: 'w'"),
}


@pytest.mark.parametrize("op, message", WRONG.values(), ids=WRONG)
def test_what_an_op_may_not_do_is_named(op, message):
    ops.register("own", group="conv")(lambda channels, stride: op)
    norm = ops.batch_normalizer(train=True, axis_name=None)
    with refused(OF + message):
        own = ops.candidate("own", channels=4, stride=2, affine=True)
        params = {name: jnp.ones(shape) for name, shape in own.shapes.items()}
        own.apply(params, None, jnp.ones((2, 5, 4, 4)), norm)


@pytest.mark.parametrize("wrap", [jax.checkpoint, jax.jit])
def test_norm_may_be_called_within_a_transformation(wrap):
    def apply(params, stats, x, norm):
        return wrap(lambda x: norm(x, ops.running(stats, "norm")))(x)

    def own(params, stats, x, norm):
        y, moments = apply(params, stats, x, norm)
        return y, {"norm": dict(moments)}

    ops.register("own", group="conv")(lambda channels, stride: ops.Op(own, norms=("norm",)))
    x, norm = jax.random.normal(jax.random.key(0), (2, 3, 3, 4)), ops.batch_normalizer(train=True, axis_name=None)
    y, moments = ops.candidate("own", channels=4, stride=1).apply({}, None, x, norm)
    expected, of_norm = norm(x, None)
    assert_close((y, moments["norm"]), (expected, of_norm), rtol=1e-5, atol=1e-6)


def test_sides_may_be_symbolic():
    ops.register("own", group="conv")(lambda channels, stride: simple(lambda params, x: (x, {})))
    of_batch = jax.ShapeDtypeStruct(jax.export.symbolic_shape("2, h, w, 4"), jnp.float32)
    y, _ = jax.eval_shape(lambda x: ops.candidate("own", channels=4, stride=2).apply({}, None, x, None), of_batch)
    assert y.shape[0] == 2 and y.shape[3] == 4


def test_y_alone_is_refused():
    ops.register("own", group="conv")(lambda channels, stride: simple(lambda params, x: x[:2]))
    with pytest.raises(
        ValueError, match=r"op 'own' .*: apply must return \(y, moments\), where moments is a dict, not"
    ):
        ops.candidate("own", channels=4, stride=2).apply({}, None, jnp.ones((2, 5, 4, 4)), None)


@pytest.mark.parametrize(
    "build, message",
    (
        (lambda channels, stride: None, "the registered function must return an Op, not None"),
        (lambda channels, stride: channels / 0, "ZeroDivisionError: division by zero"),
    ),
)
def test_a_function_that_builds_no_op_is_named(build, message):
    ops.register("own", group="conv")(build)
    with refused(OF + message):
        ops.candidate("own", channels=8, stride=2, partial=2)


def initialised(net):
    """The shapes of what a call of a network gives, and of its variables."""
    return jax.eval_shape(lambda key: net.init_with_output(key, jnp.ones((2, 8, 8, 3)), train=True), jax.random.key(0))


def space():
    return SearchSpace("own", ("none", "own"), 3, inputs=1, cell_types=("normal",), entries_per_node=0)


@pytest.mark.parametrize("kind", ("supernet", "discrete"))
def test_networks_check_their_ops(kind):
    ops.register("own", group="conv")(lambda channels, stride: twice("aa"))
    net = {
        "supernet": lambda: Supernet201(space(), channels=4, cells=1),
        "discrete": lambda: DiscreteNetwork201(EdgeGenotype(["own"]), channels=4, cells=1),
    }[kind]()
    with refused(OF.replace("stride=2", "stride=1") + WRONG["one_name"][1]):
        initialised(net)


def matrix(channels, stride):
    return normalizing(lambda params, x: x @ params["kernel"], {"kernel": (channels, channels)})


@pytest.mark.parametrize("dtype", (jnp.float32, jnp.bfloat16))
def test_an_op_that_multiplies_by_float32_normalises_in_the_dtype_of_x(dtype):
    ops.register("own", group="conv")(matrix)
    y, _ = matrix(4, 1).apply(
        {"kernel": jnp.ones((4, 4))},
        None,
        jnp.ones((2, 5, 4, 4), dtype),
        ops.batch_normalizer(train=True, axis_name=None),
    )
    assert y.dtype == dtype
    logits, _ = initialised(Supernet201(space(), channels=4, cells=1, dtype=dtype))
    assert logits.shape == (2, 10)
