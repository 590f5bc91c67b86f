import dataclasses
import hashlib
import json

import numpy as np
import pytest

from prdarts_jax import spaces
from prdarts_jax.spaces import genotypes

ALLOWED_OPS = (
    "none, skip_connect, sep_conv_3x3, sep_conv_5x5, dil_conv_3x3, dil_conv_5x5, avg_pool_3x3, "
    "max_pool_3x3, noise, sep_conv_7x7, conv_7x1_1x7"
)
EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))  # of NAS-Bench-201
EDGE_OPS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
FIELDS = "normal, normal_concat, reduce, reduce_concat"


def with_fields(**changes):
    return dataclasses.asdict(genotypes.named("DARTS_V2")) | changes


def cell_with(index, entry):
    entries = list(genotypes.named("DARTS_V2").normal)
    entries[index] = entry
    return entries


def count_weights(genotype, channels, cells, stem, stem_channels, classes):
    """Weights of the evaluation network, convolution by convolution, as the papers describe it."""
    total = stem
    before_last = last = stem_channels
    c = channels
    for i in range(cells):
        reduction = i in (cells // 3, 2 * cells // 3)
        c *= 2 if reduction else 1
        total += (before_last + last) * c + 4 * c
        for op, source in genotype.reduce if reduction else genotype.normal:
            pointwise_and_norm = c * c + 2 * c
            if op.startswith("sep_conv"):
                total += 2 * (int(op[-1]) ** 2 * c + pointwise_and_norm)
            elif op.startswith("dil_conv"):
                total += int(op[-1]) ** 2 * c + pointwise_and_norm
            elif op == "skip_connect" and reduction and source < 2:
                total += pointwise_and_norm
        before_last, last = last, 4 * c
    return total + last * classes + classes


def count_cifar10(genotype):
    stem = 27 * 108 + 2 * 108
    return count_weights(genotype, 36, 20, stem, stem_channels=108, classes=10)


def count_imagenet(genotype):
    stem = (27 * 24 + 2 * 24) + (9 * 24 * 48 + 2 * 48) + (9 * 48 * 48 + 2 * 48)
    return count_weights(genotype, 48, 14, stem, stem_channels=48, classes=1000)


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
    ("changes", "message"),
    [
        (
            {"normal": cell_with(3, ("sepconv", 1))},
            f"normal[3]=('sepconv', 1) has an unknown op; allowed are {ALLOWED_OPS}",
        ),
        (
            {"normal": cell_with(0, ["nor_conv_3x3", 1])},
            f"normal[0]=('nor_conv_3x3', 1) has an unknown op; allowed are {ALLOWED_OPS}",
        ),
        (
            {"normal": cell_with(0, [None, 1])},
            f"normal[0]=(None, 1) has an unknown op; allowed are {ALLOWED_OPS}",
        ),
        (
            {"normal": cell_with(3, ("skip_connect", 3))},
            "normal[3]=('skip_connect', 3) is an entry of node 3, so its input must be an integer from 0 to 2",
        ),
        (
            {"normal": cell_with(6, ("skip_connect", -1))},
            "normal[6]=('skip_connect', -1) is an entry of node 5, so its input must be an integer from 0 to 4",
        ),
        (
            {"normal": cell_with(1, ("skip_connect", True))},
            "normal[1]=('skip_connect', True) is an entry of node 2, so its input must be an integer from 0 to 1",
        ),
        (
            {"normal": cell_with(1, ("skip_connect", 1.0))},
            "normal[1]=('skip_connect', 1.0) is an entry of node 2, so its input must be an integer from 0 to 1",
        ),
        (
            {"normal": cell_with(2, ["skip_connect", 1, 0.5])},
            "normal[2]=['skip_connect', 1, 0.5] must be a pair (op, input)",
        ),
        ({"normal": cell_with(2, "ab")}, "normal[2]='ab' must be a pair (op, input)"),
        (
            {"reduce": [("skip_connect", 0)] * 3},
            "reduce has 3 entries, but must list two (op, input) entries a node",
        ),
        (
            {"reduce": []},
            "reduce has 0 entries, but must list two (op, input) entries a node",
        ),
        (
            {"reduce": 7},
            "reduce has 7, but must list two (op, input) entries a node",
        ),
        (
            {"normal_concat": [2, 6]},
            "normal_concat[1]=6 must be an integer from 2 to 5",
        ),
        ({"normal_concat": [1]}, "normal_concat[0]=1 must be an integer from 2 to 5"),
        ({"normal_concat": [2.0]}, "normal_concat[0]=2.0 must be an integer from 2 to 5"),
        (
            {"reduce_concat": [2, 3, 2]},
            "reduce_concat[2]=2 comes twice, but each node may come only once",
        ),
        ({"reduce_concat": []}, "reduce_concat=[] must be a list of at least one node"),
        ({"reduce_concat": None}, "reduce_concat=None must be a list of at least one node"),
    ],
)
def test_impossible_entries_are_named(changes, message):
    with pytest.raises(ValueError) as error:
        genotypes.Genotype(**with_fields(**changes))
    assert str(error.value) == message
    with pytest.raises(ValueError) as error:
        genotypes.from_json(json.dumps(with_fields(**changes)))
    assert str(error.value) == message


@pytest.mark.parametrize("name", genotypes.names())
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
        ("[]", f"genotype must be a JSON object with the fields {FIELDS}, or with the field ops, not a list"),
        ('{"ops": [], "normal": []}', "genotype field 'normal' is unknown; allowed are ops"),
        (
            json.dumps(with_fields(normals=[])),
            f"genotype field 'normals' is unknown; allowed are {FIELDS}",
        ),
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
    with pytest.raises(FileNotFoundError) as missing:
        genotypes.load(path)
    assert str(missing.value) == f"genotype file {path} does not exist or is not a file"
    path.write_text(json.dumps(with_fields(normal=cell_with(3, ("sepconv", 1)))))
    with pytest.raises(ValueError) as unknown:
        genotypes.load(path)
    assert str(unknown.value).startswith(f"genotype file {path}: normal[3]=('sepconv', 1) has an")
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="genotype.json: 'utf-8' codec"):
        genotypes.load(path)


def test_named_refuses_other_names():
    with pytest.raises(ValueError) as error:
        genotypes.named("DARTS_V3")
    assert str(error.value) == (
        "genotype 'DARTS_V3' is unknown; allowed are PRDARTS, DARTS_V1, DARTS_V2, PDARTS, "
        "PCDARTS, PCDARTS_IMAGENET, GDAS, NASNet, AmoebaNet"
    )


def test_prdarts_is_the_published_cell():
    genotype = genotypes.named("PRDARTS")
    assert genotype.normal == (
        ("skip_connect", 0),
        ("sep_conv_3x3", 1),
        ("dil_conv_3x3", 2),
        ("sep_conv_3x3", 0),
        ("dil_conv_3x3", 3),
        ("sep_conv_3x3", 1),
        ("dil_conv_3x3", 4),
        ("dil_conv_3x3", 1),
    )
    assert genotype.reduce == (
        ("avg_pool_3x3", 0),
        ("dil_conv_5x5", 1),
        ("sep_conv_3x3", 0),
        ("dil_conv_5x5", 2),
        ("sep_conv_5x5", 1),
        ("dil_conv_3x3", 3),
        ("dil_conv_5x5", 4),
        ("dil_conv_5x5", 1),
    )
    assert genotype.normal_concat == genotype.reduce_concat == (2, 3, 4, 5)


@pytest.mark.parametrize(
    ("name", "digest"),
    [
        ("PRDARTS", "808af1178e71"),
        ("DARTS_V1", "ee5da56053c1"),
        ("DARTS_V2", "8af19d19f701"),
        ("PDARTS", "a22e7d5a4ff0"),
        ("PCDARTS", "5afa7b29b462"),
        ("PCDARTS_IMAGENET", "407331c4cfbf"),
        ("GDAS", "bfbd4a6476dd"),
        ("NASNet", "e78036359e8b"),
        ("AmoebaNet", "8da07c6c87af"),
    ],
)
def test_named_cells_are_those_the_authors_released(name, digest):
    # Digests of the lists as the authors' code has them, which the weights below cannot tell apart.
    lists = tuple(map(list, dataclasses.astuple(genotypes.named(name))))
    assert hashlib.sha256(repr(lists).encode()).hexdigest()[:12] == digest


@pytest.mark.parametrize(
    ("name", "cifar10", "imagenet"),
    [
        ("PRDARTS", 3_444_814, 4_981_312),
        ("DARTS_V1", 3_169_414, 4_510_432),
        ("DARTS_V2", 3_349_342, 4_718_752),
    ],
)
def test_published_cells_have_the_published_number_of_weights(name, cifar10, imagenet):
    assert count_cifar10(genotypes.named(name)) == cifar10
    assert count_imagenet(genotypes.named(name)) == imagenet


def test_other_cells_have_the_millions_of_weights_of_their_papers():
    def millions(count):
        return round(count / 1e6, 1)

    assert millions(count_cifar10(genotypes.named("PDARTS"))) == 3.4
    assert millions(count_imagenet(genotypes.named("PDARTS"))) == 4.9
    assert millions(count_cifar10(genotypes.named("PCDARTS"))) == 3.6
    assert millions(count_imagenet(genotypes.named("PCDARTS"))) == 5.3
    assert millions(count_imagenet(genotypes.named("PCDARTS_IMAGENET"))) == 5.3
    assert millions(count_cifar10(genotypes.named("GDAS"))) == 3.4


@pytest.mark.parametrize("name", ["NASNet", "AmoebaNet"])
def test_evolved_and_controller_cells_concatenate_the_unused_of_five_nodes(name):
    genotype = genotypes.named(name)
    for entries, concat in (
        (genotype.normal, genotype.normal_concat),
        (genotype.reduce, genotype.reduce_concat),
    ):
        assert len(entries) == 10
        assert set(concat) == set(range(2, 7)) - {source for _, source in entries}


@pytest.mark.parametrize("name", [n for n in genotypes.names() if n not in ("NASNet", "AmoebaNet")])
def test_cells_of_the_darts_space_have_distinct_inputs(name):
    genotype = genotypes.named(name)
    for entries in (genotype.normal, genotype.reduce):
        assert len(entries) == 8
        assert {op for op, _ in entries} < set(spaces.darts().ops)
        for (_, first), (_, second) in zip(entries[::2], entries[1::2], strict=True):
            assert first != second


def test_skip_share():
    assert genotypes.skip_share(genotypes.named("DARTS_V1")) == {"normal": 3 / 8, "reduce": 3 / 8}
    assert genotypes.skip_share(genotypes.named("PRDARTS")) == {"normal": 1 / 8, "reduce": 0}
    assert genotypes.skip_share(genotypes.named("NASNet")) == {"normal": 0.2, "reduce": 0.1}
    chain = genotypes.EdgeGenotype(["skip_connect", "none", "nor_conv_1x1", "none", "skip_connect", "avg_pool_3x3"])
    assert genotypes.skip_share(chain) == {"normal": 1 / 3}


def test_an_edge_genotype_is_six_ops(tmp_path):
    cell = genotypes.EdgeGenotype(["nor_conv_3x3", "none", "skip_connect", "avg_pool_3x3", "none", "nor_conv_1x1"])
    assert cell.ops == ("nor_conv_3x3", "none", "skip_connect", "avg_pool_3x3", "none", "nor_conv_1x1")
    assert str(cell) == "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|avg_pool_3x3~0|none~1|nor_conv_1x1~2|"
    assert genotypes.cells(cell) == {"normal": tuple((op, *edge) for op, edge in zip(cell.ops, EDGES, strict=True))}
    text = genotypes.to_json(cell)
    assert json.loads(text) == {"ops": list(cell.ops)}
    assert genotypes.from_json(text) == genotypes.find(text) == cell and len({cell, genotypes.from_json(text)}) == 1
    (tmp_path / "genotype.json").write_text(text)
    assert genotypes.load(tmp_path / "genotype.json") == genotypes.find(str(tmp_path / "genotype.json")) == cell


@pytest.mark.parametrize(
    ("ops", "message"),
    [
        (["none"] * 5, f"ops has 5 ops, but must list one op for each of the edges {EDGES}"),
        ("|none~0|", f"ops has '|none~0|', but must list one op for each of the edges {EDGES}"),
        (["none"] * 5 + ["sep_conv_3x3"], f"ops[5]='sep_conv_3x3' is unknown; allowed are {', '.join(EDGE_OPS)}"),
        ([3] + ["none"] * 5, f"ops[0]=3 is unknown; allowed are {', '.join(EDGE_OPS)}"),
    ],
)
def test_impossible_ops_of_an_edge_genotype_are_named(ops, message):
    with pytest.raises(ValueError) as error:
        genotypes.EdgeGenotype(ops)
    assert str(error.value) == message
    with pytest.raises(ValueError) as error:
        genotypes.from_json(json.dumps({"ops": ops}))
    assert str(error.value) == message


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
        fields = {}
        for cell in ("normal", "reduce"):
            fields[cell] = [
                (str(rng.choice(["none", "skip_connect", "max_pool_3x3"])), int(rng.integers(node)))
                for node in range(2, nodes)
                for _ in range(2)
            ]
            concat = rng.choice(np.arange(2, nodes), rng.integers(1, nodes - 1), replace=False)
            fields[f"{cell}_concat"] = concat.tolist()
        expected = {}
        for cell in ("normal", "reduce"):
            connections = [(op, source, 2 + i // 2) for i, (op, source) in enumerate(fields[cell])]
            expected[cell] = longest_path(connections, (0, 1), fields[f"{cell}_concat"])
        assert genotypes.depth(genotypes.Genotype(**fields)) == expected
        seen |= set(expected.values())

        ops = tuple(map(str, rng.choice(EDGE_OPS, 6, p=[0.6, 0.1, 0.1, 0.1, 0.1])))
        connections = [(op, *edge) for op, edge in zip(ops, EDGES, strict=True)]
        assert genotypes.depth(genotypes.EdgeGenotype(ops)) == {"normal": longest_path(connections, (0,), (3,))}
    assert seen >= {0, 1, 2, 3, 4}


@pytest.mark.parametrize(
    ("name", "normal"), [("NASNet", 1), ("PCDARTS", 1), ("DARTS_V2", 2), ("AmoebaNet", 3), ("PRDARTS", 4)]
)
def test_depth_of_published_cells(name, normal):
    assert genotypes.depth(genotypes.named(name))["normal"] == normal


@pytest.mark.parametrize(
    ("ops", "depth"),
    [
        ((1, 0, 1, 0, 0, 1), 3),
        ((0, 0, 0, 3, 0, 0), 1),
        ((3, 3, 3, 0, 0, 0), 0),  # nothing reaches the last node
        ((0, 0, 3, 0, 3, 3), 0),  # nothing comes from the first
        ((3, 0, 3, 3, 3, 0), 2),
    ],
)
def test_depth_of_nas_bench_201_cells(ops, depth):
    assert genotypes.depth(genotypes.EdgeGenotype([EDGE_OPS[op] for op in ops])) == {"normal": depth}
