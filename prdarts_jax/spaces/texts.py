"""The plain values in the text of a genotype, whichever program wrote it. No code in a text is executed."""

import ast
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

import yaml

from prdarts_jax.refusals import cut, shown

_CHARACTERS = 120_000
_DEPTH = 30  # of brackets
_CALL = re.compile(r"\b(?:Edge)?Genotype ?\(")
_FIELDS = ("normal", "normal_concat", "reduce", "reduce_concat")  # in the order in which a call has them
_AROUND = re.compile(r"u?int(8|16|32|64)|float(16|32|64)|str_|array|list|tuple")  # calls around a value, as in NumPy


def value(text: str) -> Any:
    """The value in a text: the fields of `Genotype(...)` as a dict, a string of NAS-Bench-201, or a value written as
    JSON, as a Python literal or as YAML.

    Text around `Genotype(...)` or around the string of NAS-Bench-201 is ignored.

    >>> value("epoch 3: genotype = EdgeGenotype(ops=[3, np.int64(0), 1])")
    {'ops': (3, 0, 1)}
    >>> value("found Structure(3 nodes with |none~0|+|none~0|nor_conv_3x3~1|)")
    '|none~0|+|none~0|nor_conv_3x3~1|'
    >>> value("{(1, 2): 'none', (0, 2): 'none', (0, 1): 'skip_connect'}")
    {(1, 2): 'none', (0, 2): 'none', (0, 1): 'skip_connect'}

    Raises:
      ValueError: the text has none of these, or several different genotypes, or is too long or too deeply nested.
    """
    depth = most = 0
    for character in text[: _CHARACTERS + 1]:
        depth += (character in "([{") - (character in ")]}")
        most = max(most, depth)
    if len(text) > _CHARACTERS or most > _DEPTH:
        raise ValueError(
            f"genotype is a text of {len(text):,} characters with brackets {most} deep, but may have {_CHARACTERS:,} "
            f"and {_DEPTH} at most"
        )
    try:
        return _read(text)
    except (SyntaxError, yaml.YAMLError, ValueError, TypeError, OverflowError, RecursionError, MemoryError) as error:
        reason = error.msg if isinstance(error, SyntaxError) else str(error) or "it is nested too deep"
        raise ValueError(f"genotype cannot be read: {cut(reason, 300)}") from None


def json_value(text: str) -> Any:
    """The value of a JSON text.

    Raises:
      ValueError: the text is not JSON.
    """
    try:
        return _json(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"genotype is not valid JSON: {cut(str(error), 200)}") from None


def _read(text: str) -> Any:
    if calls := list(_calls(text)):
        return _single(map(_python, calls))
    if strings := [word for word in text.split() if "|" in word and "~" in word]:
        return _single(word[word.index("|") : word.rindex("|") + 1] for word in strings)
    text = text.strip()
    if not text.startswith(("{", "[", "(")):
        return _yaml(text)
    try:
        return _json(text)
    except json.JSONDecodeError as error:
        of_json = error
    try:
        return _python(text)
    except SyntaxError:
        pass
    try:
        return _yaml(text)
    except yaml.YAMLError:
        raise ValueError(f"it is neither JSON, nor literals of Python, nor YAML; as JSON: {of_json}") from None


def _single(values: Iterable[Any]) -> Any:
    """The first of several values, which must all be equal."""
    first, *others = values
    if any(other != first for other in others):
        raise ValueError(f"it has {1 + len(others)} genotypes that differ, but must have one")
    return first


def _without_repetition(pairs: Iterable[tuple[Any, Any]]) -> dict[Any, Any]:
    """The mapping of these fields; refuses two with the same name, of which the parsers would take the last."""
    values: dict[Any, Any] = {}
    for name, of_name in pairs:
        if name in values:
            raise ValueError(f"the field {shown(name)} comes twice")
        values[name] = of_name
    return values


def _json(text: str) -> Any:
    return json.loads(text, object_pairs_hook=_without_repetition)


# Python ---------------------------------------------------------------------------------------------------------------


def _calls(text: str) -> Iterator[str]:
    """Yields every `Genotype(...)` in a text; the last one may be cut off."""
    at = 0
    while found := _CALL.search(text, at):
        depth, at = 1, found.end()
        while depth and at < len(text):
            depth += (text[at] in "([{") - (text[at] in ")]}")
            at += 1
        yield text[found.start() : at]


def _python(text: str) -> Any:
    """The value of literals, ranges, NumPy's lists and numbers, and `Genotype(...)`; a SyntaxError for all else."""
    return _plain(ast.parse(text, mode="eval").body)


def _plain(node: ast.expr) -> Any:
    match node:
        case ast.Constant(value=None | bool() | int() | float() | str()):
            return node.value
        case ast.List(parts) | ast.Tuple(parts):
            return tuple(map(_plain, parts))
        case ast.Dict(keys, values):
            return _without_repetition((_plain(key), _plain(of)) for key, of in zip(keys, values, strict=True) if key)
        case ast.UnaryOp(ast.USub(), ast.Constant(value=int() | float() as number)):
            return -number
        case ast.Call(ast.Name("range"), arguments):
            return range(*map(_plain, arguments))
        case ast.Call(ast.Name(name) | ast.Attribute(attr=name), [argument]) if _AROUND.fullmatch(name):
            return _plain(argument)
        case ast.Call(ast.Name(name), arguments, keywords) if name.endswith("Genotype"):
            fields = ("ops",) if name == "EdgeGenotype" else _FIELDS
            named = [(keyword.arg, _plain(keyword.value)) for keyword in keywords]
            found = _without_repetition([*zip(fields, map(_plain, arguments), strict=False), *named])
            # Other packages have fields of their own for notes, such as the origin of a cell.
            return {field: of for field, of in found.items() if field in fields or not isinstance(of, str | None)}
    raise SyntaxError(
        f"line {node.lineno}, column {node.col_offset + 1} has a {type(node).__name__}; allowed are literals, "
        "range(...), numbers of NumPy and Genotype(...)"
    )


# YAML -----------------------------------------------------------------------------------------------------------------


class _Loader(yaml.SafeLoader):
    """A loader that refuses aliases, which can make a short text expand without limit, and keys that come twice."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise ValueError(f"the alias *{self.peek_event().anchor} is not read; write out what it stands for")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        return _without_repetition(self.construct_pairs(node, deep=True))


_Loader.add_constructor("tag:yaml.org,2002:python/tuple", lambda loader, node: loader.construct_sequence(node, True))


def _yaml(text: str) -> Any:
    return yaml.load(text, _Loader)
