"""The job `train`: what it leaves behind, that a kill leaves no trace, what it says to bad input."""

import json
import os
import shutil
from types import SimpleNamespace

import imagenet_folder
import jax
import numpy as np
import pytest
from shared import CELL, get_config, read_records, refused, stop_at, tiny_training, without_pictures

from prdarts_jax import devices
from prdarts_jax.data import sources, streaming
from prdarts_jax.data.arrays import from_arrays
from prdarts_jax.data.augmentation import Augmentation
from prdarts_jax.data.source import DataSet
from prdarts_jax.evaluation import training
from prdarts_jax.nets import discrete, sizes, torch_weights
from prdarts_jax.run import feeds, loop, problems, train
from prdarts_jax.spaces import genotypes

EPOCHS, STEPS = 4, 10


def tiny_config(**fields):
    return tiny_training(
        **{"genotype": genotypes.to_json(CELL), "epochs": EPOCHS, "drop_path": 0.1, "ema": 0.9} | fields
    )


def train_problem(config, num_classes, steps_per_epoch):
    return problems.make_train_problem(config, problems.make_network(config, CELL, num_classes), steps_per_epoch)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("trained")
    result = train.run(tiny_config(), workdir)
    assert json.loads((workdir / "result.json").read_text()) == result
    return workdir


def test_a_training_leaves_its_result_and_what_made_it(trained):
    assert json.loads((trained / "config.json").read_text()) == tiny_config().to_dict()
    assert genotypes.load(trained / "genotype.json") == CELL
    for name in ("curves", "confusion"):
        assert (trained / f"{name}.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert (trained / "report.html").read_text().endswith("</html>\n")
    result = json.loads((trained / "result.json").read_text())
    confusion = np.array(result["confusion"])
    assert confusion.shape == (10, 10) and confusion.sum() == result["images"] == 360
    assert result["top1"] == np.trace(confusion) / 360 <= result["top5"] <= 1
    assert result.items() >= sizes.describe(CELL, "cifar", 4, 1, 10, (8, 8, 1)).items()
    found = read_records(trained)
    assert [(record["epoch"], record["step"]) for record in found] == [(i, STEPS * (i + 1)) for i in range(EPOCHS)]
    assert found[-1]["test_accuracy"] == result["top1"] and found[-1]["test_loss"] == result["loss"]
    assert found[-1]["train_loss"] < found[0]["train_loss"]


def test_the_exported_classifier_makes_the_tests_mistakes(trained):
    content = (trained / "classifier.stablehlo").read_bytes()
    assert b".py" not in content and b"prdarts_jax/" not in content
    classify = jax.export.deserialize(bytearray(content)).call
    test = sources.load("digits", split="test")
    predicted = np.argmax(classify(test.images), axis=1)
    confusion = np.zeros((10, 10), int)
    np.add.at(confusion, (test.labels, predicted), 1)
    assert confusion.tolist() == json.loads((trained / "result.json").read_text())["confusion"]


def test_a_cell_of_nas_bench_201_is_trained_and_tested(tmp_path):
    cell = genotypes.EdgeGenotype(("skip_connect", "none", "nor_conv_3x3", "nor_conv_1x1", "none", "avg_pool_3x3"))
    config = tiny_config(genotype=genotypes.to_json(cell), epochs=1)
    with without_pictures():
        result = train.run(config, tmp_path)
    assert genotypes.load(tmp_path / "genotype.json") == cell
    assert result.items() >= sizes.describe(cell, channels=4, cells=1, image_shape=(8, 8, 1)).items()


class Killed(BaseException):
    """Nothing handles it, so that it leaves on disk what a kill leaves."""


def test_a_killed_training_is_resumed_to_the_same_end(trained, tmp_path, capsys, monkeypatch):
    def kill(self, n=1):
        update(self, n)
        if self.n > 2 * STEPS:
            raise Killed

    update = loop.tqdm.update
    monkeypatch.setattr(loop, "_INTERVAL", 0)  # a checkpoint after each epoch
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(loop.tqdm, "update", kill)
        train.run(tiny_config(), tmp_path)
    assert len(read_records(tmp_path)) == 2 and not (tmp_path / "result.json").exists()
    with without_pictures():
        train.run(tiny_config(), tmp_path)
    assert f"resumed at step {2 * STEPS} of {EPOCHS * STEPS}\n" in capsys.readouterr().out
    assert read_records(tmp_path) == read_records(trained)
    for name in ("result.json", "genotype.json", "config.json", "classifier.stablehlo"):
        assert (tmp_path / name).read_bytes() == (trained / name).read_bytes()


def test_a_finished_training_is_only_tested_again(trained, tmp_path, capsys):
    copied = shutil.copytree(trained, tmp_path / "run")
    with without_pictures():
        assert train.run(tiny_config(), copied) == json.loads((trained / "result.json").read_text())
    assert "compiled" not in capsys.readouterr().out


def test_no_result_is_written_or_exported_that_is_not_finite(trained, tmp_path, monkeypatch):
    copied = shutil.copytree(trained, tmp_path / "run")
    for name in ("result.json", "classifier.stablehlo"):
        (copied / name).unlink()
    summarize = training.summarize
    monkeypatch.setattr(training, "summarize", lambda sums: summarize(sums) | {"loss": np.inf})
    with refused(f"the test loss of the weights is not finite, so {copied} gets no result", loop.Diverged):
        train.run(tiny_config(), copied)
    assert not (copied / "result.json").exists() and not (copied / "classifier.stablehlo").exists()


def test_a_run_does_not_go_on_from_weights_that_have_changed(tmp_path, monkeypatch):
    """Of a PyTorch checkpoint under the same path."""
    network = problems.make_network(tiny_config(), CELL, 10)
    variables = discrete.init_variables(network, jax.random.key(0), (8, 8, 8, 1))
    monkeypatch.setattr(torch_weights, "load", lambda *_, **__: variables)
    config = tiny_config(torch_checkpoint="a.pt", epochs=0)
    with without_pictures():
        first = train.run(config, tmp_path)
        assert train.run(config, tmp_path) == first
        variables["params"]["classifier"]["bias"] += 0.01
        with pytest.raises(ValueError, match="belongs to another run: starting_weights is"):
            train.run(config, tmp_path)


def test_no_epochs_test_the_weights_a_training_would_start_from(tmp_path):
    result = train.run(tiny_config(epochs=0), tmp_path)
    assert result["images"] == 360 and read_records(tmp_path) == []
    assert not (tmp_path / "curves.png").exists() and (tmp_path / "confusion.png").exists()


def test_a_problem_has_the_settings_of_its_config():
    fields = {"auxiliary_weight": 0.3, "drop_path": 0.15, "label_smoothing": 0.05, "ema": 0.8, "dtype": "bfloat16"}
    problem = train_problem(tiny_config(**fields, form="imagenet"), 7, STEPS)
    found = {name: getattr(problem, name) for name in ("auxiliary_weight", "drop_path", "label_smoothing", "ema")}
    assert found == {name: fields[name] for name in found} and problem.total_steps == EPOCHS * STEPS
    network = problem.network
    assert (network.genotype, network.form, network.channels, network.cells) == (CELL, "imagenet", 4, 1)
    assert (network.num_classes, network.auxiliary, network.dtype) == (7, True, jax.numpy.bfloat16)
    without = train_problem(tiny_config(), 7, STEPS)
    assert not without.network.auxiliary and without.network.dtype == jax.numpy.float32


@pytest.mark.parametrize("accumulate", [1, 4])
@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_the_weights_follow_sgd_with_warm_up_to_the_end_of_the_rate(schedule, accumulate):
    """PyTorch's SGD in NumPy: clip, decay, momentum; two epochs of warm-up in five, three updates an epoch."""
    fields = {"weights.schedule": schedule, "weights.warmup_epochs": 2, "weights.end_learning_rate": 0.001, "epochs": 5}
    config = tiny_config(**fields, **{"accumulate": accumulate, "weights.learning_rate": 0.5, "weights.clip": 1.0})
    optimizer = train_problem(config, 10, 3 * accumulate).optimizer
    rng = np.random.default_rng(0)
    w = rng.normal(size=4).astype(np.float32)
    found, velocity = jax.numpy.array(w), np.zeros(4)
    state, update = optimizer.init(found), jax.jit(optimizer.update)
    for number in range(15):
        pieces = rng.normal(size=(accumulate, 4)).astype(np.float32)
        for piece in pieces:
            step, state = update(piece, state, found)
            found = found + step
        gradient = pieces.mean(0)
        gradient = gradient * min(1, 1 / np.linalg.norm(gradient)) + 3e-4 * w
        velocity = 0.9 * velocity + gradient
        done = (number - 6) / 9
        fallen = 1 - done if schedule == "linear" else (1 + np.cos(np.pi * done)) / 2
        w = w - (0.5 * number / 6 if number < 6 else 0.001 + 0.499 * fallen) * velocity
        np.testing.assert_allclose(found, w, rtol=1e-4, atol=1e-6)


def test_the_optimizer_sees_the_whole_batch_of_several_pieces():
    config = tiny_config(accumulate=4)
    problem = train_problem(config, 10, 40)
    variables = discrete.init_variables(problem.network, jax.random.key(0), (2, 8, 8, 1))
    state = training.init_training(problem, jax.random.key(1), variables)
    step = jax.jit(training.train_step, static_argnums=0)
    batch = {"image": jax.random.normal(jax.random.key(2), (2, 8, 8, 1)), "label": np.array([1, 2])}
    moved = []
    for _ in range(4):
        before = state.params["classifier"]["kernel"]
        state, _ = step(problem, state, batch)
        moved.append(bool((state.params["classifier"]["kernel"] != before).any()))
    assert moved == [False, False, False, True]


@pytest.mark.parametrize(
    "fields, message",
    [
        (
            {"genotype": "ENAS"},
            "genotype 'ENAS' is neither a file, nor the text of a genotype, nor one of PRDARTS, DARTS_V1",
        ),
        ({"genotype": "{}"}, "genotype field 'normal' is missing"),
        ({"batch_size": 96}, "config.batch_size=96 must be at most 80, the images of digits in use"),
        ({"augmentation.pad": 9}, "config.augmentation.pad=9 must be at most 8, the images' shorter side"),
        (
            {"auxiliary_weight": 0.4, "image_size": 2},
            "config.auxiliary_weight=0.4 must be 0 here: the auxiliary head needs features of 2x2 pixels or more, but "
            "these have 1x1",
        ),
        ({"genotype": "x" * 300}, "is neither a file, nor the text of a genotype, nor one of PRDARTS, DARTS_V1"),
        ({"dataset": "imagenet"}, "config.image_size=0 must be above 0, and one number, for images that are streamed"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_anything_is_written(fields, message, tmp_path):
    with pytest.raises((ValueError, OSError)) as error:
        train.run(tiny_config(**fields), tmp_path / "run")
    assert message in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_another_genotype_is_another_run(trained):
    with pytest.raises(ValueError, match="config.genotype is .* there and .* here"):
        train.run(tiny_config(genotype="PRDARTS"), trained)


# Weights of PyTorch


def test_a_checkpoint_is_read_before_the_images(monkeypatch, tmp_path):
    """So that what is wrong with it is said at once."""
    source = sources.Source((32, 32, 3), 10, 100, lambda indices: pytest.fail("an image is read"))
    other = {"cifar10": lambda name, data_dir: DataSet(name, lambda split: source)}
    monkeypatch.setattr(sources, "DATASETS", other)
    with pytest.raises(FileNotFoundError, match="^checkpoint absent.pt does not exist or is not a file$"):
        train.run(tiny_config(dataset="cifar10", torch_checkpoint="absent.pt"), tmp_path / "run")


@pytest.mark.skipif(
    "PRDARTS_DATA_DIR" not in os.environ, reason="PRDARTS_DATA_DIR, the folder of real data, is not set"
)
def test_a_checkpoint_of_the_authors_code_is_tested_on_cifar10(tmp_path):
    """As they save them: under `net`, with the names of DataParallel, and with an auxiliary head."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    network = discrete.network(CELL, channels=4, cells=3, auxiliary=True)
    variables = discrete.init_variables(network, jax.random.key(8), (2, 32, 32, 3))
    state = torch_weights.to_torch(variables, network)
    saved = {"net": {f"module.{name}": torch.from_numpy(array) for name, array in state.items()}, "epoch": 600}
    torch.save(saved, tmp_path / "model.pt")
    fields = {"dataset": "cifar10", "data_dir": f"{os.environ['PRDARTS_DATA_DIR']}/tfds", "batch_size": 500}
    fields |= {"num_examples": 1000, "epochs": 0, "cells": 3}
    config = tiny_config(**fields, torch_checkpoint=str(tmp_path / "model.pt"))
    result = train.run(config, tmp_path / "run")

    images = sources.load("cifar10", fields["data_dir"], num_examples=1000)
    test = sources.load("cifar10", fields["data_dir"], split="test")
    plain = Augmentation(*sources.statistics(images))
    classify = jax.jit(training.classify, static_argnums=(0, 1))
    parts = [classify(network, plain, variables, test.images[i : i + 2000]) for i in range(0, 10000, 2000)]
    predicted = np.argmax(np.concatenate(parts), axis=1)
    assert result["images"] == 10000 and abs(result["top1"] - np.mean(predicted == test.labels)) <= 2e-4

    headless = {name: array for name, array in saved["net"].items() if "auxiliary" not in name}
    torch.save(headless, tmp_path / "headless.pt")
    fields["torch_checkpoint"] = str(tmp_path / "headless.pt")
    assert train.run(tiny_config(**fields), tmp_path / "headless") == result
    fields["auxiliary_weight"] = 0.4
    with pytest.raises(ValueError, match="headless.pt does not fit this network: .* missing: auxiliary_head.features"):
        train.run(tiny_config(**fields), tmp_path / "other")
    with_head = tiny_config(**fields | {"torch_checkpoint": str(tmp_path / "model.pt")})
    kept = train.check(with_head).weights["params"]["auxiliary_head"]
    assert jax.tree.all(jax.tree.map(np.array_equal, kept, variables["params"]["auxiliary_head"]))
    with pytest.raises(FileNotFoundError, match="checkpoint absent.pt does not exist"):
        train.run(tiny_config(**fields | {"torch_checkpoint": "absent.pt"}), tmp_path / "other")
    assert not (tmp_path / "other" / "config.json").exists()


# Images of one's own


def test_arrays_of_ones_own_are_trained_and_no_others_after_them(tmp_path):
    """Of 8x12 pixels, with names for labels; 4 of each class's 20 are held out."""
    rng = np.random.default_rng(0)
    arrays = {"image": rng.integers(0, 256, (40, 8, 12, 3)).astype(np.uint8), "label": np.array(["cat", "dog"] * 20)}
    config = tiny_config(num_examples=0, epochs=1)
    with without_pictures():
        result = train.run(config, tmp_path / "run", from_arrays(arrays))
    assert result["images"] == 8 and np.shape(result["confusion"]) == (2, 2)
    assert read_records(tmp_path / "run")[0]["step"] == 4  # 32 images in batches of eight
    written = json.loads((tmp_path / "run" / "config.json").read_text())
    assert written["dataset"] == "arrays" and written["images"].startswith("40 images, ")
    assert json.loads((tmp_path / "run" / "classifier.json").read_text())["classes"] == ["cat", "dog"]
    arrays["image"][7, 0, 0, 0] ^= 1
    with pytest.raises(ValueError, match="belongs to another run: images is .* there and .* here"):
        train.run(config, tmp_path / "run", from_arrays(arrays))


def test_the_run_has_the_name_of_the_data_that_it_was_given():
    config = tiny_config(dataset="cifar10")
    assert train.check(config, sources.find("digits")).identity == {"dataset": "digits"}


def test_what_is_no_data_set_is_refused():
    with pytest.raises(ValueError, match=r"^data={'image': 3} must be a DataSet, for instance that of "):
        train.check(tiny_config(), {"image": 3})


def test_test_images_of_other_channels_are_refused():
    grey, colour = ({"image": np.zeros((20, 6, 6, c), np.uint8), "label": np.arange(20) % 2} for c in (1, 3))
    splits = {"train": from_arrays(colour, colour).open("train"), "test": from_arrays(grey, grey).open("test")}
    with pytest.raises(ValueError, match="^mine has training images of 3 channels and test images of 1, but must "):
        train.check(tiny_config(num_examples=0), DataSet("mine", splits.__getitem__))


def test_test_images_of_another_size_are_refused():
    small, large = ({"image": np.zeros((20, size, 6, 3), np.uint8), "label": np.arange(20) % 2} for size in (6, 8))
    splits = {"train": from_arrays(small, small).open("train"), "test": from_arrays(large, large).open("test")}
    data = DataSet("two sizes", splits.__getitem__)
    message = (
        "config.image_size=0 must be above 0 for two sizes, whose training images are 6x6 pixels and its test images"
    )
    with pytest.raises(ValueError, match=f"^{message} 8x6$"):
        train.check(tiny_config(num_examples=0), data)
    assert train.check(tiny_config(num_examples=0, image_size=7), data).feed.image_shape[1:] == (7, 7, 3)


# Streamed from disk


def imagenet_config(folder):
    config = get_config("imagenet_eval")
    tiny = {"data_dir": str(imagenet_folder.write(folder)), "genotype": genotypes.to_json(CELL), "image_size": 32}
    tiny |= {"channels": 4, "cells": 1, "auxiliary_weight": 0.0, "epochs": 2, "batch_size": 8, "accumulate": 2}
    config.update(tiny | {"workers": 0, "steps_per_call": 1})
    return config


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_imagenet_is_trained_from_its_files(workers, tmp_path, capsys):
    """And with a stop in the middle of an epoch, by no workers: the end is the same."""
    config = imagenet_config(tmp_path)
    config.workers = workers
    with without_pictures():
        expected = train.run(config, tmp_path / "whole")
    assert expected["images"] == imagenet_folder.VALIDATION and len(expected["confusion"]) == 1000
    assert [record["step"] for record in read_records(tmp_path / "whole")] == [5, 10]  # 22 images in batches of four

    config.workers = 0

    with pytest.MonkeyPatch.context() as patch, pytest.raises(loop.Stopped, match="stopped at step 3 of 10"):
        stop_at(patch, 3)
        train.run(config, tmp_path / "parts")
    with without_pictures():
        assert train.run(config, tmp_path / "parts") == expected
    assert "resumed at step 3 of 10" in capsys.readouterr().out
    assert read_records(tmp_path / "parts") == read_records(tmp_path / "whole")


def test_as_many_workers_read_as_the_config_says(tmp_path, monkeypatch):
    seen = []

    def batches(*_, workers, **__):
        seen.append(workers)
        return iter([{}])

    monkeypatch.setattr(streaming, "train_batches", batches)
    monkeypatch.setattr(streaming, "test_batches", batches)
    config = imagenet_config(tmp_path)
    config.workers = 3
    feed = feeds.open_feed(config, devices.make_mesh(), feeds.find_data(config))
    assert list(feed.test_batches()) == [{}]
    for _, calls in feed.calls(SimpleNamespace(step=0, calls=lambda: [1])):
        assert list(calls) == [({},)]
    assert seen == [3, 3]
