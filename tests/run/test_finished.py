"""A finished run read back, and trainings that go on from one."""

import json
import runpy
import shutil
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from shared import CELL, read_records, refused, stop_at, tiny_training

import prdarts_jax as pdx
from prdarts_jax.data import sources
from prdarts_jax.data.augmentation import Augmentation
from prdarts_jax.nets import discrete
from prdarts_jax.run import feeds, finished, loop, problems, reporting, train
from prdarts_jax.spaces import genotypes

pytestmark = pytest.mark.usefixtures("no_pictures")


def tiny_config(**fields):
    return tiny_training(**{"genotype": genotypes.to_json(CELL), "epochs": 2, "drop_path": 0.1, "ema": 0.9} | fields)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, no_pictures):
    workdir = tmp_path_factory.mktemp("trained")
    train.run(tiny_config(), workdir)
    return workdir


def test_a_finished_training_is_loaded_without_its_data(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(feeds, "open_feed", lambda *_: pytest.fail("data are read"))
    found = pdx.load(shutil.copytree(trained, tmp_path / "elsewhere"))
    assert isinstance(found, finished.Trained)
    assert found.result == json.loads((trained / "result.json").read_text())
    assert found.config == tiny_config().to_dict() and found.genotype == CELL
    assert (found.image_shape, found.classes) == ((8, 8, 1), tuple("0123456789"))
    train_images, test = sources.load("digits", num_examples=80), sources.load("digits", split="test")
    assert found.augmentation == Augmentation(*sources.statistics(train_images), **tiny_config().augmentation)
    confusion = np.zeros((10, 10), int)
    np.add.at(confusion, (test.labels, np.argmax(found.classify(test.images), axis=1)), 1)
    assert confusion.tolist() == found.result["confusion"]


def test_the_file_of_pytorch_code_gives_the_logits_of_the_run(trained):
    torch = pytest.importorskip("torch", reason="PyTorch is missing: pip install torch")
    code = runpy.run_path(str(trained / "classifier_torch.py"))
    found, images = pdx.load(trained), sources.load("digits", split="test").images[:50]
    with torch.no_grad():
        logits = code["load"]()(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).numpy()
    assert code["CLASSES"] == found.classes and np.abs(logits - found.classify(images)).max() < 1e-5
    state = {name: torch.from_numpy(array) for name, array in found.to_torch().items()}
    code["Network"]().load_state_dict(state, strict=True)


@pytest.mark.parametrize(
    "change, error, message",
    [
        (
            lambda folder: (folder / "results.json").write_text("{}"),
            ValueError,
            "{} has trainings of many cells, whose results.json is all that is kept of them",
        ),
        (
            lambda folder: (folder / "config.json").unlink(),
            FileNotFoundError,
            "{} is not the folder of a run: it has no ",
        ),
        (
            lambda folder: (folder / "result.json").unlink(),
            FileNotFoundError,
            "the training in {} has not ended: the com",
        ),
        (
            lambda folder: (folder / "genotype.json").unlink(),
            FileNotFoundError,
            "the run in {} has not ended: the command",
        ),
        (
            lambda folder: shutil.rmtree(folder / "checkpoints"),
            FileNotFoundError,
            "{}/checkpoints has no checkpoint",
        ),
        (
            lambda folder: shutil.rmtree(folder / "checkpoints/20/state/d"),
            ValueError,
            "checkpoint {}/checkpoints/20 is damaged: ",
        ),
        (
            lambda folder: (folder / "result.json").write_text("[]"),
            ValueError,
            "{}/result.json is damaged (not a JSON ob",
        ),
        (
            lambda folder: (folder / "classifier.json").write_text('{"image_shape": [8, 8]}'),
            ValueError,
            "{}/classifier.json is damaged (",
        ),
        (
            lambda folder: (folder / "genotype.json").write_text(genotypes.to_json(genotypes.named("GDAS"))),
            ValueError,
            "checkpoint {}/checkpoints/20 does not fit this program: ",
        ),
    ],
)
def test_a_folder_that_cannot_be_loaded_is_refused(change, error, message, trained, tmp_path):
    folder = shutil.copytree(trained, tmp_path / "run")
    change(folder)
    with pytest.raises(error) as found:
        pdx.load(folder)
    assert str(found.value).startswith(message.format(folder)) and "\n" not in str(found.value)


def test_the_cell_of_a_search_is_loaded(tmp_path):
    for folder in (tmp_path / "one", tmp_path / "seeds"):
        reporting.write_json(folder / "config.json", {"job": "search"})
    with refused(f"the run in {tmp_path}/one has not ended: the command that began it resumes it", FileNotFoundError):
        pdx.load(tmp_path / "one")
    (tmp_path / "one/genotype.json").write_text(genotypes.to_json(CELL))
    found = pdx.load(tmp_path / "one")
    assert found.genotype == CELL and type(found) is finished.Finished
    for seed in (1, 0):
        reporting.write_json(tmp_path / f"seeds/seed_{seed}/genotype.json", {})
    with refused(f"{tmp_path}/seeds has several searches; their cells are in the genotype.json of seed_0, seed_1"):
        pdx.load(tmp_path / "seeds")
    with refused(
        f"config.init_from='{tmp_path}/one' must be the folder of a training, but is that of a search, whose "
        "genotype.json config.genotype may name"
    ):
        train.check(tiny_config(init_from=str(tmp_path / "one")))


# A training that goes on from another


def test_a_training_starts_from_the_weights_of_another(trained, tmp_path, capsys):
    result = train.run(tiny_config(epochs=0, init_from=str(trained)), tmp_path)
    assert result == json.loads((trained / "result.json").read_text())
    new = "with new epochs, learning rate and momentum"
    assert f"starts from the weights of {trained}, but {new}\n" in capsys.readouterr().out


def test_other_classes_get_a_classifier_of_their_own(trained, tmp_path, capsys, monkeypatch):
    """All else is taken over."""
    source = feeds.InMemory
    monkeypatch.setattr(source, "num_classes", property(lambda _: 12, lambda *_: None), raising=False)
    train.run(tiny_config(epochs=0, init_from=str(trained)), tmp_path)
    assert "momentum, and a classifier of 12 classes\n" in capsys.readouterr().out
    before, after = (flatten_dict(pdx.load(folder).variables) for folder in (trained, tmp_path))
    assert {path for path, array in after.items() if not np.array_equal(array, before[path])} == {
        ("params", "classifier", name) for name in ("kernel", "bias")
    }
    assert after["params", "classifier", "kernel"].shape == (8, 12)


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"genotype": "GDAS"}, "config.genotype must be Genotype(normal=(('skip_connect', 0), "),
        ({"channels": 6}, "config.channels must be 4, as in config.init_from='{}', but is 6"),
        ({"cells": 3}, "config.cells must be 1, as in config.init_from='{}', but is 3"),
        ({"form": "imagenet"}, "config.form must be 'cifar', as in config.init_from='{}', but is 'imagenet'"),
        (
            {"torch_checkpoint": "a.pt"},
            "config.init_from='{}' must be '' with config.torch_checkpoint, since a training",
        ),
        (
            {"auxiliary_weight": 0.4},
            "config.auxiliary_weight must be 0 with config.init_from='{}', whose network has no",
        ),
        ({"init_from": "nowhere"}, "nowhere is not the folder of a run: it has no config.json"),
    ],
)
def test_what_does_not_fit_the_training_before_is_refused(fields, message, trained, tmp_path):
    with pytest.raises((ValueError, OSError)) as error:
        train.run(tiny_config(**{"init_from": str(trained)} | fields), tmp_path / "run")
    assert str(error.value).startswith(message.format(trained)) and not (tmp_path / "run").exists()


def test_weights_fit_networks_with_and_without_an_auxiliary_head():
    net = discrete.network(CELL, channels=4, cells=3, num_classes=5, auxiliary=True)
    variables = discrete.init_variables(net, jax.random.key(0), (1, 32, 32, 3))
    before = finished.Trained({}, CELL, net, variables, None, (32, 32, 3), False, (), {})
    feed = SimpleNamespace(name="cifar10", image_shape=(8, 32, 32, 3))

    def taken(**fields):
        return set(flatten_dict(train._fitting_weights("config.init_from='a'", before, net.clone(**fields), feed)))

    everything = set(flatten_dict(variables))
    assert taken() == everything
    assert taken(auxiliary=False) == {path for path in everything if "auxiliary_head" not in path}
    assert taken(num_classes=7) == {path for path in everything if "classifier" not in path}
    feed.image_shape = (8, 32, 32, 1)
    with refused("config.init_from='a' was trained on images of 3 channels, but those of cifar10 have others"):
        taken()


CONSTANT = {"weights.learning_rate": 0.02, "weights.end_learning_rate": 0.02, "drop_path": 0.0}


def test_a_training_of_constant_rate_goes_on_to_more_epochs(tmp_path, capsys):
    """As if it had been that long from the start."""
    train.run(tiny_config(epochs=1, **CONSTANT), tmp_path / "parts")
    result = train.run(tiny_config(epochs=2, **CONSTANT), tmp_path / "parts")
    assert "the training of 1 epochs now has 2: no step depends on their number" in capsys.readouterr().out
    assert train.run(tiny_config(epochs=2, **CONSTANT), tmp_path / "whole") == result
    assert read_records(tmp_path / "parts") == read_records(tmp_path / "whole")
    for name in ("config.json", "classifier.stablehlo"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    with refused(f"2 epochs of the training in {tmp_path}/parts are done: config.epochs=1 must not be less"):
        train.run(tiny_config(epochs=1, **CONSTANT), tmp_path / "parts")


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_of_a_constant_rate_no_step_depends_on_the_epochs(schedule):
    def moves(epochs):
        config = tiny_config(**CONSTANT, **{"weights.schedule": schedule, "weights.warmup_epochs": 1, "epochs": epochs})
        weights = {"w": jax.numpy.ones(3)}
        optimizer = problems.make_train_problem(config, discrete.network(CELL), 3).optimizer
        state = optimizer.init(weights)
        for _ in range(6):
            move, state = optimizer.update(weights, state, weights)
            yield move["w"]

    np.testing.assert_array_equal(list(moves(2)), list(moves(200)))


def test_a_training_that_goes_on_is_not_finished(tmp_path, monkeypatch):
    train.run(tiny_config(epochs=1, **CONSTANT), tmp_path)
    stop_at(monkeypatch, 13)
    with pytest.raises(loop.Stopped):
        train.run(tiny_config(epochs=2, **CONSTANT), tmp_path)
    with refused(f"the training in {tmp_path} has not ended: the command that began it resumes it", FileNotFoundError):
        pdx.load(tmp_path)


@pytest.mark.parametrize("fields", [{"drop_path": 0.1}, {"weights.end_learning_rate": 0.0}])
def test_a_schedule_that_depends_on_the_epochs_is_not_made_longer(fields, trained):
    advice = f"a longer training is another, with --config.init_from={trained} once this one has ended"
    with pytest.raises(ValueError, match=f"config.epochs is 2 there and 5 here.*; {advice}$"):
        train.run(tiny_config(epochs=5, **CONSTANT | fields), trained)
