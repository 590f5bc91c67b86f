"""Parts of a user's own that cannot be used are refused in a sentence."""

import dataclasses
import re

import jax.numpy as jnp
import optax
import pytest
from table import Table

import prdarts_jax as pdx
from prdarts_jax.search.terms import View, total


@pytest.mark.parametrize(
    "fields, message",
    (
        ({"terms": [pdx.terms.path_depth(1.0)]}, "must be a tuple of values such as terms.path_depth"),
        ({"terms": (pdx.terms.CellTerm,)}, "must be a tuple of values"),
        (
            {"terms": (pdx.terms.path_depth,)},
            "must be called with .view, op_weights, progress., but <function path_depth",
        ),
        ({"relaxation": pdx.relaxations.Softmax}, "must be a value such as relaxations.Softmax"),
        ({"hypergradient": pdx.hypergradients.Unrolled}, "must be a value such as hypergradients.Unrolled"),
        ({"hypergradient": True}, "hypergradient=True must be a value such as hypergradients.Unrolled"),
    ),
)
def test_a_method_is_made_of_values(fields, message):
    with pytest.raises(ValueError, match=message):
        pdx.Method(**fields)


@pytest.mark.parametrize(
    "terms, message",
    (
        ((lambda *_: jnp.float32(1),), "must return .scalar, dict of metrics., not"),
        ((lambda *_: (jnp.ones(2), {}),), "must return .scalar, dict of metrics., not"),
        ((lambda *_: (1.0, {"l": jnp.ones(2)}),), "metric 'l' of a term must be a scalar, but has the shape .2,."),
        ((lambda *_: (1.0, {"l": 1.0}),) * 2, "different names, but l comes twice"),
        ((lambda *_: (1.0, {"val_loss": 1.0}),), "different names, but val_loss comes twice"),
    ),
)
def test_a_term_gives_a_scalar_and_metrics_of_its_own(terms, message):
    view = View(pdx.spaces.s2(), {}, {}, jnp.float32(0))
    with pytest.raises(ValueError, match=message):
        total(terms, view, {}, jnp.float32(0))


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
