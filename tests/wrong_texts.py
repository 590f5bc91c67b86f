"""Wrong genotypes, calls, configs and command lines: of each (folder) -> (what is drawn, what reads it)."""

import json

import wrong_files
import yaml
from hypothesis import strategies as st
from ml_collections import ConfigDict
from shared import ROOT
from wrong import ANYTHING, JSON, assert_sentence, changed, damaged, reader, refused

import prdarts_jax as pdx
from prdarts_jax import command_line, spaces
from prdarts_jax.data import sources
from prdarts_jax.run import checkpoints, settings, validation
from prdarts_jax.spaces import genotypes, published, tabular


def genotype_texts(folder):
    values = [json.loads(genotypes.to_json(genotypes.named(name))) for name in ("PRDARTS", "NASNet")]
    values += [{"ops": ["none"] * 6}]
    made = st.sampled_from(values).flatmap(changed).map(json.dumps)
    texts = made | made.map(str.encode).flatmap(damaged).map(lambda content: content.decode("latin1"))
    return texts, genotype_reader(folder)


def genotype_notations(folder):
    nodes = [[["skip_connect", 0], ["none", 1]], [["sep_conv_3x3", 2]]]
    triples = [["skip_connect", 2, 0], ["max_pool_3x3", 2, 1], ["none", 4, 3]]
    weighted = [["dil_conv_3x3", 0, 0.5], ["sep_conv_3x3", 1, 0.25]]
    edges = {"0->2": "none", "(1, 2)": "skip_connect", "3<-2": "avg_pool_3x3"}
    cells = [nodes, triples, weighted, edges, [["noise", 0], ["none", 0]]]
    values = [{"normal": n, "normal_concat": [2, 3], "reduce": r, "reduce_concat": [2]} for n in cells for r in cells]
    of_edges = [[3, 1, 0, 4, 2, 1], [[["none", 0]]], {"0-1": "none"}, {"ops": edges}]
    changes = st.sampled_from(values + of_edges).flatmap(changed)

    def call(fields):
        inside = (
            ", ".join(f"{name}={value!r}" for name, value in fields.items()) if isinstance(fields, dict) else fields
        )
        return f"INFO genotype = Genotype({inside})\n".replace("[2, 3]", "range(2, 4)").replace(
            "[2]", "array([np.int64(2)])"
        )

    strings = [
        "|none~0|",
        "|none~0|+|skip_connect~0|nor_conv_3x3~1|",
        "Genotype(",
        "range(2, 6)",
        "&a [*a, *a]",
        "- " * 99,
    ]
    writers = [
        call,
        json.dumps,
        str,
        lambda value: yaml.dump(value),
        lambda value: yaml.dump(value, default_flow_style=True),
    ]
    made = st.builds(lambda write, value: write(value), st.sampled_from(writers), changes) | st.sampled_from(strings)
    return made | made.map(str.encode).flatmap(damaged).map(lambda text: text.decode("latin1")), genotype_reader(folder)


def genotype_reader(folder):
    """Reads a text as such and from a file; what it makes, it prints so that it is read again."""

    def found(text):
        genotype = genotypes.find(text)
        assert genotypes.find(repr(genotype)) == genotypes.find(genotypes.to_json(genotype)) == genotype

    def read(text):
        path = folder / "genotype.json"
        path.write_text(text, encoding="utf-8", errors="surrogateescape")
        refused(found, text)
        refused(genotypes.load, path)

    return read


def calls(folder):
    named = genotypes.named("GDAS")
    functions = [genotypes.find, genotypes.named, genotypes.load, genotypes.from_json, spaces.named, pdx.methods.find]
    functions += [tabular.load, sources.load, pdx.ops.find, pdx.ops.group, pdx.EdgeGenotype, pdx.describe]
    functions += [validation.validate, settings.search, wrong_files.checkpoint_of_pytorch]
    functions += [
        lambda value: pdx.describe(named, value),
        lambda value: pdx.Genotype(value, value, value, value),
        lambda value: pdx.Genotype([[value, 0], ["none", value]], [2], [["none", 0]] * 2, [value]),
        lambda value: spaces.SearchSpace("own", value),
        lambda value: spaces.SearchSpace("own", (value,)),
        lambda value: sources.load("cifar10", value or "nowhere"),
        lambda value: sources.load("digits", split=value),
        lambda value: sources.load("digits", num_examples=value),
        lambda value: sources.load("digits", image_size=value, num_examples=2),
    ]
    names = st.sampled_from([*published.names(), *spaces.NAMED, *pdx.methods.NAMED, *pdx.ops.names()])
    # A module of the user's own may do what it likes when it is imported.
    values = (ANYTHING | names).filter(lambda value: not (isinstance(value, str) and ":" in value))
    return st.tuples(st.sampled_from(functions), values), lambda drawn: refused(*drawn)


def configs(folder):
    made = [settings.search().to_dict(), settings.training().to_dict()]

    def read(fields):
        try:
            config = ConfigDict(fields)
        except (ValueError, TypeError):  # of ml_collections, which are no configs
            return
        refused(validation.validate, config)

    return st.sampled_from(made).flatmap(changed), read


def command_lines(folder, command, monkeypatch):
    """Fields of the command line; a search or training that is not refused does not begin."""
    monkeypatch.setattr(command_line.search, "run", lambda config, workdir: [validation.validate(config)] and {})
    monkeypatch.setattr(
        command_line.train,
        "run",
        lambda config, workdir: validation.validate(config) or {"top1": 1, "top5": 1, "per_class": [1]},
    )
    for name in ("check", "run"):
        monkeypatch.setattr(command_line.compare, name, lambda *_: "")
    files = {"digits": settings.search(), "cifar10_eval": settings.training()}
    flat = {name: sorted(settings.fields.flatten_dict(config.to_dict(), sep=".")) for name, config in files.items()}
    fields = st.sampled_from(sorted(flat)).flatmap(
        lambda name: st.tuples(
            st.just(name), st.sampled_from(flat[name]) | st.text("abc._=\0-", max_size=9), JSON.map(str) | st.text()
        )
    )

    def read(drawn):
        name, field, value = drawn
        workdir = value if field == "" else folder / "run"
        ended = command(f"--config={ROOT}/configs/{name}.py", f"--workdir={workdir}", f"--config.{field}={value}")
        if ended.code != 0:
            assert_sentence(ended.code)
            assert ended.code.startswith("error: ")

    return fields.filter(lambda drawn: "=" not in drawn[1]), read


def config_files(folder):
    fields = settings.training().to_dict()
    made = changed(fields).map(json.dumps).map(str.encode)
    read = reader(folder / "config.json", lambda folder: checkpoints.check_config(folder, fields))
    return made | made.flatmap(damaged) | st.just(b"[" * 10**5), read
