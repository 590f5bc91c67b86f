"""Every notation and text of a cell, written here by hand or by the libraries, is read back."""

import json
import math

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from shared import refused

import prdarts_jax as pdx
from prdarts_jax import ops, spaces
from prdarts_jax.spaces import genotypes, texts

FIELDS = ("normal", "normal_concat", "reduce", "reduce_concat")
BENCHMARK = spaces.nas_bench_201().ops
NAMES = st.sampled_from(ops.names())
GENOTYPE = genotypes.named("DARTS_V2")
few = settings(max_examples=25, deadline=None)


@st.composite
def cells(draw, distinct=False):
    """(entries, concat) of two pairs a node; `distinct`: sorted by input, and none twice, so that edges say all."""
    nodes = draw(st.integers(3, 8))
    entries = []
    for node in range(2, nodes):
        inputs = draw(st.lists(st.integers(0, node - 1), min_size=2, max_size=2, unique=distinct))
        entries += [(draw(NAMES), source) for source in (sorted(inputs) if distinct else inputs)]
    concat = draw(st.permutations(range(2, nodes)))
    return entries, concat[: draw(st.integers(1, len(concat)))]


def two(cell):
    return st.tuples(cell, cell).map(lambda pair: dict(zip(FIELDS, (*pair[0], *pair[1]), strict=True)))


def of_cells(fields, change):
    """The fields with changed entries."""
    return {name: value if name.endswith("concat") else change(value) for name, value in fields.items()}


def as_call(fields, name="Genotype"):
    """What Python prints of a namedtuple."""
    return f"{name}({', '.join(f'{field}={value!r}' for field, value in fields.items())})"


def by_node(entries):
    return [list(entries[i : i + 2]) for i in range(0, len(entries), 2)]


def triples(entries):
    return [(op, i // 2 + 2, source) for i, (op, source) in enumerate(entries)]


def edges(entries, form):
    return {form(source, i // 2 + 2): op for i, (op, source) in enumerate(entries)}


def lists(value):
    """Tuples as lists, each of its own, so that YAML needs no alias."""
    return [lists(part) for part in value] if isinstance(value, list | tuple) else value


@few
@given(two(cells()), st.randoms())
def test_a_genotype_is_read_back_from_every_notation(fields, random):
    expected = pdx.Genotype(**fields)
    assert (list(expected.normal), list(expected.reduce_concat)) == (fields["normal"], fields["reduce_concat"])
    weighted = of_cells(fields, lambda entries: [(*entry, random.random()) for entry in entries])
    numpy = of_cells(fields, lambda entries: [(np.str_(op), np.int64(source)) for op, source in entries])
    for concat in ("normal_concat", "reduce_concat"):
        numpy[concat] = np.array(fields[concat])
    nodes, named = of_cells(fields, by_node), of_cells(fields, triples)
    for made in (fields, nodes, named, weighted, numpy, of_cells(weighted, by_node)):
        assert pdx.Genotype(**made) == pdx.Genotype(*made.values()) == expected
        assert genotypes.find(as_call(made)) == expected
        plain = {
            name: lists(value.tolist() if isinstance(value, np.ndarray) else value) for name, value in made.items()
        }
        if made is not numpy:
            assert genotypes.find(f"2020-01-01 INFO genotype = gt.{as_call(made)}\n\nepoch 3\n") == expected
            assert genotypes.find(json.dumps(plain)) == genotypes.find(json.dumps(list(plain.values()))) == expected
            assert genotypes.find(f"\n{yaml.safe_dump(plain)}") == genotypes.find(str(made)) == expected
            assert genotypes.find(yaml.safe_dump({"genotype": plain}, default_flow_style=True)) == expected
    assert genotypes.find(repr(expected)) == genotypes.find(genotypes.to_json(expected)) == expected
    assert genotypes.find(f"genotype: {genotypes.to_json(expected)}") == expected


@few
@given(two(cells(distinct=True)), st.randoms())
def test_a_genotype_is_read_back_from_mappings_by_edge(fields, random):
    expected = pdx.Genotype(**fields)

    def shuffled(of_cell):
        items = list(of_cell.items())
        random.shuffle(items)
        return dict(items)

    for form in (lambda s, t: (s, t), lambda s, t: f"{s}->{t}", lambda s, t: f"{t}<-{s}", lambda s, t: str((s, t))):
        mappings = of_cells(fields, lambda entries, form=form: shuffled(edges(entries, form)))
        assert pdx.Genotype(**mappings) == genotypes.find(str(mappings)) == expected
        assert genotypes.find(as_call(mappings)) == expected
        if form(0, 1) != (0, 1):
            assert genotypes.find(json.dumps(mappings)) == genotypes.find(yaml.safe_dump(mappings)) == expected


@few
@given(
    st.integers(2, 6).flatmap(lambda h: st.lists(NAMES, min_size=math.comb(h, 2), max_size=math.comb(h, 2))),
    st.randoms(),
)
def test_an_edge_genotype_is_read_back_from_every_notation(names, random):
    expected = pdx.EdgeGenotype(names)
    assert expected.ops == tuple(names)
    nodes = [[(op, s) for op, (s, t) in zip(names, expected.edges, strict=True) if t == node] for node in range(1, 7)]
    nodes = [node for node in nodes if node]
    shuffled = list(zip(expected.edges, names, strict=True))
    random.shuffle(shuffled)
    mapping, texts_of_edges = dict(shuffled), {f"{t}<-{s}": op for (s, t), op in shuffled}
    made = [nodes, mapping, texts_of_edges, [node[::-1] for node in nodes], str(expected)]
    if set(names) <= set(BENCHMARK):
        made += [[BENCHMARK.index(op) for op in names], np.array([BENCHMARK.index(op) for op in names])]
    for cell in made:
        assert pdx.EdgeGenotype(cell) == expected
        if not isinstance(cell, np.ndarray):
            assert genotypes.find(str(cell)) == genotypes.find(f"EdgeGenotype({cell!r})") == expected
    for text in (json.dumps(names), json.dumps(nodes), json.dumps(texts_of_edges), yaml.safe_dump(lists(nodes))):
        assert genotypes.find(f"{text}\n") == expected
    for text in (repr(expected), f"arch: Structure(4 nodes with {expected}), 93.1 %", genotypes.to_json(expected)):
        assert genotypes.find(text) == expected


def test_indices_are_in_the_order_of_the_benchmark():
    # The first cell of NAS-Bench-201's documentation.
    text = "|nor_conv_3x3~0|+|nor_conv_3x3~0|avg_pool_3x3~1|+|skip_connect~0|nor_conv_3x3~1|skip_connect~2|"
    assert genotypes.find("[3, 3, 4, 1, 3, 1]") == genotypes.find(text)
    assert str(pdx.EdgeGenotype([3, 3, 4, 1, 3, 1])) == text


# Fair DARTS -----------------------------------------------------------------------------------------------------------

PRINTED = {
    "FAIRDARTS_A": """Genotype(normal=[('sep_conv_3x3', 2, 0), ('sep_conv_5x5', 2, 1), ('max_pool_3x3', 4, 0),
        ('sep_conv_3x3', 5, 0)], normal_concat=range(2, 6), reduce=[('max_pool_3x3', 2, 0), ('avg_pool_3x3', 2, 1),
        ('avg_pool_3x3', 3, 0), ('dil_conv_5x5', 3, 1), ('avg_pool_3x3', 4, 0), ('sep_conv_5x5', 4, 1),
        ('skip_connect', 5, 0), ('skip_connect', 5, 1)], reduce_concat=range(2, 6))""",
    "FAIRDARTS_B": """Genotype(normal=[('sep_conv_3x3', 2, 0), ('sep_conv_3x3', 2, 1), ('sep_conv_3x3', 3, 1),
        ('dil_conv_3x3', 4, 0), ('sep_conv_5x5', 4, 1), ('dil_conv_5x5', 5, 1)], normal_concat=range(2, 6),
        reduce=[('skip_connect', 2, 0), ('dil_conv_3x3', 2, 1), ('skip_connect', 3, 0), ('dil_conv_3x3', 3, 1),
        ('max_pool_3x3', 4, 0), ('sep_conv_3x3', 4, 1), ('skip_connect', 5, 2), ('max_pool_3x3', 5, 0)],
        reduce_concat=range(2, 6))""",
}


@pytest.mark.parametrize("name", PRINTED)
def test_fair_darts_is_read_as_printed_and_by_name(name):
    assert genotypes.find(PRINTED[name]) == genotypes.named(name)


def test_a_node_without_an_entry_is_neither_concatenated_nor_read():
    normal = [("max_pool_3x3", 2, 1), ("skip_connect", 4, 3), ("sep_conv_5x5", 4, 0), ("sep_conv_3x3", 5, 4)]
    cell = pdx.Genotype(normal, range(2, 7), [[("none", 0)], []], [3, 2])
    assert cell.normal == (
        *(("max_pool_3x3", 1), ("none", 0)),
        *(("none", 0), ("none", 1)),
        *(("sep_conv_5x5", 0), ("none", 1)),
        *(("sep_conv_3x3", 4), ("none", 0)),
    )
    assert (cell.normal_concat, cell.reduce_concat) == ((2, 4, 5), (2,))
    assert pdx.Genotype(cell.normal, (2, 3), cell.reduce, (2,)).normal_concat == (2, 3)  # two pairs a node say it


# Refusals -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "entries, concat, message",
    [
        (
            [("none", 0, 1), ("none", 0, 1)],
            [2],
            "normal[0]=('none', 0, 1) must join an input and a node from 2 to 501; an entry is (op, input), "
            "(op, input, weight) with a decimal point in the weight, or (op, node, input)",
        ),
        (
            [("none", 0, 0.5), ("none", 1, 1)],
            [2],
            "normal[1]=('none', 1, 1) must be (op, input, weight), as normal[0] is",
        ),
        (
            [("none", 0, True)],
            [2],
            "normal[0]=('none', 0, True) must be (op, input), (op, input, weight) or (op, node, input)",
        ),
        (
            [("none", 2, 2)],
            [2],
            "normal[0]=('none', 2, 2) is an entry of node 2, so its input must be an integer from 0 to 1",
        ),
        ([("none", 2, 0)] * 3, [2], "normal has 3 entries of node 2, but may have two per node"),
        ([("none", 2, 0)], [3], "normal_concat=(3,) must have a node of which normal has an entry"),
        (
            [[("none", 0)], [("none", 3)]],
            [2],
            "normal[1][0]=('none', 3) is an entry of node 3, so its input must be an integer from 0 to 2",
        ),
        (
            [[("none", 0)], [("none", 3, 1)]],
            [2],
            "normal[1][0]=('none', 3, 1) must be (op, input) or (op, input, weight)",
        ),
        (
            [[("none", 0)], 3],
            [2],
            "normal[1]=3 must be a list of the entries of node 3, as normal[0] is; there may be 1000 in all",
        ),
        (
            {"0-1": "none"},
            [2],
            "normal['0-1']='none' must join an input and a node from 2 to 501; an entry is (op, input), "
            "(op, input, weight) with a decimal point in the weight, or (op, node, input)",
        ),
        (
            {"0-2": "none", "to 3": "none"},
            [2],
            "normal['to 3']='none' must be the op of an edge (input, node), or of a text with the two numbers",
        ),
        ([("none", 0)] * 2, range(2, 10**12), "normal_concat[1]=3 must be an integer from 2 to 2"),
        ([("none", 0)] * 2, range(0), "normal_concat=range(0, 0) must be a list or range of at least one node"),
    ],
)
def test_an_impossible_cell_is_refused(entries, concat, message):
    with refused(message):
        pdx.Genotype(entries, concat, GENOTYPE.reduce, GENOTYPE.reduce_concat)


@pytest.mark.parametrize(
    "cell, message",
    [
        ("|none~0|+|none~0|", "ops has 2 edges, but must have all 3 (input, node) of the nodes 0 to 2"),
        (
            "|none~0|+|none~0|none~0|",
            "ops[1][1]=('none', 0) comes after ops[1][0]=('none', 0), but each edge may come only once",
        ),
        ("|none~0|+none", "ops='|none~0|+none' must be a string like '|op~0|+|op~0|op~1|' or a list"),
        (
            {(2, 1): "none"},
            "ops[(2, 1)]='none' is an entry of node 1, so its input must be an integer from 0 to 0",
        ),
    ],
)
def test_an_impossible_edge_genotype_is_refused(cell, message):
    with refused(message):
        pdx.EdgeGenotype(cell)


def test_an_unknown_op_is_named():
    call = as_call(dict(zip(FIELDS, (GENOTYPE.normal, range(2, 6), GENOTYPE.reduce, range(2, 6)), strict=True)))
    assert genotypes.find(call) == GENOTYPE
    with pytest.raises(ValueError) as error:
        genotypes.find(call.replace("dil_conv_3x3", "dua_sepc_3x3"))
    known = "(an op of your own must be registered first); allowed are none, "
    assert str(error.value).startswith(f"normal[7]=('dua_sepc_3x3', 2) has an unknown op {known}")


@pytest.mark.parametrize(
    "text, reason",
    [
        (
            "Genotype(__import__('os').abort())",
            "line 1, column 10 has a Call; allowed are literals, range(...), numbers ",
        ),
        ("Genotype(normal=9**9**9**9)", "line 1, column 17 has a BinOp; allowed are literals, "),
        (
            "{[__import__('os').abort()]",
            "it is neither JSON, nor literals of Python, nor YAML; as JSON: Expecting property name ",
        ),
        ("!!python/object/apply:os.abort\n- 1", "could not determine a constructor for the tag "),
        ("a: &a [1, 1]\nb: [*a, *a]", "the alias *a is not read; write out what it stands for"),
        ("normal: 1\nnormal: 2", "the field 'normal' comes twice"),
        ("{'normal': 1, 'normal': 2}", "the field 'normal' comes twice"),
        ('{"normal": 1, "normal": 2}', "the field 'normal' comes twice"),
        ("Genotype(1, normal=2)", "the field 'normal' comes twice"),
        ("Genotype(normal=range(2, 6, 0))", "range() arg 3 must not be zero"),
        ("Genotype(normal=[('none', 0)", "'[' was never closed"),
        ("|none~0| |none~0| |skip_connect~0|", "it has 3 genotypes that differ, but must have one"),
        ("[" + "-" * 10**5 + "1]", ""),
        ("Genotype(" + "-" * 10**5 + "1)", ""),
        ("\n" + "- " * 5 * 10**4, ""),
    ],
)
def test_what_is_no_literal_is_not_read(text, reason):
    with pytest.raises(ValueError) as error:
        genotypes.find(text)
    assert str(error.value).startswith(f"genotype cannot be read: {reason}") and len(str(error.value)) < 400


@pytest.mark.parametrize("text", ["runs/(1)/genotype.json", "a\nb", "PRDART|S"])
def test_a_text_that_is_one_word_is_taken_for_a_path(text):
    with pytest.raises(
        FileNotFoundError, match="^genotype '.*' is neither a file, nor the text of a genotype, nor one "
    ):
        genotypes.find(text)


@pytest.mark.parametrize("text", ["[" * 31, "1" * 120_001 + "\n"])
def test_a_text_that_is_too_long_or_too_deep_is_not_parsed(text, monkeypatch):
    monkeypatch.setattr(texts, "_read", lambda text: pytest.fail("parsed"))
    count = f"{len(text):,} characters with brackets {text.count('[')} deep"
    with refused(f"genotype is a text of {count}, but may have 120,000 and 30 at most"):
        genotypes.find(text)
