"""The file of PyTorch code: its logits are ours, whatever the ops, the form and the images."""

import contextlib
import importlib.util
import re

import jax
import numpy as np
import pytest
from shared import ROOT, refused

import prdarts_jax as pdx
from prdarts_jax.data.augmentation import Augmentation
from prdarts_jax.evaluation import training
from prdarts_jax.nets import discrete, torch_module

torch = pytest.importorskip("torch", reason="PyTorch is missing: pip install torch")

OPS = (
    "none skip_connect avg_pool_3x3 max_pool_3x3 sep_conv_3x3 sep_conv_5x5 sep_conv_7x7 dil_conv_3x3 dil_conv_5x5 "
    "conv_7x1_1x7"
).split()
# Every op, of stride 1 and 2, and nodes that are left out.
ALL = pdx.Genotype(
    tuple((op, i % 2 if i < 8 else 4) for i, op in enumerate(OPS)),
    (3, 6),
    tuple((op, 1 - i % 2) for i, op in enumerate(OPS)),
    (2, 3, 4, 5, 6),
)
NAMES = ("cat", "it's a dog", "#3")


def random_variables(network, shape):
    """Kernels keep the size of the signal; biases and statistics are not those of the start."""
    variables, rng = discrete.init_variables(network, jax.random.key(0), shape), np.random.default_rng(0)

    def drawn(array):
        return np.float32(2.4 * array if array.ndim > 1 else array + rng.uniform(0, 0.5, array.shape))

    return jax.tree.map(drawn, variables)


def written(folder, network, variables, plain, shape):
    """The file, and the module that it is."""
    path = folder / "their_net.py"
    path.write_text(torch_module.source(network, shape[1:3], plain.mean, plain.std, NAMES))
    np.savez(path.with_suffix(".npz"), **torch_module.weights(network, variables, shape[-1]))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "form, shape, auxiliary",
    [("cifar", (3, 27, 30, 1), False), ("cifar", (3, 32, 32, 3), True), ("imagenet", (3, 50, 64, 3), False)],
)
def test_the_file_of_a_network_gives_its_logits(form, shape, auxiliary, tmp_path):
    compare(pdx.network(ALL, form=form, channels=4, cells=4, num_classes=3, auxiliary=auxiliary), shape, tmp_path)


def test_the_file_of_a_network_of_nas_bench_201_gives_its_logits(tmp_path):
    ops = ("nor_conv_3x3", "skip_connect", "nor_conv_1x1", "avg_pool_3x3", "none", "nor_conv_3x3")
    compare(pdx.network(pdx.EdgeGenotype(ops), channels=4, cells=2, num_classes=3), (3, 27, 30, 1), tmp_path)
    compare(
        pdx.network(pdx.EdgeGenotype(["none", "skip_connect", "none"]), cells=1, num_classes=3), (3, 8, 8, 3), tmp_path
    )


def compare(network, shape, tmp_path):
    variables = random_variables(network, shape)
    plain = Augmentation((0.3, 0.4, 0.5)[: shape[-1]], (0.2, 0.25, 0.3)[: shape[-1]])
    pixels = np.random.default_rng(2).integers(0, [[[[40]]], [[[256]]], [[[128]]]], shape, np.uint8)
    expected = jax.jit(training.classify, static_argnums=(0, 1))(network, plain, variables, pixels)

    module = written(tmp_path, network, variables, plain, shape)
    assert module.CLASSES == NAMES and (module.HEIGHT, module.WIDTH) == shape[1:3]
    with torch.no_grad():
        found = module.load()(torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy())).numpy()
    assert expected.std(axis=0).max() > 0.1
    assert np.abs(found - expected).max() < 1e-5 * max(1, np.abs(expected).max())


def test_pytorch_makes_onnx_of_the_file(tmp_path):
    """By the call of the documentation, for batches of any size."""
    onnxruntime = pytest.importorskip("onnxruntime", reason="ONNX is missing: pip install onnx onnxscript onnxruntime")
    pytest.importorskip("onnxscript", reason="ONNX is missing: pip install onnx onnxscript onnxruntime")
    shape = (3, 16, 16, 3)
    network = pdx.network(ALL, channels=2, cells=1, num_classes=len(NAMES))
    plain = Augmentation((0.3, 0.4, 0.5), (0.2, 0.25, 0.3))
    net = written(tmp_path, network, random_variables(network, shape), plain, shape).load()
    pixels = torch.randint(0, 256, (5, 3, 16, 16), dtype=torch.uint8)
    call = re.search(
        r"^torch\.onnx\.export\(network, .*\)$", (ROOT / "docs/how-to/pytorch.md").read_text(), re.MULTILINE
    )[0]
    assert all(call.strip() in path.read_text() for path in torch_module._TEMPLATES.values())
    with contextlib.chdir(tmp_path):
        exec(call, {"torch": torch, "network": net, "pixels": pixels[:2]})
    (found,) = onnxruntime.InferenceSession(tmp_path / "classifier.onnx").run(None, {"pixels": pixels.numpy()})
    assert np.abs(found - net(pixels).detach().numpy()).max() < 1e-5


def test_what_has_no_file_is_refused(own_registry):
    pdx.ops.register("mine", group="skip")(lambda channels, stride: None)
    own = pdx.network(pdx.Genotype([("mine", 0)] * 2, [2], [("none", 0)] * 2, [2]))
    with refused("op 'mine' is not among the ops of the file of PyTorch code"):
        torch_module.source(own, (32, 32), [0.5], [0.5], "ab")
    with refused("a Supernet has no file of PyTorch code, only a discrete network has"):
        torch_module.source(pdx.Supernet(), (32, 32), [0.5], [0.5], "ab")
