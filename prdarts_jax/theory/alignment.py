"""Lambda-DARTS's claims: in DARTS layers lose their alignment and the last ones dominate; its penalty prevents this."""

from typing import Any

import jax
import numpy as np
import optax

from prdarts_jax import spaces
from prdarts_jax.data import sources
from prdarts_jax.data.augmentation import Augmentation, augment
from prdarts_jax.data.epochs import Batch
from prdarts_jax.nets.nas_bench_201 import Supernet201
from prdarts_jax.search import diagnostics, methods
from prdarts_jax.search.problem import SearchProblem, SearchState, batch_loss, init_search
from prdarts_jax.search.step import search_epoch
from prdarts_jax.theory import draws as drawing

_BATCH_SIZE = 64
_METHODS = {"DARTS": methods.darts(), "Lambda-DARTS": methods.lambda_darts()}


def layer_gradients(problem: SearchProblem, state: SearchState, batch: Batch) -> jax.Array:
    """The gradient of the loss in each layer's own copy of the op weights, f32[layers, edges, ops], for a supernet
    whose cells are all normal. `problem` is static."""
    op_weights = problem.op_weights(state.arch, state.key, problem.progress(state.step))
    variables = {"params": state.params, "arch": state.arch}
    gradient = jax.grad(batch_loss, argnums=5, has_aux=True)
    return gradient(problem, state, state.key, batch, variables, op_weights)[0]["normal"]


def searches(key: jax.Array, channels: int, draws: int, epochs: int) -> dict[str, dict[str, np.ndarray]]:
    """Searches with both methods on the digits, with the same seeds, in float32.

    Returns:
      For each method `alignment` and `entropy`, [draws, epochs], and `shares`, [draws, epochs, layers]: the share
      of each layer in the norm of the gradient.
    """
    dataset = sources.load("digits")
    train_data, val_data = jax.device_put(sources.split_halves(dataset, 0))
    augmentation, plain = (Augmentation(*sources.statistics(dataset), pad, flip=False, cutout=0) for pad in (1, 0))
    steps_per_epoch = len(train_data["label"]) // _BATCH_SIZE
    batch = {name: array[: 4 * _BATCH_SIZE] for name, array in val_data.items()}
    batch["image"] = augment(plain, jax.random.key(0), batch["image"])
    start = drawing.quickly(init_search, static_argnums=0)
    advance = drawing.quickly(search_epoch, static_argnums=(0, 4, 5), donate_argnums=1)
    gradients = drawing.quickly(layer_gradients, static_argnums=0)
    total = epochs * steps_per_epoch
    results = {}
    for name, method in _METHODS.items():
        problem = SearchProblem(
            supernet=Supernet201(space=spaces.nas_bench_201(), channels=channels, cells=2),
            method=method,
            weight_optimizer=optax.chain(
                optax.clip_by_global_norm(5.0),
                optax.add_decayed_weights(3e-4),
                optax.sgd(optax.cosine_decay_schedule(0.025, total), momentum=0.9),
            ),
            arch_optimizer=optax.chain(optax.add_decayed_weights(1e-3), optax.adam(0.01, b1=0.5, b2=0.999)),
            total_steps=total,
        )
        runs: list[dict[str, list[Any]]] = []
        for seed in range(draws):
            state = start(problem, jax.random.fold_in(key, seed), batch["image"][:_BATCH_SIZE])
            run: dict[str, list[Any]] = {"alignment": [], "entropy": [], "shares": []}
            for _ in range(epochs):
                state, metrics = advance(problem, state, train_data, val_data, augmentation, _BATCH_SIZE)
                run["alignment"].append(float(metrics["alignment_val"]))
                activation = method.activation(problem.supernet.space, state.arch, problem.progress(state.step - 1))
                run["entropy"].append(diagnostics.entropy(jax.device_get(activation))["normal"])
                norms = np.linalg.norm(np.asarray(gradients(problem, state, batch)), axis=(1, 2))
                run["shares"].append(norms / norms.sum())
            runs.append(run)
        results[name] = {field: np.array([run[field] for run in runs]) for field in runs[0]}
    return results


def alignment(key: jax.Array, *, channels: int, draws: int, epochs: int) -> dict[str, np.ndarray]:
    """Of `draws` searches with each method and `channels` channels, in float32: how alignment, entropy and the layers'
    shares of the gradient change.

    `fall` is the first third of the epochs minus the last, for the alignment. The entropy of the last epoch is divided
    by that of equal op weights. `last layer` is the share of the last layer in the gradient's norm in the last epoch,
    divided by the share that equal layers have.
    """
    with jax.enable_x64(False):
        found = searches(key, channels, draws, epochs)
    third = max(1, epochs // 3)
    early, late = (
        {name: runs["alignment"][:, part].mean(1) for name, runs in found.items()}
        for part in (slice(third), slice(-third, None))
    )
    result = {"ahead": late["Lambda-DARTS"] - late["DARTS"]}
    for name, runs in found.items():
        result[f"{name}: fall"] = early[name] - late[name]
        result[f"{name}: entropy"] = runs["entropy"][:, -1] / np.log(len(spaces.nas_bench_201().ops))
        result[f"{name}: last layer"] = runs["shares"][:, -1, -1] * runs["shares"].shape[2]
    return result
