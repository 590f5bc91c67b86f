"""The discrete networks and `torch_weights` against PyTorch, op by op and as a whole; round trips; bad checkpoints."""

import builtins
import dataclasses
import functools
import pickle
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prdarts_jax import ops
from prdarts_jax.nets import discrete, torch_weights
from prdarts_jax.spaces import genotypes

pytestmark = pytest.mark.usefixtures("compiled_quickly")

torch = pytest.importorskip("torch", reason="PyTorch is missing: pip install 'prdarts_jax[torch]'")
reference = pytest.importorskip("torch_reference")

CHANNELS, CLASSES = 4, 5
# Compiles fast: stems, what brings a cell's inputs to its width, heads, and the op that PRDARTS lacks.
PLAIN = genotypes.Genotype(
    normal=(("skip_connect", 0), ("skip_connect", 1)),
    normal_concat=(2,),
    reduce=(("skip_connect", 0), ("conv_7x1_1x7", 1)),
    reduce_concat=(2,),
)

# These programs run once: compiling them well takes twice as long.
compiled = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def difference(found, expected):
    """The largest difference of two trees, each array's relative to its largest entry where that is above 1."""
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)
    differences = [np.abs(f - e).max() / max(1, np.abs(e).max()) for f, e in pairs if np.shape(f) == np.shape(e)]
    assert len(differences) == len(jax.tree.leaves(expected)), "shapes differ"
    return max(differences, default=0.0)


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def nchw(images):
    """[B, H, W, C] as the tensor that PyTorch takes."""
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(images, -1, 1)))


def nhwc(tensor):
    return np.moveaxis(tensor.detach().numpy(), 1, -1)


def copied(tensor):
    return tensor.detach().numpy().copy()


# Op by op -------------------------------------------------------------------------------------------------------------


def params_of(op, module, value):
    """A value of each of the module's parameters, such as its gradient, as our parameters.

    The layers come in the same order on both sides; a kernel's layout follows from its number of axes.
    """
    layouts = {
        2: lambda kernel: kernel[:, :, 0, 0].T,
        3: lambda kernel: kernel[:, 0].transpose(1, 2, 0),
        4: lambda kernel: kernel.transpose(2, 3, 1, 0),
    }
    if not op.shapes:
        return {}
    kernels = [copied(value(m.weight)) for m in module.modules() if isinstance(m, torch.nn.Conv2d)]
    shapes = zip(op.shapes.items(), kernels, strict=True)
    return {
        "conv": {name: layouts[len(shape)](kernel) for (name, shape), kernel in shapes},
        "norm": {
            name: {"scale": copied(value(m.weight)), "bias": copied(value(m.bias))}
            for name, m in norms_of(op, module).items()
        },
    }


def stats_of(op, module):
    norms = norms_of(op, module).items()
    stats = {name: {"mean": copied(m.running_mean), "var": copied(m.running_var)} for name, m in norms}
    return {"norm": stats} if stats else {}


def norms_of(op, module):
    return dict(zip(op.norms, (m for m in module.modules() if isinstance(m, torch.nn.BatchNorm2d)), strict=True))


def built(name, stride, inputs):
    """Our op and PyTorch's module."""
    if name != "preprocess":
        return ops.candidate(name, channels=CHANNELS, stride=stride), reference.make_op(name, CHANNELS, stride)
    if stride == 1:
        return ops.relu_conv_norm(inputs, CHANNELS), reference.resize(inputs, CHANNELS)
    return ops.factorized_reduce(inputs, CHANNELS), reference.Halve(inputs, CHANNELS)


NAMES = [name for name in ops.names() if ops.find(name).torch or ops.group(name) == "pool"]
OPS = (
    *((name, stride, (7, 6)) for name in NAMES for stride in (1, 2) if (name, stride) != ("skip_connect", 2)),
    # The authors' factorised reduction takes even images only.
    ("skip_connect", 2, (8, 6)),
    ("preprocess", 1, (7, 6)),
    ("preprocess", 2, (8, 6)),
)


@pytest.mark.parametrize("name, stride, size", OPS)
def test_ops_do_as_pytorchs(name, stride, size):
    inputs = 6 if name == "preprocess" else CHANNELS
    op, module = built(name, stride, inputs)
    x = normal(0, 3, *size, inputs)
    reference.randomize(module, nchw(x), seed=1)
    params, stats = params_of(op, module, lambda p: p), stats_of(op, module)
    layer = discrete.Layer(op, CHANNELS, None)
    cotangent = normal(2, 3, *(-(-s // stride) for s in size), CHANNELS)

    @compiled
    def run(params, stats, x, cotangent):
        def forward(train, params, x):
            return layer.apply({"params": params, "batch_stats": stats}, x, train=train, mutable=["batch_stats"])

        results = {}
        for train in (False, True):
            y, vjp, new = jax.vjp(functools.partial(forward, train), params, x, has_aux=True)
            results[train] = (y, *vjp(cotangent), new.get("batch_stats", {}))
        return results

    found = run(params, stats, x, cotangent)
    for train in (False, True):
        images = nchw(x).requires_grad_()
        module.zero_grad()
        y = module.train(train)(images)
        y.backward(nchw(cotangent))
        expected = (nhwc(y), params_of(op, module, lambda p: p.grad), nhwc(images.grad), stats_of(op, module))
        assert difference(found[train], expected) < 1e-4, f"train={train}"


# Whole networks -------------------------------------------------------------------------------------------------------


def size_of(form):
    return 32 if form == "cifar" else 224


@functools.cache
def pair(genotype, form, channels, cells, classes, batch):
    """PyTorch's network with random weights, its state_dict as it was and the images that it was calibrated with."""
    size = size_of(form)
    images = normal(3, batch, size, size, 3)
    module = reference.Network(genotype, form, channels, cells, classes, auxiliary=True)
    reference.randomize(module, nchw(images), seed=4)
    return module, {name: copied(tensor) for name, tensor in module.state_dict().items()}, images


def restored(genotype, form, channels, cells, classes, batch):
    module, state, images = pair(genotype, form, channels, cells, classes, batch)
    module.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in state.items()})
    return module, state, images


def compare_logits(genotype, form, channels, cells, classes, batch):
    """The largest differences of the logits in evaluation, those in training, the auxiliary ones and the statistics."""
    sizes = (genotype, form, channels, cells, classes)
    module, state, images = restored(*sizes, batch)
    net = discrete.network(genotype, form=form, channels=channels, cells=cells, num_classes=classes, auxiliary=True)
    variables = torch_weights.load(state, *sizes)

    evaluate = compiled(functools.partial(net.apply, train=False))
    train = compiled(functools.partial(net.apply, train=True, mutable=["batch_stats", "auxiliary"]))
    evaluated = evaluate(variables, images)
    trained, new = train(variables, images)
    updated = torch_weights.to_torch({"params": variables["params"], "batch_stats": new["batch_stats"]}, *sizes)

    with torch.no_grad():
        expected = module.eval()(nchw(images))[0].numpy()
        expected_trained, expected_auxiliary = (logits.numpy() for logits in module.train()(nchw(images)))
    for logits in (expected, expected_trained, expected_auxiliary):
        assert logits.std(axis=0).max() > 0.1  # what is compared depends on the image
    counters = {name for name in updated if name.endswith("num_batches_tracked")}
    statistics = {name: copied(tensor) for name, tensor in module.state_dict().items() if name not in counters}
    return {
        "evaluated": np.abs(evaluated - expected).max(),
        "trained": np.abs(trained - expected_trained).max(),
        "auxiliary": np.abs(new["auxiliary"]["logits"] - expected_auxiliary).max(),
        "statistics": difference({name: a for name, a in updated.items() if name not in counters}, statistics),
    }


@pytest.mark.parametrize("form, batch", (("cifar", 8), ("imagenet", 4)))
def test_small_networks_give_pytorchs_logits(form, batch):
    differences = compare_logits(genotypes.named("PRDARTS"), form, CHANNELS, 3, CLASSES, batch)
    assert max(differences.values()) < 1e-3, differences


@pytest.mark.slow
@pytest.mark.parametrize("form, channels, cells, classes", (("cifar", 36, 20, 100), ("imagenet", 48, 14, 1000)))
def test_published_networks_give_pytorchs_logits(form, channels, cells, classes):
    differences = compare_logits(genotypes.named("PRDARTS"), form, channels, cells, classes, batch=2)
    assert max(differences.values()) < 1e-3, differences


@pytest.mark.parametrize("form, batch", (("cifar", 8), ("imagenet", 4)))
@pytest.mark.parametrize("train", (False, True))
def test_stems_and_heads_have_pytorchs_gradients(form, batch, train):
    sizes = (PLAIN, form, CHANNELS, 4, CLASSES)
    module, state, images = restored(*sizes, batch)
    net = discrete.network(PLAIN, form=form, channels=CHANNELS, cells=4, num_classes=CLASSES, auxiliary=True)
    variables = torch_weights.load(state, *sizes)
    cotangents = normal(5, batch, CLASSES), normal(6, batch, CLASSES)

    @compiled
    def run(params, stats, images):
        def loss(params, images):
            logits, new = net.apply(
                {"params": params, "batch_stats": stats}, images, train=train, mutable=["batch_stats", "auxiliary"]
            )
            outputs = (logits, new["auxiliary"]["logits"]) if train else (logits,)
            return sum(jnp.sum(y * c) for y, c in zip(outputs, cotangents, strict=False)), outputs

        return jax.grad(loss, (0, 1), has_aux=True)(params, images)

    (gradients, images_gradient), outputs = run(variables["params"], variables["batch_stats"], images)

    inputs = nchw(images).requires_grad_()
    module.zero_grad()
    expected = [y for y in module.train(train)(inputs) if y is not None]
    sum((y * torch.from_numpy(c)).sum() for y, c in zip(expected, cotangents, strict=False)).backward()
    found = torch_weights.to_torch({"params": gradients, "batch_stats": variables["batch_stats"]}, *sizes)
    parameters = {name: p for name, p in module.named_parameters() if p.grad is not None}
    assert len(parameters) == sum(1 for name, _ in module.named_parameters() if train or "auxiliary" not in name)
    assert difference(list(outputs), [copied(y) for y in expected]) < 1e-4
    assert difference({n: found[n] for n in parameters}, {n: copied(p.grad) for n, p in parameters.items()}) < 1e-4
    assert difference(images_gradient, nhwc(inputs.grad)) < 1e-4


# Round trips ----------------------------------------------------------------------------------------------------------


def arguments(name="PRDARTS", form="cifar"):
    return genotypes.named(name), form, CHANNELS, 3, CLASSES


@functools.cache
def shapes_of(name, form, auxiliary):
    genotype, _, channels, cells, classes = arguments(name, form)
    net = discrete.network(
        genotype, form=form, channels=channels, cells=cells, num_classes=classes, auxiliary=auxiliary
    )
    images = jnp.zeros((1, size_of(form), size_of(form), 3))
    variables = jax.eval_shape(functools.partial(net.init, train=True), jax.random.key(0), images)
    return {collection: variables[collection] for collection in ("params", "batch_stats")}


def random_state(name="PRDARTS", form="cifar", auxiliary=True):
    """A state_dict of random arrays, and its counters."""
    module = reference.Network(*arguments(name, form), auxiliary=auxiliary)
    shapes = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    state = {name: normal(i, *shape) for i, (name, shape) in enumerate(shapes.items()) if "tracked" not in name}
    return state, [name for name in shapes if "tracked" in name]


ROUND_TRIPS = (
    ("PRDARTS", "cifar", True),
    ("PRDARTS", "imagenet", True),
    ("PCDARTS_IMAGENET", "imagenet", False),
    ("NASNet", "cifar", False),
    ("AmoebaNet", "cifar", True),
)


@pytest.mark.parametrize("name, form, auxiliary", ROUND_TRIPS)
def test_a_state_dict_comes_back_bit_for_bit(name, form, auxiliary):
    state, counters = random_state(name, form, auxiliary)
    variables = torch_weights.load(state, *arguments(name, form))
    shapes = shapes_of(name, form, auxiliary)
    assert jax.tree.structure(variables) == jax.tree.structure(shapes)
    assert jax.tree.map(lambda a: (a.shape, a.dtype), variables) == jax.tree.map(lambda a: (a.shape, a.dtype), shapes)

    back = torch_weights.to_torch(variables, *arguments(name, form))
    module = reference.Network(*arguments(name, form), auxiliary=auxiliary)
    assert list(back) == list(module.state_dict())
    assert {name: (a.dtype, a.tobytes()) for name, a in back.items()} == {
        **{name: (a.dtype, a.tobytes()) for name, a in state.items()},
        **{name: (np.int64, np.int64(0).tobytes()) for name in counters},
    }
    tensors = {name: torch.from_numpy(array) for name, array in back.items()}
    module.load_state_dict(tensors, strict=True)
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in module.state_dict().items())


@pytest.mark.parametrize("name, form, auxiliary", ROUND_TRIPS)
def test_variables_come_back_bit_for_bit(name, form, auxiliary):
    leaves, structure = jax.tree.flatten(shapes_of(name, form, auxiliary))
    variables = structure.unflatten([jnp.array(normal(i, *leaf.shape)) for i, leaf in enumerate(leaves)])
    state = torch_weights.to_torch({**variables, "auxiliary": {}}, *arguments(name, form))
    back = torch_weights.load(state, *arguments(name, form))
    assert jax.tree.structure(back) == structure
    assert all(
        a.tobytes() == b.tobytes() for a, b in zip(jax.tree.leaves(back), jax.tree.leaves(variables), strict=True)
    )


# Files ----------------------------------------------------------------------------------------------------------------


def same(a, b):
    return jax.tree.structure(a) == jax.tree.structure(b) and jax.tree.all(jax.tree.map(np.array_equal, a, b))


@pytest.mark.parametrize("key", ("net", "state_dict", None))
@pytest.mark.parametrize("prefix", ("module.", ""))
def test_files_may_nest_and_prefix_the_names(tmp_path, key, prefix):
    state, counters = random_state()
    tensors = {prefix + name: torch.from_numpy(array) for name, array in state.items()}
    tensors |= {prefix + name: torch.tensor(7) for name in counters}
    torch.save({key: tensors, "epoch": 600, "optimizer": {"lr": 0.1}} if key else tensors, tmp_path / "model.pt")
    found = torch_weights.load(tmp_path / "model.pt", *arguments())
    assert same(found, torch_weights.load(state, *arguments()))


def test_half_precision_and_parameters_are_read_too():
    state, _ = random_state()
    halves = {name: torch.nn.Parameter(torch.from_numpy(array).bfloat16()) for name, array in state.items()}
    found = torch_weights.load(halves, *arguments())
    expected = torch_weights.load({name: copied(p.float()) for name, p in halves.items()}, *arguments())
    assert same(found, expected)


class Harmful:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return builtins.open, (str(self.path), "w")


def test_a_file_that_would_run_code_is_refused(tmp_path):
    harmed = tmp_path / "harmed"
    torch.save({"net": Harmful(harmed)}, tmp_path / "saved.pt")
    (tmp_path / "pickled.pt").write_bytes(pickle.dumps(Harmful(harmed), protocol=2))
    for name in ("saved.pt", "pickled.pt"):
        with pytest.raises(
            ValueError, match=rf"checkpoint .*{name} is no file of PyTorch, or holds objects other than"
        ):
            torch_weights.load(tmp_path / name, *arguments())
    assert not harmed.exists()


def test_files_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"checkpoint .*none\.pt does not exist or is not a file"):
        torch_weights.load(tmp_path / "none.pt", *arguments())
    torch.save({"a": torch.zeros(1000)}, tmp_path / "whole.pt")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "whole.pt").read_bytes()[:2000])
    with pytest.raises(ValueError, match=r"checkpoint .*cut\.pt cannot be read as a file of PyTorch \(\w+\)"):
        torch_weights.load(tmp_path / "cut.pt", *arguments())
    (tmp_path / "empty.pt").write_bytes(b"")
    with pytest.raises(ValueError, match=r"checkpoint .*empty\.pt "):
        torch_weights.load(tmp_path / "empty.pt", *arguments())
    for content in (torch.zeros(3), {"net": [torch.zeros(3)]}):
        torch.save(content, tmp_path / "other.pt")
        with pytest.raises(ValueError, match=r"other\.pt must hold a mapping of names to arrays, itself or under"):
            torch_weights.load(tmp_path / "other.pt", *arguments())


def test_without_pytorch_a_file_is_not_read_but_a_mapping_is(tmp_path, monkeypatch):
    state, _ = random_state()
    torch.save(state, tmp_path / "model.pt")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match=r"PyTorch, which is missing: pip install 'prdarts_jax\[torch\]'"):
        torch_weights.load(tmp_path / "model.pt", *arguments())
    variables = torch_weights.load(state, *arguments())
    assert set(state) < set(torch_weights.to_torch(variables, *arguments()))


# Bad content ----------------------------------------------------------------------------------------------------------


def test_all_differences_are_listed():
    state, _ = random_state()
    del state["cells.0.preprocess1.op.1.weight"]
    state["cells.3.extra"] = np.zeros(3, np.float32)
    state["classifier.bias"] = np.zeros(7, np.float32)
    state["stem.1.bias"] = np.zeros(12, np.int32)
    with pytest.raises(ValueError) as raised:
        torch_weights.load(state, *arguments())
    assert str(raised.value) == (
        "state_dict does not fit this network: 1 missing: cells.0.preprocess1.op.1.weight; 1 left over: cells.3.extra; "
        "1 no floating-point array: stem.1.bias; 1 of another shape: classifier.bias (7,) instead of (5,)"
    )


def test_long_lists_are_cut():
    state, _ = random_state()
    _, form, channels, _, classes = arguments()
    with pytest.raises(
        ValueError, match=r" 88 left over: (cells\.\S+, ){9}cells\.\S+ and 78 more; 111 of another shape"
    ):
        torch_weights.load(state, genotypes.named("PRDARTS"), form, channels, 2, classes)


def test_variables_that_do_not_fit_are_listed():
    variables = torch_weights.load(random_state()[0], *arguments())
    variables["params"]["classifier"] = {"kernel": jnp.zeros((3, 2)), "other": jnp.zeros(1)}
    with pytest.raises(ValueError) as raised:
        torch_weights.to_torch(variables, *arguments())
    assert str(raised.value) == (
        "variables do not fit this network: 1 missing: params.classifier.bias; 1 left over: params.classifier.other; "
        "1 of another shape: params.classifier.kernel (3, 2) instead of (64, 5)"
    )


def test_an_op_without_names_in_pytorch_is_named(monkeypatch):
    monkeypatch.setattr(genotypes, "OPS", ops.names(), raising=False)
    nor_conv = dataclasses.replace(PLAIN, normal=(("nor_conv_3x3", 0), ("none", 1)))
    with pytest.raises(ValueError, match="op 'nor_conv_3x3' has weights at stride 1 whose names in PyTorch are not"):
        torch_weights.load({}, nor_conv, *arguments()[1:])


@pytest.mark.parametrize(
    "position, value, message",
    (
        (0, "PRDARTS", "genotype='PRDARTS' must be a Genotype"),
        (1, "svhn", "form='svhn' must be one of cifar, imagenet"),
        (2, 3, "channels=3 must be an even integer of at least 2"),
        (2, 4.0, "channels=4.0 must be an even integer"),
        (3, 0, "cells=0 must be an integer of at least 1"),
        (4, True, "num_classes=True must be an integer of at least 1"),
    ),
)
def test_impossible_arguments_are_named(position, value, message):
    changed = [*arguments()]
    changed[position] = value
    with pytest.raises(ValueError, match=message):
        torch_weights.load({}, *changed)
    with pytest.raises(ValueError, match=message):
        torch_weights.to_torch({}, *changed)
