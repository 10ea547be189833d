"""The servers that a URL names, for instance Sentinels.

Rule: no error repeats what a URL says, because it may be a password.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

_HOST: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s:\[\]/?#@,]+)(?::(\d{1,5}))?")


class Server(NamedTuple):
    """The host and port of a server."""

    host: str
    port: int


def parse_server(text: str, default_port: int) -> Server:
    """Read a host, with or without a port. Raises a `ValueError` without a text."""
    found = _HOST.fullmatch(text)
    if found is None or int(found[2] or default_port) > 65535:
        raise ValueError
    return Server(found[1].strip("[]"), int(found[2] or default_port))
