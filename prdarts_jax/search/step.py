"""The bilevel update as one pure function: weights on a training batch, logits on a validation batch.

`search_step` performs no input or output and holds no state, so any code can use it under `jit`, `vmap` and `scan`:

    step = jax.jit(search_step, static_argnums=0, donate_argnums=1)
    state, metrics = step(problem, state, train_batch, val_batch)

A batch is {'image': f32[B, H, W, C], 'label': i32[B]}.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax

from prdarts_jax import devices
from prdarts_jax.data.augmentation import Augmentation
from prdarts_jax.data.epochs import Batch, Metrics, key_for, run_epoch
from prdarts_jax.refusals import shown
from prdarts_jax.search import alignment, hypergradients, terms
from prdarts_jax.search.method import Method
from prdarts_jax.search.relaxations import Arch


@dataclasses.dataclass(frozen=True)
class SearchProblem:
    """The parts of a search that do not change: a static, hashable argument.

    Attributes:
      supernet: any Flax module that is called as `(images, op_weights, *, train) -> class logits f32[B, classes]`, with
        op weights f32[layers, edges, ops] for each cell type, and keeps the architecture's logits in a collection
        `arch`, for instance as `normal` and `reduce`. Its attribute `layers` is {cell type: number of its cells}, and
        its `space` is the `SearchSpace`. If the method has a `dropout_rate`, the call takes `dropout_rate` too. If the
        supernet has an `axis_name`, a batch is the part of one device; see `devices.py`.
      method: how logits become op weights and what they minimise.
      weight_optimizer: of the collection `params`.
      arch_optimizer: of the collection `arch`.
      total_steps: number of steps of the search; progress is step / (total_steps - 1).

    Raises:
      ValueError: the supernet lacks `space`, or `layers` for a cell type, or is not what the method needs; the method
        is none, or has several stages, of which each needs a problem of its own.
    """

    supernet: nn.Module
    method: Method
    weight_optimizer: optax.GradientTransformation
    arch_optimizer: optax.GradientTransformation
    total_steps: int

    def __post_init__(self) -> None:
        supernet = f"supernet={type(self.supernet).__name__}"
        for attribute in ("layers", "space"):
            if not hasattr(self.supernet, attribute):
                raise ValueError(f"{supernet} must have the attribute {attribute}")
        layers = self.supernet.layers
        if missing := [t for t in self.supernet.space.cell_types if not (isinstance(layers, Mapping) and t in layers)]:
            raise ValueError(f"{supernet} must have the number of its {missing[0]} cells in its attribute layers")
        if not isinstance(self.method, Method):
            raise ValueError(f"method={shown(self.method)} must be a Method, such as pdx.methods.darts()")
        if self.method.stages:
            raise ValueError(
                f"method has {len(self.method.stages)} stages: make a SearchProblem of each of their methods"
            )
        for field, value in self.method.supernet.items():
            if (there := getattr(self.supernet, field, value)) != value:
                raise ValueError(f"{supernet} has {field}={shown(there)}, but its method needs {field}={shown(value)}")

    @property
    def optimizer(self) -> optax.GradientTransformation:
        """One transformation of {'params': ..., 'arch': ...}, each collection by its own optimizer."""
        return optax.partition(self._optimizers, {"params": "params", "arch": "arch"})

    @property
    def _optimizers(self) -> dict[str, optax.GradientTransformation]:
        arch_optimizer, start = self.arch_optimizer, round(self.method.logits_start * self.total_steps)
        if start:
            arch_optimizer = optax.transforms.conditionally_mask(arch_optimizer, lambda step: step >= start)
        freezing = self.method.freezing
        weight_optimizer = freezing(self.weight_optimizer) if freezing else self.weight_optimizer
        return {"params": weight_optimizer, "arch": arch_optimizer}

    def update(
        self, collection: str, gradient: Any, variables: dict[str, Any], opt_state: Any, **more: Any
    ) -> tuple[dict[str, Any], Any]:
        """(variables, opt_state) after `optimizer` has updated one collection, 'params' or 'arch', by its gradient.

        The other collection and the state of its optimizer stay as they are. The optimizer gets all other arguments.
        """
        # The optimizer sees 0 for the logit of an op that is no candidate; that logit stays -inf.
        seen = jax.tree.map(lambda a: jnp.where(jnp.isfinite(a), a, 0.0), variables["arch"])
        seen = {"params": variables["params"], "arch": seen}
        transform = optax.masked(self._optimizers[collection], {name: name == collection for name in seen})
        updates, inner = transform.update(
            seen | {collection: gradient}, opt_state.inner_states[collection], seen, **more
        )
        moved = optax.apply_updates(seen[collection], updates[collection])
        if collection == "arch":
            moved = jax.tree.map(lambda old, new: jnp.where(jnp.isfinite(old), new, old), variables["arch"], moved)
        opt_state = opt_state._replace(inner_states={**opt_state.inner_states, collection: inner})
        return variables | {collection: moved}, opt_state

    def op_weights(self, logits: Arch, key: jax.Array, progress: jax.Array) -> Arch:
        """Op weights of one forward pass, f32[layers, edges, ops] for each cell type; consumes `key`.

        They are drawn once for each cell type: all layers get the same weights.
        """
        return self.in_each_layer(self.weigh(logits, key, progress))

    def weigh(self, logits: Arch, key: jax.Array, progress: jax.Array) -> Arch:
        """Op weights of one forward pass, f32[edges, ops] for each cell type; consumes `key`.

        Raises:
          ValueError: the relaxation returns anything else.
        """
        space, relaxation = self.supernet.space, self.method.relaxation
        weights = relaxation.weigh(space, logits, key, progress)
        shapes = {t: w.shape for t, w in weights.items()} if isinstance(weights, Mapping) else type(weights).__name__
        if shapes != dict.fromkeys(space.cell_types, space.shape):
            raise ValueError(
                f"{type(relaxation).__name__}.weigh must return {{cell type: array of the shape {space.shape}}} for "
                f"{', '.join(space.cell_types)}, but returns {shapes}"
            )
        return weights

    def in_each_layer(self, weights: Arch) -> Arch:
        """Repeats the weights f32[edges, ops] of each cell type for all of its cells: f32[layers, edges, ops]."""
        return {t: jnp.broadcast_to(w, (self.supernet.layers[t], *w.shape)) for t, w in weights.items()}

    @property
    def axis_name(self) -> str | None:
        """The mapped axis over which batches are spread, if any."""
        return getattr(self.supernet, "axis_name", None)

    @property
    def grad(self) -> Callable:
        """Like `jax.grad`, for losses that are means over a batch, which may be spread over several devices."""
        return functools.partial(devices.grad, axis_name=self.axis_name)

    def progress(self, step: jax.Array) -> jax.Array:
        """The fraction of the search done, f32[]: 0 in the first step, 1 in the last of several and after it."""
        return jnp.minimum(jnp.float32(step) / max(self.total_steps - 1, 1), 1.0)


class SearchState(flax.struct.PyTreeNode):
    """The parts of a search that change: a pytree of arrays.

    Attributes:
      step: i32[], number of steps done.
      params: weights of the supernet.
      arch: logits.
      batch_stats: running statistics; empty if the supernet keeps none.
      opt_state: state of `SearchProblem.optimizer`.
      key: never consumed; the key of every draw is made from it, the step, and a number for what is drawn.
    """

    step: jax.Array
    params: dict
    arch: dict
    batch_stats: dict
    opt_state: optax.OptState
    key: jax.Array


def init_search(
    problem: SearchProblem, key: jax.Array, images: jax.Array, candidates: dict[str, jax.Array] | None = None
) -> SearchState:
    """The initial state of a search.

    Compile it (`jax.jit`, static_argnums=0): the compiler leaves out its forward pass, whose result is not used.

    Args:
      problem: static.
      key: the search's only source of randomness.
      images: f32[B, H, W, C]; only the shape matters.
      candidates: for each cell type bool[edges, ops], the ops to search among; by default all candidates of the space.

    Raises:
      ValueError: the collection `arch` of the supernet does not have logits f32[edges, ops] for each cell type.
    """
    key_params, key_arch, key_search = jax.random.split(key, 3)
    supernet = problem.supernet
    if problem.axis_name:
        supernet = supernet.clone(axis_name=None)  # so that this function can be called outside a mapped axis
    variables = supernet.init(key_params, images, train=True)
    params, logits = variables["params"], variables.get("arch", {})
    shapes = {name: jnp.shape(value) for name, value in logits.items()}
    if any(shapes.get(cell_type) != supernet.space.shape for cell_type in supernet.space.cell_types):
        raise ValueError(
            f"supernet={type(supernet).__name__} must have logits of the shape {supernet.space.shape} in its "
            f"collection 'arch' for {', '.join(supernet.space.cell_types)}, but has {shapes}"
        )
    if candidates is not None:
        logits = {t: jnp.where(candidates[t], beta, -jnp.inf) for t, beta in logits.items()}
    arch = problem.method.relaxation.init(supernet.space, key_arch, logits)
    arch |= {t: jnp.where(jnp.isfinite(beta), arch[t], -jnp.inf) for t, beta in logits.items()}
    return SearchState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        arch=arch,
        batch_stats=variables.get("batch_stats", {}),
        opt_state=problem.optimizer.init({"params": params, "arch": arch}),
        key=key_search,
    )


def batch_loss(
    problem: SearchProblem,
    state: SearchState,
    key: jax.Array,
    batch: Batch,
    variables: dict[str, Any],
    op_weights: Arch,
) -> tuple[jax.Array, tuple[jax.Array, Any]]:
    """The mean cross entropy of a batch, f32[], and (its accuracy f32[], the running statistics after it).

    Args:
      problem: static.
      state: only its step and its running statistics are used.
      key: for the random numbers of ops.
      batch: {'image': f32[B, H, W, C], 'label': i32[B]}.
      variables: {'params', 'arch'}, which are used in place of those of the state.
      op_weights: f32[layers, edges, ops] for each cell type.
    """
    rate = problem.method.dropout_rate
    options: dict[str, Any] = {"dropout_rate": rate(problem.progress(state.step))} if rate else {}
    logits, updated = problem.supernet.apply(
        variables | {"batch_stats": state.batch_stats},
        batch["image"],
        op_weights,
        train=True,
        mutable=["batch_stats"],
        # Far from the numbers of the keys that `weigh` splits off: split(key, n)[i] is fold_in(key, i).
        rngs={"draws": jax.random.fold_in(key, 2**31)},
        **options,
    )
    if not isinstance(logits, jax.Array) or logits.ndim != 2:
        raise ValueError(
            f"supernet={type(problem.supernet).__name__} must return class logits [B, classes], but returns "
            f"{shown(jax.tree.map(jnp.shape, logits))}"
        )
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"]).mean()
    accuracy = jnp.mean(jnp.argmax(logits, axis=-1) == batch["label"])
    if problem.axis_name:
        loss, accuracy = jax.lax.pmean((loss, accuracy), problem.axis_name)
    return loss, (accuracy, updated.get("batch_stats", {}))


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
    """
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
        metrics |= found
    if problem.method.freezing:
        metrics |= problem.method.freezing.metrics(opt_state.inner_states["params"].inner_state)
    return state.replace(step=state.step + 1, opt_state=opt_state, batch_stats=batch_stats, **variables), metrics


def _weight_gradient(problem, state, variables, batch):
    """(dL_train/dw with the inner term, (metrics, running statistics after the batch))."""
    method, progress, key = problem.method, problem.progress(state.step), key_for(state.key, 0, state.step)

    def loss(params, op_weights):
        value, (accuracy, stats) = batch_loss(problem, state, key, batch, variables | {"params": params}, op_weights)
        return value, ({"train_loss": value, "train_accuracy": accuracy}, stats)

    def loss_of_types(weights):
        return loss(variables["params"], problem.in_each_layer(weights))[0]

    weights, inner = problem.weigh(variables["arch"], key, progress), method.inner
    if method.smoothing:
        weights = method.smoothing(weights, problem.grad(loss_of_types), key_for(state.key, 8, state.step), progress)
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
    key = key_for(state.key, 0, state.step)
    op_weights = problem.op_weights(variables["arch"], key, problem.progress(state.step))

    def loss(params):
        return batch_loss(problem, state, key, batch, variables | {"params": params}, op_weights)[0]

    return problem.grad(loss)(variables["params"])


def _logits_gradient(problem, state, variables, opt_state, train_batch, val_batch):
    """(the gradient in the logits of what they minimise, metrics)."""
    method, progress, key = problem.method, problem.progress(state.step), key_for(state.key, 1, state.step)

    def loss(params, op_weights):
        value, (accuracy, _) = batch_loss(problem, state, key, val_batch, variables | {"params": params}, op_weights)
        return value, {"val_loss": value, "val_accuracy": accuracy}

    def added(logits, val_loss):
        space = problem.supernet.space
        view = terms.View(space, logits, method.activation(space, logits, progress), val_loss)
        op_weights = method.relaxation.weigh(space, logits, key, progress)
        return terms.total(method.terms, view, op_weights, progress)

    def val_gradient(params, at, argnums):
        """((gradient in the weights, if 0 is in argnums; gradient in `at`), metrics); the gradient in the logits is
        found from that in the op weights."""
        logits = at["logits"]
        op_weights, pull_back = jax.vjp(lambda logits: problem.op_weights(logits, key, progress), logits)
        (*dparams, dweights), metrics = problem.grad(loss, argnums=argnums, has_aux=True)(params, op_weights)
        dadded, more = jax.grad(added, has_aux=True)(logits, metrics["val_loss"])
        (dlogits,) = pull_back(dweights)
        of_relaxation = method.relaxation.metrics(progress)
        if taken := more.keys() & of_relaxation.keys():
            raise ValueError(f"terms must report metrics under other names than {', '.join(sorted(taken))}")
        metrics |= more | of_relaxation
        if "normal" in dweights:
            metrics["alignment_val"] = alignment.cosine(dweights["normal"])
        dat = {"logits": jax.tree.map(jnp.add, dlogits, dadded), "images": jnp.zeros_like(at["images"])}
        return (*dparams, dat), metrics

    key_weights = key_for(state.key, 0, state.step)

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
    return run_epoch(step, state, datasets, (2, 3), augmentation, batch_size, steps, problem.axis_name)
