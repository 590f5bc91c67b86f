"""What a search is made of: the parts that do not change, the state that does, and the loss of a batch."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from prdarts_jax import devices
from prdarts_jax.data.epochs import Batch
from prdarts_jax.fields import at_least, checked
from prdarts_jax.refusals import shown
from prdarts_jax.search.method import Method
from prdarts_jax.search.relaxations import Arch


def cross_entropy(logits: jax.Array, batch: Batch) -> tuple[jax.Array, jax.Array]:
    """The mean cross entropy of a batch and its accuracy, each f32[].

    Args:
      logits: of the classes, f32[B, classes].
      batch: its 'label' are integers [B] from 0 to classes - 1; any other integer makes the loss NaN.

    Raises:
      ValueError: the labels have another dtype or shape, or there are none.
    """
    check_labels(batch, len(logits))
    labels = batch["label"]
    classes = jnp.where(labels < 0, jnp.int32(logits.shape[1]), labels)  # an index below 0 would count from the last
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, classes).mean()
    return loss, jnp.mean(jnp.argmax(logits, axis=-1) == labels)


@checked
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
      weight_optimizer: of the collection `params`, a transformation of optax.
      arch_optimizer: of the collection `arch`.
      total_steps: number of steps of the search; progress is step / (total_steps - 1).
      loss: `(logits, batch) -> (loss, accuracy)`, each f32[] and a mean over the batch; the logits are those of the
        classes, f32[B, classes]. The weights and the logits of the ops minimise it, and metrics report both.

    Raises:
      ValueError: a field is of another type or out of range; the supernet lacks `space`, or `layers` for a cell type,
        or is not what the method needs; the method has several stages, of which each needs a problem of its own.
    """

    supernet: nn.Module
    method: Method
    weight_optimizer: Any
    arch_optimizer: Any
    total_steps: Annotated[int, at_least(1)]
    loss: Callable[[jax.Array, Batch], tuple[jax.Array, jax.Array]] = cross_entropy

    def __post_init__(self) -> None:
        for field in ("weight_optimizer", "arch_optimizer"):
            check_optimizer(field, getattr(self, field))
        supernet = f"supernet={type(self.supernet).__name__}"
        for attribute in ("layers", "space"):
            if not hasattr(self.supernet, attribute):
                raise ValueError(f"{supernet} must have the attribute {attribute}")
        layers = self.supernet.layers
        if missing := [t for t in self.supernet.space.cell_types if not (isinstance(layers, Mapping) and t in layers)]:
            raise ValueError(f"{supernet} must have the number of its {missing[0]} cells in its attribute layers")
        if self.method.stages:
            raise ValueError(
                f"method has {len(self.method.stages)} stages: make a SearchProblem of each of their methods"
            )
        if self.method.inner and "normal" not in self.supernet.space.cell_types:
            raise ValueError(f"{supernet} must have cells of the type 'normal', whose gradients its method aligns")
        for field, value in self.method.supernet.items():
            if not hasattr(self.supernet, field):
                raise ValueError(
                    f"{supernet} must have the field {field}, since its method needs {field}={shown(value)}"
                )
            if (there := getattr(self.supernet, field)) != value:
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
        That each edge has one is checked unless they are traced.

    Raises:
      ValueError: the collection `arch` of the supernet does not have logits f32[edges, ops] for each cell type, or the
        candidates are others than above.
    """
    if candidates is not None:
        _check_candidates(problem.supernet.space, candidates)
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
        logits = {**logits, **{t: jnp.where(rows, logits[t], -jnp.inf) for t, rows in candidates.items()}}
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


def _check_candidates(space, candidates):
    """Refuses candidates of other cell types, shapes or dtypes, or none for an edge, which traced ones do not tell."""
    own = {t: space.candidates(t) for t in space.cell_types}
    if _forms(candidates) != _forms(own):
        raise ValueError(f"candidates={_forms(candidates)} must be {_forms(own)}")
    for t, rows in candidates.items():
        if not isinstance(rows, jax.core.Tracer) and not np.all(some := np.any(np.asarray(rows) & own[t], axis=1)):
            raise ValueError(
                f"candidates[{t!r}] must have one or more ops of the space for each edge, but has none for the edge "
                f"{space.edges[np.argmin(some)]}"
            )


def check_optimizer(field: str, value: Any) -> None:
    """Refuses what is no optimizer of optax.

    Raises:
      ValueError: naming the field and its value.
    """
    if isinstance(value, type) or not all(callable(getattr(value, name, None)) for name in ("init", "update")):
        raise ValueError(f"{field}={shown(value)} must be an optimizer of optax, such as optax.sgd(0.1)")


def check_batch(name: str, batch: Any) -> None:
    """Refuses a batch that is not a dict with images; it reads types and shapes alone.

    Raises:
      ValueError: naming the batch, what it has and what it must have.
    """
    image: Any = batch.get("image") if isinstance(batch, Mapping) else None
    if not _is_array(image) or not image.ndim:
        raise ValueError(f"{name}={_forms(batch)} must be a dict with an 'image', an array [B, ...]")


def check_labels(batch: Batch, images: int) -> None:
    """Refuses a batch without an integer label for each of its images; it reads types and shapes alone.

    Raises:
      ValueError: saying what the batch has and what it must have.
    """
    labels: Any = batch.get("label")
    if not _is_array(labels) or not jnp.issubdtype(labels.dtype, jnp.integer) or labels.shape != (images,):
        raise ValueError(f"batch={_forms(batch)} must have a 'label' of {images} integers, one for each image")


def _is_array(value):
    return isinstance(value, jax.Array | np.ndarray)


def _forms(value):
    """The dtype and shape of an array, such as 'float32[8, 3]', or of each array of a dict, as a text."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key!r}: {_forms(value[key])}" for key in sorted(value, key=str)) + "}"
    return f"{value.dtype}{list(value.shape)}" if _is_array(value) else type(value).__name__


def batch_loss(
    problem: SearchProblem,
    state: SearchState,
    key: jax.Array,
    batch: Batch,
    variables: dict[str, Any],
    op_weights: Arch,
) -> tuple[jax.Array, tuple[jax.Array, Any]]:
    """The loss of a batch, f32[], and (its accuracy f32[], the running statistics after it).

    Args:
      problem: static.
      state: only its step and its running statistics are used.
      key: for the random numbers of ops.
      batch: {'image': f32[B, H, W, C], 'label': i32[B]}, or what `problem.loss` takes.
      variables: {'params', 'arch'}, which are used in place of those of the state.
      op_weights: f32[layers, edges, ops] for each cell type.

    Raises:
      ValueError: the supernet or the loss returns something else, or the labels are not what the loss takes.
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
    found = problem.loss(logits, batch)
    if jax.tree.map(jnp.shape, found) != ((), ()):
        raise ValueError(
            f"loss={shown(problem.loss)} must return (loss, accuracy), two numbers, but returns "
            f"{shown(jax.tree.map(jnp.shape, found))}"
        )
    loss, accuracy = found
    if problem.axis_name:
        loss, accuracy = jax.lax.pmean((loss, accuracy), problem.axis_name)
    return loss, (accuracy, updated.get("batch_stats", {}))
