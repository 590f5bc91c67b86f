"""From the supernets of a search to cells, if the method has an `after_search`: discretization.json has the cell that
it chooses, and for comparison the cell by the logits alone."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from prdarts_jax import devices
from prdarts_jax.data.augmentation import Augmentation
from prdarts_jax.data.epochs import Batch, key_for, take_batch
from prdarts_jax.run import loop, reporting
from prdarts_jax.search.problem import SearchProblem, SearchState
from prdarts_jax.search.purposes import Purpose
from prdarts_jax.search.shared_weights import measure
from prdarts_jax.spaces import discretizations
from prdarts_jax.spaces.genotypes import AnyGenotype


def run(
    problem: SearchProblem,
    states: SearchState,
    derived: Mapping[int, AnyGenotype],
    train: Batch,
    val_batches: Batch,
    augmentation: Augmentation,
    mesh: Mesh,
    folders: Sequence[Path],
) -> dict[int, AnyGenotype]:
    """Lets the method choose a cell for each seed. Its training batches are shuffled and augmented as in the search.

    The result depends on the arguments only, and a killed choice begins again. The file discretization.json in each
    folder gets both cells, each with its accuracy on the validation batches by the weights at the end of the search.
    For a seed that has ended early, these are its weights when the last seed ended.

    Args:
      problem: of the last stage.
      states: of all seeds, stacked, after the search.
      derived: index of a seed, from 0 -> its cell by the logits alone; seeds that have diverged are missing.
      train: the images that train the weights, {'image': u8[N, H, W, C], 'label': i32[N]}.
      val_batches: {'image': f32[batches, B, H, W, C], 'label': i32[batches, B]}; training batches have the same size B.
      augmentation: of training batches.
      mesh: of the devices, on which the states and the images lie.
      folders: of each seed.

    Returns:
      Index of a seed -> the cell that was chosen.
    """
    choose = problem.method.after_search
    assert choose is not None
    space, batch_size = problem.supernet.space, val_batches["label"].shape[1]
    some = next(iter(derived.values()))
    cells = [space.encode(derived.get(number, some)) for number in range(len(folders))]
    of_logits = devices.device_put(jax.tree.map(lambda *a: np.stack(a), *cells), mesh, devices.SEEDS)

    def of_seed(seed, train, val_batches):
        state, of_logits = seed
        images = len(train["label"])
        steps_per_epoch = images // batch_size

        def train_batch(number):
            epoch, position = jnp.divmod(state.step + number, steps_per_epoch)
            order = jax.random.permutation(key_for(state.key, Purpose.ORDER, epoch), images)
            key = key_for(state.key, Purpose.AUGMENTATION, state.step + number)
            return take_batch(augmentation, train, order, position, batch_size, key, problem.axis_name)

        chosen = choose(problem, state, train_batch, val_batches)
        pair = {t: jnp.stack([of_logits[t], chosen[t].astype(jnp.float32)]) for t in chosen}
        key = key_for(state.key, Purpose.CHOSEN_CELL, state.step)
        return chosen, jax.lax.map(lambda cell: measure(problem, state, key, val_batches, cell)[1], pair)

    spread = PartitionSpec(None, devices.DATA)
    function = devices.for_each_seed(of_seed, mesh, devices.REPLICATED, spread)
    arguments = (states, of_logits), train, val_batches
    chosen, accuracies = devices.device_get(loop.compiled(function, *arguments)(*arguments))
    result = {}
    for number, genotype in derived.items():
        folder = folders[number]
        result[number] = discretizations.chosen(space, {t: rows[number] for t, rows in chosen.items()})
        both = zip(("derived", "chosen"), (genotype, result[number]), accuracies[number].tolist(), strict=True)
        record = {name: {"genotype": dataclasses.asdict(cell), "val_accuracy": a} for name, cell, a in both}
        reporting.write_json(folder / "discretization.json", record)
        whose, (before, after) = f"{folder.name}: " if len(folders) > 1 else "", 100 * accuracies[number]
        same = "the cell of the logits" if result[number] == genotype else "another cell than that of the logits"
        reporting.say(
            f"{whose}{same} is chosen: {after:.1f} % by shared weights, the cell of the logits {before:.1f} %"
        )
    return result
