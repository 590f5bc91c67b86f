"""The named methods: the papers' defaults, ranges of arguments, when logits move, stages and early stopping."""

import dataclasses
import inspect
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from shared import PUBLISHED, SHUFFLED, softmax_of
from table import Table, batch_of, jit_init, jit_step, tables

import prdarts_jax as pdx
from prdarts_jax import spaces
from prdarts_jax.nets.program import instructions, program
from prdarts_jax.search import gates, methods, relaxations, smoothing
from prdarts_jax.search.hypergradients import FirstOrder, Neumann, Unrolled
from prdarts_jax.search.problem import SearchProblem
from prdarts_jax.search.schedules import Linear

CELL_TYPES = spaces.CELL_TYPES
EACH = pytest.mark.parametrize("name", methods.NAMED)
SMALL = spaces.SearchSpace("small", ("none", "skip_connect", "sep_conv_3x3"), nodes=3)


def make_problem(method, space, total_steps=10):
    adam = optax.chain(optax.add_decayed_weights(1e-3), optax.adam(0.01, b1=0.5))
    return SearchProblem(Table(space, **method.supernet), method, optax.sgd(0.1, momentum=0.9), adam, total_steps)


def search(problem, steps=3):
    """[state before, state after each step], and the metrics of the last."""
    states = [jit_init(problem, jax.random.key(0), batch_of(0.0)["image"])]
    for _ in range(steps):
        state, metrics = jit_step(problem, states[-1], batch_of(0.0), batch_of(1.0))
        states.append(state)
    return states, metrics


# Compositions ---------------------------------------------------------------------------------------------------------


def test_methods_are_values_and_all_different():
    made = [[build() for build in methods.NAMED.values()] for _ in range(2)]
    assert made[0] == made[1] and len({*made[0], *made[1]}) == len(methods.NAMED)
    assert methods.darts() == pdx.Method() and hash(methods.darts()) == hash(pdx.Method())


def test_arguments_reach_the_parts_of_a_method():
    """Their defaults are those of tests/test_configs.py; what PR-DARTS does with its own is in test_terms.py."""
    assert methods.darts(second_order=True).hypergradient == Unrolled(1)
    assert methods.idarts(products=5).hypergradient == Neumann(5)
    assert methods.gdas(start_temperature=8.0).relaxation.temperature == Linear(8.0, 0.1)
    assert methods.pr_darts_released(drop=0.3).relaxation.drop == 0.3
    assert methods.pc_darts(partial=2).supernet == {"partial": 2}
    assert methods.lambda_darts(strength=0.25).inner == pdx.alignment.Alignment(Linear(0.0, 0.25))
    assert methods.lambda_darts(variant="signcorr").inner.measure == pdx.alignment.sign_correlation
    assert methods.random_search(samples=7).after_epoch == pdx.BestOf(7)
    assert methods.snas(end_temperature=0.1).relaxation.temperature == Linear(1.0, 0.1)
    assert methods.sdarts_adv(end_radius=0.1, steps=3).smoothing == pdx.smoothing.AdversarialSmoothing(
        Linear(0.03, 0.1), 3
    )
    assert methods.darts_minus(auxiliary_skip=0.5).relaxation.weight == Linear(0.5, 0.0)
    assert methods.beta_darts(weight=5.0).terms == (pdx.terms.scheduled(pdx.terms.beta_decay(1.0), Linear(0.0, 5.0)),)
    assert methods.drnas(kl=0.1).terms == (pdx.terms.dirichlet_kl(0.1),) and not methods.drnas().terms
    stages = methods.drnas(partial=(6, 4), ops=(7, 4)).stages
    assert [(s.method.supernet["partial"], s.ops) for s in stages] == [(6, 7), (4, 4)]


def test_the_defaults_of_parts_are_those_of_the_methods_that_they_come_from():
    assert relaxations.Concrete() == methods.snas().relaxation
    assert relaxations.Gumbel() == methods.gdas().relaxation
    assert relaxations.AuxiliarySkip() == methods.darts_minus().relaxation
    assert relaxations.HardConcrete(0.5, 0.0) == methods.pr_darts().relaxation
    assert smoothing.RandomSmoothing() == methods.sdarts_rs().smoothing
    assert smoothing.AdversarialSmoothing() == methods.sdarts_adv().smoothing


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_method_has_its_parts_and_no_others(name):
    """Weights come first in PR-DARTS and iDARTS; what one method alone has, the others lack."""
    method = methods.find(name)()
    assert method.weights_first == (name.startswith("pr_darts") or name == "idarts")
    assert (method.logits_start, bool(method.stages)) == (
        {"p_darts": 0.4, "pc_darts": 0.3}.get(name, 0),
        name == "p_darts",
    )
    assert [
        part for part in ("inner", "smoothing", "freezing", "early_stopping", "after_epoch") if getattr(method, part)
    ] == {
        "lambda_darts": ["inner"],
        "sdarts_rs": ["smoothing"],
        "sdarts_adv": ["smoothing"],
        "oles": ["freezing"],
        "r_darts": ["early_stopping"],
        "random_search": ["after_epoch"],
    }.get(name, [])
    assert method.hypergradient == (Neumann(2) if name == "idarts" else FirstOrder())


# Arguments ------------------------------------------------------------------------------------------------------------


def test_what_is_out_of_range_is_refused_by_one_sentence():
    for build, arguments, message in (
        (methods.darts, {"second_order": 1}, "second_order=1 must be of type bool, as False is"),
        (methods.gdas, {"start_temperature": 0.0}, "start_temperature=0.0 must be above 0"),
        (methods.pc_darts, {"partial": 1}, "partial=1 must be from 2 to 4096"),
        (methods.lambda_darts, {"variant": "sine"}, "variant='sine' must be one of cosine, signcorr"),
        (
            methods.p_darts,
            {"ops": (8, 1, 3)},
            "ops=(8, 1, 3) must be a tuple of 1 to 100 numbers, each a whole number from 2 to 1000",
        ),
        (
            methods.drnas,
            {"partial": (2.5,)},
            "partial=(2.5,) must be a tuple of 1 to 100 numbers, each a whole number from 1 to 4096",
        ),
        (
            methods.p_darts,
            {"cells": (5,)},
            "cells=(5,), ops=(8, 5, 3) and skip_dropout=(0.0, 0.4, 0.7) must have the same length",
        ),
    ):
        with pytest.raises(ValueError) as error:
            build(**arguments)
        assert str(error.value).startswith(message) and "\n" not in str(error.value)


@EACH
def test_every_number_has_a_range_and_every_argument_a_type(name):
    build = methods.find(name)
    assert build.schema.keys() == inspect.signature(build).parameters.keys()
    for argument, field in build.schema.items():
        wrong = [object()] + [math.nan] * (field.kind is float) + [-1] * (field.kind is int)
        for value in wrong:
            with pytest.raises(ValueError, match=rf"^{argument}=.* must be "):
                build(**{argument: value})


# Steps ----------------------------------------------------------------------------------------------------------------


def test_logits_and_their_moments_rest_until_their_start():
    late = make_problem(dataclasses.replace(methods.darts(), logits_start=0.5), SHUFFLED, 6)
    at_once = make_problem(methods.darts(), SHUFFLED, 6)
    (start, *states), _ = search(late, steps=5)
    for step, (before, state) in enumerate(zip([start, *states], states, strict=False)):
        rests = step < 3
        moments = [a for a in jax.tree.leaves(state.opt_state.inner_states["arch"]) if a.shape == SHUFFLED.shape]
        assert moments and all((np.asarray(a) == 0).all() for a in moments) == rests
        for t in CELL_TYPES:
            assert (np.asarray(state.arch[t]) == np.asarray(start.arch[t])).all() == rests
        for name in before.params:
            assert (np.asarray(state.params[name]) != np.asarray(before.params[name])).any()
    # The first move is Adam's first: of about the learning rate, as that of a search without a start.
    before = states[2]
    fresh = before.replace(opt_state=at_once.optimizer.init({"params": before.params, "arch": before.arch}))
    moved, _ = jit_step(at_once, fresh, batch_of(0.0), batch_of(1.0))
    for t in CELL_TYPES:
        np.testing.assert_allclose(states[3].arch[t], moved.arch[t], rtol=1e-5)


def test_the_edges_logits_of_pc_darts_are_drawn_and_trained_from_its_start_on():
    space = dataclasses.replace(SMALL, nodes=5)
    problem = make_problem(dataclasses.replace(methods.pc_darts(), logits_start=0.5), space, total_steps=4)
    (start, *states), _ = search(problem, steps=4)
    assert start.arch.keys() == {"normal", "reduce", "normal_edges", "reduce_edges"}
    assert start.arch["reduce_edges"].shape == (9,)
    drawn = np.concatenate([np.ravel(a) for a in start.arch.values()])
    assert len(np.unique(drawn)) == len(drawn) and 3e-4 < drawn.std() < 3e-3
    for step, state in enumerate(states):
        for name, beta in state.arch.items():
            assert (np.asarray(beta) != np.asarray(start.arch[name])).all() == (step >= 2), name


def test_a_step_of_reinforce_is_the_estimate_of_the_draw_that_was_made():
    space = spaces.SearchSpace("two", ("skip_connect", "sep_conv_3x3", "max_pool_3x3"), nodes=3, cell_types=("normal",))
    beta = jnp.array([[0.3, -0.8, 0.5], [1.0, 0.0, -0.5]])
    method = methods.reinforce(start_baseline=2.0)
    problem = SearchProblem(Table(space), method, optax.set_to_zero(), optax.sgd(1.0), 10)
    state = jit_init(problem, jax.random.key(0), batch_of(0.0)["image"])
    state = state.replace(arch=state.arch | {"normal": beta})
    black = tables(space)[0]["normal"][0]
    losses = {(a, b): 1 + black[0, a] + black[1, b] + 2 * 0.25 for a in range(3) for b in range(3)}
    seen = set()
    for seed in range(12):
        before = state.replace(key=jax.random.key(seed))
        after, metrics = jit_step(problem, before, batch_of(0.0), batch_of(0.0))
        draw = min(losses, key=lambda draw: abs(losses[draw] - float(metrics["val_loss"])))
        assert losses[draw] == pytest.approx(float(metrics["val_loss"]), rel=1e-5)
        expected = (losses[draw] - 2.0) * (np.eye(3)[list(draw)] - softmax_of(beta))
        np.testing.assert_allclose(before.arch["normal"] - after.arch["normal"], expected, rtol=1e-4, atol=1e-6)
        assert float(after.arch["baseline"]) == pytest.approx(losses[draw], rel=1e-5)
        assert float(metrics["baseline"]) == 2.0
        seen.add(draw)
    assert len(seen) > 3


# P-DARTS and R-DARTS --------------------------------------------------------------------------------------------------


def test_the_stages_of_p_darts_execute_fewer_and_fewer_ops_of_an_edge():
    space, candidates, images = spaces.darts(), None, batch_of(0.0)["image"]
    method = methods.p_darts()
    assert [(s.method.supernet["cells"], s.ops) for s in method.stages] == [(5, 8), (11, 5), (17, 3)]
    assert [s.method.supernet.get("dropout", "") for s in method.stages] == ["", "skip", "skip"]
    assert [s.method.logits_start for s in method.stages] == [0.4] * 3
    ((_, group),) = program(space, False, channels=4)
    kept = np.ones(space.shape, bool)
    for number, stage in enumerate(method.stages):
        state = jit_init(make_problem(stage.method, space), jax.random.key(number), images, candidates)
        rng = np.random.default_rng(number)
        logits = {t: beta + rng.normal(size=space.shape) for t, beta in state.arch.items()}
        weights = stage.method.relaxation.weigh(space, logits, jax.random.key(0), jnp.float32(0.5))
        for t in CELL_TYPES:
            assert (np.count_nonzero(weights[t], axis=1) == stage.ops).all()
            np.testing.assert_allclose(np.sum(weights[t], axis=1), 1, rtol=1e-5)
            listed = instructions(group, weights[t], end=1)
            assert int(listed.starts[-1]) == np.count_nonzero(np.asarray(weights[t])[:, 1:])  # `none` comes first
        assert not np.asarray(weights["normal"])[~kept].any()
        if number < 2:
            fewer = method.stages[number + 1].ops
            candidates = {t: gates.largest(w, fewer) for t, w in weights.items()}
            kept = np.argsort(np.argsort(-np.asarray(weights["normal"]), axis=1), axis=1) < fewer


def test_the_dropout_after_skips_falls_as_in_the_released_code():
    """In its epochs e of 25: p (24 - e) / 25 before the logits move, then p exp(-0.2 (e - 10))."""
    first, *later = (stage.method.dropout_rate for stage in methods.p_darts().stages)
    assert first is None
    for schedule, rate in zip(later, (0.4, 0.7), strict=True):
        for epoch in range(25):
            at_end = float(schedule(jnp.float32((epoch + 1) / 25 - 1e-6)))
            at_start = float(schedule(jnp.float32(epoch / 25 + 1e-6)))
            if epoch < 10:
                assert at_end == pytest.approx(rate * (24 - epoch) / 25, abs=1e-4)
            else:
                assert at_start == pytest.approx(rate * math.exp(-0.2 * (epoch - 10)), abs=1e-4)
            assert at_start >= at_end


def test_r_darts_stops_when_the_mean_of_five_epochs_is_over_four_thirds_of_that_five_epochs_earlier():
    stopping = methods.r_darts(start=0).early_stopping
    assert methods.r_darts(early_stopping=False).early_stopping is None
    assert stopping.stops([0.1] * 9) is None and stopping.stops([0.1] * 30) is None
    # Nine epochs are too few to compare, however they grow.
    assert stopping.stops(list(np.exp(np.arange(9.0)))) is None
    for late, stops in ((1.3, False), (1.4, True)):
        history = [5.0] * 7 + [1.0] * 5 + [late] * 5
        assert stopping.stops(history) == (11 if stops else None)
        assert methods.r_darts(ratio=0.5, start=0).early_stopping.stops(history) is None
    # One large value is averaged: (4 + 2.6) / 5 is below 4 / 3.
    assert stopping.stops([1.0] * 9 + [2.6]) is None
    assert stopping.stops([1.0] * 9 + [2.7]) == 4
    assert methods.r_darts(window=2, start=0).early_stopping.stops([1.0, 1.0, 2.0, 2.0]) == 1
    # As in the authors' code, no cell of the first ten epochs is taken.
    growing = list(np.exp(np.arange(16.0)))
    assert methods.r_darts().early_stopping.stops(growing[:15]) is None
    assert methods.r_darts().early_stopping.stops(growing) == 10


def test_r_darts_grows_its_drop_path_linearly():
    assert methods.r_darts().supernet == {} and methods.r_darts().dropout_rate is None
    method = methods.r_darts(drop_path=0.6)
    assert method.supernet == {"dropout": "path"}
    assert [float(method.dropout_rate(p)) for p in (0.0, 0.5, 1.0)] == pytest.approx([0.0, 0.3, 0.6])
