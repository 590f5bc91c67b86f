"""What the search step and the diagnostics say of a small supernet of a user's own space, against central differences
of its losses."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from prdarts_jax import spaces
from prdarts_jax.nets.supernet import Supernet
from prdarts_jax.search import diagnostics, methods
from prdarts_jax.search.problem import SearchProblem, init_search
from prdarts_jax.search.step import search_step
from prdarts_jax.spaces import genotypes

OWN = spaces.SearchSpace(name="own", ops=("skip_connect", "dil_conv_3x3"), nodes=5)
STEP = 3e-4  # of the central differences: such small networks have many kinks
PROBLEM = SearchProblem(
    Supernet(space=OWN, channels=2, cells=4),
    methods.darts(),
    optax.sgd(0.1),
    optax.sgd(1.0),
    total_steps=4,
)


def make_batch(seed):
    rng = np.random.default_rng(seed)
    image = rng.normal(size=(4, 8, 8, 1)).astype(np.float32)
    return {"image": jnp.array(image), "label": jnp.array(rng.integers(0, 10, 4), jnp.int32)}


TRAIN, VAL = make_batch(0), make_batch(1)


def layered(arch):
    return {t: jnp.broadcast_to(jax.nn.softmax(arch[t]), (2, *OWN.shape)) for t in ("normal", "reduce")}


def loss(state, params, op_weights, batch):
    variables = {"params": params, "arch": state.arch, "batch_stats": state.batch_stats}
    out, _ = PROBLEM.supernet.apply(variables, batch["image"], op_weights, train=True, mutable="batch_stats")
    return -jnp.take_along_axis(jax.nn.log_softmax(out), batch["label"][:, None], axis=1).mean()


@pytest.fixture(scope="module")
def state():
    """The start, with logits that are not all alike."""
    start = jax.jit(init_search, static_argnums=0)(PROBLEM, jax.random.key(0), TRAIN["image"])
    rng = np.random.default_rng(3)
    return start.replace(arch={t: rng.normal(size=OWN.shape).astype(np.float32) for t in start.arch})


@pytest.fixture(scope="module")
def after(state):
    return jax.jit(search_step, static_argnums=0)(PROBLEM, state, TRAIN, VAL)


@pytest.fixture(scope="module")
def val_loss(state):
    return jax.jit(lambda params, op_weights: loss(state, params, op_weights, VAL))


def test_the_alignment_of_validation_is_the_cosine_of_the_gradients_in_the_weights_of_each_normal_cell(
    state, after, val_loss
):
    assert PROBLEM.supernet.layers == {"normal": 2, "reduce": 2}
    weights = jax.device_get(layered(state.arch))
    gradients = np.zeros((2, *OWN.shape))
    for place in np.ndindex(*gradients.shape):
        shift = np.zeros_like(weights["normal"])
        shift[place] = STEP
        plus, minus = (
            float(val_loss(state.params, weights | {"normal": weights["normal"] + s})) for s in (shift, -shift)
        )
        gradients[place] = (plus - minus) / (2 * STEP)
    a, b = gradients.reshape(2, -1)
    cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    assert float(after[1]["alignment_val"]) == pytest.approx(cosine, abs=0.006) and abs(cosine) > 0.05


def test_a_space_of_a_user_s_own_searches(state, after):
    found, metrics = after
    assert int(found.step) == 1 and all(np.isfinite(value) for value in metrics.values())
    for t in state.arch:
        assert (np.asarray(found.arch[t]) != np.asarray(state.arch[t])).all()
    genotype = methods.darts().derive(OWN, jax.device_get(found.arch))
    assert len(genotype.normal) == len(genotype.reduce) == 6
    assert {op for op, _ in genotype.normal} <= set(OWN.ops)


def test_the_entropy_is_the_mean_over_edges_of_that_of_the_shares():
    weights = np.random.default_rng(5).uniform(0, 1, (5, 3))
    weights[3] = 0
    weights[4] = [0, 0.2, 0]
    expected = 0.0
    for row in weights[:3]:
        expected -= sum(w / sum(row) * np.log(w / sum(row)) for w in row) / 5
    found = diagnostics.entropy({"normal": weights, "reduce": np.full((2, 8), 0.7)})
    assert found["normal"] == pytest.approx(expected)
    assert found["reduce"] == pytest.approx(np.log(8))


@pytest.mark.parametrize(
    "space",
    [
        spaces.SearchSpace("part", tuple(op for op in spaces.darts().ops if op not in without))
        for without in ((), ("none",), ("avg_pool_3x3", "max_pool_3x3"))
    ]
    + [spaces.named(name) for name in ("s1", "s2", "s3", "s4", "nas_bench_201")],
    ids=lambda space: f"{space.name}, {len(space.ops)} ops",
)
def test_activation_by_group_is_the_mean_over_the_candidates_alone(space):
    kinds = {"none": "none", "noise": "noise", "skip_connect": "skip", "avg_pool_3x3": "pool", "max_pool_3x3": "pool"}
    rng = np.random.default_rng(1)
    probabilities = {t: rng.random(space.shape) for t in space.cell_types}
    found = diagnostics.activation_by_group(space, probabilities)
    assert list(found) == list(space.cell_types)
    for t in space.cell_types:
        members = {"all": []}
        for edge, op in zip(*np.nonzero(space.candidates(t)), strict=True):
            for kind in ("all", kinds.get(space.ops[op], "conv")):
                members.setdefault(kind, []).append(probabilities[t][edge, op])
        assert found[t] == pytest.approx({kind: np.mean(values) for kind, values in members.items()})


def test_a_record_has_the_measure_of_each_diagnostic_that_has_one():
    space, genotype = spaces.darts(), genotypes.named("PRDARTS")
    found = diagnostics.measure_all(space, dict.fromkeys(spaces.CELL_TYPES, np.ones(space.shape)), genotype)
    assert found.keys() == {diagnostic.field for diagnostic in diagnostics.DIAGNOSTICS if diagnostic.measure}
    assert found["entropy"] == pytest.approx(dict.fromkeys(spaces.CELL_TYPES, np.log(len(space.ops))))
    assert (found["skip_share"], found["depth"]) == ({"normal": 0.125, "reduce": 0.0}, {"normal": 4, "reduce": 4})
