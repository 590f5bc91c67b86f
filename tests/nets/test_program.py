"""The program of a cell: its edges, its instructions, and what is drawn for them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from prdarts_jax.nets.program import EdgeGroup, instructions, program
from prdarts_jax.spaces import darts


@pytest.mark.parametrize("end", (0, 1))
def test_instructions_are_all_ops_with_a_weight_in_topological_order(end):
    for reduction in (False, True):
        for rows, group in program(darts(), reduction, channels=2, pool_norm=True, train=True, axis_name=None):
            rng = np.random.default_rng(len(rows))
            weights = np.where(rng.random((len(rows), 8)) < 0.5, rng.normal(size=(len(rows), 8)), 0).astype(np.float32)
            listed = jax.tree.map(np.asarray, jax.jit(instructions, static_argnums=(0, 2))(group, weights, end))
            names = list(group.candidates)
            found = {}
            complete = set()  # nodes that have been read: nothing may be added to them any more
            for number, node in enumerate(listed.nodes.tolist()):
                for i in range(listed.starts[number], listed.starts[number + 1]):
                    source, target, edge, candidate, place = listed.table[i].tolist()
                    assert (source, target) == group.edges[edge]
                    assert (source, target)[end] == node
                    assert place == edge * len(names) + candidate
                    found[edge, group.op_names.index(names[candidate])] = listed.weights[i]
                    # Backward, the cotangent of the target is read and that of the source added to.
                    read, added = ((target, source), (source, target))[end]
                    if group.stride == 1:
                        complete.add(read)
                    assert added not in complete
            assert listed.starts[-1] == len(found)
            assert found == {(e, o): weights[e, o] for e, o in np.argwhere(weights).tolist() if o > 0}


@pytest.mark.parametrize("reduction", (False, True))
def test_a_program_has_every_edge_once_between_the_right_nodes(reduction):
    groups = program(darts(), reduction, channels=2, pool_norm=True, train=True, axis_name=None)
    assert sorted(e for rows, _ in groups for e in rows) == list(range(14))
    found = {}
    for rows, group in groups:
        for e, (source, target) in zip(rows, group.edges, strict=True):
            # The states of a reduction cell begin with node 2, what its first group reads are the nodes 0 and 1.
            source += 2 if reduction and group.stride == 1 else 0
            target += 2 if reduction else 0
            found[e] = (source, target, group.stride)
    edges = [(source, target) for target in range(2, 6) for source in range(target)]
    expected = {e: (s, t, 2 if reduction and s < 2 else 1) for e, (s, t) in enumerate(edges)}
    assert found == expected


def test_every_edge_draws_for_itself_its_ops_together_and_f32_holds_the_seeds():
    group = EdgeGroup(((0, 2), (1, 2)), ("skip_connect", "noise", "max_pool_3x3"), 2, 1, dropout="skip")
    first, second = (group.init_draws(jax.random.key(k), 0.25, 9) for k in (0, 1))
    assert first.keys() == {"skip_connect", "noise"}
    for draws in (first, second):
        np.testing.assert_array_equal(draws["skip_connect"]["seed"], draws["noise"]["seed"])
    seeds = np.concatenate([draws["noise"]["seed"] for draws in (first, second)])
    assert len(set(seeds.tolist())) == 4 and seeds.dtype == np.float32
    np.testing.assert_array_equal(seeds, seeds.astype(np.uint32))
    assert seeds.max() < 2**24 and np.log2(seeds).max() > 20
    assert first["skip_connect"]["rate"].tolist() == [0.25, 0.25]


def test_every_edge_drops_images_of_its_own_from_all_its_ops_and_keeps_the_mean():
    """Binomial tests: of each edge, and of what two edges or two draws drop together."""
    group = EdgeGroup(((0, 2), (1, 2)), ("skip_connect", "noise", "max_pool_3x3"), 2, 1, dropout="path")
    first, second = (group.init_draws(jax.random.key(k), 0.25, 4000) for k in (0, 1))
    assert {name: set(draws) for name, draws in first.items()} == {
        "skip_connect": {"keep"},
        "noise": {"seed", "keep"},
        "max_pool_3x3": {"keep"},
    }
    keep = first["noise"]["keep"]
    assert all(np.array_equal(draws["keep"], keep) for draws in first.values())
    np.testing.assert_allclose(np.unique(keep), [0, 1 / 0.75], rtol=1e-6)
    dropped, other = np.asarray(keep == 0), np.asarray(second["noise"]["keep"] == 0)
    for which, probability in (
        (dropped[0], 0.25),
        (dropped[1], 0.25),
        (dropped[0] & dropped[1], 0.25**2),
        (dropped[0] & other[0], 0.25**2),
    ):
        assert scipy.stats.binomtest(int(which.sum()), which.size, probability).pvalue > 1e-4


def test_parts_of_a_batch_drop_the_images_of_the_whole_batch_and_have_seeds_of_their_own():
    group = EdgeGroup(((0, 2), (1, 2)), ("skip_connect", "noise"), 2, 1, dropout="path")
    whole = group.init_draws(jax.random.key(0), 0.25, 12)
    spread = dataclasses.replace(group, axis_name="data")
    parts = jax.vmap(lambda _: spread.init_draws(jax.random.key(0), 0.25, 3), axis_name="data")(jnp.arange(4))
    keep = parts["noise"]["keep"]
    np.testing.assert_array_equal(jnp.concatenate(list(keep), axis=1), whole["noise"]["keep"])
    assert len(set(np.ravel(parts["noise"]["seed"]).tolist())) == 8
