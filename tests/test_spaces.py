import pytest

from prdarts_jax import spaces


def test_the_darts_space_has_14_edges_sorted_by_target_then_source():
    space = spaces.darts()
    assert space.edges == (
        (0, 2),
        (1, 2),
        (0, 3),
        (1, 3),
        (2, 3),
        (0, 4),
        (1, 4),
        (2, 4),
        (3, 4),
        (0, 5),
        (1, 5),
        (2, 5),
        (3, 5),
        (4, 5),
    )
    assert space.ops == (
        "none",
        "skip_connect",
        "sep_conv_3x3",
        "sep_conv_5x5",
        "dil_conv_3x3",
        "dil_conv_5x5",
        "avg_pool_3x3",
        "max_pool_3x3",
    )
    assert space.shape == (14, 8)


def test_the_groups_part_the_ops_of_the_darts_space():
    space = spaces.darts()
    assert [spaces.group(op) for op in space.ops] == ["none", "skip", *["conv"] * 4, *["pool"] * 2]
    assert {kind: space.op_indices(kind) for kind in ("none", "skip", "conv", "pool")} == {
        "none": (0,),
        "skip": (1,),
        "conv": (2, 3, 4, 5),
        "pool": (6, 7),
    }


@pytest.mark.parametrize("nodes, edges", [(3, 2), (4, 5), (5, 9), (6, 14)])
def test_a_space_of_fewer_nodes_has_an_edge_from_every_earlier_node(nodes, edges):
    space = spaces.SearchSpace("small", ("none", "max_pool_3x3"), nodes)
    assert space.shape == (edges, 2)
    assert len(set(space.edges)) == edges
    assert all(source < target and 2 <= target < nodes for source, target in space.edges)


def test_spaces_are_values():
    assert spaces.darts() == spaces.darts()
    assert len({spaces.darts(), spaces.darts(), spaces.SearchSpace("darts", ("none",))}) == 2
