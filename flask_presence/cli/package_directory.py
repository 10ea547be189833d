"""The directory into which `flask presence client` writes the npm package.

Rule: it never overwrites what the command did not write.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import click

MANIFEST: Final = "package.json"


def write_package(directory: Path, files: Mapping[str, bytes]) -> list[str]:
    """Write the files, and remove those of an earlier version that are not among them. Return the names that changed.

    `files` begins with `package.json`, so that an interrupted command can be repeated. A file whose contents are right
    is not written. Raises `ClickException` if the directory holds something else, or cannot be written.
    """
    try:
        earlier = _check(directory, json.loads(files[MANIFEST])["name"])
        directory.mkdir(parents=True, exist_ok=True)
        changed = [name for name in files if _write(directory / name, files[name])]
        for name in sorted(earlier - files.keys()):
            (directory / name).unlink(missing_ok=True)
            changed.append(name)
    except OSError as problem:
        raise click.ClickException(f"Cannot write to {directory}: {problem.strerror or problem}") from None
    return changed


def _check(directory: Path, name: str) -> set[str]:
    """The files that an earlier run has written. Raises `ClickException` if there is something else."""
    if not directory.exists():
        return set()
    if not directory.is_dir():
        raise click.ClickException(f"{directory} is a file. Name a directory that is new, or empty.")
    present = {path.name for path in directory.iterdir()}
    manifest = _read_manifest(directory / MANIFEST) if MANIFEST in present else {}
    if present and manifest.get("name") != name:
        named = ", ".join(sorted(present)[:3]) + (", …" if len(present) > 3 else "")
        raise click.ClickException(
            f"{directory} holds something else ({named}), which this command does not overwrite. Name a directory that "
            f"is new, empty, or was written by this command, for example {directory / 'presence-client'}."
        )
    listed = manifest.get("files", [])
    return {one for one in listed if isinstance(one, str) and one in present} if isinstance(listed, list) else set()


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        manifest = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return manifest if isinstance(manifest, dict) else {}


def _write(path: Path, content: bytes) -> bool:
    if path.is_file() and path.read_bytes() == content:
        return False
    path.write_bytes(content)
    return True
