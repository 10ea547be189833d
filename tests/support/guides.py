"""Writes the apps of a guide into a folder, as a reader would copy them from it.

Rule: every block of code in a guide is used, so that none can be wrong unnoticed. If the first line of a block is a
comment with a path, the block is that file. A `diff` changes a file of an earlier block. A `python` block without a
path is added to the last Python file.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from .documents import ROOT, Block, blocks_of

GUIDES = ("tutorial.md", "logins.md", "recipes.md", "moving-from-flask-socketio.md", "moving-from-pusher.md")
"""The documents in `docs` whose blocks are the files of apps. `tests/guides` runs them."""

_HEAD = re.compile(r"(?:# |\{# |// )([\w./-]+\.\w+)(?: #\})?\n")


def path_of(block: Block) -> str | None:
    """The path that the first line of a block names."""
    found = _HEAD.match(block.text)
    return found[1] if found else None


def files_of(document: Path) -> dict[str, str]:
    """The files in a guide, by path."""
    files: dict[str, str] = {}
    last_python = ""
    for block in blocks_of(document):
        path = path_of(block)
        if block.language == "diff":
            path, text = _patched(files, block)
            files[path] = text
        elif path is not None:
            assert path not in files, f"{block.name}: {path} is there already"
            files[path] = block.text
        elif block.language == "python":
            assert last_python, f"{block.name}: there is no file to add this to"
            files[last_python] += f"\n{block.text}"
            continue
        else:
            assert block.language in ("console", "text"), f"{block.name} is in no file"
            continue
        if path.endswith(".py"):
            last_python = path
    return files


def _patched(files: dict[str, str], block: Block) -> tuple[str, str]:
    """The path and the new text of the file that a diff changes. The old lines of a hunk must be there once."""
    head, *hunks = re.split(r"^@@\n", block.text, flags=re.MULTILINE)
    path = re.fullmatch(r"--- (\S+)\n\+\+\+ \1\n", head)
    assert path is not None, f"{block.name}: {head!r} names no file"
    text = files[path[1]]
    for hunk in hunks:
        lines = hunk.splitlines(keepends=True)
        assert all(line[0] in " -+" for line in lines), f"{block.name}: {hunk!r}"
        old, new = ("".join(line[1:] for line in lines if line[0] in kept) for kept in (" -", " +"))
        assert text.count(old) == 1, f"{block.name}: {path[1]} does not have this once:\n{old}"
        text = text.replace(old, new)
    return path[1], text


def write(files: dict[str, str], folder: Path) -> None:
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")


def run(folder: Path, *arguments: str, **environ: str) -> str:
    """The output of `python` with these arguments in a folder. It must succeed."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"} | environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def commands_of(document: Path) -> list[str]:
    """The lines of the `console` blocks, without their prompt."""
    consoles = [block.text for block in blocks_of(document) if block.language == "console"]
    return [line.removeprefix("$ ") for text in consoles for line in text.splitlines()]
