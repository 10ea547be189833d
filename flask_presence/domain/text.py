"""UTF-8: checks bytes that were received, and makes text that can be sent."""

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


def is_sendable(text: str) -> bool:
    """Whether UTF-8 can encode `text`, because it has no lone surrogates."""
    return sendable(text) == text


def sendable(text: str) -> str:
    """`text` with `?` in place of lone surrogates, which UTF-8 cannot encode."""
    return text if type(text) is str and text.isascii() else text.encode("utf-8", "replace").decode()
