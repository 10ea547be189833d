"""Text and its bytes: what may go out as UTF-8, and what has come in as such."""

from __future__ import annotations


def is_utf8(payload: bytes) -> bool:
    """Whether `payload` is valid UTF-8."""
    if payload.isascii():
        return True
    try:
        payload.decode()
    except UnicodeDecodeError:
        return False
    return True


def sendable(text: str) -> str:
    """`text` with `?` for lone surrogates, which have no UTF-8."""
    return text.encode("utf-8", "replace").decode()
