"""The data of an event, which is a JSON value natively, and a string in Pusher's frames.

Rule: every native value arrives exactly, and a string that the HTTP API takes arrives byte for byte; except a string
that holds a quoted JSON string, which may lose its quotes.
"""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import Raw

from ..wire import encode

_decode_raw: Final = msgspec.json.Decoder(Raw).decode
_decode_text: Final = msgspec.json.Decoder(str).decode
_WHITE_SPACE: Final = b" \t\r\n"
_BEFORE_DATA: Final = b',"data":'


def is_json(text: str | bytes) -> bool:
    """Whether `text` is a JSON value that can be put into a frame."""
    try:
        payload = text.encode() if isinstance(text, str) else text
        _decode_raw(payload)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return False
    return True


def is_string(value: Raw) -> bool:
    """Whether the JSON value is a string."""
    return bytes(memoryview(value)[:1]) == b'"'


def value_of(text: str) -> Raw:
    """The native value that a data string stands for: the one whose JSON it is, or else the string itself.

    Raises `UnicodeEncodeError` if the string has lone surrogates.
    """
    return Raw(text.encode()) if is_json(text) else Raw(encode(text))


def value_of_any(data: Raw) -> Raw:
    """The native value of a client event's data, which may be any JSON: a string in it is read like by `value_of`."""
    return value_of(_decode_text(data)) if is_string(data) else data


def text_of(value: bytes) -> str:
    """The data string for a native value: its JSON, or, for a string that is not itself JSON, the string."""
    if value.lstrip(_WHITE_SPACE)[:1] == b'"':
        text = _decode_text(value)
        if not is_json(text):
            return text
    return value.decode()


def without_data(payload: bytes, after: bytes) -> tuple[bytes, bytes] | None:
    """A frame of the server's with `null` in place of its data, and the data exactly as the frame has it. `after` is
    what follows the data there. `None` if the frame has no data, or nothing follows it.

    What nests deeper than a decoder can follow is no trouble here. Neither mark can be inside a string, in which quotes
    are escaped, and only strings are around the data.
    """
    start, end = payload.find(_BEFORE_DATA) + len(_BEFORE_DATA), payload.rfind(after)
    if not len(_BEFORE_DATA) <= start <= end:
        return None
    return payload[:start] + b"null" + payload[end:], payload[start:end]
