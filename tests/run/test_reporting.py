"""Files of a run, and what it prints."""

import json
import struct

import numpy as np
import pytest
from shared import one_cell_type, record

from prdarts_jax import devices, spaces
from prdarts_jax.run import architecture, pictures, reporting
from prdarts_jax.spaces import genotypes


def png_size(path):
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n" and data[-8:-4] == b"IEND"
    return struct.unpack(">II", data[16:24])


def test_write_json_replaces_the_whole_file_and_leaves_no_other(tmp_path):
    path = tmp_path / "value.json"
    reporting.write_json(path, {"long": list(range(100))})
    reporting.write_json(path, {"loss": np.float32(0.5), "logits": np.eye(2)})
    assert json.loads(path.read_text()) == {"loss": 0.5, "logits": [[1.0, 0.0], [0.0, 1.0]]}
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_write_keeps_the_old_file(tmp_path):
    path = tmp_path / "value.json"
    reporting.write_json(path, 1)
    with pytest.raises(AttributeError):
        reporting.write_json(path, object())
    assert json.loads(path.read_text()) == 1


def test_architecture_file_holds_the_four_arrays(tmp_path):
    rng = np.random.default_rng(0)
    logits = {c: rng.normal(size=(14, 8)).astype(np.float32) for c in spaces.CELL_TYPES}
    probabilities = {c: 1 / (1 + np.exp(-value)) for c, value in logits.items()}
    architecture.save(tmp_path, 3, logits, probabilities)
    with np.load(tmp_path / "architecture" / "epoch_0003.npz") as file:
        assert len(file.files) == 4
        for c in spaces.CELL_TYPES:
            np.testing.assert_array_equal(file[f"logits_{c}"], logits[c])
            np.testing.assert_array_equal(file[f"probability_{c}"], probabilities[c])
            assert file[f"logits_{c}"].dtype == np.float32


@pytest.mark.parametrize(
    "make, genotype",
    [(record, genotypes.named("PRDARTS")), (one_cell_type, genotypes.EdgeGenotype(("skip_connect",) * 6))],
)
def test_write_search_draws_a_picture_of_each_kind_and_cell(make, genotype, tmp_path):
    pictures.write_search(tmp_path, [make(0), make(1)], genotype)
    cells = {f"cell_{cell_type}" for cell_type in genotypes.cells(genotype)}
    names = cells | {"activation", "skip_share", "curves", "diagnostics"}
    assert {path.name for path in tmp_path.iterdir()} == {f"{name}.png" for name in names}
    sizes = {name: png_size(tmp_path / f"{name}.png") for name in names}
    assert all(sizes[name] == (1800, 900) for name in cells)
    assert all(width >= 1000 and height >= 600 for width, height in sizes.values())


def test_only_the_first_process_says_anything(capsys, monkeypatch):
    reporting.say("one")
    monkeypatch.setattr(devices, "is_main", lambda: False)
    reporting.say("two")
    assert capsys.readouterr().out == "one\n"
