"""Reads the bodies of requests that are not an app's own.

Rule: no more is read than a request may need, whatever limit the app has.
"""

from __future__ import annotations

from flask import Request
from werkzeug.exceptions import RequestEntityTooLarge


def read_body(request: Request, limit: int) -> bytes:
    """The body, of at most `limit` bytes; `b""` if the app has read it already, as a form. Raises
    `RequestEntityTooLarge`."""
    if (request.content_length or 0) > limit:
        raise RequestEntityTooLarge
    parts, size = [], 0
    while part := request.stream.read(limit + 1 - size):
        parts.append(part)
        size += len(part)
        if size > limit:
            raise RequestEntityTooLarge
    return b"".join(parts) if parts else request.get_data()
