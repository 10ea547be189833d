"""The Lua scripts that run in Redis.

Rule: each script is one atomic step. `lua/channel` has those of one channel, and `lua/worker` all others. Each file
says what it takes and returns.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files


@dataclass(frozen=True, slots=True)
class Script:
    """A script's text, and the SHA1 hash by which Redis calls it once it is loaded."""

    name: str
    text: str
    sha: str


@cache
def all_scripts() -> tuple[Script, ...]:
    """All scripts, in the order of their names."""
    lua = files(__package__) / "lua"
    names = [file.name for folder in ("channel", "worker") for file in (lua / folder).iterdir()]
    return tuple(script(name.removesuffix(".lua")) for name in sorted(names) if name != "common.lua")


@cache
def script(name: str) -> Script:
    """The script called `name`. The text of one in `lua/channel` begins with the functions in `common.lua`."""
    folder = files(__package__) / "lua"
    file = folder / "worker" / f"{name}.lua"
    if file.is_file():
        text = file.read_text()
    else:
        text = "".join((folder / "channel" / part).read_text() for part in ("common.lua", f"{name}.lua"))
    return Script(name, text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())
