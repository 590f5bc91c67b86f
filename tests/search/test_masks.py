"""What is no candidate takes no part, in any method: its weight is 0, its logit stays -inf, and nothing is NaN."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from shared import objective
from table import Table, batch_of, jit_init, jit_step

from prdarts_jax import spaces
from prdarts_jax.search import methods, relaxations, terms
from prdarts_jax.search.problem import SearchProblem

OPS = ("none", "skip_connect", "sep_conv_3x3", "dil_conv_5x5", "avg_pool_3x3")
# Nodes 2 and 3: edges 02 12 03 13 23.
SPARSE = spaces.SearchSpace(
    "sparse",
    OPS,
    nodes=4,
    edge_ops=(
        (OPS[1:3], OPS[2:4], OPS[3:], OPS[:3], (OPS[1],)),
        (OPS[1:3], (OPS[4],), OPS, OPS[:2], OPS[2:4]),
    ),
)
CANDIDATES = {t: SPARSE.candidates(t) for t in SPARSE.cell_types}


# Less those whose op weights are those of DARTS, PR-DARTS without a term, and DARTS-, whose auxiliary skip connection
# is on every edge.
NAMES = sorted(
    methods.NAMED.keys() - {"p_darts", "r_darts", "oles", "sdarts_rs", "sdarts_adv", "pr_darts_gates", "darts_minus"}
)
METHODS = {name: methods.find(name)() for name in NAMES} | {
    "second order": methods.darts(second_order=True),
    "several terms": dataclasses.replace(
        methods.darts(), terms=(terms.skip_sparsity(0.1), terms.path_depth(0.1), terms.zero_one(1.0))
    ),
}
DRAWN = (relaxations.HardConcrete, relaxations.Gumbel, relaxations.Policy, relaxations.Uniform)
EACH = pytest.mark.parametrize("name", METHODS)


def logits_of(method, space, seed=0):
    """Logits as a method has them, N(0, 1), -inf for what is no candidate."""
    rng = np.random.default_rng(seed)
    logits = {
        t: jnp.array(np.where(space.candidates(t), rng.normal(size=space.shape), -np.inf), jnp.float32)
        for t in space.cell_types
    }
    return method.relaxation.init(space, jax.random.key(0), logits) | logits


@functools.partial(jax.jit, static_argnums=(0, 1))
def examine(method, space, logits, key, progress):
    """(op weights, gradient of a sum of them, objective, its gradient, activation)."""

    def total(logits):
        w = method.relaxation.weigh(space, logits, key, progress)
        return sum(jnp.sum(jnp.sin(1 + jnp.arange(v.size)).reshape(v.shape) * v) for v in w.values()), w

    def minimised(logits):
        op_weights = method.relaxation.weigh(space, logits, key, progress)
        return objective(method, space, jnp.float32(2.0), logits, op_weights, progress)[0]

    (_, w), slope = jax.value_and_grad(total, has_aux=True)(logits)
    return w, slope, *jax.value_and_grad(minimised)(logits), method.activation(space, logits, progress)


@EACH
def test_what_is_no_candidate_has_the_weight_0_and_no_gradient(name):
    space, method = spaces.s1(), METHODS[name]
    for seed in range(3):
        for progress in (0.0, 1.0):
            logits = logits_of(method, space, seed)
            found = jax.device_get(examine(method, space, logits, jax.random.key(seed), jnp.float32(progress)))
            w, slope, value, objective_slope, activation = found
            assert np.isfinite(value)
            for t in space.cell_types:
                outside = ~space.candidates(t)
                assert w[t].shape == space.shape and np.isfinite(w[t]).all()
                assert not w[t][outside].any() and not activation[t][outside].any()
            for part in (slope, objective_slope):
                for key, values in part.items():
                    assert np.isfinite(values).all(), key
                    if key in space.cell_types:
                        assert not values[~space.candidates(key)].any()


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if isinstance(method.relaxation, DRAWN)])
def test_what_is_drawn_is_drawn_among_the_candidates_of_an_edge(name):
    method, per_edge = METHODS[name], 1 + name.startswith("pr_darts")
    logits = {t: jnp.where(jnp.isfinite(beta), 3.0, beta) for t, beta in logits_of(method, SPARSE).items()}
    draw = jax.jit(jax.vmap(lambda key: method.relaxation.weigh(SPARSE, logits, key, jnp.float32(0.0))))
    weights = jax.device_get(draw(jax.random.split(jax.random.key(1), 300)))
    for t, may in CANDIDATES.items():
        count = np.count_nonzero(weights[t], axis=-1)
        if name == "random_search":
            may = may & (np.array(OPS) != "none")
            assert (count <= 1).all()
        else:
            # At the high temperature of the start a gate of the paper's is almost never clipped to 0.
            assert (count == np.minimum(per_edge, may.sum(axis=1))).mean() > 0.95
        assert ((weights[t] != 0).any(axis=0) == may).all()


def make_problem(method, number=3):
    return SearchProblem(
        Table(SPARSE, number, **method.supernet),
        method,
        optax.chain(optax.clip_by_global_norm(5.0), optax.sgd(0.05, momentum=0.9)),
        optax.chain(optax.add_decayed_weights(0.5), optax.adam(0.05)),
        total_steps=3,
    )


@EACH
def test_steps_leave_what_is_no_candidate_at_minus_infinity(name):
    problem = make_problem(dataclasses.replace(METHODS[name], logits_start=0.0))
    state = before = jit_init(problem, jax.random.key(0), batch_of(0.0)["image"])
    for i in range(3):
        state, metrics = jit_step(problem, state, batch_of(0.1 * i, 0.5), batch_of(0.9, 0.2 * i))
    for arch in (before.arch, state.arch):
        for t, may in CANDIDATES.items():
            np.testing.assert_array_equal(np.isfinite(arch[t]), may)
            assert (np.asarray(arch[t])[~may] == -np.inf).all()
    for key, beta in before.arch.items():
        may = np.isfinite(beta)
        assert (np.asarray(beta) != np.asarray(state.arch[key]))[may].all(), key
    assert all(np.isfinite(a).all() for a in jax.tree.leaves((state.params, state.opt_state, metrics)))


def test_candidates_given_to_a_search_are_those_it_has():
    wide = spaces.SearchSpace("wide", OPS, nodes=4)
    for name in ("darts", "pc_darts"):
        problem = SearchProblem(
            Table(wide, **METHODS[name].supernet), METHODS[name], optax.sgd(0.1), optax.adam(0.1), 3
        )
        state = jit_init(problem, jax.random.key(0), jnp.zeros((2, 1, 1, 1)), CANDIDATES)
        for t, may in CANDIDATES.items():
            np.testing.assert_array_equal(np.isfinite(state.arch[t]), may)


def test_the_best_random_cell_is_among_the_candidates():
    problem = make_problem(METHODS["random_search"])
    state = jit_init(problem, jax.random.key(0), jnp.zeros((2, 1, 1, 1)))
    batches = jax.tree.map(lambda a: a[None], batch_of(0.0, 1.0))
    found = jax.jit(problem.method.after_epoch, static_argnums=0)(problem, state, batches).arch
    for t, may in CANDIDATES.items():
        beta = np.asarray(found[t])
        assert set(np.unique(beta)) == {-np.inf, 0.0, 1.0} and (beta[~may] == -np.inf).all()
        assert (beta == 1).sum() == 4
