"""The bilevel update as one pure function: weights on a training batch, logits on a validation batch.

`search_step` performs no input or output and holds no state, so it runs under `jit`, `vmap` and `scan` of anybody's
code:

    step = jax.jit(search_step, static_argnums=0, donate_argnums=1)
    state, metrics = step(problem, state, train_batch, val_batch)

A batch is {'image': f32[B, H, W, C], 'label': i32[B]}.
"""

import dataclasses
import functools
from collections.abc import Callable

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax

from prdarts_jax import devices
from prdarts_jax.data.augmentation import Augmentation
from prdarts_jax.data.epochs import Batch, Metrics, key_for, run_epoch
from prdarts_jax.search import hypergradients, regularizers
from prdarts_jax.search.methods import Method


@dataclasses.dataclass(frozen=True)
class SearchProblem:
    """What stays the same over a search: a static, hashable argument.

    Attributes:
      supernet: any Flax module with logits, for instance `normal` and `reduce`, in a collection `arch` and a call
        `(images, op_weights, *, train) -> logits of the classes`. If it has `layers`, the number of its cells of each
        type, it is given op weights of each layer, and the layers' alignment is reported. Of a method with dropout its
        call also takes `dropout_rate`. If it has an `axis_name`, a batch is the part of one device; see `devices.py`.
      method: how logits become op weights and what they minimise.
      weight_optimizer: of the collection `params`.
      arch_optimizer: of the collection `arch`.
      total_steps: length of the search; progress is step / (total_steps - 1).

    Raises:
      ValueError: the method is for another space than the supernet's, or aligns layers that the supernet has not.
    """

    supernet: nn.Module
    method: Method
    weight_optimizer: optax.GradientTransformation
    arch_optimizer: optax.GradientTransformation
    total_steps: int

    def __post_init__(self) -> None:
        of_method, of_supernet = (getattr(part, "space", None) for part in (self.method, self.supernet))
        if self.method.aligns and not hasattr(self.supernet, "layers"):
            raise ValueError(f"{type(self.method).__name__} needs a supernet that has `layers` and op weights of each")
        if of_method and of_supernet and of_method != of_supernet:
            raise ValueError(f"method.space={of_method.name!r} must be that of the supernet, {of_supernet.name!r}")

    @property
    def optimizer(self) -> optax.GradientTransformation:
        """One transformation of {'params': ..., 'arch': ...}, each collection by its own optimizer."""
        arch_optimizer, start = self.arch_optimizer, round(self.method.logits_start * self.total_steps)
        if start:
            arch_optimizer = optax.transforms.conditionally_mask(arch_optimizer, lambda step: step >= start)
        return optax.partition(
            {"params": self.weight_optimizer, "arch": arch_optimizer},
            {"params": "params", "arch": "arch"},
        )

    @property
    def axis_name(self) -> str | None:
        """The mapped axis over which batches are spread, if any."""
        return getattr(self.supernet, "axis_name", None)

    @property
    def grad(self) -> Callable:
        """`jax.grad` of losses of a batch, whether spread or not."""
        return functools.partial(devices.grad, axis_name=self.axis_name)

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


def init_search(
    problem: SearchProblem, key: jax.Array, images: jax.Array, candidates: dict[str, jax.Array] | None = None
) -> SearchState:
    """The state a search starts from. Compile it (`jax.jit`, static_argnums=0): its forward pass is then never run.

    Args:
      problem: what to search.
      key: the search's only source of randomness.
      images: f32[B, H, W, C], of which only the shape matters.
      candidates: for each cell type bool[edges, ops], the ops to search among; by default all that the space has.
    """
    key_params, key_arch, key_search = jax.random.split(key, 3)
    supernet = problem.supernet
    if problem.axis_name:
        supernet = supernet.clone(axis_name=None)  # so that this need not be run in a mapped axis
    variables = supernet.init(key_params, images, train=True)
    params, logits = variables["params"], variables["arch"]
    if candidates is not None:
        logits = {t: jnp.where(candidates[t], beta, -jnp.inf) for t, beta in logits.items()}
    arch = problem.method.init(key_arch, logits)
    arch |= {t: jnp.where(jnp.isfinite(beta), arch[t], -jnp.inf) for t, beta in logits.items()}
    return SearchState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        arch=arch,
        batch_stats=variables.get("batch_stats", {}),
        opt_state=problem.optimizer.init({"params": params, "arch": arch}),
        key=key_search,
    )


def _loss(problem, state, key, batch, params, arch, op_weights):
    """The mean cross entropy of a batch, and (accuracy, batch_stats)."""
    method = problem.method
    options = {"dropout_rate": method.dropout_rate(problem.progress(state.step))} if method.dropout else {}
    logits, updated = problem.supernet.apply(
        {"params": params, "arch": arch, "batch_stats": state.batch_stats},
        batch["image"],
        op_weights,
        train=True,
        mutable=["batch_stats"],
        # Far from the numbers of the keys that `weigh` splits off: split(key, n)[i] is fold_in(key, i).
        rngs={"draws": jax.random.fold_in(key, 2**31)},
        **options,
    )
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"]).mean()
    accuracy = jnp.mean(jnp.argmax(logits, axis=-1) == batch["label"])
    if problem.axis_name:
        loss, accuracy = jax.lax.pmean((loss, accuracy), problem.axis_name)
    return loss, (accuracy, updated.get("batch_stats", {}))


def _layered(problem, op_weights):
    """Op weights of each layer, f32[layers, edges, ops] per cell type, if the supernet takes them."""
    layers = getattr(problem.supernet, "layers", None)
    if layers is None:
        return op_weights
    return {t: jnp.broadcast_to(w, (layers[t], *w.shape)) for t, w in op_weights.items()}


def search_step(
    problem: SearchProblem, state: SearchState, train_batch: Batch, val_batch: Batch
) -> tuple[SearchState, Metrics]:
    """One step of a search: an update of the weights and one of the logits (Liu et al., 2019, Algorithm 1).

    The second of the two, in the order that the method asks for, is taken where the first has led to. Both are first
    order, unless the method asks for the second order or for aligned layers.

    Args:
      problem: static.
      state: before; may be donated.
      train_batch: for the weights, {'image': f32[B, H, W, C], 'label': i32[B]}.
      val_batch: for the logits, likewise.

    Returns:
      (state, metrics): the state after, and f32[] scalars: train_loss, train_accuracy, val_loss, val_accuracy (of the
      batches, before the respective update; accuracies as fractions), those of the method, and, of supernets with
      layers, alignment_val, the alignment of the normal cells' gradients of the validation loss; of methods that align,
      alignment_train too.
    """
    method, progress = problem.method, problem.progress(state.step)
    key_weights, key_arch = key_for(state.key, 0, state.step), key_for(state.key, 1, state.step)
    variables = {"params": state.params, "arch": state.arch}
    has_layers = hasattr(problem.supernet, "layers")

    def weight_gradient(at):
        op_weights = _layered(problem, method.weigh(at["arch"], key_weights, progress))

        def loss(params, changed):
            value, (accuracy, stats) = _loss(
                problem, state, key_weights, train_batch, params, at["arch"], op_weights | changed
            )
            return value, ({"train_loss": value, "train_accuracy": accuracy}, stats)

        if not method.aligns:
            return problem.grad(loss, has_aux=True)(at["params"], {})
        dparams, gradients, (metrics, stats) = hypergradients.aligned_gradient(
            lambda params, normal: loss(params, {"normal": normal}),
            method.alignment,
            method.alignment_weight(progress),
            at["params"],
            op_weights["normal"],
            problem.grad,
        )
        return dparams, (metrics | {"alignment_train": regularizers.layer_alignment(gradients)}, stats)

    def val_objective(params, arch, shift):
        op_weights = method.weigh(arch, key_arch, progress)
        shifted = jax.tree.map(jnp.add, _layered(problem, op_weights), shift)
        loss, (accuracy, _) = _loss(problem, state, key_arch, val_batch, params, arch, shifted)
        total, metrics = method.objective(loss, arch, op_weights, progress)
        return total, {"val_loss": loss, "val_accuracy": accuracy} | metrics

    def arch_gradient(at):
        # A shift of each layer's weights by 0, whose gradient is that in the layer's weights.
        shapes = jax.eval_shape(lambda arch: _layered(problem, method.weigh(arch, key_arch, progress)), at["arch"])
        shift = jax.tree.map(jnp.zeros_like, shapes)

        def val_loss(params, logits):
            return val_objective(params, *logits)

        if method.second_order:
            (darch, dshift), metrics = hypergradients.unrolled_gradient(
                lambda params, logits, images: train_loss(params, logits[0], images),
                val_loss,
                lambda dparams: ahead(params=dparams)["params"],
                at["params"],
                (at["arch"], shift),
                train_batch["image"],
                problem.grad,
            )
        else:
            (darch, dshift), metrics = problem.grad(val_loss, argnums=1, has_aux=True)(
                at["params"], (at["arch"], shift)
            )
        if has_layers:
            metrics |= {"alignment_val": regularizers.layer_alignment(dshift["normal"])}
        return darch, metrics

    def train_loss(params, arch, images):
        op_weights = _layered(problem, method.weigh(arch, key_weights, progress))
        return _loss(problem, state, key_weights, {**train_batch, "image": images}, params, arch, op_weights)[0]

    def update(gradients):
        # The optimizer sees 0 for the logit of what is no candidate, which then stays none.
        seen = {"params": state.params, "arch": jax.tree.map(lambda a: jnp.where(jnp.isfinite(a), a, 0.0), state.arch)}
        updates, opt_state = problem.optimizer.update(gradients, state.opt_state, seen)
        moved = optax.apply_updates(seen, updates)
        arch = jax.tree.map(lambda old, new: jnp.where(jnp.isfinite(old), new, old), state.arch, moved["arch"])
        return {"params": moved["params"], "arch": arch}, opt_state

    def ahead(**gradient):
        """The variables after the first update alone; XLA computes only what of it is used."""
        return update(jax.tree.map(jnp.zeros_like, variables) | gradient)[0]

    if method.weights_first:
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
    step, datasets = functools.partial(search_step, problem), (train_data, val_data)
    return run_epoch(step, state, datasets, (2, 3), augmentation, batch_size, steps, problem.axis_name)


def select(problem: SearchProblem, state: SearchState, batches: Batch) -> SearchState:
    """The state whose logits are the best of `method.samples` cells that `method.weigh` draws: 1 for its ops, else 0.

    Best is the smallest mean loss over the batches, with the weights as they are. What is no candidate stays none.

    Args:
      problem: static.
      state: its key and step decide what is drawn.
      batches: {'image': f32[batches, B, H, W, C], 'label': i32[batches, B]} of validation data.
    """
    progress = problem.progress(state.step)
    keys = jax.random.split(key_for(state.key, 4, state.step), problem.method.samples)

    def draw(key):
        return problem.method.weigh(state.arch, key, progress)

    def mean_loss(key):
        def loss(batch):
            return _loss(problem, state, key, batch, state.params, state.arch, _layered(problem, draw(key)))[0]

        return jnp.mean(jax.lax.map(loss, batches))

    best = draw(keys[jnp.argmin(jax.lax.map(mean_loss, keys))])
    logits = {t: jnp.where(jnp.isfinite(state.arch[t]), (w > 0).astype(w.dtype), -jnp.inf) for t, w in best.items()}
    return state.replace(arch=state.arch | logits)


def hessian_eigenvalue(problem: SearchProblem, state: SearchState, batches: Batch, products: int = 10) -> jax.Array:
    """The dominant eigenvalue of the Hessian of the validation loss in the logits (Zela et al., 2020, section 3).

    Args:
      problem: static.
      state: where; its key and step decide what is drawn, if anything is.
      batches: {'image': f32[batches, B, H, W, C], 'label': i32[batches, B]} of validation data.
      products: with the Hessian, each of which costs two to three gradients; see `dominant_eigenvalue`.

    Returns:
      f32[], the eigenvalue of the largest absolute value.
    """
    key = key_for(state.key, 5, state.step)

    def loss(arch, batch):
        op_weights = _layered(problem, problem.method.weigh(arch, key, problem.progress(state.step)))
        return _loss(problem, state, key, batch, state.params, arch, op_weights)[0]

    def gradient(arch):
        gradients = jax.lax.map(lambda batch: problem.grad(loss)(arch, batch), batches)
        return jax.tree.map(lambda g: jnp.mean(g, axis=0), gradients)

    return hypergradients.dominant_eigenvalue(gradient, state.arch, key, products)
