"""The commands `predict` and `draw`."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from shared import CELL, ROOT

from prdarts_jax.data.augmentation import Augmentation
from prdarts_jax.run import finished, predict


class Brightness(nn.Module):
    """The logits of 'dark' and 'light': minus and plus twice the mean of the normalised pixels."""

    @nn.compact
    def __call__(self, images, *, train):
        mean = 2 * jnp.mean(images, axis=(1, 2, 3))
        return jnp.stack([-mean, mean], axis=1)


def trained(channels=3):
    plain = Augmentation((0.5,) * channels, (0.5,) * channels)
    return finished.Trained({}, CELL, Brightness(), {}, plain, (4, 6, channels), False, ("dark", "light"), {})


def save(path, grey, size=(9, 5), mode="RGB"):
    Image.new("L", size, grey).convert(mode).save(path)
    return str(path)


@pytest.mark.parametrize("channels", [1, 3])
def test_images_of_any_size_and_mode_are_classified_in_their_order(channels, tmp_path):
    """More than a batch of them."""
    greys = np.random.default_rng(0).integers(0, 256, 40).tolist()
    modes = ["RGB", "L", "RGBA", "P", "LA"]
    files = [save(tmp_path / f"{i}.png", grey, (1 + i, 50 - i), modes[i % 5]) for i, grey in enumerate(greys)]
    found = list(predict.predict(trained(channels), files))
    assert [prediction.file for prediction in found] == files
    for grey, (_, name, probability, refusal) in zip(greys, found, strict=True):
        logit = 2 * (grey / 255 - 0.5) / 0.5
        assert name == ("light" if logit > 0 else "dark") and not refusal
        assert abs(probability - 1 / (1 + np.exp(-2 * abs(logit)))) < 1e-5


def test_the_command_says_a_sentence_of_each_file_that_cannot_be_read(command, tmp_path, monkeypatch):
    monkeypatch.setattr(finished, "load", lambda workdir: trained())
    good = [save(tmp_path / "white.png", 255), save(tmp_path / "black.png", 0)]
    (tmp_path / "broken.png").write_bytes((tmp_path / "white.png").read_bytes()[:45])
    ended = command("predict", "run", good[0], f"{tmp_path}/broken.png", f"{tmp_path}/none.png", str(tmp_path), good[1])
    assert ended.out == f"{good[0]}\tlight\t0.9820\n{good[1]}\tdark\t0.9820\n"
    broken, none, folder = ended.err.splitlines()
    assert broken.startswith(f"error: {tmp_path}/broken.png cannot be read as an image (")
    assert none == f"error: image {tmp_path}/none.png does not exist or is not a file"
    assert folder == f"error: image {tmp_path} does not exist or is not a file" and ended.code == 1
    ended = command("predict", "run", *good)
    assert ended.code == 0 and not ended.err


def test_the_command_draws_the_cells_of_a_genotype(command, tmp_path):
    ended = command("draw", "PRDARTS", f"--out={tmp_path}/a/cell.png")
    paths = [tmp_path / f"a/cell_{name}.png" for name in ("normal", "reduce")]
    assert ended == (0, "".join(f"{path}\n" for path in paths), "")
    assert all(Image.open(path).size == (1800, 900) for path in paths)
    command("draw", '{"ops": ["none", "skip_connect", "nor_conv_3x3"]}', f"--out={tmp_path}/b.svg")
    assert "</svg>" in (tmp_path / "b_normal.svg").read_text() and len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("predict",), "the following arguments are required: workdir, images (usage: prdarts predict "),
        (("predict", "run"), "the following arguments are required: images (usage: prdarts predict "),
        (("predict", "nowhere", "a.png"), "nowhere is not the folder of a run: it has no config.json"),
        (("draw", "PRDART"), "genotype 'PRDART' is neither a file, nor the text of a genotype, nor one of "),
        (("draw", "PRDARTS", "--out=cell.docx"), "cell.docx must end in one of ."),
        (("draw", "PRDARTS", "--out=cell.pgf"), "cell.pgf must end in one of ."),
        (("draw", "PRDARTS", "--size=3"), "unrecognized arguments: --size=3"),
    ],
)
def test_what_cannot_be_done_is_refused(arguments, message, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ended = command(*arguments)
    assert ended.code.startswith(f"error: {message}") and "\n" not in ended.code and not list(tmp_path.iterdir())


def test_a_search_has_no_network_to_predict_by(command, monkeypatch):
    monkeypatch.setattr(finished, "load", lambda workdir: finished.Finished({}, CELL))
    ended = command("predict", "run", str(ROOT / "README.md"))
    assert ended.code == (
        "error: run is a search: train its cell first, for instance with --config=configs/images_eval.py "
        "--config.genotype=run/genotype.json"
    )
