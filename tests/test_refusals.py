"""What a wrong value of any border is refused with: values shortened, names that are like it, paths, exit code 1."""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from shared import ROOT, Toy, refused

import prdarts_jax as pdx
from prdarts_jax import command_line, refusals, spaces
from prdarts_jax.run import architecture, problems, settings, validation
from prdarts_jax.spaces import genotypes, tabular

pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")

SEARCH, TRAINING = (f"--config={ROOT}/configs/{name}.py" for name in ("digits", "cifar10_eval"))
NOBODY = "Could not determine home directory."


@pytest.mark.parametrize(
    "value, text",
    [
        ((8, 1, 3), "(8, 1, 3)"),
        (["a", None, True, 0.5], "['a', None, True, 0.5]"),
        (10**5000, "an integer of 16610 bits"),
        (np.zeros(2), "array([0., 0.])"),
        ("a\nb", r"'a\nb'"),
    ],
    ids=["tuple", "list", "int", "array", "text"],
)
def test_a_short_value_is_shown_as_it_is(value, text):
    assert refusals.shown(value) == text


def deep(levels):
    value = []
    for _ in range(levels):
        value = [value]
    return value


class Unprintable:
    def __repr__(self):
        raise RuntimeError("no")


@pytest.mark.parametrize(
    "value",
    ["x" * 10**6, list(range(10**6)), deep(10**5), Unprintable(), np.zeros((99, 99)), {"a" * 999: "b" * 999}],
    ids=lambda value: type(value).__name__,
)
def test_any_value_is_shown_in_a_short_line(value):
    text = refusals.shown(value)
    assert 0 < len(text) <= 200 and "\n" not in text


@pytest.mark.parametrize("value", [None, 3, b"file", "", "a\0b", "~no such user/x", "x" * 5000, ["a"]])
def test_what_is_no_path_is_refused(value):
    with pytest.raises(ValueError, match="^it .* must be the path of a file or folder"):
        refusals.path("it", value)


def test_files_are_found_in_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    cell = genotypes.named("GDAS")
    (tmp_path / "cell.json").write_text(genotypes.to_json(cell))
    assert genotypes.find("~/cell.json") == genotypes.load("~/cell.json") == cell
    for load, what in ((tabular.load, "accuracy table"), (genotypes.load, "genotype file")):
        with refused(f"{what} {tmp_path}/absent does not exist or is not a file", FileNotFoundError):
            load("~/absent")


def test_a_file_that_is_too_large_is_not_read(tmp_path):
    with open(tmp_path / "large", "wb") as file:
        file.truncate(2**40)
    for load in (tabular.load, genotypes.load):
        with pytest.raises(ValueError, match=r"large has 1,099,511,627,776 bytes, but may have \S+ at most$"):
            load(tmp_path / "large")


# The command line ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments, message",
    [
        (
            [SEARCH, "--workdir=~no such user/x"],
            f"--workdir '~no such user/x' must be the path of a file or folder: {NOBODY}",
        ),
        ([SEARCH, "--workdir="], "--workdir '' must be the path of a file or folder"),
        ([SEARCH, f"--workdir={__file__}"], f"--workdir {__file__!r} must be a folder, but is a file"),
        (
            [f"--config={ROOT}/configs/cifar10.py", "--config.data_dir=~no such user/x"],
            f"data_dir '~no such user/x' must be the path of a file or folder: {NOBODY}",
        ),
        ([SEARCH, "--config.epochs=2147483648"], "config.epochs=2147483648 must be from 1 to 1000000"),
        ([TRAINING, "--config.epochs=2147483648"], "config.epochs=2147483648 must be from 0 to 1000000"),
        ([SEARCH, f"--config.channels={2**20}"], "config.channels=1048576 must be from 2 to 4096"),
        ([TRAINING, f"--config.channels={2**40}"], "config.channels=1099511627776 must be from 2 to 4096"),
        ([SEARCH, f"--config.seeds={2**31}"], "config.seeds=2147483648 must be from 1 to 1000"),
        (
            [TRAINING, f"--config.weights.learning_rate={10**400}"],
            "config.weights.learning_rate=inf must be above 0 and at most 3.4e+38",
        ),
        ([SEARCH, f"--config.epochs={'9' * 5000}"], "flag --config.epochs=9999999999999999"),
        ([SEARCH, "--config.epoch=3"], f"config.epoch is not a field of {SEARCH}; the fields are accumulate, "),
        ([SEARCH, "--config.method=dartz"], "config.method='dartz' must be one of pr_darts, "),
        (
            [SEARCH, "--config.space=dart"],
            f"config.space='dart' must be one of {', '.join(spaces.NAMED)}, or MODULE:FUNCTION or FILE.py:FUNCTION of "
            "your own; did you mean 'darts'?",
        ),
        (
            [SEARCH, "--config.dataset=cifer10"],
            "Unknown data set 'cifer10': allowed are digits, cifar10, cifar100, svhn, fashion_mnist, imagenet, another "
            "name that TFDS has prepared in data_dir, and the path of a folder of class folders, of an .npz or of "
            "cifar-10-batches-py; did you mean 'cifar10' or 'cifar100'?",
        ),
        (
            [TRAINING, "--config.genotype=prdart"],
            "genotype 'prdart' is neither a file, nor the text of a genotype, nor one of PRDARTS,",
        ),
        ([TRAINING, f"--config.genotype={'x' * 10**6}"], f"genotype '{'x' * 50}"),
        (
            [SEARCH, "--config.evaluation.epochs=0", "--config.num_examples=1", "--config.batch_size=1"],
            "config.num_examples=1 must be at least 2 in a search, one for each half",
        ),
    ],
    ids=lambda value: value[-1][-40:] if isinstance(value, list) else "",
)
def test_a_command_line_is_refused(arguments, message, command, tmp_path):
    ended = command(f"--workdir={tmp_path / 'run'}", *arguments)
    assert ended.code.startswith(f"error: {message}") and "\n" not in ended.code and len(ended.code) < 810
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    "argument, like",
    [
        ("epoch", "epochs"),
        ("weights.learnin_rate", "weights.learning_rate"),
        ("method=dartz", "darts"),
    ],
)
def test_the_name_that_was_meant_is_said(argument, like, command, tmp_path):
    ended = command(SEARCH, f"--workdir={tmp_path / 'run'}", f"--config.{argument}" + ("" if "=" in argument else "=1"))
    assert f"; did you mean '{like}'" in ended.code and len(ended.code) < 500


FILES = {
    "def get_config(:": "SyntaxError: invalid syntax",
    "x = '\0'": "source code string cannot contain null bytes",
    "import nothere": "ModuleNotFoundError: No module named 'nothere'",
    "def get_config():\n  raise RuntimeError('one\\ntwo')": "RuntimeError: one two",
    "def get_config():\n  return 1 + 'a'": "TypeError: unsupported operand",
    "def get_config():\n  return get_config()": "RecursionError: maximum recursion depth exceeded",
    "def get_config():\n  return {'job': 'search'}": "'dict' object has no attribute 'to_dict'",
    "def get_config():\n  pass": "'NoneType' object has no attribute 'to_dict'",
    "import sys\nsys.exit(3)": "RuntimeError: it ends the program with 3",
}


@pytest.mark.parametrize("text", FILES)
def test_a_config_file_that_cannot_be_run_is_named(text, command, tmp_path):
    (tmp_path / "mine.py").write_text(text)
    ended = command(f"--config={tmp_path}/mine.py", f"--workdir={tmp_path / 'run'}")
    assert ended.code.startswith("error: ") and "\n" not in ended.code
    assert f"--config={tmp_path}/mine.py" in ended.code and FILES[text] in ended.code


@pytest.mark.parametrize(
    "change, message",
    [
        ("job=['search']", "config.job=['search'] must be search or train"),
        ("evaluation=3", "config.evaluation=3 must be a section with the fields channels, cells, auxiliary_weight, "),
        ("space=['darts']", "config.space=['darts'] must be of type str, as 'darts' is"),
        ("epochs=10**5000", "config.epochs=an integer of 16610 bits must be from 1 to 1000000"),
        (
            "logits=10**400",
            "config.logits=an integer of 1329 bits must be a section with the fields learning_rate, b1, ",
        ),
    ],
)
def test_a_config_of_another_form_is_refused(change, message, command, tmp_path):
    (tmp_path / "mine.py").write_text(
        "from ml_collections import ConfigDict\nfrom prdarts_jax.run import settings\n"
        f"def get_config():\n  return ConfigDict(settings.search().to_dict() | dict({change}))\n"
    )
    ended = command(f"--config={tmp_path}/mine.py", f"--workdir={tmp_path / 'run'}")
    assert ended.code.startswith(f"error: {message}") and "\n" not in ended.code and len(ended.code) < 500


def test_a_config_without_fields_is_refused(command, tmp_path):
    (tmp_path / "mine.py").write_text("import ml_collections\nget_config = ml_collections.ConfigDict\n")
    ended = command(f"--config={tmp_path}/mine.py", f"--workdir={tmp_path / 'run'}")
    assert ended.code == "error: config.job=None must be search or train"


def test_too_little_memory_is_said_in_a_sentence(command, tmp_path, monkeypatch):
    def fail(config, workdir):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 140737488355328 bytes.\nmore")

    monkeypatch.setattr(command_line.train, "run", fail)
    ended = command(TRAINING, f"--workdir={tmp_path}")
    assert ended.code.startswith("error: there is too little memory") and "140737488355328 bytes. more" in ended.code


# The package as a library -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [None, 3, [], {}, b"GDAS", deep(10**5)], ids=lambda value: type(value).__name__)
@pytest.mark.parametrize(
    "call",
    [
        genotypes.find,
        genotypes.named,
        genotypes.load,
        genotypes.from_json,
        tabular.load,
        spaces.named,
        pdx.methods.find,
        pdx.ops.find,
        pdx.describe,
        settings.search,
        validation.validate,
        lambda value: pdx.SearchSpace("own", (value,)),
    ],
)
def test_what_is_no_text_is_refused(call, value):
    with pytest.raises(ValueError) as error:
        call(value)
    assert len(str(error.value)) < 500


def test_describe_says_how_to_name_a_published_cell():
    with refused("genotype='PRDARTS' must be a Genotype or an EdgeGenotype (genotypes.named has some)"):
        pdx.describe("PRDARTS")


def test_an_epoch_with_a_batch_larger_than_the_data_is_refused():
    space = spaces.s2()
    problem = pdx.SearchProblem(Toy(space), pdx.methods.darts(), optax.sgd(0.1), optax.adam(0.1), total_steps=3)
    data = {"image": np.zeros((4, 2, 2, 1), np.uint8), "label": np.zeros(4, np.int32)}
    state = jax.eval_shape(lambda key: pdx.init_search(problem, key, jnp.zeros((4, 2, 2, 1))), jax.random.key(0))
    with refused("batch_size=8 must be from 1 to 4, the images of each data set"):
        plain = pdx.Augmentation((0.0,), (1.0,))
        jax.eval_shape(lambda state: pdx.search_epoch(problem, state, data, data, plain, 8), state)


def test_more_steps_than_can_be_counted_are_refused():
    config = settings.training()
    config.epochs = 10**6
    message = f"the run has {5000 * 10**6:,} steps, but may have {2**31 - 1:,} at most: lower config.epochs"
    with refused(message):
        problems.make_train_problem(config, None, 5000)


def test_a_field_that_comes_twice_in_a_genotype_is_refused():
    text = genotypes.to_json(genotypes.named("GDAS"))
    with refused("genotype is not valid JSON: the field 'normal' comes twice"):
        genotypes.from_json(f'{text[:-1]}, "normal": []}}')


def test_a_genotype_of_too_many_nodes_is_refused():
    fields = dataclasses.asdict(genotypes.named("GDAS")) | {"normal": [["none", 0]] * 10**5}
    with pytest.raises(ValueError, match="^normal has 100000 entries, but must list .* per node, 1000 at most$"):
        genotypes.from_json(json.dumps(fields))


def test_a_damaged_architecture_is_named(tmp_path):
    arrays = {"normal": np.zeros((14, 2), np.float32)}
    for epoch in range(2):
        architecture.save(tmp_path, epoch, arrays, arrays)
    path = Path(tmp_path / "architecture" / "epoch_0001.npz")
    for content in (b"", b"damaged", path.read_bytes()[:200]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=rf"^{path} is damaged \(\w+\): use another --workdir$"):
            architecture.read_probabilities(tmp_path, 2)
    architecture.save(tmp_path, 1, arrays, {"normal": np.zeros((3, 2))})
    with refused(f"{path} is damaged: its arrays have other shapes than before"):
        architecture.read_probabilities(tmp_path, 2)
