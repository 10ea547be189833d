"""Which pages may open a socket: the `Origin` of an upgrade against the request's own and the allowed ones.

Law: an origin is scheme, host and port, compared whole (RFC 6454, section 5); anything that is not one
plain origin is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, NamedTuple

ANY: Final = "*"

_ORIGIN = re.compile(r"(https?)://(\[[0-9a-f:.]+\]|[^\s/?#@:\[\]\\,]+)(?::(\d{1,5}))?", re.IGNORECASE)
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


class Origin(NamedTuple):
    """Scheme and host in lower case, and the port, given or not."""

    scheme: str
    host: str
    port: int


def parse_origin(text: str) -> Origin | None:
    """`text` as an origin; `None` for `null`, a list, a path, or anything else that is none."""
    match = _ORIGIN.fullmatch(text)
    if match is None or "*" in text:
        return None
    return _origin(match)


def parse_allowed(text: str) -> Origin | None:
    """An entry of `PRESENCE_ALLOWED_ORIGINS`: `None` for `"*"`; a host may begin with `*.`.

    Raises `ValueError` for what can be no origin.
    """
    if text == ANY:
        return None
    match = _ORIGIN.fullmatch(text)
    if match is None or "*" in match[2].removeprefix("*.") or match[2] == "*.":
        raise ValueError(
            f"{text!r} is no origin; write it as a browser sends it, like 'https://example.com' or "
            "'http://localhost:5000', with '*.' in front of the host for all below a domain, or '*' for any"
        )
    return _origin(match)


def is_allowed(origin: str, scheme: str, host: str, allowed: Iterable[str]) -> bool:
    """Whether a page of `origin` may connect to a request for `scheme` and `host` (with its port)."""
    theirs = parse_origin(origin)
    if theirs is None:
        return ANY in allowed
    return theirs == parse_origin(f"{scheme}://{host}") or any(_matches(theirs, entry) for entry in allowed)


def _matches(theirs: Origin, entry: str) -> bool:
    pattern = parse_allowed(entry)
    if pattern is None:
        return True
    if (theirs.scheme, theirs.port) != (pattern.scheme, pattern.port):
        return False
    if pattern.host.startswith("*."):
        return theirs.host.endswith(pattern.host[1:]) and len(theirs.host) >= len(pattern.host)
    return theirs.host == pattern.host


def _origin(match: re.Match[str]) -> Origin:
    scheme = match[1].lower()
    return Origin(scheme, match[2].lower(), int(match[3]) if match[3] else _DEFAULT_PORTS[scheme])
