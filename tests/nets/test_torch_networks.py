"""The discrete networks with weights of `torch_weights` against PyTorch, op by op and as a whole."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prdarts_jax import ops
from prdarts_jax.nets import discrete, torch_weights
from prdarts_jax.spaces import genotypes

torch = pytest.importorskip("torch", reason="PyTorch is missing: pip install torch")
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


NAMES = (
    "skip_connect avg_pool_3x3 max_pool_3x3 sep_conv_3x3 sep_conv_5x5 sep_conv_7x7 dil_conv_3x3 dil_conv_5x5 "
    "conv_7x1_1x7"
).split()
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
    x = reference.normal(0, 3, *size, inputs)
    reference.randomize(module, nchw(x), seed=1)
    params, stats = params_of(op, module, lambda p: p), stats_of(op, module)
    layer = discrete.Layer(op, CHANNELS, None)
    cotangent = reference.normal(2, 3, *(-(-s // stride) for s in size), CHANNELS)

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


@functools.cache
def pair(genotype, form, channels, cells, classes, batch):
    """PyTorch's network with random weights, its state_dict as it was and the images that it was calibrated with."""
    size = reference.size_of(form)
    images = reference.normal(3, batch, size, size, 3)
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
    variables = torch_weights.load(state, net)

    evaluate = compiled(functools.partial(net.apply, train=False))
    train = compiled(functools.partial(net.apply, train=True, mutable=["batch_stats", "auxiliary"]))
    evaluated = evaluate(variables, images)
    trained, new = train(variables, images)
    updated = torch_weights.to_torch({"params": variables["params"], "batch_stats": new["batch_stats"]}, net)

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
    variables = torch_weights.load(state, net)
    cotangents = reference.normal(5, batch, CLASSES), reference.normal(6, batch, CLASSES)

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
    found = torch_weights.to_torch({"params": gradients, "batch_stats": variables["batch_stats"]}, net)
    parameters = {name: p for name, p in module.named_parameters() if p.grad is not None}
    assert len(parameters) == sum(1 for name, _ in module.named_parameters() if train or "auxiliary" not in name)
    assert difference(list(outputs), [copied(y) for y in expected]) < 1e-4
    assert difference({n: found[n] for n in parameters}, {n: copied(p.grad) for n, p in parameters.items()}) < 1e-4
    assert difference(images_gradient, nhwc(inputs.grad)) < 1e-4
