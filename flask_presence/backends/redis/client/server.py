"""The servers that a URL names, for instance Sentinels, and what they may say.

Rule: no error repeats what a URL says, because it may be a password.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple
from urllib.parse import SplitResult, urlsplit

_HOST: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s:\[\]/?#@,]+)(?::(\d{1,5}))?")


class Server(NamedTuple):
    """The host and port of a server."""

    host: str
    port: int


def split_url(url: str, default_port: int) -> tuple[SplitResult, str, list[Server]]:
    """Take a URL with several hosts apart. Returns its parts, the user and password with their `@`, and the servers.
    Raises a `ValueError` without a text."""
    scheme, _, rest = url.partition("://")
    netloc = re.split("[/?#]", rest, maxsplit=1)[0]
    userinfo, at, hosts = netloc.rpartition("@")
    # Python refuses a host in brackets that is not the only one.
    parts = urlsplit(f"{scheme}://{userinfo}{at}host{rest.removeprefix(netloc)}")
    if "@" in parts.path + parts.query or parts.fragment:
        raise ValueError
    return parts, userinfo + at, [parse_server(host, default_port) for host in hosts.split(",")]


def parse_server(text: str, default_port: int) -> Server:
    """Read a host, with or without a port. Raises a `ValueError` without a text."""
    found = _HOST.fullmatch(text)
    if found is None or int(found[2] or default_port) > 65535:
        raise ValueError
    return Server(found[1].strip("[]"), int(found[2] or default_port))


def hide_arguments(problem: Exception) -> None:
    """Take the arguments of a command out of an error's text. A server that does not know AUTH repeats the password."""
    text, mark, _ = str(problem).partition(", with args beginning with")
    if mark:
        problem.args = (text,)
