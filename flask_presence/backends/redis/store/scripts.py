"""The Lua scripts that run in Redis.

Rule: each script is one atomic step. `lua/channel` has those of one channel, and `lua/worker` all others. Each file
says what it takes and returns.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Final


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
    """The script called `name`. The text of one in `lua/channel` begins with what it needs of `common.lua`."""
    folder = files(__package__) / "lua"
    file = folder / "worker" / f"{name}.lua"
    text = file.read_text() if file.is_file() else _with_common((folder / "channel" / f"{name}.lua").read_text())
    return Script(name, text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


def _with_common(text: str) -> str:
    """The text of a script, after the keys and the functions of `common.lua` that it uses. Those that it does not use
    would cost Redis as much as a command at every call."""
    common = (files(__package__) / "lua" / "channel" / "common.lua").read_text()
    for function in reversed(list(_FUNCTION.finditer(common))):  # a function uses only those before it
        if re.search(rf"\b{function['name']}\(", text):
            text = function[0] + text
    return _KEYS.search(common)[0] + text  # type: ignore[index]


_KEYS: Final = re.compile(r"^local state, .*\n", re.MULTILINE)
_FUNCTION: Final = re.compile(r"^local function (?P<name>\w+)\(.*?^end\n", re.MULTILINE | re.DOTALL)
