"""Methods that run all ops: Fair DARTS, PC-DARTS, P-DARTS and R-DARTS against loops and the rules in words."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from table import Table, batch_of
from test_gates import logistic
from test_methods import logits_of, objective_loop, softmax_of, two_an_edge
from test_regularizers import SHUFFLED

from prdarts_jax import spaces
from prdarts_jax.nets.program import instructions, program
from prdarts_jax.search import gates
from prdarts_jax.search.methods import Darts, FairDarts, PCDarts, PDarts, PRDarts, RDarts
from prdarts_jax.search.step import SearchProblem, init_search, search_step

pytestmark = pytest.mark.usefixtures("compiled_quickly")

CELL_TYPES = ("normal", "reduce")
jit_init = jax.jit(init_search, static_argnums=0)
jit_step = jax.jit(search_step, static_argnums=0)


def make_problem(method, space, total_steps=10, supernet=None):
    adam = optax.chain(optax.add_decayed_weights(1e-3), optax.adam(0.01, b1=0.5))
    return SearchProblem(supernet or Table(space), method, optax.sgd(0.1, momentum=0.9), adam, total_steps)


# Fair DARTS -----------------------------------------------------------------------------------------------------------


def test_fair_darts_weighs_with_sigmoids_and_pushes_them_to_0_or_1():
    method, logits = FairDarts(), logits_of(0, scale=2.0)
    assert (method.zero_one, method.threshold) == (10.0, 0.85)
    weights = method.weigh(logits, jax.random.key(0), jnp.float32(0.5))
    expected = {t: logistic(np.asarray(beta, np.float64)) for t, beta in logits.items()}
    for t in CELL_TYPES:
        np.testing.assert_allclose(weights[t], expected[t], rtol=1e-5)
        np.testing.assert_array_equal(weights[t], method.activation(logits, jnp.float32(0.5))[t])

    def total(logits):
        return method.objective(jnp.float32(1.5), logits, weights, jnp.float32(0.5))

    (value, metrics), slope = jax.value_and_grad(total, has_aux=True)(logits)
    l_01 = -np.mean([np.mean((p - 0.5) ** 2) for p in expected.values()])
    assert float(metrics["l_01"]) == pytest.approx(l_01, rel=1e-5)
    assert float(value) == pytest.approx(1.5 + 10 * l_01, rel=1e-5)
    for t, p in expected.items():
        np.testing.assert_allclose(slope[t], 10 * -2 * (p - 0.5) * p * (1 - p) / (2 * p.size), rtol=1e-3, atol=1e-7)


def test_fair_darts_derives_what_is_above_the_threshold_and_at_most_two_edges_a_node():
    space = spaces.SearchSpace("small", ("none", "skip_connect", "sep_conv_3x3"), nodes=4)
    # Edges 02 12 03 13 23; the sigmoids of 1.7 and 1.8 are 0.846 and 0.858.
    beta = jnp.array([[9.0, 1.8, 1.7], [0.0, 1.7, 1.0], [0.0, 2.0, 3.0], [9.0, 4.0, 0.0], [0.0, 2.5, 2.6]])
    found = FairDarts().derive(space, dict.fromkeys(CELL_TYPES, beta))
    assert found.normal == (("skip_connect", 0), ("none", 1), ("skip_connect", 1), ("sep_conv_3x3", 0))
    at_half = FairDarts(threshold=0.5).derive(space, dict.fromkeys(CELL_TYPES, beta))
    assert at_half.reduce == (("skip_connect", 0), ("skip_connect", 1), ("skip_connect", 1), ("sep_conv_3x3", 0))


# PC-DARTS -------------------------------------------------------------------------------------------------------------


def pc_logits(seed, scale=1.0):
    rng = np.random.default_rng(seed)
    edges = {f"{t}_edges": jnp.array(rng.normal(0, scale, 14), jnp.float32) for t in CELL_TYPES}
    return logits_of(seed, spaces.darts().shape, scale) | edges


def pc_loop(space, beta, edge_beta):
    beta, edge_beta = np.asarray(beta, np.float64), np.asarray(edge_beta, np.float64)
    w = np.zeros(space.shape)
    for e, (_, target) in enumerate(space.edges):
        rivals = [i for i, (_, other) in enumerate(space.edges) if other == target]
        share = math.exp(edge_beta[e]) / sum(math.exp(edge_beta[i]) for i in rivals)
        for o in range(len(space.ops)):
            w[e, o] = share * math.exp(beta[e, o]) / sum(math.exp(b) for b in beta[e])
    return w


def test_pc_darts_multiplies_the_softmax_of_an_edge_s_ops_with_that_of_a_node_s_edges():
    space, logits = spaces.darts(), pc_logits(0)
    weights = PCDarts().weigh(logits, jax.random.key(0), jnp.float32(0))
    assert weights.keys() == set(CELL_TYPES)
    for t in CELL_TYPES:
        expected = pc_loop(space, logits[t], logits[f"{t}_edges"])
        np.testing.assert_allclose(weights[t], expected, rtol=1e-5)
        assert expected.sum() == pytest.approx(4)  # a node's weights add up to 1
        np.testing.assert_allclose(PCDarts().activation(logits, 0.0)[t], softmax_of(logits[t]), rtol=1e-5)


def test_pc_darts_derives_by_the_product_of_both_weights():
    space, by_ops_alone = spaces.darts(), 0
    for seed in range(10):
        logits = pc_logits(seed, scale=2.0)
        found = PCDarts().derive(space, logits)
        for t in CELL_TYPES:
            weights, entries = pc_loop(space, logits[t], logits[f"{t}_edges"]), []
            for node in range(2, 6):
                best = [
                    max((weights[e, o], op, s) for o, op in enumerate(space.ops) if op != "none")
                    for e, (s, target) in enumerate(space.edges)
                    if target == node
                ]
                entries += [(op, s) for _, op, s in sorted(best, reverse=True)[:2]]
            assert getattr(found, t) == tuple(entries)
        by_ops_alone += found == Darts().derive(space, logits)
    assert by_ops_alone < 10


def test_the_edges_logits_of_pc_darts_are_drawn_and_trained_from_its_start_on():
    space = spaces.SearchSpace("small", ("none", "skip_connect", "sep_conv_3x3"), nodes=5)
    problem = make_problem(PCDarts(space=space, logits_start=0.5), space, total_steps=4)
    state = jit_init(problem, jax.random.key(0), batch_of(0.0)["image"])
    assert state.arch.keys() == {"normal", "reduce", "normal_edges", "reduce_edges"}
    assert state.arch["reduce_edges"].shape == (9,)
    drawn = np.concatenate([np.ravel(a) for a in state.arch.values()])
    assert len(np.unique(drawn)) == len(drawn) and 3e-4 < drawn.std() < 3e-3
    start = state.arch
    for step in range(4):
        state, _ = jit_step(problem, state, batch_of(0.0), batch_of(1.0))
        for name, beta in state.arch.items():
            assert (np.asarray(beta) != np.asarray(start[name])).all() == (step >= 2), name


# When the logits move -------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Late(Darts):
    """DARTS whose logits rest at first."""

    logits_start: float = 0.5


def test_logits_and_their_moments_rest_until_their_start():
    assert (PDarts().logits_start, PCDarts().logits_start, Darts().logits_start) == (0.4, 0.3, 0)
    late, at_once = make_problem(Late(), SHUFFLED, 6), make_problem(Darts(), SHUFFLED, 6)
    state = start = jit_init(late, jax.random.key(0), batch_of(0.0)["image"])
    for step in range(5):
        before = state
        state, _ = jit_step(late, state, batch_of(0.0), batch_of(1.0))
        moments = jax.tree.leaves(state.opt_state.inner_states["arch"])
        assert any(a.shape == SHUFFLED.shape for a in moments)
        rests = step < 3
        for t in CELL_TYPES:
            assert (np.asarray(state.arch[t]) == np.asarray(start.arch[t])).all() == rests
        assert all((np.asarray(a) == 0).all() for a in moments if a.shape == SHUFFLED.shape) == rests
        for name in before.params:
            assert (np.asarray(state.params[name]) != np.asarray(before.params[name])).any()
        if step == 3:
            # The first move is Adam's first: of about the learning rate, as that of a search without a start.
            fresh = before.replace(opt_state=at_once.optimizer.init({"params": before.params, "arch": before.arch}))
            moved, _ = jit_step(at_once, fresh, batch_of(0.0), batch_of(1.0))
            for t in CELL_TYPES:
                np.testing.assert_allclose(state.arch[t], moved.arch[t], rtol=1e-5)


# P-DARTS --------------------------------------------------------------------------------------------------------------


def test_the_stages_of_p_darts_execute_fewer_and_fewer_ops_of_an_edge():
    space, candidates, images = spaces.darts(), None, batch_of(0.0)["image"]
    stages = PDarts().stages()
    assert [(s.cells, s.ops, s.method.stage) for s in stages] == [(5, 8, 0), (11, 5, 1), (17, 3, 2)]
    assert [s.method.dropout for s in stages] == ["", "skip", "skip"]
    ((_, group),) = program(space, False, channels=4)
    kept = np.ones(space.shape, bool)
    for number, stage in enumerate(stages):
        state = jit_init(make_problem(stage.method, space), jax.random.key(number), images, candidates)
        rng = np.random.default_rng(number)
        logits = {t: beta + rng.normal(size=space.shape) for t, beta in state.arch.items()}
        weights = stage.method.weigh(logits, jax.random.key(0), jnp.float32(0.5))
        for t in CELL_TYPES:
            assert (np.count_nonzero(weights[t], axis=1) == stage.ops).all()
            np.testing.assert_allclose(np.sum(weights[t], axis=1), 1, rtol=1e-5)
            listed = instructions(group, weights[t], end=1)
            assert int(listed.starts[-1]) == np.count_nonzero(np.asarray(weights[t])[:, 1:])  # `none` comes first
        assert not np.asarray(weights["normal"])[~kept].any()
        if number < 2:
            candidates = {t: gates.largest(w, stages[number + 1].ops) for t, w in weights.items()}
            kept = np.argsort(np.argsort(-np.asarray(weights["normal"]), axis=1), axis=1) < stages[number + 1].ops


def test_the_dropout_after_skips_falls_as_in_the_released_code():
    """In its epochs e of 25: p (24 - e) / 25 before the logits move, then p exp(-0.2 (e - 10))."""
    for stage, rate in enumerate((0.0, 0.4, 0.7)):
        method = PDarts(stage=stage)
        for epoch in range(25):
            at_end = float(method.dropout_rate(jnp.float32((epoch + 1) / 25 - 1e-6)))
            at_start = float(method.dropout_rate(jnp.float32(epoch / 25 + 1e-6)))
            if epoch < 10:
                assert at_end == pytest.approx(rate * (24 - epoch) / 25, abs=1e-4)
            else:
                assert at_start == pytest.approx(rate * math.exp(-0.2 * (epoch - 10)), abs=1e-4)
            assert at_start >= at_end


def test_p_darts_derives_at_most_two_skips_in_the_normal_cell():
    space = spaces.darts()
    skips = {t: 0 for t in CELL_TYPES}
    for seed in range(10):
        logits = logits_of(seed, space.shape)
        logits = {t: beta.at[:, 1].add(1.5) for t, beta in logits.items()}
        found, of_darts = PDarts().derive(space, logits), Darts().derive(space, logits)
        count = {t: [op for op, _ in getattr(found, t)].count("skip_connect") for t in CELL_TYPES}
        assert count["normal"] <= 2 and found.reduce == of_darts.reduce
        kept = {(i // 2, entry) for i, entry in enumerate(of_darts.normal) if entry[0] != "skip_connect"}
        assert kept <= {(i // 2, entry) for i, entry in enumerate(found.normal)}
        for t in CELL_TYPES:
            skips[t] += [op for op, _ in getattr(of_darts, t)].count("skip_connect")
    assert min(skips.values()) > 30


# R-DARTS --------------------------------------------------------------------------------------------------------------


def test_r_darts_stops_when_the_mean_of_five_epochs_is_over_four_thirds_of_that_five_epochs_earlier():
    method = RDarts()
    assert method.tracks_eigenvalue and not RDarts(early_stopping=False).tracks_eigenvalue
    assert method.stops([0.1] * 9) is None and method.stops([0.1] * 30) is None
    # Nine epochs are too few to compare, however they grow.
    assert method.stops(list(np.exp(np.arange(9.0)))) is None
    for late, stops in ((1.3, False), (1.4, True)):
        history = [5.0] * 7 + [1.0] * 5 + [late] * 5
        assert method.stops(history) == (11 if stops else None)
        assert RDarts(early_stopping=False).stops(history) is None
        assert RDarts(ratio=0.5).stops(history) is None
    # One large value is averaged: (4 + 2.6) / 5 is below 4 / 3.
    assert method.stops([1.0] * 9 + [2.6]) is None
    assert method.stops([1.0] * 9 + [2.7]) == 4
    assert RDarts(window=2).stops([1.0, 1.0, 2.0, 2.0]) == 1


def test_r_darts_grows_its_drop_path_linearly():
    assert RDarts().dropout == ""
    method = RDarts(drop_path=0.6)
    assert method.dropout == "path"
    assert [float(method.dropout_rate(p)) for p in (0.0, 0.5, 1.0)] == pytest.approx([0.0, 0.3, 0.6])


# PR-DARTS's two ideas -------------------------------------------------------------------------------------------------


def test_the_parts_of_pr_darts():
    lambdas = {"lambda_skip": 0.7, "lambda_nonskip": 0.4, "lambda_path": 0.9}
    logits, progress = logits_of(0), 0.4
    chosen = {t: jnp.array(two_an_edge(SHUFFLED, seed), jnp.float32) for seed, t in enumerate(CELL_TYPES)}
    for form in ("paper", "released"):
        both = PRDarts(form, space=SHUFFLED, **lambdas)
        only_gates = dataclasses.replace(both, parts="gates")
        without_path = dataclasses.replace(both, lambda_path=0.0)
        total, metrics = only_gates.objective(1.5, logits, chosen, progress)
        expected, _ = without_path.objective(1.5, logits, chosen, progress)
        assert float(total) == float(expected)
        assert float(expected) == pytest.approx(
            objective_loop(without_path, 1.5, logits, chosen, progress)[0], rel=1e-5
        )
        key = jax.random.key(1)
        for t in CELL_TYPES:
            np.testing.assert_array_equal(only_gates.weigh(logits, key, 0.4)[t], both.weigh(logits, key, 0.4)[t])


def test_the_path_alone_is_darts_with_a_reward_for_depth():
    method = PRDarts(parts="path", space=SHUFFLED, lambda_path=0.9)
    logits = logits_of(0)
    weights = method.weigh(logits, jax.random.key(0), jnp.float32(0.4))
    depth = []
    for t in CELL_TYPES:
        p = softmax_of(logits[t])
        np.testing.assert_allclose(weights[t], p, rtol=1e-5)
        np.testing.assert_allclose(method.activation(logits, 0.4)[t], p, rtol=1e-5)
        chain = [SHUFFLED.edges.index(edge) for edge in ((1, 2), (2, 3))]
        depth.append(
            math.prod(
                p[e, SHUFFLED.ops.index("sep_conv_3x3")] + p[e, SHUFFLED.ops.index("dil_conv_5x5")] for e in chain
            )
        )
    total, metrics = method.objective(1.5, logits, weights, jnp.float32(0.4))
    assert float(total) == pytest.approx(1.5 - 0.9 * np.mean(depth), rel=1e-5)
    assert float(metrics["l_path"]) == pytest.approx(np.mean(depth), rel=1e-5)


def test_the_path_alone_ranks_the_softmax():
    space = spaces.SearchSpace("small", ("none", "skip_connect", "sep_conv_3x3"), nodes=3)
    logits = dict.fromkeys(CELL_TYPES, jnp.array([[-5.0, 3.0, 2.9], [-5.0, 1.0, -5.0]]))
    found = PRDarts(parts="path", space=space).derive(space, logits)
    assert found.normal == (("skip_connect", 1), ("skip_connect", 0))
