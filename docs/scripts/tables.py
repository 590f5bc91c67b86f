"""Tables of settings, read from the same fields that check a config."""

import inspect
import re
from pathlib import Path

from flax.traverse_util import flatten_dict

from prdarts_jax import fields, markdown
from prdarts_jax.run import report, settings
from prdarts_jax.search import methods
from prdarts_jax.theory import job

ROOT = Path(__file__).parents[2]
JOBS = {"search": settings.Search, "training": settings.Training, "theory": job._Theory}


def of_job(name: str, top: str) -> str:
    """All settings of a search or a training, without those of the methods."""
    return _table(fields.schema_of(JOBS[name]), {})


def of_methods(names: str, top: str) -> str:
    """For each method its settings, and those of a search that its paper sets."""
    parts = []
    for name in names.split():
        method = methods.NAMED[name]
        parts.append(f"### `{name}`\n\n{inspect.getdoc(method).partition(chr(10) * 2)[0]}")
        if method.schema:
            parts.append(_table(method.schema, _meanings(methods.NAMED["pr_darts"]) | _meanings(method)))
        else:
            parts.append("It has no settings.")
        if method.paper:
            paper = ", ".join(f"`{field}={value!r}`" for field, value in method.paper.items())
            parts.append(f"`--config=configs/cifar10.py:{name}` also sets, as its paper does: {paper}.")
    return "\n\n".join(parts)


def of_configs(job: str, top: str) -> str:
    """The files of configs/ that hold a job, with the first sentence of each, and what they change."""
    rows = []
    for path in sorted((ROOT / "configs").glob("*.py")):
        scope: dict = {"__file__": str(path), "__name__": path.stem}
        exec(compile(path.read_text(), path, "exec"), scope)
        config = scope["get_config"]()
        if config.job == job:
            text = " ".join(scope["__doc__"].split("\n\n")[0].split())
            changed = {} if job == "theory" else report.changed_fields(config)
            fields_in_words = ", ".join(f"`{name}={value!r}`" for name, value in changed.items())
            rows.append([f"`configs/{path.name}`", text, fields_in_words])
    return markdown.table(["file", "what it runs", "settings other than the defaults"], rows)


def _table(schema, meanings):
    rows = []
    for name, field in flatten_dict(schema, sep=".").items():
        meaning = field.meaning or meanings.get(name, "")
        rows.append([f"`{name}`", f"`{field.default!r}`", _allowed(field), meaning])
    return markdown.table(["setting", "default", "allowed", "meaning"], rows)


def _allowed(field):
    if field.kind is bool:
        return "True or False"
    text = ", ".join(allowed.text() for allowed in field.ranges) or getattr(field.kind, "__name__", str(field.kind))
    text = re.sub(rf"from (\S+) to {re.escape(str(fields.LARGEST))}", r"at least \1", text)
    return text.replace(f" and at most {fields.LARGEST}", "")  # all that float32 holds


def _meanings(method):
    """{argument: what its docstring says of it}."""
    entries = re.findall(r"^  (\w[\w, ]*): (.*(?:\n    .*)*)", inspect.getdoc(method), re.MULTILINE)
    return {name: " ".join(text.split()) for names, text in entries for name in names.split(", ")}
