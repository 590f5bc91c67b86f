"""What documents name exists: configs and their fields, scripts and their flags, files, methods, public names."""

import functools
import inspect
import re

import pytest
import scripts
from flax.traverse_util import flatten_dict

from prdarts_jax.fields import check_names

family = scripts.load("family")
DOCUMENTS = [scripts.ROOT / name for name in ("README.md", "CONTRIBUTING.md", "experiments/README.md")]
DOCSTRINGS = [*scripts.ROOT.glob("configs/*.py"), *scripts.ROOT.glob("experiments/*.py"), scripts.ROOT / "Makefile"]
DOCS = sorted(scripts.ROOT.glob("docs/**/*.md"))  # `mkdocs build --strict` checks their links


def commands(path):
    """The lines of a file; one that ends in a backslash goes on."""
    return re.sub(r"\\+\n", " ", path.read_text()).splitlines()


read_config = functools.cache(lambda name: family.read_config(str(scripts.ROOT / name)))


@functools.cache
def all_fields():
    configs = ("digits.py", "cifar10_eval.py", "theory.py")
    return {field for name in configs for field in flatten_dict(read_config(f"configs/{name}").to_dict(), sep=".")}


def source_of(script):
    """The text of a script, with that of the functions of family.py that give it flags."""
    text = script.read_text()
    givers = [giver for giver in (family.add_arguments, family.add_results) if f"family.{giver.__name__}(" in text]
    return text + "".join(map(inspect.getsource, givers))


@pytest.mark.parametrize("path", DOCUMENTS + DOCS + DOCSTRINGS, ids=lambda path: path.name)
def test_commands_name_what_there_is(path):
    for line in commands(path):
        # What examples add to the package stands for what is there.
        line = re.sub(r":my_methods\.py:\w+|:deep_dirichlet\.toml|:NAME", "", line).replace(
            "entropy_darts", "lambda_darts"
        )
        names = re.findall(r"configs/\w+\.py(?::\w+)?", line)
        fields = re.findall(r"--config\.([a-z_.]+)=", line)
        if "--config=" in line and names:
            check_names(fields, flatten_dict(read_config(names[0]).to_dict(), sep="."), names[0])
        assert set(fields) <= all_fields(), line
        for name in names:
            read_config(name)
        for script, arguments in re.findall(r"python (experiments/\w+\.py)([^`]*)", line):
            for flag in re.findall(r" --([a-z_]+)", arguments):
                assert f'"--{flag}"' in source_of(scripts.ROOT / script), line


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_to_files(path):
    for target, anchor in re.findall(r"\]\(([^)#]*)(?:#([^)]*))?\)", path.read_text()):
        if not target.startswith("http"):
            file = path.parent / target if target else path
            assert file.exists(), target
            titles = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE) if anchor else []
            assert not anchor or anchor in {
                re.sub(r"[^\w\- ]", "", title).lower().replace(" ", "-") for title in titles
            }


def test_the_rows_of_results_are_variants():
    results = DOCUMENTS[2].read_text()
    for head in ("| method | test accuracy of the cell", "| method | tracing, s |"):
        rows = results[results.index(head) :].split("\n\n")[0].splitlines()[2:]
        named = {row.split(" | ")[0].strip("| `") for row in rows if row.startswith("| `")}
        assert named and named <= set(family.VARIANTS)
