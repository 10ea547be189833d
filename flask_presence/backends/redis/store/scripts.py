"""The Lua scripts that run in Redis.

Rule: each script is one atomic step. `lua/channel` has those of one channel, and `lua/worker` all others. Each file
says what it takes and returns. In a cluster they publish with SPUBLISH, which reaches the shard's own server only.
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
def all_scripts(*, in_cluster: bool = False) -> tuple[Script, ...]:
    """All scripts, in the order of their names."""
    names = [file.name for folder in ("channel", "worker") for file in (_LUA / folder).iterdir()]
    return tuple(script(name.removesuffix(".lua"), in_cluster) for name in sorted(names) if name != "common.lua")


@cache
def script(name: str, in_cluster: bool = False) -> Script:
    """The script called `name`. The text of one in `lua/channel` begins with what it needs of `common.lua`."""
    file = _LUA / "worker" / f"{name}.lua"
    if file.is_file():
        text = file.read_text()
    else:
        text = _with_common((_LUA / "channel" / f"{name}.lua").read_text(), in_cluster=in_cluster)
    if in_cluster:
        text = text.replace("'PUBLISH'", "'SPUBLISH'")
    return Script(name, text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


def _with_common(text: str, *, in_cluster: bool) -> str:
    """The text of a script, after the keys and the functions of `common.lua` that it uses. Those that it does not use
    would cost Redis as much as a command at every call."""
    common = (_LUA / "channel" / "common.lua").read_text()
    if in_cluster:
        announce = (_LUA / "cluster" / "announce.lua").read_text()
        common = _ANNOUNCE.sub(lambda _: announce, common)
    for function in reversed(list(_FUNCTION.finditer(common))):  # a function uses only those before it
        if re.search(rf"\b{function['name']}\(", text):
            text = function[0] + text
    return _KEYS.search(common)[0] + text  # type: ignore[index]


_LUA: Final = files(__package__) / "lua"
_KEYS: Final = re.compile(r"^local state, .*\n", re.MULTILINE)
_FUNCTION: Final = re.compile(r"^local function (?P<name>\w+)\(.*?^end\n", re.MULTILINE | re.DOTALL)
_ANNOUNCE: Final = re.compile(r"^local function announce\(.*?^end\n", re.MULTILINE | re.DOTALL)
