"""Operation-level early stopping: the weights of single ops are frozen during the search (OLES; Jiang et al., NeurIPS
2023)."""

import dataclasses
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from prdarts_jax.fields import checked, from_to
from prdarts_jax.nets.supernet import by_op


class FrozenState(NamedTuple):
    """The state of the optimizer that `OperationEarlyStopping` makes.

    Attributes:
      inner: of the optimizer of the weights.
      total: the sum of the cosines since the last decision, {op of a cell: f32[edges]}.
      number: of these cosines, {op of a cell: i32[edges]}.
      frozen: whether the weights of the op are frozen, {op of a cell: bool[edges]}.
    """

    inner: Any
    total: dict[str, jax.Array]
    number: dict[str, jax.Array]
    frozen: dict[str, jax.Array]


@checked
@dataclasses.dataclass(frozen=True)
class OperationEarlyStopping:
    """Freezes the weights of an op, on one edge of one cell, once they learn what does not help the validation images.

    This is judged by cos(g_train, g_train + g_val), where g_train and g_val are the gradients of the training loss and
    of the validation loss in the weights of the op. After each `window` steps in which the op has run, the weights are
    frozen if the mean of the cosines is below the threshold. Each step costs one more gradient, that of the validation
    loss.

    The paper writes cos(g_train, g_val), but the authors' code adds up both gradients before it compares, and its
    threshold of 0.4 is made for that: with batches of 32 images noise alone keeps cos(g_train, g_val) below it.

    Attributes:
      threshold: 0.4 in the authors' code.
      window: 20 in the authors' code.
    """

    threshold: Annotated[float, from_to(0, 1)] = 0.4
    window: Annotated[int, from_to(1, 10**6)] = 20

    def __call__(self, optimizer: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
        """The optimizer of the supernet's weights, {'params': ...}, which leaves frozen weights as they are. Its update
        takes `val_gradient`, the gradient of the validation loss in the weights; without it nothing is judged.

        Its `init` raises ValueError if the supernet is not one of the package.
        """

        def init(params: Any) -> FrozenState:
            ops = by_op(params["params"])
            if not ops:
                raise ValueError("OperationEarlyStopping needs a supernet of the package, whose ops it can tell apart")
            zeros = {op: jnp.zeros(_edges(of_op)) for op, of_op in ops.items()}
            number, frozen = ({op: z.astype(kind) for op, z in zeros.items()} for kind in (jnp.int32, bool))
            return FrozenState(optimizer.init(params), zeros, number, frozen)

        def update(gradient: Any, state: FrozenState, params: Any = None, *, val_gradient: Any = None) -> Any:
            updates, inner = optimizer.update(gradient, state.inner, params)
            state = state._replace(inner=inner)
            if val_gradient is not None:
                state = self._judge(state, by_op(gradient["params"]), by_op(val_gradient))
            return updates | {"params": _without_frozen(updates["params"], state.frozen)}, state

        return optax.GradientTransformationExtraArgs(init, update)

    def metrics(self, state: FrozenState) -> dict[str, jax.Array]:
        """`frozen`, the share of the ops with weights that are frozen."""
        return {"frozen": jnp.mean(jnp.concatenate([jnp.float32(frozen) for frozen in state.frozen.values()]))}

    def _judge(self, state, train, val):
        total, numbers, frozen = {}, {}, {}
        for op in state.frozen:
            t, both = _scaled(train[op]), _scaled(jax.tree.map(jnp.add, train[op], val[op]))
            cosine = _dot(t, both) * jax.lax.rsqrt(_dot(t, t)) * jax.lax.rsqrt(_dot(both, both))
            ran = jnp.isfinite(cosine)  # the gradient of an op that did not run is 0
            sums = state.total[op] + jnp.where(ran, cosine, 0.0)
            number = state.number[op] + ran
            due = number >= self.window
            frozen[op] = state.frozen[op] | (due & (sums < self.threshold * number))
            total[op], numbers[op] = jnp.where(due, 0.0, sums), jnp.where(due, 0, number)
        return state._replace(total=total, number=numbers, frozen=frozen)


def _edges(of_op):
    return len(jax.tree.leaves(of_op)[0])


def _scaled(of_op):
    """The parameters of an op divided by the largest on each edge, so that squares of small ones do not vanish."""
    largest = jnp.stack([jnp.max(jnp.abs(x).reshape(len(x), -1), axis=1) for x in jax.tree.leaves(of_op)]).max(axis=0)
    largest = jnp.where(largest > 0, largest, 1.0)
    return jax.tree.map(lambda x: x / largest.reshape(-1, *[1] * (x.ndim - 1)), of_op)


def _dot(a, b):
    """The scalar products of the parameters of an op on each edge, f32[edges]."""
    products = jax.tree.map(lambda x, y: jnp.sum((x * y).reshape(len(x), -1), axis=1), a, b)
    return sum(jax.tree.leaves(products))


def _without_frozen(updates, frozen):
    """The updates, 0 where weights are frozen."""

    def of_leaf(path, update):
        names = "/".join(str(entry.key) for entry in path)
        op = next((op for op in frozen if names.startswith(f"{op}/")), None)
        if op is None:
            return update
        return jnp.where(frozen[op].reshape(-1, *[1] * (update.ndim - 1)), 0.0, update)

    return jax.tree_util.tree_map_with_path(of_leaf, updates)
