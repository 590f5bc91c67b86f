import dataclasses
import hashlib
import itertools
import json

import jax.numpy as jnp
import numpy as np
import pytest

from prdarts_jax import genotypes, spaces

ALLOWED_OPS = (
    "skip_connect, sep_conv_3x3, sep_conv_5x5, dil_conv_3x3, dil_conv_5x5, avg_pool_3x3, "
    "max_pool_3x3, sep_conv_7x7, conv_7x1_1x7"
)
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
            {"normal": cell_with(0, ["none", 1])},
            f"normal[0]=('none', 1) has an unknown op; allowed are {ALLOWED_OPS}",
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
        ("[]", f"genotype must be a JSON object with the fields {FIELDS}, not a list"),
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


def random_scores(seed):
    generator = np.random.default_rng(seed)
    scores = {cell: generator.normal(size=(14, 8)) for cell in ("normal", "reduce")}
    scores["normal"][:, 0] += 5  # `none` is the first op: the strongest of all, and yet never kept
    return scores


def brute_force(scores, distinct_inputs):
    """The pair of candidates with the largest sum, over all pairs of every node."""
    space = spaces.darts()
    entries = []
    for node in range(2, 6):
        candidates = [
            (scores[edge][op], space.ops[op], source)
            for edge, (source, target) in enumerate(space.edges)
            for op in range(1, 8)
            if target == node
        ]
        pairs = [
            (first, second)
            for first, second in itertools.permutations(candidates, 2)
            if first[0] > second[0] and not (distinct_inputs and first[2] == second[2])
        ]
        best = max(pairs, key=lambda pair: pair[0][0] + pair[1][0])
        entries += [(op, source) for _, op, source in best]
    return tuple(entries)


def darts_rule(scores):
    """Best op of every edge, then the two strongest edges of every node, as DARTS words it."""
    space = spaces.darts()
    entries = []
    for node in range(2, 6):
        rows = [edge for edge, (_, target) in enumerate(space.edges) if target == node]
        best = {edge: 1 + int(np.argmax(scores[edge][1:])) for edge in rows}
        for _ in range(2):
            edge = max(best, key=lambda e: scores[e][best[e]])
            entries.append((space.ops[best.pop(edge)], space.edges[edge][0]))
    return tuple(entries)


@pytest.mark.parametrize("seed", range(5))
def test_derive_equals_brute_force(seed):
    scores = random_scores(seed)
    free = genotypes.derive(spaces.darts(), scores, distinct_inputs=False)
    distinct = genotypes.derive(spaces.darts(), scores, distinct_inputs=True)
    for cell in ("normal", "reduce"):
        assert getattr(free, cell) == brute_force(scores[cell], distinct_inputs=False)
        assert getattr(distinct, cell) == brute_force(scores[cell], distinct_inputs=True)
        assert getattr(distinct, cell) == darts_rule(scores[cell])
    assert free.normal_concat == free.reduce_concat == (2, 3, 4, 5)


def test_derive_lets_two_ops_share_an_edge_only_when_asked():
    scores = np.zeros((14, 8), np.float32)
    scores[1, 2], scores[1, 3], scores[0, 6] = 3, 2, 1
    both = {"normal": jnp.asarray(scores), "reduce": scores.tolist()}
    free = genotypes.derive(spaces.darts(), both, distinct_inputs=False)
    assert free.normal[:2] == (("sep_conv_3x3", 1), ("sep_conv_5x5", 1))
    distinct = genotypes.derive(spaces.darts(), both, distinct_inputs=True)
    assert distinct.reduce[:2] == (("sep_conv_3x3", 1), ("avg_pool_3x3", 0))


def test_derive_breaks_ties_to_the_lower_edge_then_the_lower_op():
    tied = {cell: np.ones((14, 8)) for cell in ("normal", "reduce")}
    free = genotypes.derive(spaces.darts(), tied, distinct_inputs=False)
    assert free.normal == (("skip_connect", 0), ("sep_conv_3x3", 0)) * 4
    distinct = genotypes.derive(spaces.darts(), tied, distinct_inputs=True)
    assert distinct.reduce == (("skip_connect", 0), ("skip_connect", 1)) * 4


def test_derive_refuses_scores_it_cannot_rank():
    scores = random_scores(0)
    with pytest.raises(ValueError) as shape:
        genotypes.derive(spaces.darts(), scores | {"reduce": np.zeros((14, 7))}, distinct_inputs=True)
    assert str(shape.value) == (
        "scores['reduce'] has shape (14, 7), but the space 'darts' needs (edges, ops) = (14, 8)"
    )
    scores["normal"][3, 2] = np.nan
    with pytest.raises(ValueError) as diverged:
        genotypes.derive(spaces.darts(), scores, distinct_inputs=True)
    assert str(diverged.value) == ("scores['normal'][3, 2]=nan, but every score must be a number")


def test_skip_share():
    assert genotypes.skip_share(genotypes.named("DARTS_V1")) == {"normal": 3 / 8, "reduce": 3 / 8}
    assert genotypes.skip_share(genotypes.named("PRDARTS")) == {"normal": 1 / 8, "reduce": 0}
    assert genotypes.skip_share(genotypes.named("NASNet")) == {"normal": 0.2, "reduce": 0.1}
