"""The bilevel update as one pure function: weights on a training batch, logits on a validation batch.

`search_step` performs no input or output and holds no state, so it runs under `jit`, `vmap` and `scan` of anybody's
code:

    step = jax.jit(search_step, static_argnums=0, donate_argnums=1)
    state, metrics = step(problem, state, train_batch, val_batch)

A batch is {'image': f32[B, H, W, C], 'label': i32[B]}.
"""

import dataclasses

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax

from prdarts_jax.data import Augmentation
from prdarts_jax.loops import Batch, Metrics, key_for, repeat, take_batch
from prdarts_jax.methods import Method


@dataclasses.dataclass(frozen=True)
class SearchProblem:
    """What stays the same over a search: a static, hashable argument.

    Attributes:
      supernet: any Flax module with logits `normal` and `reduce` in a collection `arch` and a call
        `(images, op_weights, *, train) -> logits of the classes`.
      method: how logits become op weights and what they minimise.
      weight_optimizer: of the collection `params`.
      arch_optimizer: of the collection `arch`.
      total_steps: length of the search; progress is step / (total_steps - 1).
    """

    supernet: nn.Module
    method: Method
    weight_optimizer: optax.GradientTransformation
    arch_optimizer: optax.GradientTransformation
    total_steps: int

    @property
    def optimizer(self) -> optax.GradientTransformation:
        """One transformation of {'params': ..., 'arch': ...}, each collection by its own optimizer."""
        return optax.partition(
            {"params": self.weight_optimizer, "arch": self.arch_optimizer},
            {"params": "params", "arch": "arch"},
        )

    def progress(self, step: jax.Array) -> jax.Array:
        """The fraction of the search done, f32[]: 0 in the first step and, if there are more, 1 in the last."""
        return jnp.minimum(jnp.float32(step) / max(self.total_steps - 1, 1), 1.0)


class SearchState(flax.struct.PyTreeNode):
    """What changes: arrays only.

    Attributes:
      step: i32[], steps done.
      params: weights of the supernet.
      arch: logits.
      batch_stats: running statistics, empty where the supernet keeps none.
      opt_state: state of `SearchProblem.optimizer`.
      key: never consumed; every draw is made from it, the step and a purpose.
    """

    step: jax.Array
    params: dict
    arch: dict
    batch_stats: dict
    opt_state: optax.OptState
    key: jax.Array


def init_search(problem: SearchProblem, key: jax.Array, images: jax.Array) -> SearchState:
    """The state a search starts from. Compile it (`jax.jit`, static_argnums=0): its forward pass is then never run.

    Args:
      problem: what to search.
      key: the search's only source of randomness.
      images: f32[B, H, W, C], of which only the shape matters.
    """
    key_params, key_arch, key_search = jax.random.split(key, 3)
    variables = problem.supernet.init(key_params, images, train=True)
    params, arch = variables["params"], problem.method.init(key_arch, variables["arch"])
    return SearchState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        arch=arch,
        batch_stats=variables.get("batch_stats", {}),
        opt_state=problem.optimizer.init({"params": params, "arch": arch}),
        key=key_search,
    )


def search_step(
    problem: SearchProblem, state: SearchState, train_batch: Batch, val_batch: Batch
) -> tuple[SearchState, Metrics]:
    """One step of a search: an update of the weights and one of the logits (Liu et al., 2019, Algorithm 1, xi = 0).

    The second of the two, in the order that the method asks for, is taken where the first has led to. Both are first
    order.

    Args:
      problem: static.
      state: before; may be donated.
      train_batch: for the weights, {'image': f32[B, H, W, C], 'label': i32[B]}.
      val_batch: for the logits, likewise.

    Returns:
      (state, metrics): the state after, and f32[] scalars: train_loss, train_accuracy, val_loss, val_accuracy (of the
      batches, before the respective update; accuracies as fractions) and those of the method.
    """
    progress = problem.progress(state.step)
    key_weights, key_arch = key_for(state.key, 0, state.step), key_for(state.key, 1, state.step)
    variables = {"params": state.params, "arch": state.arch}

    def forward(variables, op_weights, batch):
        logits, updated = problem.supernet.apply(
            variables | {"batch_stats": state.batch_stats},
            batch["image"],
            op_weights,
            train=True,
            mutable=["batch_stats"],
        )
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"]).mean()
        accuracy = jnp.mean(jnp.argmax(logits, axis=-1) == batch["label"])
        return loss, accuracy, updated.get("batch_stats", {})

    def train_objective(params, arch):
        op_weights = problem.method.weigh(arch, key_weights, progress)
        loss, accuracy, stats = forward({"params": params, "arch": arch}, op_weights, train_batch)
        return loss, ({"train_loss": loss, "train_accuracy": accuracy}, stats)

    def val_objective(arch, params):
        op_weights = problem.method.weigh(arch, key_arch, progress)
        loss, accuracy, _ = forward({"params": params, "arch": arch}, op_weights, val_batch)
        total, metrics = problem.method.objective(loss, arch, op_weights, progress)
        return total, {"val_loss": loss, "val_accuracy": accuracy} | metrics

    def weight_gradient(at):
        return jax.grad(train_objective, has_aux=True)(at["params"], at["arch"])

    def arch_gradient(at):
        return jax.grad(val_objective, has_aux=True)(at["arch"], at["params"])

    def update(gradients):
        updates, opt_state = problem.optimizer.update(gradients, state.opt_state, variables)
        return optax.apply_updates(variables, updates), opt_state

    def ahead(**gradient):
        """The variables after the first update alone; XLA computes only what of it is used."""
        return update(jax.tree.map(jnp.zeros_like, variables) | gradient)[0]

    if problem.method.weights_first:
        dparams, (metrics, batch_stats) = weight_gradient(variables)
        moved = {"params": ahead(params=dparams)["params"], "arch": state.arch}
        darch, val_metrics = arch_gradient(moved)
    else:
        darch, val_metrics = arch_gradient(variables)
        moved = {"params": state.params, "arch": ahead(arch=darch)["arch"]}
        dparams, (metrics, batch_stats) = weight_gradient(moved)

    variables, opt_state = update({"params": dparams, "arch": darch})
    new_state = state.replace(step=state.step + 1, opt_state=opt_state, batch_stats=batch_stats, **variables)
    return new_state, metrics | val_metrics


def search_epoch(
    problem: SearchProblem,
    state: SearchState,
    train_data: Batch,
    val_data: Batch,
    augmentation: Augmentation,
    batch_size: int,
    steps: int | jax.Array | None = None,
) -> tuple[SearchState, Metrics]:
    """Steps of one epoch in one compiled loop, the data on the device, shuffled and augmented there.

    The order of the data and their augmentation are a function of the state's key and step alone, so an epoch may be
    run in parts. Compile with `jax.jit(search_epoch, static_argnums=(0, 4, 5), donate_argnums=1)`: `steps` is then an
    ordinary argument, and one compiled function serves parts of any length.

    Args:
      problem: static.
      state: before; its step says where in which epoch to begin.
      train_data: {'image': u8[N, H, W, C], 'label': i32[N]}.
      val_data: likewise, of the same N.
      augmentation: static.
      batch_size: static; what is left over of N is not used in this epoch.
      steps: how many steps to do; by default an epoch's. The epoch must have that many left.

    Returns:
      (state, metrics): the state after, and the metrics of `search_step` averaged over the steps.
    """
    steps_per_epoch = len(train_data["label"]) // batch_size
    epoch = state.step // steps_per_epoch
    key_epoch = key_for(state.key, 2, epoch)
    orders = jax.vmap(lambda k: jax.random.permutation(k, len(train_data["label"])))(jax.random.split(key_epoch))

    def next_step(state):
        position = state.step % steps_per_epoch
        batches = [
            take_batch(augmentation, data, order, position, batch_size, key)
            for data, order, key in zip(
                (train_data, val_data), orders, jax.random.split(key_for(state.key, 3, state.step)), strict=True
            )
        ]
        return search_step(problem, state, *batches)

    return repeat(next_step, state, steps_per_epoch if steps is None else steps)
