"""The registry: the ops that it has, an op of a user's own in a supernet, what is refused."""

import runpy

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from shared import OPS_ALLOWED, refused

from prdarts_jax import ops
from prdarts_jax.nets.supernet import Supernet
from prdarts_jax.ops import kernels
from prdarts_jax.spaces import SearchSpace

pytestmark = pytest.mark.usefixtures("own_registry")

GROUPS = {
    "none": "none",
    "skip_connect": "skip",
    "noise": "noise",
    "avg_pool_3x3": "pool",
    "max_pool_3x3": "pool",
    **dict.fromkeys(("sep_conv_3x3", "sep_conv_5x5", "sep_conv_7x7", "dil_conv_3x3", "dil_conv_5x5"), "conv"),
    **dict.fromkeys(("conv_7x1_1x7", "nor_conv_1x1", "nor_conv_3x3"), "conv"),
}


def half_conv(channels, stride):
    def apply(params, stats, x, norm):
        y, moments = norm(kernels.conv(x / 2, params["kernel"], (stride, stride)), ops.running(stats, "norm"))
        return y, {"norm": moments}

    return ops.Op(apply, {"kernel": (1, 1, channels, channels)}, ("norm",))


def test_every_op_has_its_group():
    assert {name: ops.group(name) for name in GROUPS} == GROUPS


@pytest.mark.parametrize("stride", (1, 2))
def test_the_layers_in_pytorch_are_kernels_and_normalisations_of_the_op(stride):
    for name in ops.names():
        if layers := [ours for _, ours in ops.find(name).torch.get(stride, ())]:
            op = ops.candidate(name, channels=4, stride=stride)
            assert sorted(layers) == sorted([*op.shapes, *op.norms]), name
    assert ops.find("sep_conv_3x3").torch


@pytest.mark.parametrize("stride", (1, 2))
def test_none_gives_zeros(stride):
    x = jnp.ones((2, 5, 4, 3), jnp.bfloat16)
    y, moments = ops.candidate("none", channels=3, stride=stride).apply({}, None, x, None)
    assert y.shape == (2, *(-(-size // stride) for size in (5, 4)), 3) and y.dtype == x.dtype and moments == {}
    assert not np.asarray(y, np.float32).any()


def test_an_op_of_a_users_own_stands_on_the_edges_of_a_supernet():
    ops.register("half_conv", group="conv")(half_conv)
    assert ops.group("half_conv") == "conv" and ops.names()[-1] == "half_conv"
    space = SearchSpace("own", ("none", "half_conv"), nodes=3)
    net = Supernet(space=space, channels=4, cells=1, num_classes=3)  # its cell is a reduction: stride 2
    images = jnp.array(np.random.default_rng(0).normal(size=(4, 8, 8, 3)), jnp.float32)

    @jax.jit
    def run(key):
        variables = net.init(key, images, train=True)

        def loss(params, share):
            shapes = {t: (layers, *space.shape) for t, layers in net.layers.items()}
            weights = {t: jnp.broadcast_to(jnp.stack([1 - share, share]), shape) for t, shape in shapes.items()}
            logits = net.apply(variables | {"params": params}, images, weights, train=True, mutable=["batch_stats"])[0]
            return jnp.sum(logits**2)

        return variables["params"], jax.grad(loss, (0, 1))(variables["params"], jnp.float32(0.5))

    params, (slopes, slope) = run(jax.random.key(0))
    kernel = params["cell_0"]["stage_0"]["half_conv"]["kernel"]
    assert kernel.shape == (2, 1, 1, 8, 8)  # of the edges that leave the inputs
    assert np.abs(slopes["cell_0"]["stage_0"]["half_conv"]["kernel"]).max() > 0 and slope != 0


def test_a_pool_that_normalises_itself_is_not_normalised_again():
    def pool(channels, stride):
        return ops.Op(
            lambda params, stats, x, norm: (x, {"own": norm(x, ops.running(stats, "own"))[1]}), norms=("own",)
        )

    ops.register("own_pool", group="pool")(pool)
    assert ops.candidate("own_pool", channels=4, stride=1, pool_norm=True).norms == ("own",)
    assert ops.candidate("max_pool_3x3", channels=4, stride=1, pool_norm=True).norms == ("norm",)


@pytest.mark.parametrize(
    "name, like",
    (
        ("other", ""),
        (None, ""),
        (["none"], ""),
        ("Skip_conect", "; did you mean 'skip_connect' or 'skip_connect_with_skip'?"),
    ),
)
def test_an_unknown_op_is_refused(name, like):
    with refused(f"op {name!r} is not registered; allowed are {OPS_ALLOWED}{like}"):
        ops.candidate(name, channels=4, stride=1)


@pytest.mark.parametrize(
    "name, group, message",
    (
        ("none", "conv", "name='none' is the name of a registered op; a new op must have another one"),
        (
            "conv/own",
            "conv",
            "name='conv/own' of an op must consist of letters, digits and underscores, and not begin with a digit",
        ),
        ("own", "convs", "group='convs' of the op 'own' must be one of none, skip, noise, pool, conv"),
    ),
)
def test_what_cannot_be_registered_is_named(name, group, message):
    before = ops.names()
    with refused(message):
        ops.register(name, group=group)(lambda channels, stride: None)
    assert ops.names() == before


FILE = """
from prdarts_jax import ops


@ops.register("twice", group="skip")
def twice(channels, stride):
    return ops.Op(lambda params, stats, x, norm: ({} * x[:, ::stride, ::stride], {{}}))
"""


def test_a_file_that_registers_an_op_may_be_read_again_but_not_with_another_op(own_registry, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(FILE.format(2))
    first = runpy.run_path(str(path))["twice"]
    assert runpy.run_path(str(path))["twice"] is not first
    assert ops.find("twice").build is first
    path.write_text(FILE.format(3))
    with refused("name='twice' is the name of a registered op; a new op must have another one"):
        runpy.run_path(str(path))


@pytest.mark.parametrize("name, new", [("FACTOR", 3.5), ("PARTS", "mean"), ("AXES", (0, 1))])
def test_a_file_is_not_read_again_with_other_constants(name, new, own_registry, tmp_path):
    path, constants = tmp_path / "mine.py", {"FACTOR": 2, "PARTS": "sum", "AXES": (1, 2)}
    text = FILE.format("FACTOR * getattr(x, PARTS)(AXES)")

    def write(**constants):
        path.write_text("; ".join(f"{name} = {value!r}" for name, value in constants.items()) + text)

    write(**constants)
    first = runpy.run_path(str(path))["twice"]
    write(**constants, Op=3)  # which it does not read: `ops.Op` is another one
    assert runpy.run_path(str(path))["twice"] is not first
    write(**constants | {name: new})
    with refused("name='twice' is the name of a registered op; a new op must have another one"):
        runpy.run_path(str(path))


CELL = """
from prdarts_jax import ops


def register(name, function, by={by}):
    def build(channels, stride):
        return ops.Op(lambda params, stats, x, norm: (by * function(x), {{}}))

    ops.register(name, group="conv")(build)


register("own", lambda x: x + {plus})
"""


def test_a_cell_of_a_notebook_may_register_a_closure_again_but_not_with_other_values():
    def run(by, plus):
        exec(compile(CELL.format(by=by, plus=plus), "cell", "exec"), {})
        return ops.find("own").build

    first = run(2.5, 1)
    assert run(2.5, 1) is first
    for by, plus in ((3.5, 1), (2.5, 2)):
        with refused("name='own' is the name of a registered op; a new op must have another one"):
            run(by, plus)


@pytest.mark.parametrize("change", [{"scale": 3}, {}])
def test_keyword_defaults_and_functions_that_refer_to_themselves_are_compared(change):
    def run(scale=2):
        @ops.register("own", group="conv")
        def build(channels, stride, *, scale=scale):
            return ops.Op(lambda params, stats, x, norm: (scale * x, {"build": build} and {}))

        return build

    run()
    with refused("name='own' is the name of a registered op; a new op must have another one"):
        run(**change)
