"""The layers of the package: a module imports only from its own layer and from those before it."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Set
from pathlib import Path
from typing import NamedTuple

import pytest

PACKAGE = Path(__file__).parents[2] / "flask_presence"
LAYERS = ["domain", "loops", "backends", "hub", "transport", "app", "stats", "cli", "web", "top"]
PARTS = ["store", "client", "worker", "backend", "shards"]
"""The layers within `backends/redis`."""
FRAMEWORKS = {"flask", "werkzeug", "flask_sock", "flask_jwt_extended"}
SOCKETS = {"gevent", "socket", "ssl", "select"}
FORBIDDEN: Mapping[str, set[str]] = {
    "domain": {*FRAMEWORKS, *SOCKETS, "time", "threading"},
    "loops": {*FRAMEWORKS},
    "backends": {*FRAMEWORKS, "gevent", "socket"},
    "hub": {*FRAMEWORKS, *SOCKETS},
    "transport": {*FRAMEWORKS},
    "app": {"redis"},
    "stats": {"redis"},
}
SHARED_TABLES = {"settings", "signals"}
"""Modules of the top level that every layer may import: each is a table of values."""
MODULES = sorted(PACKAGE.rglob("*.py"))


class Import(NamedTuple):
    """What one module imports: a module of this package (by its path without suffix), or another package (by name)."""

    target: Path | None
    name: str


def imports_of(path: Path) -> Iterator[Import]:
    """Everything that a module imports, type-checking imports included."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (Import(None, alias.name.split(".")[0]) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield Import(None, (node.module or "").split(".")[0])
        elif isinstance(node, ast.ImportFrom):
            base = path.parents[node.level - 1].joinpath(*(node.module or "").split("."))
            for alias in node.names:
                target = base / alias.name
                is_module = target.with_suffix(".py").exists() or target.is_dir()
                yield Import(target if is_module else base, alias.name)


def module_of(path: Path) -> Path:
    """A module's path, without suffix and `__init__`."""
    return path.parent if path.name == "__init__.py" else path.with_suffix("")


def layer_of(module: Path) -> str:
    first = module.relative_to(PACKAGE).parts[:1]
    return first[0] if first and first[0] in LAYERS else "top"


def part_of(module: Path) -> str | None:
    parts = module.relative_to(PACKAGE).parts
    return parts[2] if parts[:2] == ("backends", "redis") and len(parts) > 2 else None


def graph() -> dict[Path, set[Path]]:
    return {module_of(path): {one.target for one in imports_of(path) if one.target} for path in MODULES}


def cycle_through(start: Path, edges: Mapping[Path, Set[Path]]) -> list[Path] | None:
    """The modules on a path from `start` back to it; `None` if there is none."""
    paths = [[start]]
    seen: set[Path] = set()
    while paths:
        path = paths.pop()
        for target in edges.get(path[-1], ()):
            if target == start:
                return [*path, target]
            if target not in seen:
                seen.add(target)
                paths.append([*path, target])
    return None


def named(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_a_module_imports_only_from_layers_before_it(path: Path) -> None:
    mine = layer_of(module_of(path))
    for target, name in imports_of(path):
        if target is None:
            assert name not in FORBIDDEN.get(mine, ()), f"{mine} must not know {name}"
        elif not (layer_of(target) == "top" and target.name in SHARED_TABLES):
            theirs = layer_of(target)
            assert LAYERS.index(theirs) <= LAYERS.index(mine), f"{mine} imports {named(target)} of {theirs}, after it"


@pytest.mark.parametrize("path", [path for path in MODULES if part_of(module_of(path))], ids=named)
def test_a_redis_module_imports_only_from_parts_before_it(path: Path) -> None:
    mine = part_of(module_of(path))
    assert mine is not None
    for target, _ in imports_of(path):
        theirs = part_of(target) if target is not None else None
        if theirs is not None:
            assert PARTS.index(theirs) <= PARTS.index(mine), f"{mine} imports from {theirs}, after it"


def test_no_module_is_in_an_import_cycle() -> None:
    edges = graph()
    cycles = [cycle for module in edges if (cycle := cycle_through(module, edges))]
    assert not cycles, "\n".join(" -> ".join(map(named, cycle)) for cycle in cycles)


def test_only_the_package_imports_the_extension() -> None:
    importers = {named(module) for module, targets in graph().items() if PACKAGE / "extension" in targets}
    assert importers == {"."}


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_every_module_has_a_docstring(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text()))
