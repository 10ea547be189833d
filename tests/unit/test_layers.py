"""The layers: each may import from those above it, never from below."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "flask_presence"
LAYERS = ["domain", "backends", "hub", "transport", "glue"]
FORBIDDEN = {
    "domain": {"flask", "gevent", "socket", "time", "threading", "flask_sock", "flask_jwt_extended"},
    "backends": {"flask", "gevent", "socket", "flask_sock", "flask_jwt_extended"},
    "hub": {"flask", "gevent", "socket", "ssl", "flask_sock", "flask_jwt_extended"},
    "transport": {"flask", "flask_sock", "flask_jwt_extended", "werkzeug"},
    "glue": set(),
}
MODULES = sorted(PACKAGE.rglob("*.py"))


def layer_of(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    return first if first in LAYERS else "glue"


def imports_of(path: Path) -> set[tuple[str, str]]:
    """(layer or "outside", name) of all that a module imports."""
    found: set[tuple[str, str]] = set()
    package = path.parent
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {("outside", alias.name.split(".")[0]) for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add(("outside", (node.module or "").split(".")[0]))
        elif isinstance(node, ast.ImportFrom):
            base = package
            for _ in range(node.level - 1):
                base = base.parent
            for alias in node.names:
                target = base.joinpath(*(node.module or alias.name).split("."))
                found.add((layer_of(target), target.name))
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_layer_imports_only_from_above(path: Path) -> None:
    """No module imports from a lower layer, nor what its layer must not know."""
    mine = layer_of(path)
    for layer, name in imports_of(path):
        if layer == "outside":
            assert name not in FORBIDDEN[mine], f"{mine} must not know {name}"
        else:
            assert LAYERS.index(layer) <= LAYERS.index(mine), f"{mine} imports {name} of {layer}, which is below it"


def test_nothing_imports_the_extension() -> None:
    """The composition root is imported by the package's front door alone."""
    importers = {path.name for path in MODULES if ("glue", "extension") in imports_of(path)}
    assert importers == {"__init__.py"}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_module_says_what_it_is_for(path: Path) -> None:
    """Every module begins with what it is for."""
    assert ast.get_docstring(ast.parse(path.read_text()))
