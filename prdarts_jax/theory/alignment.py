"""Lambda-DARTS's claims: in DARTS layers lose their alignment and the last ones dominate; its penalty prevents this."""

import functools
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
from prdarts_jax.search.step import SearchProblem, SearchState, batch_loss, init_search, search_epoch
from prdarts_jax.theory import report
from prdarts_jax.theory.report import ClaimReport, Panel, Series
from prdarts_jax.theory.settings import Settings

_BATCH_SIZE = 64
_METHODS = {"DARTS": methods.darts(), "Lambda-DARTS": methods.lambda_darts()}


def layer_gradients(problem: SearchProblem, state: SearchState, batch: Batch) -> jax.Array:
    """The gradient of the loss in each layer's own copy of the op weights, f32[layers, edges, ops], for a supernet
    whose cells are all normal. `problem` is static."""
    op_weights = problem.op_weights(state.arch, state.key, problem.progress(state.step))
    variables = {"params": state.params, "arch": state.arch}
    gradient = jax.grad(batch_loss, argnums=5, has_aux=True)
    return gradient(problem, state, state.key, batch, variables, op_weights)[0]["normal"]


def searches(key: jax.Array, settings: Settings) -> dict[str, dict[str, np.ndarray]]:
    """Searches with both methods on the digits, with the same seeds, in float32.

    Returns:
      For each method `alignment` and `entropy`, [searches, epochs], and `shares`, [searches, epochs, layers]: the share
      of each layer in the norm of the gradient.
    """
    dataset = sources.load("digits")
    train_data, val_data = jax.device_put(sources.split_halves(dataset, 0))
    augmentation, plain = (Augmentation(*sources.statistics(dataset), pad, flip=False, cutout=0) for pad in (1, 0))
    steps_per_epoch = len(train_data["label"]) // _BATCH_SIZE
    batch = {name: array[: 4 * _BATCH_SIZE] for name, array in val_data.items()}
    batch["image"] = augment(plain, jax.random.key(0), batch["image"])
    start = jax.jit(init_search, static_argnums=0)
    advance = jax.jit(search_epoch, static_argnums=(0, 4, 5), donate_argnums=1)
    gradients = jax.jit(layer_gradients, static_argnums=0)
    total = settings.epochs * steps_per_epoch
    results = {}
    for name, method in _METHODS.items():
        problem = SearchProblem(
            supernet=Supernet201(space=spaces.nas_bench_201(), channels=8, cells=2),
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
        for seed in range(settings.searches):
            state = start(problem, jax.random.fold_in(key, seed), batch["image"][:_BATCH_SIZE])
            run: dict[str, list[Any]] = {"alignment": [], "entropy": [], "shares": []}
            for _ in range(settings.epochs):
                state, metrics = advance(problem, state, train_data, val_data, augmentation, _BATCH_SIZE)
                run["alignment"].append(float(metrics["alignment_val"]))
                activation = method.activation(problem.supernet.space, state.arch, problem.progress(state.step - 1))
                run["entropy"].append(diagnostics.entropy(jax.device_get(activation))["normal"])
                norms = np.linalg.norm(np.asarray(gradients(problem, state, batch)), axis=(1, 2))
                run["shares"].append(norms / norms.sum())
            runs.append(run)
        results[name] = {field: np.array([run[field] for run in runs]) for field in runs[0]}
    return results


def alignment(key: jax.Array, settings: Settings) -> ClaimReport:
    """Alignment, entropy and the layers' shares of the gradient along searches with DARTS and Lambda-DARTS."""
    with jax.enable_x64(False):
        found = searches(key, settings)
    third = max(1, settings.epochs // 3)
    early = {name: runs["alignment"][:, :third].mean(1) for name, runs in found.items()}
    late = {name: runs["alignment"][:, -third:].mean(1) for name, runs in found.items()}
    entropy = {name: runs["entropy"] for name, runs in found.items()}
    shares = {name: runs["shares"][:, -1] for name, runs in found.items()}  # in the last epoch
    layers = shares["DARTS"].shape[1]
    epochs = range(1, settings.epochs + 1)

    def curves(x, values):
        return [Series(name, x, of_runs.mean(0), of_runs.min(0), of_runs.max(0)) for name, of_runs in values.items()]

    above = functools.partial(report.mean_above, tests=5)
    return ClaimReport(
        claim="lambda_alignment",
        statement=(
            "In DARTS the layers' gradients in the op weights lose their alignment, those near the output dominate and "
            "the logits saturate; Lambda-DARTS keeps the layers aligned (Movahedi et al., 2023)."
        ),
        setting=(
            f"NAS-Bench-201's space, C = 8, {layers} cells, digits, {settings.epochs} epochs of batch {_BATCH_SIZE}, "
            f"{settings.searches} seeds, the same for both; lambda grows to 0.125"
        ),
        findings=(
            above("DARTS: alignment falls (first third of the epochs minus the last)", early["DARTS"] - late["DARTS"]),
            above(
                "Lambda-DARTS ends better aligned than DARTS (last third, same seeds)",
                late["Lambda-DARTS"] - late["DARTS"],
            ),
            above(
                "Lambda-DARTS: alignment does not fall (last third minus first above 0)",
                late["Lambda-DARTS"] - early["Lambda-DARTS"],
            ),
            above("DARTS: the entropy of the op weights falls", entropy["DARTS"][:, 0] - entropy["DARTS"][:, -1]),
            above(
                f"DARTS: in the last epoch the last layer has more than its share, 1/{layers}, of the gradient's norm",
                shares["DARTS"][:, -1],
                1 / layers,
            ),
        ),
        panels=(
            Panel(
                "layer alignment of the validation loss",
                "epoch",
                "mean cosine, range of seeds",
                curves(epochs, {name: runs["alignment"] for name, runs in found.items()}),
            ),
            Panel("entropy of the op weights", "epoch", "nats, range of seeds", curves(epochs, entropy)),
            Panel(
                "share of the gradient's norm, last epoch",
                "layer, from the input",
                "mean, range of seeds",
                curves(range(layers), shares),
            ),
        ),
        details={
            "alignment, first and last third": {
                name: [float(early[name].mean()), float(late[name].mean())] for name in found
            },
            "entropy, first and last epoch": {
                name: [float(values[:, 0].mean()), float(values[:, -1].mean())] for name, values in entropy.items()
            },
            "shares of the layers in the last epoch": {name: values.mean(0) for name, values in shares.items()},
        },
    )
