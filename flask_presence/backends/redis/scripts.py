"""The Lua scripts, as Redis takes them.

Law: each is one change, of one channel or of the nodes, whole or not at all; the files say what they take and give.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Final

OF_NODES: Final = frozenset(
    {"beat", "claim", "exit", "fold", "hold", "order", "post", "probe", "survey", "take", "tally"}
)
"""Scripts that are about nodes, and have no channel's keys."""


@dataclass(frozen=True, slots=True)
class Script:
    """The text, and the SHA1 by which Redis knows it once it has it."""

    name: str
    text: str
    sha: str


@cache
def script(name: str) -> Script:
    """The script in `lua/{name}.lua`, behind what all share."""
    folder = files(__package__) / "lua"
    text = (folder / f"{name}.lua").read_text()
    if name not in OF_NODES:
        text = (folder / "common.lua").read_text() + text
    return Script(name, text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())
