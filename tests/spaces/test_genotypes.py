import dataclasses
import json

import numpy as np
import pytest
from shared import OPS_ALLOWED, refused, regroup

from prdarts_jax import ops
from prdarts_jax.spaces import genotypes, published

OWN_OP = " (an op of your own must be registered first)"
LIKE = "; did you mean 'sep_conv_7x7' or 'sep_conv_5x5' or 'sep_conv_3x3'?"  # sepconv
EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))  # of NAS-Bench-201
EDGE_OPS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
FIELDS = "normal, normal_concat, reduce, reduce_concat"


def with_fields(**changes):
    return dataclasses.asdict(genotypes.named("DARTS_V2")) | changes


def cell_with(index, entry):
    entries = list(genotypes.named("DARTS_V2").normal)
    entries[index] = entry
    return entries


def test_lists_become_tuples_and_the_value_is_frozen_and_hashable():
    from_lists = genotypes.Genotype(
        normal=[["skip_connect", 0], ["conv_7x1_1x7", 1]],
        normal_concat=[2],
        reduce=[["sep_conv_7x7", 0], ["sep_conv_7x7", 0]],
        reduce_concat=[2],
    )
    assert from_lists.normal == (("skip_connect", 0), ("conv_7x1_1x7", 1))
    assert from_lists.reduce_concat == (2,)
    assert len({from_lists, genotypes.named("GDAS"), genotypes.named("GDAS")}) == 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        from_lists.normal = ()


@pytest.mark.parametrize(
    ("index", "entry", "message"),
    [
        (3, ("sepconv", 1), f"normal[3]=('sepconv', 1) has an unknown op{OWN_OP}; allowed are {OPS_ALLOWED}{LIKE}"),
        (0, [None, 1], f"normal[0]=(None, 1) has an unknown op{OWN_OP}; allowed are {OPS_ALLOWED}"),
        (1, [["none"], 1], f"normal[1]=(['none'], 1) has an unknown op{OWN_OP}; allowed are {OPS_ALLOWED}"),
        *(
            (
                i,
                ("skip_connect", source),
                f"normal[{i}]=('skip_connect', {source}) is an entry of node {i // 2 + 2}, so its input must be an "
                f"integer from 0 to {i // 2 + 1}",
            )
            for i, source in ((3, 3), (6, -1), (1, True), (1, 1.0))
        ),
        (2, ["skip_connect", 1, 0.5], "normal[2]=['skip_connect', 1, 0.5] must be (op, input), as normal[0] is"),
        (2, "ab", "normal[2]='ab' must be (op, input), as normal[0] is"),
    ],
)
def test_an_impossible_entry_is_named(index, entry, message):
    refused_fields({"normal": cell_with(index, entry)}, message)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        (
            "reduce",
            [("skip_connect", 0)] * 3,
            "reduce has 3 entries, but must list two (op, input) entries per node, 1000 at most",
        ),
        ("reduce", [], "reduce has 0 entries, but must list two (op, input) entries per node, 1000 at most"),
        ("reduce", 7, "reduce has 7, but must list two (op, input) entries per node, 1000 at most"),
        ("normal_concat", [2, 6], "normal_concat[1]=6 must be an integer from 2 to 5"),
        ("normal_concat", [1], "normal_concat[0]=1 must be an integer from 2 to 5"),
        ("normal_concat", [2.0], "normal_concat[0]=2.0 must be an integer from 2 to 5"),
        ("reduce_concat", [2, 3, 2], "reduce_concat[2]=2 comes twice, but each node may come only once"),
        ("reduce_concat", [], "reduce_concat=[] must be a list or range of at least one node"),
        ("reduce_concat", None, "reduce_concat=None must be a list or range of at least one node"),
    ],
)
def test_an_impossible_field_is_named(field, value, message):
    refused_fields({field: value}, message)


def refused_fields(changes, message):
    for make in (lambda fields: genotypes.Genotype(**fields), lambda fields: genotypes.from_json(json.dumps(fields))):
        with refused(message):
            make(with_fields(**changes))


def test_any_registered_op_may_stand_in_a_genotype():
    for op in ops.names():
        assert genotypes.Genotype(**with_fields(normal=cell_with(0, (op, 1)))).normal[0] == (op, 1)
        assert genotypes.EdgeGenotype([op]).ops == (op,)


@pytest.mark.parametrize("name", published.names())
def test_json_gives_the_genotype_back(name, tmp_path):
    genotype = genotypes.named(name)
    text = genotypes.to_json(genotype)
    assert json.loads(text)["normal"][0] == list(genotype.normal[0])
    assert genotypes.from_json(text) == genotype
    (tmp_path / "genotype.json").write_text(text)
    assert genotypes.load(tmp_path / "genotype.json") == genotype


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "genotype is not valid JSON: Expecting property name"),
        ("", "genotype is not valid JSON: Expecting value"),
        ("Genotype(normal=[])", "genotype is not valid JSON: Expecting value"),
        ("[" * 100_000, "genotype is not valid JSON: "),
        ("3", f"genotype=3 must be a mapping with the fields {FIELDS}, or a list"),
        ('{"ops": [], "normal": []}', "genotype field 'normal' is unknown; allowed are ops"),
        (json.dumps(with_fields(normals=[])), f"genotype field 'normals' is unknown; allowed are {FIELDS}; did"),
        (
            json.dumps({k: v for k, v in with_fields().items() if k != "reduce"}),
            f"genotype field 'reduce' is missing; needed are {FIELDS}",
        ),
    ],
)
def test_malformed_json_is_one_sentence(text, message):
    with pytest.raises(ValueError) as error:
        genotypes.from_json(text)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_load_names_the_file(tmp_path):
    path = tmp_path / "genotype.json"
    with refused(f"genotype file {path} does not exist or is not a file", FileNotFoundError):
        genotypes.load(path)
    path.write_text(json.dumps(with_fields(normal=cell_with(3, ("sepconv", 1)))))
    with pytest.raises(ValueError) as unknown:
        genotypes.load(path)
    assert str(unknown.value).startswith(f"genotype file {path}: normal[3]=('sepconv', 1) has an")
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="genotype.json: 'utf-8' codec"):
        genotypes.load(path)


def test_skip_share():
    assert genotypes.skip_share(genotypes.named("DARTS_V1")) == {"normal": 3 / 8, "reduce": 3 / 8}
    assert genotypes.skip_share(genotypes.named("PRDARTS")) == {"normal": 1 / 8, "reduce": 0}
    assert genotypes.skip_share(genotypes.named("NASNet")) == {"normal": 0.2, "reduce": 0.1}
    chain = genotypes.EdgeGenotype(["skip_connect", "none", "nor_conv_1x1", "none", "skip_connect", "avg_pool_3x3"])
    assert genotypes.skip_share(chain) == {"normal": 1 / 3}


def test_an_edge_genotype_of_nas_bench_201_is_six_ops(tmp_path):
    cell = genotypes.EdgeGenotype(["nor_conv_3x3", "none", "skip_connect", "avg_pool_3x3", "none", "nor_conv_1x1"])
    assert isinstance(cell.ops, tuple)
    assert str(cell) == "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|avg_pool_3x3~0|none~1|nor_conv_1x1~2|"
    assert genotypes.cells(cell) == {"normal": tuple((op, *edge) for op, edge in zip(cell.ops, EDGES, strict=True))}
    text = genotypes.to_json(cell)
    assert json.loads(text) == {"ops": list(cell.ops)}
    assert genotypes.from_json(text) == genotypes.find(text) == cell and len({cell, genotypes.from_json(text)}) == 1
    (tmp_path / "genotype.json").write_text(text)
    assert genotypes.load(tmp_path / "genotype.json") == genotypes.find(str(tmp_path / "genotype.json")) == cell


@pytest.mark.parametrize(
    ("names", "nodes", "text"),
    [
        (["none"], 2, "|none~0|"),
        (["skip_connect", "none", "sep_conv_3x3"], 3, "|skip_connect~0|+|none~0|sep_conv_3x3~1|"),
        (["none"] * 10, 5, "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|+|none~0|none~1|none~2|none~3|"),
    ],
)
def test_an_edge_genotype_has_as_many_nodes_as_its_edges_tell(names, nodes, text):
    cell = genotypes.EdgeGenotype(names)
    assert (cell.nodes, str(cell)) == (nodes, text)
    assert set(cell.edges) == {(s, t) for t in range(nodes) for s in range(t)} and len(cell.edges) == len(names)
    assert genotypes.ends(cell, "normal") == ((0,), (nodes - 1,))
    assert genotypes.from_json(genotypes.to_json(cell)) == cell


@pytest.mark.parametrize(
    ("names", "message"),
    [
        *(
            (
                names,
                f"ops has {found}, but must list one op for each edge of a cell: 1, 3, 6, 10, ... ops, 1000 at most",
            )
            for names, found in (
                ([], "0 ops"),
                (["none"] * 5, "5 ops"),
                (["none"] * 7, "7 ops"),
            )
        ),
        ("none", "ops='none' must be a string like '|op~0|+|op~0|op~1|' or a list"),
        (["none"] * 5 + ["sepconv"], f"ops[5]='sepconv' is unknown{OWN_OP}; allowed are {OPS_ALLOWED}{LIKE}"),
        ([None] + ["none"] * 5, f"ops[0]=None is unknown{OWN_OP}; allowed are {OPS_ALLOWED}"),
        (
            [5] + [0] * 5,
            f"ops[0]=5 is unknown{OWN_OP}; allowed are {OPS_ALLOWED}, and the indices 0 to 4 in {', '.join(EDGE_OPS)}",
        ),
    ],
)
def test_impossible_ops_of_an_edge_genotype_are_named(names, message):
    for make in (genotypes.EdgeGenotype, lambda names: genotypes.from_json(json.dumps({"ops": names}))):
        with refused(message):
            make(names)


def test_cells_of_a_genotype_name_source_and_target():
    found = genotypes.cells(genotypes.named("DARTS_V1"))
    assert list(found) == ["normal", "reduce"]
    assert found["normal"][:3] == (("sep_conv_3x3", 1, 2), ("sep_conv_3x3", 0, 2), ("skip_connect", 0, 3))
    assert found["reduce"][-1] == ("avg_pool_3x3", 0, 5)


def longest_path(connections, inputs, outputs):
    """By following every path."""

    def lengths(node):
        yield from [0] if node in inputs else []
        for op, source, target in connections:
            if target == node and op != "none":
                yield from (1 + length for length in lengths(source))

    return max((length for node in outputs for length in lengths(node)), default=0)


def test_depth_against_every_path_of_random_cells():
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(300):
        nodes = int(rng.integers(3, 8))
        fields, expected = {}, {}
        for cell in ("normal", "reduce"):
            names = map(str, rng.choice(["none", "skip_connect", "max_pool_3x3"], 2 * (nodes - 2)))
            fields[cell] = [(op, int(rng.integers(i // 2 + 2))) for i, op in enumerate(names)]
            concat = rng.choice(np.arange(2, nodes), rng.integers(1, nodes - 1), replace=False)
            fields[f"{cell}_concat"] = concat.tolist()
            connections = [(op, source, i // 2 + 2) for i, (op, source) in enumerate(fields[cell])]
            expected[cell] = longest_path(connections, (0, 1), concat)
        assert genotypes.depth(genotypes.Genotype(**fields)) == expected
        seen |= set(expected.values())

        names = tuple(map(str, rng.choice(EDGE_OPS, 6, p=[0.6, 0.1, 0.1, 0.1, 0.1])))
        connections = [(op, *edge) for op, edge in zip(names, EDGES, strict=True)]
        assert genotypes.depth(genotypes.EdgeGenotype(names)) == {"normal": longest_path(connections, (0,), (3,))}
    assert seen >= {0, 1, 2, 3, 4}


def test_the_group_of_an_op_decides_and_not_its_name(monkeypatch):
    regroup(monkeypatch, max_pool_3x3="none", avg_pool_3x3="skip")
    cell = genotypes.EdgeGenotype(["avg_pool_3x3", "max_pool_3x3", "skip_connect"])
    assert genotypes.skip_share(cell) == {"normal": 2 / 3} and genotypes.depth(cell) == {"normal": 2}
    cut = genotypes.EdgeGenotype(["avg_pool_3x3", "max_pool_3x3", "max_pool_3x3"])
    assert genotypes.depth(cut) == {"normal": 0}
