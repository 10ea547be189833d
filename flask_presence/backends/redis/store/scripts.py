"""The Lua scripts, as Redis takes them.

Law: each is one change, of one channel or of the workers, whole or not at all; the files say what they take and give.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files


@dataclass(frozen=True, slots=True)
class Script:
    """The text, and the SHA1 by which Redis knows it once it has it."""

    name: str
    text: str
    sha: str


@cache
def all_scripts() -> tuple[Script, ...]:
    """Every script, by name."""
    lua = files(__package__) / "lua"
    names = [file.name for folder in ("channel", "worker") for file in (lua / folder).iterdir()]
    return tuple(script(name.removesuffix(".lua")) for name in sorted(names) if name != "common.lua")


@cache
def script(name: str) -> Script:
    """The script called `name`. Those in `lua/channel` come behind what they share; those in `lua/worker` share
    nothing."""
    folder = files(__package__) / "lua"
    file = folder / "worker" / f"{name}.lua"
    if file.is_file():
        text = file.read_text()
    else:
        text = "".join((folder / "channel" / part).read_text() for part in ("common.lua", f"{name}.lua"))
    return Script(name, text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())
