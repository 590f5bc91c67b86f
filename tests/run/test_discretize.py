"""A search that ends in a cell chosen by the shared weights: its folder, several seeds, a kill, every method."""

import json
import shutil

import jax
import numpy as np
import pytest
from shared import tiny_arguments, tiny_config

from prdarts_jax import spaces
from prdarts_jax.run import architecture, discretize, problems, search, settings
from prdarts_jax.search import methods
from prdarts_jax.search.perturbation import Perturbation
from prdarts_jax.search.selection import BestCell
from prdarts_jax.spaces import genotypes

# The latter of ml_collections, where it reads a file of the flag.
pytestmark = [
    pytest.mark.usefixtures("no_pictures", "toy"),
    pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning"),
]

WAYS = ("perturbation", "best_of")
FEW = {"selection.val_batches": 2, "selection.finetuning_steps": 2, "selection.samples": 5}
SPACES = {"perturbation": "s2", "best_of": "nas_bench_201"}


def of_way(way, **fields):
    return {"method": "darts", "space": SPACES[way], "discretization": way} | FEW | fields


@pytest.fixture(scope="module", params=WAYS)
def together(request, toy, no_pictures, tmp_path_factory):
    """(way, folder of a search of two seeds, the cells it returns, arguments of `discretize.run`)."""
    given = []

    def spy(*arguments, run=discretize.run):
        given.append(arguments)
        return run(*arguments)

    folder = tmp_path_factory.mktemp(request.param)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(discretize, "run", spy)
        cells = search.run(tiny_config(**of_way(request.param), seed=3, seeds=2), folder)
    return request.param, folder, cells, given[0]


def read(folder):
    """{'derived': ..., 'chosen': ...}, each (genotype, accuracy)."""
    found = json.loads((folder / "discretization.json").read_text())
    return {name: (genotypes.from_json(json.dumps(of["genotype"])), of["val_accuracy"]) for name, of in found.items()}


def test_both_cells_are_recorded_with_their_accuracies_by_the_weights_of_the_search(together):
    way, folder, cells, (problem, states, _, _, val_batches, *_) = together
    space = spaces.named(SPACES[way])
    assert val_batches["label"].shape == (2, 8)
    for number, (seed, cell) in enumerate(cells.items()):
        of_seed = folder / f"seed_{seed}"
        found = read(of_seed)
        assert found["chosen"][0] == cell == genotypes.load(of_seed / "genotype.json")
        assert found["derived"][0] == problem.method.derive(space, architecture.read_logits(of_seed, 1))
        for genotype, accuracy in found.values():
            variables = jax.tree.map(lambda a: a[number], {"params": states.params, "arch": states.arch})  # noqa: B023
            weights = {t: w[None] for t, w in space.encode(genotype).items()}
            images, labels = (np.asarray(val_batches[name]) for name in ("image", "label"))
            logits = problem.supernet.apply(variables, images.reshape(16, 8, 8, 1), weights, train=True)
            assert accuracy == pytest.approx(np.mean(np.argmax(logits, axis=1) == labels.ravel()))
    assert any(
        read(folder / f"seed_{seed}")["chosen"][0] != read(folder / f"seed_{seed}")["derived"][0] for seed in (3, 4)
    )


def test_killed_while_it_chooses_the_same_command_gives_the_cell_of_a_population(
    together, command, tmp_path, monkeypatch
):
    way, folder, _, _ = together
    arguments = tiny_arguments(tmp_path, **of_way(way), seed=4)

    def killed(*_):
        raise ValueError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(discretize, "run", killed)
        assert command(*arguments).code == "error: killed"
    assert not (tmp_path / "genotype.json").exists()
    ended = command(*arguments)
    assert ended.code == 0 and "resumed at step 6 of 6" in ended.out and "by shared weights" in ended.out
    for name in ("genotype.json", "discretization.json"):
        assert (tmp_path / name).read_bytes() == (folder / "seed_4" / name).read_bytes()


def test_a_finished_search_takes_another_way(together, tmp_path):
    way, folder, _, _ = together
    shutil.copytree(folder, tmp_path / "run")
    outdated = [tmp_path / f"run/comparison.{kind}" for kind in ("json", "md", "png")]
    for path in outdated:
        path.write_text("{}")
    config = tiny_config(**of_way(way, discretization="own"), seed=3, seeds=2)
    found = search.run(config, tmp_path / "run")
    for seed, cell in found.items():
        of_seed = tmp_path / f"run/seed_{seed}"
        assert cell == read(folder / of_seed.name)["derived"][0] == genotypes.load(of_seed / "genotype.json")
        assert not (of_seed / "discretization.json").exists()
    assert not any(path.exists() for path in outdated)  # of the cells that were chosen before
    outdated[0].write_text("{}")
    assert search.run(config, tmp_path / "run") == found and outdated[0].exists()


@pytest.mark.parametrize("name", methods.NAMED)
def test_every_method_takes_every_way(name):
    config = settings.search(name)
    own = problems.make_method(config)
    config.update({"accumulate": 4, "discretization": "perturbation"})
    config.update_from_flattened_dict({"logits.start": 0.25, **FEW})
    for stage in problems.stages_of(problems.make_method(config)):
        part = stage.method.after_search
        assert isinstance(part, Perturbation) and part.steps == 8  # of batches in four pieces
        assert stage.method.logits_start == 0.25 and stage.method.after_epoch == own.after_epoch
    config.discretization = "best_of"
    assert {stage.method.after_search for stage in problems.stages_of(problems.make_method(config))} == {BestCell(5)}


def test_the_weights_move_by_a_tenth_of_the_learning_rate():
    config = tiny_config("darts", discretization="perturbation")
    config.weights.update({"learning_rate": 0.5, "momentum": 0.0, "weight_decay": 0.0, "clip": 2.0})
    optimizer = problems.make_method(config).after_search.optimizer
    params = {"w": np.zeros(2, np.float32)}
    updates, _ = optimizer.update({"w": np.array([3.0, 4.0], np.float32)}, optimizer.init(params), params)
    np.testing.assert_allclose(updates["w"], [-0.06, -0.08], rtol=1e-6)
