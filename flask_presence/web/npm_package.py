"""The browser client as an npm package, for bundlers: the module, its types, and the hooks for React and Vue.

Rule: its version is that of the installed package, because the client and the server belong together.
"""

from __future__ import annotations

import json
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from .assets import client_source

FOLDER: Final = Path(__file__).parent / "npm"
NAME: Final = "flask-presence"
PEERS: Final = {"react": ">=18", "vue": ">=3.3"}
PYTHON_VERSION: Final = re.compile(
    r"(?:\d+!)?(?P<release>\d+(?:\.\d+)*)(?:(?P<pre>a|b|rc)(?P<pre_number>\d+))?"
    r"(?:\.post(?P<post>\d+))?(?:\.dev(?P<dev>\d+))?(?:\+(?P<local>[a-z\d.]+))?"
)
UNKNOWN_VERSION: Final = "0.0.0"
PRE_RELEASES: Final = {"a": "alpha", "b": "beta", "rc": "rc"}


def package_files() -> dict[str, bytes]:
    """The files of the package by name. `package.json`, which lists the others, comes first."""
    files = {name: client_source(name) for name in ("presence.mjs", "presence.d.mts")}
    files |= {path.name: path.read_bytes() for path in sorted(FOLDER.iterdir())}
    manifest = json.dumps(package_manifest(sorted(files)), indent=2)
    return {"package.json": f"{manifest}\n".encode(), **files}


def package_manifest(names: list[str]) -> dict[str, Any]:
    entries = {".": "presence", "./react": "presence-react", "./vue": "presence-vue"}
    return {
        "name": NAME,
        "version": installed_version(),
        "description": "The browser client of the Flask extension flask-presence, written by `flask presence client`",
        "license": "MIT",
        "private": True,
        "type": "module",
        "sideEffects": False,
        "main": "./presence.mjs",
        "types": "./presence.d.mts",
        "exports": {
            **{path: {"types": f"./{stem}.d.mts", "default": f"./{stem}.mjs"} for path, stem in entries.items()},
            "./package.json": "./package.json",
        },
        "files": names,
        "peerDependencies": PEERS,
        "peerDependenciesMeta": {name: {"optional": True} for name in PEERS},
    }


def installed_version() -> str:
    try:
        return npm_version(version(NAME))
    except PackageNotFoundError:  # the package is on the path, but not installed
        return UNKNOWN_VERSION


def npm_version(python_version: str) -> str:
    """A version of Python (PEP 440, normalized) as one of npm (Semantic Versioning): `1.2rc1` is `1.2.0-rc.1`."""
    parts = PYTHON_VERSION.fullmatch(python_version)
    if parts is None:
        return UNKNOWN_VERSION
    release = [*parts["release"].split("."), "0", "0"][:3]
    before = [PRE_RELEASES[parts["pre"]], parts["pre_number"]] if parts["pre"] else []
    before += ["dev", parts["dev"]] if parts["dev"] else []
    after = ["post", parts["post"]] if parts["post"] else []
    after += parts["local"].split(".") if parts["local"] else []
    return ".".join(release) + (f"-{'.'.join(before)}" if before else "") + (f"+{'.'.join(after)}" if after else "")
