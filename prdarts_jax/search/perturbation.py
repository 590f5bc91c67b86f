"""Perturbation-based selection of a cell (DARTS-PT; Wang, Cheng, Chen, Tang, Hsieh, Rethinking Architecture Selection
in Differentiable NAS, ICLR 2021, Algorithm 1)."""

import dataclasses
from collections.abc import Callable
from typing import Annotated

import jax
import jax.numpy as jnp
import optax

from prdarts_jax.data.epochs import Batch, key_for
from prdarts_jax.fields import at_least, checked
from prdarts_jax.search import gates
from prdarts_jax.search.problem import SearchProblem, SearchState, batch_loss
from prdarts_jax.search.purposes import Purpose
from prdarts_jax.search.relaxations import Arch
from prdarts_jax.search.shared_weights import mean_weights, measure


@checked
@dataclasses.dataclass(frozen=True)
class Perturbation:
    """After a search, each edge keeps the op whose removal makes the supernet worst, one edge after another.

    The edges are visited in random order. Each op of an edge is removed in turn. The op whose removal gives the lowest
    validation accuracy (among equal ones, the largest loss) is kept, and the weights are trained for some steps. If
    nodes of the space keep a fixed number of inputs, the nodes are then visited in random order: each edge into a node
    is removed in turn, and those whose removal hurts most are kept. In such a space the op `none` is kept only on an
    edge without other candidates.

    The op weights are the method's own, with the logit -inf for removed ops (`shared_weights.mean_weights`), so a
    softmax is taken over the remaining ops. The authors' code instead sets the removed op's softmax to 0 and does not
    change those of the others; such a rule has no meaning for gates. It also trains the logits between two decisions;
    here they stay as they are after the search.

    >>> import jax, jax.numpy as jnp, optax, prdarts_jax as pdx
    >>> space = pdx.SearchSpace("pools", ("skip_connect", "max_pool_3x3"), nodes=3)
    >>> supernet = pdx.Supernet(space, channels=4, cells=1)
    >>> problem = pdx.SearchProblem(supernet, pdx.methods.darts(), optax.sgd(0.1), optax.adam(0.1), total_steps=1)
    >>> images, labels = jax.random.normal(jax.random.key(1), (2, 8, 8, 8, 3)), jnp.arange(16).reshape(2, 8) % 10
    >>> state = jax.jit(pdx.init_search, static_argnums=0)(problem, jax.random.key(0), images[0])
    >>> choose = jax.jit(pdx.Perturbation(steps=1, optimizer=optax.sgd(0.01)), static_argnums=(0, 2))
    >>> batches = {"image": images, "label": labels}
    >>> def train_batch(number):  # the search's own, or any others
    ...     return jax.tree.map(lambda a: a[number % 2], batches)
    >>> chosen = choose(problem, state, train_batch, batches)
    >>> {op for op, _ in pdx.discretizations.chosen(space, chosen).reduce} <= set(space.ops)
    True

    Attributes:
      steps: number of training steps between two decisions; the authors' code has five epochs.
      optimizer: of the weights; its state is initialised once, before the first decision. The authors' code has SGD
        with a tenth of the search's learning rate.
    """

    steps: Annotated[int, at_least(0)]
    optimizer: optax.GradientTransformation

    def __call__(
        self,
        problem: SearchProblem,
        state: SearchState,
        train_batch: Callable[[jax.Array], Batch],
        val_batches: Batch,
    ) -> Arch:
        """The ops of the cell, bool[edges, ops] for each cell type; see `Method.after_search`.

        Args:
          problem: static.
          state: after the search; its key and its step decide the order and all random numbers.
          train_batch: number 0, 1, ... -> training batch {'image': f32[B, H, W, C], 'label': i32[B]}.
          val_batches: for the accuracies, {'image': f32[batches, B, H, W, C], 'label': i32[batches, B]}.
        """
        space = problem.supernet.space
        key, key_order = jax.random.split(key_for(state.key, Purpose.REMOVALS, state.step))
        left = jnp.stack([jnp.isfinite(state.arch[t]) for t in space.cell_types])
        decisions, may_stay = _decisions(space, key_order), _may_stay(space, left)
        targets = jnp.array([target for _, target in space.edges])

        def weights(left):
            return mean_weights(problem, state, dict(zip(space.cell_types, left, strict=True)))

        def decide(i, carry):
            trained, left = carry
            cell_type, edge, node = decisions[i]
            removals, into_node = _removals(space, cell_type, edge), targets == node
            undecided = (edge >= 0) & (jnp.sum(left[cell_type, edge]) > 1)
            measured = jnp.concatenate([undecided & may_stay[cell_type, edge], into_node])

            step = self._train_step(problem, train_batch, problem.in_each_layer(weights(left)), i * self.steps)
            steps = jnp.where(jnp.any(measured) & (i > 0), self.steps, 0)
            trained = jax.lax.fori_loop(0, steps, step, trained)

            def without(number):
                return measure(problem, trained[0], key, val_batches, weights(left & ~removals[number]))

            def of_removal(number):
                return jax.lax.cond(measured[number], without, lambda _: (0.0, jnp.inf), number)

            losses, accuracies = jax.lax.map(of_removal, jnp.arange(len(measured)))
            place = jnp.argsort(jnp.lexsort((-losses, accuracies)))  # 0 for the removal that hurts most
            of_ops, of_edges = place[: space.shape[1]], place[space.shape[1] :]
            kept = gates.strongest_inputs(space, len(place) - of_edges)
            goes = [undecided & (of_ops > 0), into_node & ~kept]
            return trained, left & ~jnp.any(removals & jnp.concatenate(goes)[:, None, None, None], axis=0)

        trained = state, self.optimizer.init(state.params)
        _, left = jax.lax.fori_loop(0, len(decisions), decide, (trained, left))
        return dict(zip(space.cell_types, left, strict=True))

    def _train_step(self, problem, train_batch, op_weights, first):
        """(number of a step, (search state, optimizer state)) -> both states after it, on batch `first` + number."""

        def step(number, trained):
            state, opt_state = trained
            batch, key = train_batch(first + number), key_for(state.key, Purpose.FINETUNING, first + number)

            def loss(params):
                variables = {"params": params, "arch": state.arch}
                value, (_, batch_stats) = batch_loss(problem, state, key, batch, variables, op_weights)
                return value, batch_stats

            gradient, batch_stats = problem.grad(loss, has_aux=True)(state.params)
            updates, opt_state = self.optimizer.update(gradient, opt_state, state.params)
            params = optax.apply_updates(state.params, updates)
            return state.replace(params=params, batch_stats=batch_stats), opt_state

        return step


def _decisions(space, key):
    """i32[decisions, 3], the cell type, the edge and the node of each: first all edges, then the nodes that have more
    edges than they keep, both in random order. A decision about an edge has the node -1, one about a node the edge -1.
    """
    types = range(len(space.cell_types))
    edges = [(t, edge, -1) for t in types for edge in range(len(space.edges))]
    nodes = [(t, -1, node) for t in types for node in range(space.nodes) if 0 < space.entries_per_node < node]
    keys = jax.random.split(key)
    parts = [jnp.array(part, jnp.int32).reshape(-1, 3) for part in (edges, nodes)]
    return jnp.concatenate([jax.random.permutation(k, part) for k, part in zip(keys, parts, strict=True)])


def _may_stay(space, candidates):
    """Which candidates an edge may keep; if nodes keep a fixed number of inputs, `none` only if there is no other."""
    if not space.entries_per_node:
        return candidates
    computes = candidates & gates.computes(space)
    return jnp.where(jnp.any(computes, axis=-1, keepdims=True), computes, candidates)


def _removals(space, cell_type, edge):
    """bool[ops + edges, cell types, edges, ops]: the ops removed with each op of an edge, then with each edge."""
    edges, columns = (jnp.eye(size, dtype=bool) for size in space.shape)
    of_ops = edges[edge][:, None] & columns[:, None, :]
    of_edges = jnp.broadcast_to(edges[:, :, None], (*edges.shape, len(columns)))
    of_type = jnp.arange(len(space.cell_types)) == cell_type
    return of_type[:, None, None] & jnp.concatenate([of_ops, of_edges])[:, None]
