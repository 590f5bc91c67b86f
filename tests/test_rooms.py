"""A room of the package imports only from those above it, and the list of rooms is complete."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "prdarts_jax"
FILES = sorted(PACKAGE.rglob("*.py"))
# What a room may import beside itself.
BASE = {"refusals", "fields", "devices", "markdown"}
ALLOWED = {
    "refusals": set(),
    "fields": {"refusals"},
    "devices": set(),
    "markdown": set(),
    "ops": BASE,
    "spaces": BASE | {"ops"},
    "data": BASE,
    "nets": BASE | {"ops", "spaces"},
    "search": BASE | {"ops", "spaces", "data", "nets"},
    "evaluation": BASE | {"ops", "spaces", "data", "nets", "search"},
    "run": BASE | {"ops", "spaces", "data", "nets", "search", "evaluation"},
    "theory": BASE | {"ops", "spaces", "data", "nets", "search"},
}
ALLOWED |= {"__init__": ALLOWED["run"] | {"run"}, "command_line": set(ALLOWED), "main": {"run", "command_line"}}
MORE = {"theory/job.py": {"run"}}


def room_of(path):
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imports(path):
    """[(line, room or module of the package)] that a file imports, wherever in it."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        found += [(node.lineno, name.split(".")) for name in names if name.split(".")[0] == PACKAGE.name]
    return [(line, parts[1] if len(parts) > 1 else "__init__") for line, parts in found]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_file_imports_from_its_room_and_those_above_it_alone(path):
    allowed = {room_of(path)} | ALLOWED[room_of(path)] | MORE.get(str(path.relative_to(PACKAGE)), set())
    wrong = [f"line {line}: {room}" for line, room in imports(path) if room not in allowed]
    assert not wrong, f"{path.relative_to(ROOT)} imports from below: {wrong}"


def test_the_table_of_rooms_names_those_there_are():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    cells = re.findall(r"^\| (`.*?) \|", text, re.MULTILINE)
    named = [name for cell in cells for name in re.findall(r"`(.+?)`", cell)]
    rooms = {room_of(path) for path in FILES} - {"__init__"}
    assert sorted(named) == sorted(f"{room}/" if (PACKAGE / room).is_dir() else f"{room}.py" for room in rooms)
