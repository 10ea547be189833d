"""Keeps what a `user_loader` may read of an upgrade request, to ask the loader again while the connection is open."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any, Final

import msgspec

_KEPT: Final = frozenset(
    ("PATH_INFO", "SCRIPT_NAME", "QUERY_STRING", "SERVER_NAME", "SERVER_PORT", "REMOTE_ADDR", "wsgi.url_scheme")
)
_HANDSHAKE_HEADERS: Final = ("HTTP_SEC_WEBSOCKET_", "HTTP_UPGRADE", "HTTP_CONNECTION")


def encode_upgrade(environ: Mapping[str, Any]) -> bytes:
    """The path, the query, the headers and the addresses of a request, compressed to a few hundred bytes."""
    kept = {
        key: value
        for key, value in environ.items()
        if key in _KEPT or (key.startswith("HTTP_") and not key.startswith(_HANDSHAKE_HEADERS))
    }
    return zlib.compress(msgspec.json.encode(kept), 1)


def decode_upgrade(upgrade: bytes) -> dict[str, Any]:
    """The part of a WSGI environ that `encode_upgrade` has encoded."""
    environ: dict[str, Any] = msgspec.json.decode(zlib.decompress(upgrade))
    return environ
