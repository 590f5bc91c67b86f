"""The terms against loops over edges and ops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prdarts_jax import spaces
from prdarts_jax.search import terms

KINDS = {
    "none": "none",
    "skip_connect": "skip",
    "sep_conv_3x3": "conv",
    "sep_conv_5x5": "conv",
    "dil_conv_3x3": "conv",
    "dil_conv_5x5": "conv",
    "avg_pool_3x3": "pool",
    "max_pool_3x3": "pool",
}
# The second has its ops in another order, so that no position is taken for granted.
SHUFFLED = spaces.SearchSpace(
    "shuffled", ("sep_conv_3x3", "max_pool_3x3", "skip_connect", "dil_conv_5x5", "none"), nodes=4
)
SPACES = [spaces.darts(), SHUFFLED]


def by_edge(space, values):
    """{(source, target): {op: value}} of an array [edges, ops]."""
    rows = iter(np.asarray(values, np.float64))
    return {(s, t): dict(zip(space.ops, next(rows), strict=True)) for t in range(2, space.nodes) for s in range(t)}


def skip_loop(space, probability):
    p = by_edge(space, probability)
    zeta = 1 / len(p)
    total = 0.0
    for t in range(2, space.nodes):
        for s in range(t):
            total += zeta * p[s, t]["skip_connect"]
    return total


def nonskip_loop(space, probability):
    p = by_edge(space, probability)
    zeta, r = 1 / len(p), len(space.ops)
    total = 0.0
    for t in range(2, space.nodes):
        for s in range(t):
            for op in space.ops:
                if op != "skip_connect":
                    total += zeta / (r - 1) * p[s, t][op]
    return total


def mean_of_candidates(space, probability, candidates, *kinds):
    p, c = by_edge(space, probability), by_edge(space, candidates)
    counted = [p[edge][op] for edge in space.edges for op in space.ops if c[edge][op] and KINDS[op] in kinds]
    return sum(counted) / len(counted) if counted else 0.0


def path_loop(space, probability):
    p = by_edge(space, probability)
    product = 1.0
    for t in range(2, space.nodes):
        product *= sum(p[t - 1, t][op] for op in space.ops if KINDS[op] == "conv")
    return product


def chosen_group_loop(space, probability, chosen, kinds):
    p, c = by_edge(space, probability), by_edge(space, chosen)
    selected = []
    for t in range(2, space.nodes):
        for s in range(t):
            for op in space.ops:
                if KINDS[op] in kinds and c[s, t][op]:
                    selected.append(p[s, t][op])
    return sum(selected) / len(selected) if selected else 0.0


def chosen_path_loop(space, probability, chosen):
    p, c = by_edge(space, probability), by_edge(space, chosen)
    means = []
    for t in range(2, space.nodes):
        selected = [p[t - 1, t][op] for op in space.ops if KINDS[op] == "conv" and c[t - 1, t][op]]
        if selected:
            means.append(sum(selected) / len(selected))
    return float(np.prod(means)) if means else 0.0


PAPER = {
    "l_skip": (terms.skip_sparsity(1.0), skip_loop),
    "l_nonskip": (terms.nonskip_sparsity(1.0), nonskip_loop),
    "l_path": (terms.path_depth(1.0), path_loop),
}


def of_groups(*kinds):
    term = terms.group_sparsity(1.0, "metric", *kinds, chosen=True)
    return term, lambda space, p, chosen: chosen_group_loop(space, p, chosen, kinds)


RELEASED = {
    "l_skip": (terms.skip_sparsity(1.0, chosen=True), of_groups("skip")[1]),
    "l_nonskip": of_groups("none", "conv"),
    "l_pool": of_groups("pool"),
    "l_path": (terms.path_depth(1.0, chosen=True), chosen_path_loop),
}


def compiled(space, named):
    """{term: (value, gradient in the probabilities)}, one compilation for all terms."""

    def all_terms(probability, mask):
        return {
            name: jax.value_and_grad(lambda p, term=term: term.of_cell(space, p, mask, mask))(probability)
            for name, (term, _) in named.items()
        }

    return jax.jit(all_terms)


def slope_of(loop, probability, step=1e-6):
    """Central differences of a loop, f64[edges, ops]."""
    probability = np.asarray(probability, np.float64)
    slope = np.zeros_like(probability)
    for place in np.ndindex(*probability.shape):
        shift = np.zeros_like(probability)
        shift[place] = step
        slope[place] = (loop(probability + shift) - loop(probability - shift)) / (2 * step)
    return slope


def two_an_edge(space, seed):
    rng = np.random.default_rng(seed)
    return np.array([rng.permutation([True] * 2 + [False] * (len(space.ops) - 2)) for _ in space.edges])


def only(space, *ops, edges=None):
    """bool[edges, ops]: these ops, on all edges or on those given."""
    return np.array([[op in ops and (edges is None or e in edges) for op in space.ops] for e in space.edges])


def draws(space):
    """Choices by name, the corner cases among them."""
    no_chain = two_an_edge(space, 3)
    for e, (s, t) in enumerate(space.edges):
        if s == t - 1:
            no_chain[e] = [KINDS[op] in ("skip", "pool") for op in space.ops]
    return {
        "some": two_an_edge(space, 0),
        "others": two_an_edge(space, 1),
        "no skip and no pool": only(space, "sep_conv_3x3", "none"),
        "nothing but skips and pools": only(space, "skip_connect", "max_pool_3x3"),
        "two convolutions everywhere": only(space, "sep_conv_3x3", "dil_conv_5x5"),
        "no convolution on the chain": no_chain,
        "one convolution on one edge of the chain": only(space, "dil_conv_5x5", edges=[(2, 3)]),
        "a convolution off the chain only": only(space, "dil_conv_5x5", edges=[(0, 2)]),
        "nothing": only(space),
    }


def probabilities(space, seed=0):
    return np.random.default_rng(seed).uniform(0.05, 0.95, space.shape).astype(np.float32)


@pytest.mark.parametrize("space", SPACES, ids=lambda space: space.name)
def test_the_terms_of_the_paper(space):
    p = probabilities(space)
    for name, (value, slope) in compiled(space, PAPER)(p, np.ones(space.shape, bool)).items():
        loop = PAPER[name][1]
        np.testing.assert_allclose(value, loop(space, p), rtol=1e-5, err_msg=name)
        expected = slope_of(lambda p, loop=loop: loop(space, p), p)
        np.testing.assert_allclose(slope, expected, rtol=1e-4, atol=1e-8, err_msg=name)


@pytest.mark.parametrize("space", SPACES, ids=lambda space: space.name)
def test_the_terms_of_the_released_code(space):
    released = compiled(space, RELEASED)
    p = probabilities(space)
    for draw, chosen in draws(space).items():
        for name, (value, slope) in released(p, chosen).items():
            loop = RELEASED[name][1]
            np.testing.assert_allclose(value, loop(space, p, chosen), rtol=1e-5, err_msg=f"{name}, {draw}")
            expected = slope_of(lambda p, loop=loop, chosen=chosen: loop(space, p, chosen), p)
            np.testing.assert_allclose(slope, expected, rtol=1e-4, atol=1e-8, err_msg=f"{name}, {draw}")


@pytest.mark.parametrize("space", [spaces.s1(), SHUFFLED], ids=lambda space: space.name)
def test_the_paper_s_averages_are_over_the_candidates_of_an_edge(space):
    paper = compiled(space, PAPER)
    candidates = space.candidates("normal") if space.edge_ops else two_an_edge(space, 4)
    for mask in (candidates, only(space, "sep_conv_3x3"), only(space, "skip_connect"), only(space)):
        p = np.where(mask, probabilities(space), 0)  # what is no candidate has a probability of 0
        found = paper(p, mask)
        groups = {"l_skip": ["skip"], "l_nonskip": ["none", "conv", "pool"]}
        for name, kinds in groups.items():
            value, slope = found[name]
            np.testing.assert_allclose(value, mean_of_candidates(space, p, mask, *kinds), rtol=1e-5, err_msg=name)
            np.testing.assert_array_equal(np.asarray(slope)[~mask], 0)
            assert np.isfinite(slope).all()
        np.testing.assert_allclose(found["l_path"][0], path_loop(space, p), rtol=1e-5)


def test_the_zero_one_loss_is_minus_the_mean_square_of_the_distance_to_a_half_of_the_candidates():
    p, mask = probabilities(SHUFFLED), two_an_edge(SHUFFLED, 5)
    expected = -sum((float(p[place]) - 0.5) ** 2 for place in np.ndindex(*p.shape) if mask[place]) / mask.sum()
    value, slope = jax.value_and_grad(lambda p: terms.zero_one(1.0).of_cell(SHUFFLED, p, mask, mask))(jnp.array(p))
    assert float(value) == pytest.approx(expected, rel=1e-5) and expected < 0
    np.testing.assert_allclose(slope, np.where(mask, -2 * (p - 0.5) / mask.sum(), 0), rtol=1e-4, atol=1e-8)


def test_values_worked_out_by_hand():
    space = SHUFFLED  # sep3, max, skip, dil5, none; edges 02 12 03 13 23; chain 12 23
    p = jnp.array(
        [
            [0.1, 0.1, 0.5, 0.1, 0.1],
            [0.2, 0.1, 0.5, 0.4, 0.1],
            [0.1, 0.1, 0.5, 0.1, 0.1],
            [0.1, 0.1, 0.5, 0.1, 0.1],
            [0.9, 0.1, 1.0, 0.6, 0.1],
        ]
    )
    everything = jnp.ones(space.shape, bool)

    def value(term, mask):
        return float(term.of_cell(space, p, mask, mask))

    assert value(terms.skip_sparsity(1.0), everything) == pytest.approx(3 / 5)
    assert value(terms.nonskip_sparsity(1.0), everything) == pytest.approx((2.0 + 0.1 + 0.3 + 0.8 + 0.5) / 20)
    assert value(terms.path_depth(1.0), everything) == pytest.approx((0.2 + 0.4) * (0.9 + 0.6))
    chosen = only(space, "sep_conv_3x3", "dil_conv_5x5", edges=[(2, 3)]) | only(space, "dil_conv_5x5", edges=[(1, 2)])
    assert value(terms.path_depth(1.0, chosen=True), chosen) == pytest.approx(0.4 * 0.75)
    assert value(of_groups("none", "conv")[0], chosen) == pytest.approx((0.4 + 0.9 + 0.6) / 3)
