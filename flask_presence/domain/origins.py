"""Decides whether a page may open a WebSocket, by the `Origin` header of its upgrade request.

Rule: an origin is a scheme, a host and a port, and all three must match (RFC 6454, section 5). This includes origins of
apps and browser extensions (`capacitor://localhost`). Anything else is refused, unless the settings name it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, NamedTuple

ANY: Final = "*"
OPAQUE: Final = ("null", "file://")
"""What browsers send for pages without an origin: local files, sandboxed frames, some web views."""

_ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*)://(\[[0-9a-f:.]+\]|[^\s/?#@:\[\]\\,]+)(?::(\d{1,5}))?", re.IGNORECASE)
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


class Origin(NamedTuple):
    """A scheme and a host in lower case, and a port: the one that is given, or else the scheme's default, if any."""

    scheme: str
    host: str
    port: int | None


def parse_origin(text: str) -> Origin | None:
    """`text` as an origin, or `None` if it is not one, such as `null`, a list of origins, or a URL with a path."""
    match = _ORIGIN.fullmatch(text)
    if match is None or "*" in text:
        return None
    return _origin(match)


def allows_unknown_pages(entry: str) -> bool:
    """Whether an entry of `PRESENCE_ALLOWED_ORIGINS` allows pages of unknown origin."""
    return entry == ANY or entry in OPAQUE


def check_allowed(text: str) -> None:
    """Raise `ValueError` if an entry of `PRESENCE_ALLOWED_ORIGINS` is not valid. Its host may begin with `*.`."""
    if not allows_unknown_pages(text):
        _parse_pattern(text)


def is_allowed(origin: str, scheme: str, host: str, allowed: Iterable[str]) -> bool:
    """Whether a page of `origin` may open a WebSocket at `scheme` and `host` (with its port)."""
    allowed = list(allowed)
    if ANY in allowed or (origin in OPAQUE and origin in allowed):
        return True
    page = parse_origin(origin)
    if page is None:
        return False
    patterns = (_parse_pattern(entry) for entry in allowed if not allows_unknown_pages(entry))
    return page == parse_origin(f"{scheme}://{host}") or any(_matches(page, pattern) for pattern in patterns)


def _parse_pattern(text: str) -> Origin:
    match = _ORIGIN.fullmatch(text)
    if match is None or "*" in match[2].removeprefix("*.") or match[2] == "*.":
        raise ValueError(
            f"{text!r} is not an origin; write it as a browser sends it, like 'https://example.com', "
            "'http://localhost:5000' or 'capacitor://localhost'. Put '*.' before the host to allow all its subdomains. "
            "Use 'null' for pages without an origin, or '*' for all pages"
        )
    return _origin(match)


def _matches(page: Origin, pattern: Origin) -> bool:
    if (page.scheme, page.port) != (pattern.scheme, pattern.port):
        return False
    if pattern.host.startswith("*."):
        return page.host.endswith(pattern.host[1:]) and len(page.host) >= len(pattern.host)
    return page.host == pattern.host


def _origin(match: re.Match[str]) -> Origin:
    scheme = match[1].lower()
    return Origin(scheme, match[2].lower(), int(match[3]) if match[3] else _DEFAULT_PORTS.get(scheme))
