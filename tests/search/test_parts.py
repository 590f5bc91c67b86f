"""Parts of a user's own that cannot be used are refused in a sentence."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from shared import refused
from table import Table

import prdarts_jax as pdx
from prdarts_jax.search.methods.composed import PARTS
from prdarts_jax.search.schedules import Linear
from prdarts_jax.search.terms import View, total


class WithoutProgress(pdx.relaxations.Softmax):
    def activation(self, space, logits):
        return logits


@pytest.mark.parametrize(
    "fields, message",
    (
        ({"terms": [pdx.terms.path_depth(1.0)]}, r"^terms=\[.*\] must be of type tuple, as \(\) is$"),
        ({"terms": (pdx.terms.CellTerm,)}, "must be called with .*, but CellTerm cannot be: it is not a function$"),
        (
            {"terms": (pdx.terms.path_depth,)},
            "must be called with .view, op_weights, progress., but path_depth cannot be: too many",
        ),
        (
            {"relaxation": pdx.relaxations.Softmax},
            r"must be of type Relaxation, as Softmax\(.*\) is; did you mean S",
        ),
        ({"hypergradient": pdx.hypergradients.Unrolled}, r"must be of type function, .*; did you mean Unrolled\(...\)"),
        ({"hypergradient": True}, r"^hypergradient=True must be of type function, as FirstOrder\(\) is$"),
        ({"smoothing": pdx.smoothing.RandomSmoothing}, r"must be of type function or None, .* RandomSmoothing\(...\)"),
        ({"inner": pdx.alignment.cosine}, "^inner=.* must be of type Alignment or None, as None is$"),
        ({"freezing": 5}, "^freezing=5 must be of type OperationEarlyStopping or None, as None is$"),
        (
            {"freezing": lambda optimizer: optimizer},
            r"^freezing=.* must be a value such as OperationEarlyStopping\(\)$",
        ),
        ({"early_stopping": pdx.EarlyStopping}, r"must be a value such as EarlyStopping\(\)$"),
        ({"dropout_rate": 0.1}, "^dropout_rate=0.1 must be of type function or None, as None is$"),
        ({"after_search": 3}, "^after_search=3 must be of type function or None, as None is$"),
        ({"logits_start": "a"}, "^logits_start='a' must be of type float, as 0.0 is$"),
        ({"logits_start": 1.5}, "^logits_start=1.5 must be from 0 to 1$"),
        ({"supernet": None}, "^supernet=None must be of type Mapping"),
        ({"discretization": "perturbation"}, "^discretization='perturbation' must be of type function, as strongest"),
        (
            {"discretization": pdx.BestCell(3)},
            r"must be called with \(space, scores\), but BestCell cannot be: .*; did you mean after_search\?$",
        ),
        ({"after_epoch": pdx.Perturbation(1, optax.sgd(0.1))}, r"but Perturbation .*; did you mean after_search\?$"),
        (
            {"relaxation": WithoutProgress()},
            r"^relaxation.activation=.* must be called with \(space, logits, progress\), but activation cannot be",
        ),
    ),
)
def test_a_method_is_made_of_values(fields, message):
    with pytest.raises(ValueError, match=message):
        pdx.Method(**fields)


@pytest.mark.parametrize(
    "discretization, message",
    [
        (
            lambda space, scores: None,
            "^discretization=<function .*> must return a cell: genotype None must be of the type",
        ),
        (lambda space, scores: pdx.genotypes.named("DARTS_V2"), "must have 7 nodes|must be one of the space s2"),
    ],
)
def test_a_discretization_returns_a_cell_of_the_space(discretization, message):
    space = pdx.spaces.s2()
    with pytest.raises(ValueError, match=message):
        pdx.Method(discretization=discretization).derive(space, {t: np.zeros(space.shape) for t in space.cell_types})


def test_a_space_without_genotypes_may_have_cells_of_any_kind():
    space = pdx.SearchSpace("third", ("skip_connect", "sep_conv_3x3"), nodes=4, inputs=1, entries_per_node=1)
    method = pdx.Method(discretization=lambda space, scores: "a cell")
    assert method.derive(space, {t: np.zeros(space.shape) for t in space.cell_types}) == "a cell"


def test_a_function_that_does_not_tell_its_arguments_can_be_a_part():
    assert pdx.Method(dropout_rate=np.sqrt).dropout_rate is np.sqrt


@pytest.mark.parametrize(
    "make, message",
    (
        (lambda: pdx.terms.path_depth(-1.0), "weight=-1.0 must be from 0 to 3.4e+38"),
        (lambda: pdx.terms.path_depth(Linear(0.0, 1.0)), "weight=Linear(start=0.0, end=1.0) must be of type float"),
        (
            lambda: pdx.terms.group_sparsity(1.0, "x", "pool", "skips"),
            "groups='skips' must be one of none, skip, noise, pool, conv; did you mean 'skip'?",
        ),
        (lambda: pdx.terms.expected_cost(1.0, 0.0, None), "target=0.0 must be above 0 and at most 3.4e+38"),
        (lambda: pdx.terms.expected_cost(1.0, 1.0, 5), "costs=5 must be of type Costs"),
        (lambda: pdx.terms.scheduled(0.5, Linear(0.0, 1.0)), "term=0.5 must be of type function"),
        (
            lambda: pdx.relaxations.HardConcrete(draw="unifrom"),
            "draw='unifrom' must be one of uniform, largest; did you mean 'uniform'?",
        ),
        (
            lambda: pdx.relaxations.Gumbel(temperature=1.0),
            "temperature=1.0 must be of type Linear, as Linear(start=10.0, end=0.1) is",
        ),
        (
            lambda: pdx.relaxations.Concrete(temperature=Linear(1.0, 0.0)),
            "temperature.end=0.0 must be above 0 and at most 3.4e+38",
        ),
        (lambda: pdx.relaxations.Softmax(noise=-1), "noise=-1 must be from 0 to 3.4e+38"),
        (
            lambda: pdx.relaxations.AuxiliarySkip("softmax"),
            "relaxation='softmax' must be of type Relaxation, as Softmax(initial=0.0, noise=0.001) is",
        ),
        (lambda: pdx.hypergradients.Unrolled(0), "steps=0 must be from 1 to 1000"),
        (lambda: pdx.hypergradients.ConjugateGradient(3, -1.0), "damping=-1.0 must be from 0 to 3.4e+38"),
        (lambda: pdx.alignment.Alignment(0.1), "weight=0.1 must be of type Linear"),
        (lambda: pdx.smoothing.AdversarialSmoothing(steps=0), "steps=0 must be from 1 to 1000"),
        (lambda: pdx.OperationEarlyStopping(window=0), "window=0 must be from 1 to 1000000"),
        (lambda: pdx.Pruning(3), "ops=3 must be of type Linear"),
        (lambda: pdx.Perturbation(-1, optax.sgd(0.1)), "steps=-1 must be from 0 to 3.4e+38"),
        (lambda: pdx.Stage(pdx.methods.darts(), None), "ops=None must be of type int, as 0 is"),
        (lambda: pdx.BestOf(0), "samples=0 must be from 1 to 1000000"),
        (lambda: pdx.EarlyStopping(ratio=2.0), "ratio=2.0 must be above 0 and at most 1"),
        (lambda: pdx.schedules.LinearThenExponential(1.0, 2.0, 1.0), "knee=2.0 must be from 0 to 1"),
    ),
)
def test_a_part_checks_its_arguments(make, message):
    with refused(message):
        make()


def test_no_part_leaves_its_arguments_unchecked():
    made = {name: part for field, parts in PARTS.items() for name, part in parts.items() if field != "discretization"}
    made |= {"Perturbation": pdx.Perturbation, "BestCell": pdx.BestCell, "Method": pdx.Method}
    made |= {"expected_cost": pdx.terms.expected_cost, "group_sparsity": pdx.terms.group_sparsity}
    del made["score_function"]  # a term, not a function that makes one
    calls = {name: vars(part)["__init__"] if isinstance(part, type) else part for name, part in made.items()}
    assert [name for name, call in calls.items() if not hasattr(call, "__wrapped__")] == []


def test_a_part_takes_any_schedule_and_what_is_traced():
    def falling(progress):
        return 3.0 - progress

    assert pdx.relaxations.Gumbel(temperature=falling).metrics(1.0) == {"temperature": 2.0}
    found = jax.vmap(lambda weight: pdx.terms.path_depth(weight).added(jnp.float32(2)))(jnp.arange(2.0))
    assert found.tolist() == [0.0, -2.0]
    found = jax.vmap(lambda end: pdx.relaxations.Gumbel(temperature=Linear(1.0, end)).temperature(0.5))(jnp.arange(2.0))
    assert found.tolist() == [0.5, 1.0]


def own_term(view, op_weights, progress):
    return 1.0, {"l": None}


@pytest.mark.parametrize(
    "terms, message",
    (
        ((lambda *_: jnp.float32(1),), "must return .scalar, dict of metrics., not"),
        ((lambda *_: (jnp.ones(2), {}),), "must return .scalar, dict of metrics., not"),
        ((lambda *_: (None, {}),), r"must return .scalar, dict of metrics., not \(None, {}\)$"),
        ((lambda *_: ({}, {}),), "must return .scalar, dict of metrics., not"),
        ((lambda *_: (1j, {}),), "must return .scalar, dict of metrics., not"),
        ((own_term,), "^term own_term must report scalars by name, not {'l': None}$"),
        ((lambda *_: (1.0, {"l": jnp.ones(2)}),), "^term <lambda> must report scalars by name, not {'l': Array"),
        ((lambda *_: (1.0, {1: 1.0}),), "must report scalars by name, not {1: 1.0}$"),
        ((lambda *_: (1.0, {"l": 1.0}),) * 2, "different names, but l comes twice"),
    ),
)
def test_a_term_gives_a_scalar_and_metrics_of_its_own(terms, message):
    view = View(pdx.spaces.s2(), {}, {}, jnp.float32(0))
    with pytest.raises(ValueError, match=message):
        total(terms, view, {}, jnp.float32(0))


@dataclasses.dataclass(frozen=True)
class Stacked(pdx.terms.CellTerm):
    def of_cell(self, space, probability, weights, candidates):
        return jnp.stack([weights, weights[:, :1]]).sum()


def test_an_error_within_a_term_is_reported_with_its_place():
    space = pdx.spaces.nas_bench_201()
    weights = {"normal": jnp.ones(space.shape)}
    view = View(space, weights, weights, jnp.float32(0))
    line = Stacked.of_cell.__code__.co_firstlineno + 1
    terms = (pdx.terms.scheduled(Stacked(1.0, "l"), Linear(0.0, 1.0)),)
    place = re.escape(f"{__file__}:{line}")
    with pytest.raises(
        ValueError, match=rf"^term scheduled in {place} raised ValueError: All input arrays must"
    ) as found:
        total(terms, view, weights, jnp.float32(0))
    assert str(found.value.__cause__).startswith("All input arrays")


def test_a_term_of_the_package_speaks_for_itself():
    view = View(pdx.spaces.s2(), {}, {}, jnp.float32(0))
    with refused("terms: score_function must be with relaxation=relaxations.Policy(), whose baseline it trains"):
        total((pdx.terms.score_function,), view, {}, jnp.float32(0))


@pytest.mark.parametrize("drawn", [pdx.relaxations.Policy(), pdx.relaxations.Uniform()])
def test_what_a_drawn_cell_needs_is_not_hidden_by_an_auxiliary_skip(drawn):
    name = type(drawn).__name__
    with pytest.raises(ValueError, match=rf"relaxation={name}\(\) must be another one in AuxiliarySkip"):
        pdx.relaxations.AuxiliarySkip(drawn)


@pytest.mark.parametrize(
    "weights, gives",
    (
        (jnp.ones((14, 4)), "ArrayImpl"),
        ({"normal": jnp.ones((14, 4))}, "{'normal': (14, 4)}"),
        ({"normal": jnp.ones((14, 4)), "reduce": jnp.ones(4)}, "{'normal': (14, 4), 'reduce': (4,)}"),
    ),
)
def test_a_relaxation_gives_a_weight_for_each_op_of_each_cell_type(weights, gives):
    class Wrong(pdx.relaxations.Softmax):
        def weigh(self, space, logits, key, progress):
            return weights

    space = dataclasses.replace(pdx.spaces.darts(), ops=pdx.spaces.darts().ops[:4])
    problem = pdx.SearchProblem(Table(space), pdx.Method(relaxation=Wrong()), *[optax.sgd(0.1)] * 2, total_steps=1)
    with pytest.raises(
        ValueError, match=rf"Wrong.weigh must return .* shape .14, 4.}} for .*, but returns {re.escape(gives)}$"
    ):
        problem.op_weights({}, None, jnp.float32(0))


def test_what_a_subclass_must_define_is_named():
    with pytest.raises(NotImplementedError, match="CellTerm must define of_cell"):
        pdx.terms.CellTerm(1.0, "l").of_cell(*[None] * 4)
    for part in ("weigh", "activation"):
        with pytest.raises(NotImplementedError, match="Relaxation must define activation"):
            getattr(pdx.relaxations.Relaxation(), part)(*[None] * (3 + (part == "weigh")))
    with pytest.raises(ValueError, match="genotype='PRDARTS' must be a Genotype"):
        pdx.network("PRDARTS")
