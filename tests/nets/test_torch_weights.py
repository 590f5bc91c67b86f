"""Checkpoints of PyTorch: round trips, what files may hold, and bad ones."""

import argparse
import builtins
import io
import pickle
import sys
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from shared import refused
from test_torch_names import CHANNELS, CLASSES, ROUND_TRIPS, network_of, shapes_of
from trees import assert_identical

from prdarts_jax.nets import torch_weights
from prdarts_jax.spaces import genotypes

torch = pytest.importorskip("torch", reason="PyTorch is missing: pip install torch")
reference = pytest.importorskip("torch_reference")


def random_state(name="PRDARTS", form="cifar", auxiliary=True):
    """A state_dict of random arrays, and its counters."""
    module = reference.Network(genotypes.named(name), form, CHANNELS, 3, CLASSES, auxiliary=auxiliary)
    shapes = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    state = {
        name: reference.normal(i, *shape) for i, (name, shape) in enumerate(shapes.items()) if "tracked" not in name
    }
    state |= {name: np.abs(array) for name, array in state.items() if name.endswith("running_var")}
    return state, [name for name in shapes if "tracked" in name]


@pytest.mark.parametrize("name, form, auxiliary", ROUND_TRIPS)
def test_a_state_dict_comes_back_bit_for_bit(name, form, auxiliary):
    state, counters = random_state(name, form, auxiliary)
    variables = torch_weights.load(state, network_of(name, form, auxiliary))
    shapes = shapes_of(name, form, auxiliary)
    assert jax.tree.structure(variables) == jax.tree.structure(shapes)
    assert jax.tree.map(lambda a: (a.shape, a.dtype), variables) == jax.tree.map(lambda a: (a.shape, a.dtype), shapes)

    back = torch_weights.to_torch(variables, network_of(name, form, auxiliary))
    module = reference.Network(genotypes.named(name), form, CHANNELS, 3, CLASSES, auxiliary=auxiliary)
    assert list(back) == list(module.state_dict())
    assert {name: (a.dtype, a.tobytes()) for name, a in back.items()} == {
        **{name: (a.dtype, a.tobytes()) for name, a in state.items()},
        **{name: (np.int64, np.int64(0).tobytes()) for name in counters},
    }
    tensors = {name: torch.from_numpy(array) for name, array in back.items()}
    module.load_state_dict(tensors, strict=True)
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in module.state_dict().items())


def test_the_names_of_fair_darts_are_read_too():
    state, _ = random_state("FAIRDARTS_A")
    # (node, input) of the entries that are not `none`, as the authors' triples have them.
    edges = ({0: "2.0", 1: "2.1", 4: "4.0", 6: "5.0"}, dict(enumerate("2.0 2.1 3.0 3.1 4.0 4.1 5.0 5.1".split())))
    theirs = {}
    for name, array in state.items():
        match name.split("."):
            case ["cells", k, "_ops", i, *rest]:
                name = ".".join(["cells", k, "_ops", edges[k != "0"][int(i)], "0", *rest])
        theirs[name] = array
    assert "cells.0._ops.5.0.0.op.1.weight" in theirs
    found = torch_weights.load(theirs, network_of("FAIRDARTS_A"))
    assert_identical(found, torch_weights.load(state, network_of("FAIRDARTS_A")))


# Files ----------------------------------------------------------------------------------------------------------------


# As the codes of the field save them beside the weights.
BESIDE = {
    "epoch": 600,
    "optimizer": {"lr": 0.1, "state": [torch.ones(2)]},
    "best_acc_top1": np.float64(97.1),
    "step": np.int64(3),
    "arch": "PRDARTS",
    "args": argparse.Namespace(lr=0.1, layers=np.int32(20)),
}


@pytest.mark.parametrize("key", ("net", "state_dict", "model_state_dict", "model", "base-model", None))
@pytest.mark.parametrize("prefix", ("module.", "_orig_mod.module.", "module._orig_mod.", ""))
def test_files_may_nest_and_prefix_the_names(tmp_path, key, prefix):
    state, counters = random_state()
    tensors = {prefix + name: torch.from_numpy(array) for name, array in state.items()}
    tensors |= {prefix + name: torch.tensor(7) for name in counters}
    beside = BESIDE | {other: "a name" for other in ("model", "net") if other != key}
    torch.save({**beside, key: tensors} if key else tensors, tmp_path / "model.pt")
    found = torch_weights.load(tmp_path / "model.pt", network_of())
    assert_identical(found, torch_weights.load(state, network_of()))


def test_a_prefix_that_only_some_names_have_is_part_of_them():
    state, _ = random_state()
    state["module.stem.1.bias"] = state.pop("stem.1.bias")
    with refused("state_dict does not fit this network: 1 missing: stem.1.bias; 1 left over: module.stem.1.bias"):
        torch_weights.load(state, network_of())


def test_weights_in_two_places_are_refused():
    state, _ = random_state()
    with refused("state_dict has weights under 'net' and 'model': save only those that you mean"):
        torch_weights.load({"model": state, "net": state}, network_of())


SUPERNETS = (
    "cells.0._ops.0._ops.4.op.1.weight",
    "cells.12._ops.3._ops.conv.weight",
    "cells.0.dag.0.1._ops.2.net.1.weight",
    "cells.3.edges.2<-0.1.op.1.weight",
    "alphas_normal",
    "alpha_reduce.0",
    "_arch_parameters.0",
    "arch_parameters",
    "log_alphas",
)


@pytest.mark.parametrize("name", SUPERNETS)
def test_a_supernet_is_called_one(name, tmp_path):
    torch.save(
        {"state_dict": {"module.stem.1.bias": torch.ones(12), f"module.{name}": torch.ones(2)}}, tmp_path / "a.pt"
    )
    with refused(
        f"checkpoint {tmp_path}/a.pt holds the weights of a supernet, as {name} shows, with several ops on an edge, "
        "but must hold those of the network of one genotype, trained from scratch"
    ):
        torch_weights.load(tmp_path / "a.pt", network_of())


@pytest.mark.parametrize("form", ("cifar", "imagenet"))
def test_networks_of_grey_images_are_exchanged(form):
    state, _ = random_state(form=form)
    stem = "stem.0.weight" if form == "cifar" else "stem0.0.weight"
    grey = state | {stem: state[stem][:, :1]}
    variables = torch_weights.load(grey, network_of(form=form), image_channels=1)
    assert variables["params"]["stem_conv_0"]["kernel"].shape[:3] == (3, 3, 1)
    back = torch_weights.to_torch(variables, network_of(form=form), image_channels=1)
    np.testing.assert_array_equal(back[stem], grey[stem])
    with pytest.raises(ValueError, match=rf"^state_dict does not fit this network: 1 of another shape: {stem} "):
        torch_weights.load(grey, network_of(form=form))


def test_half_precision_and_parameters_are_read_too():
    state, _ = random_state()
    halves = {name: torch.nn.Parameter(torch.from_numpy(array).bfloat16()) for name, array in state.items()}
    found = torch_weights.load(halves, network_of())
    expected = torch_weights.load({name: p.detach().float().numpy() for name, p in halves.items()}, network_of())
    assert_identical(found, expected)


class Harmful:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return builtins.open, (str(self.path), "w")


def test_a_file_that_would_run_code_is_refused(tmp_path):
    harmed = tmp_path / "harmed"
    torch.save({"net": Harmful(harmed)}, tmp_path / "saved.pt")
    (tmp_path / "pickled.pt").write_bytes(pickle.dumps(Harmful(harmed), protocol=2))
    for name, message in (
        ("saved.pt", r"holds \w*io\.open other than tensors, numbers, texts and containers of these, which could run"),
        ("pickled.pt", r"cannot be read as a file of PyTorch \(it does not begin as one\)"),
    ):
        with pytest.raises(ValueError, match=f"checkpoint .*{name} {message}"):
            torch_weights.load(tmp_path / name, network_of())
    assert not harmed.exists()


def test_files_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"checkpoint .*none\.pt does not exist or is not a file"):
        torch_weights.load(tmp_path / "none.pt", network_of())
    torch.save({"a": torch.zeros(1000)}, tmp_path / "whole.pt")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "whole.pt").read_bytes()[:2000])
    with pytest.raises(ValueError, match=r"checkpoint .*cut\.pt cannot be read as a file of PyTorch \(\w+\)"):
        torch_weights.load(tmp_path / "cut.pt", network_of())
    (tmp_path / "empty.pt").write_bytes(b"")
    with pytest.raises(ValueError, match=r"checkpoint .*empty\.pt "):
        torch_weights.load(tmp_path / "empty.pt", network_of())
    for content in (torch.zeros(3), {"net": [torch.zeros(3)]}):
        torch.save(content, tmp_path / "other.pt")
        with pytest.raises(ValueError, match=r"other\.pt must hold a mapping of names to arrays, itself or under"):
            torch_weights.load(tmp_path / "other.pt", network_of())


def test_without_pytorch_a_file_is_not_read_but_a_mapping_is(tmp_path, monkeypatch):
    state, _ = random_state()
    torch.save(state, tmp_path / "model.pt")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match="PyTorch, which is missing: pip install torch$"):
        torch_weights.load(tmp_path / "model.pt", network_of())
    variables = torch_weights.load(state, network_of())
    assert set(state) < set(torch_weights.to_torch(variables, network_of()))


# Tensors of kinds that have no array, or none that is read before its shape is known.
OTHER_KINDS = {
    "sparse": lambda tensor: tensor.to_sparse(),
    "meta": lambda tensor: tensor.to("meta"),
    "nested": lambda tensor: torch.nested.nested_tensor([tensor, tensor]),
    "complex": lambda tensor: torch.complex(tensor, tensor),
}


@pytest.mark.parametrize("kind", OTHER_KINDS)
def test_a_tensor_of_another_kind_is_named(tmp_path, kind):
    state = {name: torch.from_numpy(array) for name, array in random_state()[0].items()}
    state["classifier.weight"] = OTHER_KINDS[kind](state["classifier.weight"])
    torch.save(state, tmp_path / "model.pt")
    for source, content in (("state_dict", state), (f"checkpoint {tmp_path}/model.pt", tmp_path / "model.pt")):
        with refused(f"{source} does not fit this network: 1 no dense floating-point array: classifier.weight"):
            torch_weights.load(content, network_of())


def test_no_memory_is_taken_before_the_shape_is_known_and_impossible_numbers_are_refused(tmp_path):
    state = {name: torch.from_numpy(array) for name, array in random_state()[0].items()}
    large = {"classifier.bias": torch.zeros(1, dtype=torch.float16).expand(10**10)}
    nan = {"classifier.bias": state["classifier.bias"] * float("nan")}
    negative = {"stem.1.running_var": -state["stem.1.running_var"]}
    for changes, message in (
        (large, "1 of another shape: classifier.bias (10000000000,) instead of (5,)"),
        (nan, "1 with numbers that are not finite: classifier.bias"),
        (negative, "1 with negative variances: stem.1.running_var"),
    ):
        torch.save(state | changes, tmp_path / "model.pt")
        with refused(f"checkpoint {tmp_path}/model.pt does not fit this network: {message}"):
            torch_weights.load(tmp_path / "model.pt", network_of())


def test_negative_views_and_files_of_before_1_6_are_read(tmp_path):
    state = {name: torch.from_numpy(array) for name, array in random_state()[0].items()}
    views = state | {"classifier.bias": torch._neg_view(-state["classifier.bias"])}
    torch.save(state, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    for content in (views, tmp_path / "old.pt"):
        assert_identical(torch_weights.load(content, network_of()), torch_weights.load(state, network_of()))


def compressed(content):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as members:
        members.writestr("archive/data.pkl", content)
    return file.getvalue()


@pytest.mark.parametrize(
    "content, reason",
    [
        (b"(" * 10**6, "it does not begin as one"),
        (pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2) + b"(" * 10**7, "it has more than 1,000,000 bytes beside"),
        (compressed(b"(" * 10**6), "a part of it is compressed"),
    ],
    ids=["plain", "old", "compressed"],
)
def test_a_file_that_would_take_minutes_is_refused_at_once(tmp_path, content, reason):
    (tmp_path / "model.pt").write_bytes(content)
    with pytest.raises(ValueError, match=rf"model.pt cannot be read as a file of PyTorch \({reason}"):
        torch_weights.load(tmp_path / "model.pt", network_of())


# Bad content ----------------------------------------------------------------------------------------------------------


def test_all_differences_are_listed():
    state, _ = random_state()
    del state["cells.0.preprocess1.op.1.weight"]
    state["cells.3.extra"] = np.zeros(3, np.float32)
    state["classifier.bias"] = np.zeros(7, np.float32)
    state["stem.1.bias"] = np.zeros(12, np.int32)
    with refused(
        "state_dict does not fit this network: 1 missing: cells.0.preprocess1.op.1.weight; 1 left over: cells.3.extra; "
        "1 no dense floating-point array: stem.1.bias; 1 of another shape: classifier.bias (7,) instead of (5,)"
    ):
        torch_weights.load(state, network_of())


def test_long_lists_are_cut():
    state, _ = random_state()
    with pytest.raises(
        ValueError, match=r" 88 left over: (cells\.\S+, ){2}cells\.\S+ and 85 more; 111 of another shape"
    ):
        torch_weights.load(state, network_of().clone(cells=2))


def test_variables_that_do_not_fit_are_listed():
    variables = torch_weights.load(random_state()[0], network_of())
    variables["params"]["classifier"] = {"kernel": jnp.zeros((3, 2)), "other": jnp.zeros(1)}
    with refused(
        "variables do not fit this network: 1 missing: params.classifier.bias; 1 left over: params.classifier.other; "
        "1 of another shape: params.classifier.kernel (3, 2) instead of (64, 5)"
    ):
        torch_weights.to_torch(variables, network_of())
