"""The public types, as mypy and pyright see them in an app: they accept what is right, and find what is wrong.

`typed_usage.py` must pass, and so must the Python in the documents, which has no annotations. In `typed_mistakes.py`
each checker must find a mistake on every line that ends with `# error`, and on no other.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import get_type_hints

import pytest

from flask_presence.domain import signatures
from flask_presence.domain.events import Event
from flask_presence.settings import SettingArguments, Settings

from ..conftest import KeptFolder, missing
from ..support.documents import ROOT, blocks_of
from ..support.guides import GUIDES

FOLDER = Path(__file__).parent
USAGE, MISTAKES = FOLDER / "typed_usage.py", FOLDER / "typed_mistakes.py"

DOCUMENTS = [ROOT / "README.md", *sorted(one for one in (ROOT / "docs").glob("*.md") if one.name not in GUIDES)]
"""Those whose blocks belong to one app."""
PRELUDE = """# pyright: reportUndefinedVariable=false, reportMissingImports=false
from __future__ import annotations
from flask import Flask
from flask_presence import Presence
app = Flask("app")
presence = Presence()
"""

MYPY = f"""
[mypy]
strict = True
mypy_path = {ROOT}

[mypy-flask_presence.*]
follow_imports = silent

[mypy-documents.*]
disallow_untyped_defs = False
disallow_untyped_calls = False
disallow_untyped_decorators = False
check_untyped_defs = True
disable_error_code = name-defined, no-redef, method-assign, import-untyped, import-not-found
"""
"""As for an installed package, mypy says nothing about flask_presence itself. Names in the documents may belong to the
reader's app, and later blocks replace functions of earlier ones."""

Found = dict[int, list[str]]
"""What a checker says about a file, by line."""


def mypy(folder: Path, cache: Path) -> dict[Path, Found]:
    """What `mypy --strict` says."""
    config = folder / "mypy.ini"
    config.write_text(MYPY, encoding="utf-8")
    output = run(folder, "mypy", "--config-file", str(config), "--cache-dir", str(cache), "--no-error-summary")
    found: dict[Path, Found] = defaultdict(lambda: defaultdict(list))
    for line in output.splitlines():
        parts = re.fullmatch(r"(.+?):(\d+): (error|note): (.*)", line)
        assert parts is not None, output
        if parts[3] == "error":
            found[folder / parts[1]][int(parts[2])].append(parts[4])
    return found


def pyright(folder: Path, _cache: Path) -> dict[Path, Found]:
    """What pyright says, in strict mode except about the documents."""
    if shutil.which("node") is None:
        missing("Node")
    config = folder / "pyrightconfig.json"
    config.write_text(json.dumps({"extraPaths": [str(ROOT)], "pythonVersion": "3.10"}), encoding="utf-8")
    output = run(folder, "pyright", "--outputjson", "--project", str(config), "--pythonpath", sys.executable)
    found: dict[Path, Found] = defaultdict(lambda: defaultdict(list))
    for one in json.loads(output)["generalDiagnostics"]:
        found[Path(one["file"])][one["range"]["start"]["line"] + 1].append(one["message"])
    return found


def run(folder: Path, checker: str, *options: str) -> str:
    """The output of a checker that reads copies of both files, and the documents' blocks, in `folder`."""
    copies = [Path(shutil.copy(path, folder)).name for path in (USAGE, MISTAKES)]
    package = folder / "documents"
    package.mkdir()
    (package / "__init__.py").touch()
    for document in DOCUMENTS:
        blocks = [block.text for block in blocks_of(document) if block.language == "python"]
        (package / f"{document.stem.replace('-', '_')}.py").write_text("\n".join([PRELUDE, *blocks]), encoding="utf-8")
    command = [sys.executable, "-m", checker, *options, *copies, package.name]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 1, f"it found no mistakes at all: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.mark.parametrize("check", [mypy, pyright])
def test_type_checkers_accept_typical_use_and_find_every_mistake(
    check: Callable[[Path, Path], dict[Path, Found]], tmp_path: Path, kept_folder: KeptFolder
) -> None:
    lines = MISTAKES.read_text(encoding="utf-8").splitlines()
    expected = {number for number, line in enumerate(lines, 1) if line.endswith("# error")}
    assert len(expected) > 70
    folder = tmp_path.resolve()
    found = check(folder, kept_folder("mypy"))
    mistakes = found.pop(folder / MISTAKES.name)
    assert {str(path): dict(problems) for path, problems in found.items()} == {}
    assert {number: problems for number, problems in mistakes.items() if number not in expected} == {}
    assert [f"{number}: {lines[number - 1]}" for number in sorted(expected - mistakes.keys())] == []


def test_the_keyword_arguments_are_the_settings() -> None:
    """Each takes at least the type of the setting itself. (A rule of the history is a named tuple there.)"""
    arguments, checked = get_type_hints(SettingArguments), get_type_hints(Settings)
    assert arguments.keys() == checked.keys()
    for name, annotation in checked.items():
        alternatives = getattr(arguments[name], "__args__", (arguments[name],))
        assert name == "history" or annotation == arguments[name] or annotation in alternatives, name


def test_every_event_has_a_type_of_handler() -> None:
    kinds = [kind.__name__ for kind in Event.__subclasses__()]
    assert [kind for kind in kinds if not hasattr(signatures, f"On{kind}")] == []
