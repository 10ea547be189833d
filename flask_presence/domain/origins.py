"""Which pages may open a socket: the `Origin` of an upgrade against the request's own and the allowed ones.

Law: an origin is scheme, host and port, compared whole (RFC 6454, section 5), also those of apps and extensions
(`capacitor://localhost`); anything that is not one plain origin is refused, unless it is named as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, NamedTuple

ANY: Final = "*"
OPAQUE: Final = ("null", "file://")
"""What browsers send for pages that have no origin: local files, sandboxed frames, some web views."""

_ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*)://(\[[0-9a-f:.]+\]|[^\s/?#@:\[\]\\,]+)(?::(\d{1,5}))?", re.IGNORECASE)
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


class Origin(NamedTuple):
    """Scheme and host in lower case, and the port: that of the scheme where none is given, if it has one."""

    scheme: str
    host: str
    port: int | None


def parse_origin(text: str) -> Origin | None:
    """`text` as an origin; `None` for `null`, a list, a path, or anything else that is none."""
    match = _ORIGIN.fullmatch(text)
    if match is None or "*" in text:
        return None
    return _origin(match)


def says_nothing(entry: str) -> bool:
    """Whether an entry of `PRESENCE_ALLOWED_ORIGINS` lets in pages of which nobody knows where they are from."""
    return entry == ANY or entry in OPAQUE


def check_allowed(text: str) -> None:
    """Raise `ValueError` for an entry of `PRESENCE_ALLOWED_ORIGINS` that can be no origin; a host may begin with
    `*.`."""
    if not says_nothing(text):
        _parse_pattern(text)


def is_allowed(origin: str, scheme: str, host: str, allowed: Iterable[str]) -> bool:
    """Whether a page of `origin` may connect to a request for `scheme` and `host` (with its port)."""
    allowed = list(allowed)
    if ANY in allowed or (origin in OPAQUE and origin in allowed):
        return True
    theirs = parse_origin(origin)
    if theirs is None:
        return False
    patterns = (_parse_pattern(entry) for entry in allowed if not says_nothing(entry))
    return theirs == parse_origin(f"{scheme}://{host}") or any(_matches(theirs, pattern) for pattern in patterns)


def _parse_pattern(text: str) -> Origin:
    match = _ORIGIN.fullmatch(text)
    if match is None or "*" in match[2].removeprefix("*.") or match[2] == "*.":
        raise ValueError(
            f"{text!r} is no origin; write it as a browser sends it, like 'https://example.com', "
            "'http://localhost:5000' or 'capacitor://localhost', with '*.' in front of the host for all below a "
            "domain, 'null' for pages without an origin, or '*' for any"
        )
    return _origin(match)


def _matches(theirs: Origin, pattern: Origin) -> bool:
    if (theirs.scheme, theirs.port) != (pattern.scheme, pattern.port):
        return False
    if pattern.host.startswith("*."):
        return theirs.host.endswith(pattern.host[1:]) and len(theirs.host) >= len(pattern.host)
    return theirs.host == pattern.host


def _origin(match: re.Match[str]) -> Origin:
    scheme = match[1].lower()
    return Origin(scheme, match[2].lower(), int(match[3]) if match[3] else _DEFAULT_PORTS.get(scheme))
