import numpy as np
import pytest
from shared import OPS_ALLOWED, refused

from prdarts_jax import ops, spaces
from prdarts_jax.spaces import genotypes

SKIP, SEP3, MAX, AVG = "skip_connect", "sep_conv_3x3", "max_pool_3x3", "avg_pool_3x3"
DIL3, DIL5 = "dil_conv_3x3", "dil_conv_5x5"


def test_the_darts_space_has_14_edges_sorted_by_target_then_source():
    space = spaces.darts()
    targets = {2: (0, 1), 3: (0, 1, 2), 4: (0, 1, 2, 3), 5: (0, 1, 2, 3, 4)}
    assert space.edges == tuple((source, target) for target, sources in targets.items() for source in sources)
    assert space.ops == ("none", SKIP, SEP3, "sep_conv_5x5", DIL3, DIL5, AVG, MAX)
    assert space.shape == (14, 8)


def test_the_groups_part_the_ops_of_a_space():
    found = {kind: spaces.darts().op_indices(kind) for kind in ("none", "skip", "conv", "pool")}
    assert found == {"none": (0,), "skip": (1,), "conv": (2, 3, 4, 5), "pool": (6, 7)}
    assert spaces.s4().op_indices("noise", "none") == (0,)
    with pytest.raises(ValueError, match="^groups='skips' must be one of "):
        spaces.s4().op_indices("skips")


@pytest.mark.parametrize("nodes, edges", [(3, 2), (4, 5), (5, 9), (6, 14)])
def test_a_space_of_fewer_nodes_has_an_edge_from_every_earlier_node(nodes, edges):
    space = spaces.SearchSpace("small", ("none", "max_pool_3x3"), nodes)
    assert space.shape == (edges, 2)
    assert len(set(space.edges)) == edges
    assert all(source < target and 2 <= target < nodes for source, target in space.edges)


# As the appendix of R-DARTS has them: (source, target): the two candidates.
S1_NORMAL = {
    (0, 2): {SKIP, DIL3},
    (1, 2): {SKIP, DIL5},
    (0, 3): {SKIP, DIL5},
    (1, 3): {SKIP, SEP3},
    (2, 3): {SKIP, DIL3},
    (0, 4): {MAX, SKIP},
    (1, 4): {SKIP, SEP3},
    (2, 4): {SKIP, SEP3},
    (3, 4): {SKIP, DIL3},
    (0, 5): {SKIP, SEP3},
    (1, 5): {MAX, SKIP},
    (2, 5): {SKIP, DIL3},
    (3, 5): {DIL3, DIL5},
    (4, 5): {DIL3, DIL5},
}
S1_REDUCE = {
    (0, 2): {MAX, AVG},
    (1, 2): {MAX, DIL3},
    (0, 3): {MAX, AVG},
    (1, 3): {MAX, AVG},
    (2, 3): {SKIP, DIL5},
    (0, 4): {MAX, AVG},
    (1, 4): {MAX, SEP3},
    (2, 4): {SKIP, DIL3},
    (3, 4): {SKIP, DIL5},
    (0, 5): {MAX, AVG},
    (1, 5): {MAX, AVG},
    (2, 5): {SKIP, DIL5},
    (3, 5): {SKIP, DIL5},
    (4, 5): {SKIP, DIL5},
}


def candidates_of(space, cell_type):
    """{edge: names}."""
    rows = space.candidates(cell_type)
    assert rows.shape == space.shape and rows.dtype == bool
    return {
        edge: {op for op, may in zip(space.ops, row, strict=True) if may}
        for edge, row in zip(space.edges, rows, strict=True)
    }


def test_s1_has_the_published_candidates():
    space = spaces.s1()
    assert candidates_of(space, "normal") == S1_NORMAL
    assert candidates_of(space, "reduce") == S1_REDUCE
    published = set().union(*S1_NORMAL.values(), *S1_REDUCE.values())
    assert set(space.ops) == published and len(space.ops) == len(published)


@pytest.mark.parametrize("name, ops", [("s2", {SKIP, SEP3}), ("s3", {"none", SKIP, SEP3}), ("s4", {"noise", SEP3})])
def test_s2_to_s4_have_the_published_ops_on_every_edge(name, ops):
    space = spaces.named(name)
    assert set(space.ops) == ops and len(space.ops) == len(ops)
    assert space.edges == spaces.darts().edges and space.cell_types == ("normal", "reduce")
    for cell_type in space.cell_types:
        assert candidates_of(space, cell_type) == dict.fromkeys(space.edges, ops)


def test_darts_without_none():
    assert ("none", *spaces.darts_no_none().ops) == spaces.darts().ops


def test_nas_bench_201_has_six_edges_and_one_kind_of_cell():
    space = spaces.nas_bench_201()
    assert space.edges == ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
    assert space.ops == ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
    assert (space.cell_types, space.inputs, space.entries_per_node) == (("normal",), 1, 0)
    assert space.candidates("normal").all() and space.shape == (6, 5)


def test_transnas_bench_101_has_the_published_number_of_cells():
    space = spaces.transnas_bench_101()
    assert space.ops == ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3")
    assert space.edges == spaces.nas_bench_201().edges and len(space.ops) ** len(space.edges) == 4096


def test_the_spaces_of_confopt_s_suite():
    darts = spaces.darts().ops
    names = {"": darts, "_no_skip": tuple(op for op in darts if op != SKIP)}
    names["_all_skip"] = tuple(f"{op}_with_skip" for op in darts)
    for suffix, expected in names.items():
        plain, single = spaces.named(f"darts{suffix}"), spaces.named(f"single_cell{suffix}")
        assert plain.ops == single.ops == expected
        assert (plain.shape, plain.concat) == ((14, len(expected)), (2, 3, 4, 5))
        assert (single.shape, single.concat) == ((44, len(expected)), (6, 7, 8, 9))
        assert [ops.group(op) for op in expected] == [ops.group(op.removesuffix("_with_skip")) for op in expected]


@pytest.mark.parametrize("outputs", [-1, 3])
def test_outputs_are_nodes_that_are_no_inputs(outputs):
    with refused(
        f"space 'own' has outputs={outputs}, which must be from 0 to 2, the number of nodes other than the inputs"
    ):
        spaces.SearchSpace("own", (SKIP,), nodes=4, outputs=outputs)


def test_an_edge_without_a_candidate_is_refused():
    some = ((SKIP,),) * 5
    with refused(
        "space 'own' has no candidate for the edge (2, 3) of the reduce cell, but every edge must have one or more"
    ):
        spaces.SearchSpace("own", (SKIP,), nodes=4, edge_ops=(some, (*some[:4], ())))


@pytest.mark.parametrize("name", spaces.NAMED)
def test_every_edge_has_a_candidate_and_a_config_finds_the_space(name):
    space = spaces.named(name)
    assert space.name == name and hash(space) == hash(spaces.named(name))
    for cell_type in space.cell_types:
        assert space.candidates(cell_type).any(axis=1).all()


def test_another_name_is_refused():
    with refused(f"space 's5' is unknown; allowed are {', '.join(spaces.NAMED)}"):
        spaces.named("s5")


def test_a_space_of_ones_own():
    normal = ((SKIP,), (SKIP, MAX), (MAX,), (SKIP, MAX), (MAX, SKIP))
    reduce = ((MAX,),) * 5
    space = spaces.SearchSpace("own", (SKIP, MAX), nodes=4, edge_ops=(normal, reduce))
    np.testing.assert_array_equal(
        space.candidates("normal"), [[True, False], [True, True], [False, True], [True, True], [True, True]]
    )
    np.testing.assert_array_equal(space.candidates("reduce"), [[False, True]] * 5)
    one = spaces.SearchSpace("one", (SKIP,), nodes=3, inputs=1, cell_types=("normal",))
    assert one.edges == ((0, 1), (0, 2), (1, 2)) and one.candidates("normal").tolist() == [[True]] * 3


def test_lists_of_candidates_become_hashable():
    candidates = ([["skip_connect"], ["max_pool_3x3"]],)
    space = spaces.SearchSpace("own", ("skip_connect", "max_pool_3x3"), 3, cell_types=("normal",), edge_ops=candidates)
    assert space.edge_ops == ((("skip_connect",), ("max_pool_3x3",)),)
    hash(space)


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"nodes": "3"}, "nodes='3' must be of type int, as 6 is"),
        ({"entries_per_node": -1}, "entries_per_node=-1 must be from 0 to 3.4e+38"),
    ],
)
def test_a_field_of_another_type_or_out_of_range_is_refused(fields, message):
    with refused(message):
        spaces.SearchSpace("own", ("skip_connect",), **fields)


def test_an_op_that_is_not_registered_is_refused():
    with refused(f"space 'own' has the op 'other', which is not registered; allowed are {OPS_ALLOWED}"):
        spaces.SearchSpace("own", (SKIP, "other"))
    for names in ((SKIP, SKIP), ("none",)):
        with pytest.raises(ValueError, match="must name each op once, and one or more that compute something"):
            spaces.SearchSpace("own", names)


@pytest.mark.parametrize(
    "edge_ops, message",
    [
        ((((SKIP,),) * 4,) * 2, r"edge_ops=.* must have the candidates of each of 5 edges for each of 2 cell types$"),
        ((((SKIP,),) * 5,), r"edge_ops=.* must have the candidates of each of 5 edges for each of 2 cell types$"),
        (
            (((SKIP,),) * 4 + (("none",),),) * 2,
            f"the op 'none' in edge_ops; allowed are its ops, {SKIP}, sep_conv_3x3$",
        ),
        ((1,), r"has edge_ops=\(1,\), which must be names of ops for each edge$"),
    ],
)
def test_candidates_of_edges_that_do_not_fit_are_refused(edge_ops, message):
    with pytest.raises(ValueError, match=message):
        spaces.SearchSpace("own", (SKIP, "sep_conv_3x3"), nodes=4, edge_ops=edge_ops)


def test_each_space_knows_its_supernet_and_its_genotypes():
    for space in map(spaces.named, spaces.NAMED):
        assert space.macro == ("nas_bench_201" if space.inputs == 1 else "darts")
        assert space.genotype_class is (genotypes.Genotype if space.entries_per_node else genotypes.EdgeGenotype)


@pytest.mark.parametrize(
    "fields", [{"entries_per_node": 3}, {"inputs": 1}, {"entries_per_node": 0}, {"cell_types": ("normal",)}]
)
def test_a_space_whose_cells_no_genotype_holds_is_refused(fields):
    space = spaces.SearchSpace("wide", (SKIP,), nodes=5, **fields)
    with refused(
        f"space 'wide' has inputs={space.inputs}, entries_per_node={space.entries_per_node} and "
        f"cell_types={space.cell_types}, but must have 2, 2 and ('normal', 'reduce') for a Genotype or "
        "1, 0 and ('normal',) for an EdgeGenotype"
    ):
        space.genotype({})


@pytest.mark.parametrize("cells", range(1, 22))
def test_two_cells_of_a_network_reduce(cells):
    layout = spaces.layout(cells)
    assert len(layout) == cells and set(layout) <= set(spaces.CELL_TYPES)
    assert {k for k, cell_type in enumerate(layout) if cell_type == "reduce"} == {cells // 3, 2 * cells // 3}
