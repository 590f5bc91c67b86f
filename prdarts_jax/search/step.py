"""The bilevel update as one pure function: weights on a training batch, logits on a validation batch.

`search_step` performs no input or output and holds no state, so any code can use it under `jit`, `vmap` and `scan`:

    step = jax.jit(search_step, static_argnums=0, donate_argnums=1)
    state, metrics = step(problem, state, train_batch, val_batch)

A batch is {'image': f32[B, H, W, C], 'label': i32[B]}.
"""

import functools

import jax
import jax.numpy as jnp

from prdarts_jax.data.augmentation import Augmentation
from prdarts_jax.data.epochs import Batch, Metrics, key_for, run_epoch
from prdarts_jax.search import alignment, hypergradients, terms
from prdarts_jax.search.problem import SearchProblem, SearchState, batch_loss, check_batch
from prdarts_jax.search.purposes import Purpose
from prdarts_jax.search.terms.base import union


def search_step(
    problem: SearchProblem, state: SearchState, train_batch: Batch, val_batch: Batch
) -> tuple[SearchState, Metrics]:
    """One step of a search: an update of the weights and one of the logits (Liu et al., 2019, Algorithm 1).

    The method decides which update comes first; the second gradient is taken after the first update.

    Args:
      problem: static.
      state: before; may be donated.
      train_batch: for the weights.
      val_batch: for the logits.

    Returns:
      (state, metrics): the state after the step, and f32[] scalars:
        train_loss, train_accuracy: of `train_batch`, before the update of the weights; the accuracy is a fraction.
        val_loss, val_accuracy: of `val_batch`, before the update of the logits.
        alignment_val: `alignment.cosine` of the gradients of the validation loss in the normal cells.
        alignment_train: the same of the training loss, if the method has an inner term.
        The metrics of the method's relaxation, terms and freezing.

    Raises:
      ValueError: a batch has no images, or labels that the loss does not take.
    """
    check_batch("train_batch", train_batch)
    check_batch("val_batch", val_batch)
    variables, opt_state = {"params": state.params, "arch": state.arch}, state.opt_state
    metrics: Metrics = {}
    for collection in ("params", "arch") if problem.method.weights_first else ("arch", "params"):
        more = {}
        if collection == "params":
            gradient, (found, batch_stats) = _weight_gradient(problem, state, variables, train_batch)
            if problem.method.freezing:
                more = {"val_gradient": _val_gradient(problem, state, variables, val_batch)}
        else:
            gradient, found = _logits_gradient(problem, state, variables, opt_state, train_batch, val_batch)
        variables, opt_state = problem.update(collection, gradient, variables, opt_state, **more)
        metrics = union(metrics, found)
    if problem.method.freezing:
        frozen = problem.method.freezing.metrics(opt_state.inner_states["params"].inner_state)
        metrics = union(metrics, frozen)
    return state.replace(step=state.step + 1, opt_state=opt_state, batch_stats=batch_stats, **variables), metrics


def _weight_gradient(problem, state, variables, batch):
    """(dL_train/dw with the inner term, (metrics, running statistics after the batch))."""
    method, progress = problem.method, problem.progress(state.step)
    key = key_for(state.key, Purpose.WEIGHTS, state.step)

    def loss(params, op_weights):
        value, (accuracy, stats) = batch_loss(problem, state, key, batch, variables | {"params": params}, op_weights)
        return value, ({"train_loss": value, "train_accuracy": accuracy}, stats)

    def loss_of_types(weights):
        return loss(variables["params"], problem.in_each_layer(weights))[0]

    weights, inner = problem.weigh(variables["arch"], key, progress), method.inner
    if method.smoothing:
        key_smoothing = key_for(state.key, Purpose.SMOOTHING, state.step)
        weights = method.smoothing(weights, problem.grad(loss_of_types), key_smoothing, progress)
    op_weights = problem.in_each_layer(weights)
    if inner is None:
        return problem.grad(loss, has_aux=True)(variables["params"], op_weights)
    gradient, of_layers, (metrics, stats) = alignment.aligned_gradient(
        lambda params, normal: loss(params, op_weights | {"normal": normal}),
        inner.measure,
        inner.weight(progress),
        variables["params"],
        op_weights["normal"],
        problem.grad,
    )
    return gradient, (metrics | {"alignment_train": alignment.cosine(of_layers)}, stats)


def _val_gradient(problem, state, variables, batch):
    """dL_val/dw, with the op weights of the step before they are perturbed, and without the inner term."""
    key = key_for(state.key, Purpose.WEIGHTS, state.step)
    op_weights = problem.op_weights(variables["arch"], key, problem.progress(state.step))

    def loss(params):
        return batch_loss(problem, state, key, batch, variables | {"params": params}, op_weights)[0]

    return problem.grad(loss)(variables["params"])


def _logits_gradient(problem, state, variables, opt_state, train_batch, val_batch):
    """(the gradient in the logits of what they minimise, metrics)."""
    method, progress = problem.method, problem.progress(state.step)
    key = key_for(state.key, Purpose.LOGITS, state.step)

    def loss(params, op_weights):
        value, (accuracy, _) = batch_loss(problem, state, key, val_batch, variables | {"params": params}, op_weights)
        return value, {"val_loss": value, "val_accuracy": accuracy}

    def added(logits, val_loss):
        space = problem.supernet.space
        view = terms.View(space, logits, method.activation(space, logits, progress), val_loss)
        op_weights = problem.weigh(logits, key, progress)
        return terms.total(method.terms, view, op_weights, progress)

    def val_gradient(params, at, argnums):
        """((gradient in the weights, if 0 is in argnums; gradient in `at`), metrics); the gradient in the logits is
        found from that in the op weights."""
        logits = at["logits"]
        op_weights, pull_back = jax.vjp(lambda logits: problem.op_weights(logits, key, progress), logits)
        (*dparams, dweights), metrics = problem.grad(loss, argnums=argnums, has_aux=True)(params, op_weights)
        dadded, more = jax.grad(added, has_aux=True)(logits, metrics["val_loss"])
        (dlogits,) = pull_back(dweights)
        of_layers = {"alignment_val": alignment.cosine(dweights["normal"])} if "normal" in dweights else {}
        metrics = union(metrics, more, method.relaxation.metrics(progress), of_layers)
        dat = {"logits": jax.tree.map(jnp.add, dlogits, dadded), "images": jnp.zeros_like(at["images"])}
        return (*dparams, dat), metrics

    key_weights = key_for(state.key, Purpose.WEIGHTS, state.step)

    def train_loss(params, at):
        op_weights = problem.op_weights(at["logits"], key_weights, progress)
        batch = {**train_batch, "image": at["images"]}
        return batch_loss(problem, state, key_weights, batch, variables | {"params": params}, op_weights)[0]

    def update(gradient, params, opt_state):
        moved, opt_state = problem.update("params", gradient, variables | {"params": params}, opt_state)
        return moved["params"], opt_state

    # Forward mode works in the kernels of the stem only if the inner gradient goes through them too. The gradient in
    # the logits alone does not, the gradient in the images does.
    at = {"logits": variables["arch"], "images": train_batch["image"]}
    dat, metrics = method.hypergradient(
        hypergradients.Bilevel(train_loss, val_gradient, update, variables["params"], opt_state, at, problem.grad)
    )
    return dat["logits"], metrics


def search_epoch(
    problem: SearchProblem,
    state: SearchState,
    train_data: Batch,
    val_data: Batch,
    augmentation: Augmentation,
    batch_size: int,
    steps: int | jax.Array | None = None,
) -> tuple[SearchState, Metrics]:
    """Does steps of one epoch in one compiled loop; the data are on the device, and are shuffled and augmented there.

    The order of the data and their augmentation depend only on the state's key and step, so an epoch may be run in
    parts. Compile with `jax.jit(search_epoch, static_argnums=(0, 4, 5), donate_argnums=1)`: `steps` is then an
    ordinary argument, and one compiled function serves parts of any length.

    Args:
      problem: static.
      state: before the steps; its `step` decides with which batch of which epoch to begin.
      train_data, val_data: {'image': u8[N, H, W, C], 'label': i32[N]}, with the same N.
      augmentation: static.
      batch_size: static; the N % batch_size images that remain are not used in this epoch.
      steps: number of steps; by default those of an epoch. Steps beyond the end of the epoch would repeat its batches.

    Returns:
      (state, metrics): the state after the steps, and the metrics of `search_step` averaged over the steps.

    Raises:
      ValueError: the data have no batch of this size.
    """
    step, datasets = functools.partial(search_step, problem), (train_data, val_data)
    purposes = Purpose.ORDER, Purpose.AUGMENTATION
    return run_epoch(step, state, datasets, purposes, augmentation, batch_size, steps, problem.axis_name)
