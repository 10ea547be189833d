"""Encodes and decodes RFC 6455 frames, as a server.

Rule: sans IO. A `Decoder` takes received bytes in pieces of any size and returns whole messages. It never buffers what
it is going to refuse. Sizes are in bytes.
"""

from __future__ import annotations

import codecs
from typing import Final, NamedTuple

from ..domain.text import is_utf8

CONTINUATION: Final = 0x0
TEXT: Final = 0x1
BINARY: Final = 0x2
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA

MAX_CONTROL_PAYLOAD: Final = 125
MAX_REASON: Final = 123
"""The maximum size of a close reason."""
MAX_FRAGMENTS: Final = 1024

NO_STATUS: Final = 1005
ABNORMAL: Final = 1006

_TRANSLATE_ABOVE: Final = 1024
"""The size from which unmasking with translation tables is faster."""
_XOR_TABLES: Final = [bytes(byte ^ key for byte in range(256)) for key in range(256)]


Message = tuple[int, bytes]
"""A whole message, or a control frame: its opcode and its unmasked payload.

The opcode of a fragmented message is that of its first frame. The payload of a `TEXT` message is valid UTF-8; that of a
`CLOSE` frame is empty, or a valid code and reason.
"""


class Failure(NamedTuple):
    """Why decoding has stopped: the close code that RFC 6455, section 7.4 demands, and a reason."""

    code: int
    reason: str


def encode_frame(payload: bytes, opcode: int = TEXT) -> bytes:
    """Encode one final, unmasked frame (RFC 6455, section 5.2)."""
    size = len(payload)
    if size < 126:
        return bytes((0x80 | opcode, size)) + payload
    if size < 65536:
        return bytes((0x80 | opcode, 126, size >> 8, size & 0xFF)) + payload
    return bytes((0x80 | opcode, 127)) + size.to_bytes(8, "big") + payload


def encode_close(code: int, reason: str = "") -> bytes:
    """Encode a close frame. The reason is cut between characters to what fits. `NO_STATUS` makes a frame without a
    code."""
    if code == NO_STATUS:
        return encode_frame(b"", CLOSE)
    text = reason.encode("utf-8", "replace")[:MAX_REASON].decode("utf-8", "ignore").encode()
    return encode_frame(code.to_bytes(2, "big") + text, CLOSE)


def parse_close(payload: bytes) -> tuple[int, str]:
    """The code and the reason of a close frame that the decoder has accepted. `NO_STATUS` if it has no code."""
    if not payload:
        return NO_STATUS, ""
    return int.from_bytes(payload[:2], "big"), payload[2:].decode()


def is_valid_close_code(code: int) -> bool:
    """Whether a peer may send `code` (RFC 6455, section 7.4, and the IANA registry)."""
    return 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999


def unmask(payload: bytes, mask: bytes) -> bytes:
    """XOR `payload` with the four bytes of `mask`, repeated (RFC 6455, section 5.3)."""
    size = len(payload)
    if size > _TRANSLATE_ABOVE:
        plain = bytearray(size)
        for offset in range(4):
            plain[offset::4] = payload[offset::4].translate(_XOR_TABLES[mask[offset]])
        return bytes(plain)
    key = (mask * ((size >> 2) + 1))[:size]
    return (int.from_bytes(payload, "little") ^ int.from_bytes(key, "little")).to_bytes(size, "little")


class Decoder:
    """Decodes what one connection receives.

    `failure` is set when the peer breaks a rule, or closes. Messages that were complete before that are still returned,
    and nothing is decoded after it. `max_size` bounds a message, including all its fragments.
    """

    __slots__ = ("_buffer", "_fragments", "_need", "_opcode", "_size", "_utf8", "failure", "max_size")

    def __init__(self, max_size: int) -> None:
        self.max_size = max_size
        self.failure: Failure | None = None
        self._buffer: bytearray | None = None  # an incomplete frame
        self._need = 2  # how many bytes the buffer must have before it is decoded again
        self._opcode = CONTINUATION  # of the fragmented message that is being received
        self._fragments: list[bytes] | None = None
        self._size = 0
        self._utf8: codecs.IncrementalDecoder | None = None

    def feed(self, data: bytes) -> list[Message]:
        """Decode more bytes. Returns the messages and control frames that they complete, in order."""
        if self._buffer is not None:
            self._buffer += data
            if len(self._buffer) < self._need:
                return []
            data, self._buffer = bytes(self._buffer), None
        messages: list[Message] = []
        position, end = 0, len(data)
        while end - position >= 2:
            first, second = data[position], data[position + 1]
            size, start = second & 0x7F, position + 6
            simple = (first == 0x81 or first == 0x82) and 0x80 <= second <= 0xFD and self._fragments is None
            if size > MAX_CONTROL_PAYLOAD:
                start += 2 if size == 126 else 8
                if end < start - 4:
                    if not self._refuse_head(first, second):
                        self._need = start - 4 - position
                    break
                size = int.from_bytes(data[position + 2 : start - 4], "big")
            if (not simple or size > self.max_size) and self._refuse_frame(first, second, size):
                break
            if end < start + size:
                self._need = start + size - position
                break
            payload = unmask(data[start : start + size], data[start - 4 : start])
            position = start + size
            if simple:
                if first == 0x81 and not is_utf8(payload):
                    self._fail(1007, "Invalid UTF-8")
                    break
                messages.append((first & 0x0F, payload))
            else:
                self._accept(first & 0x0F, first >= 0x80, payload, messages)
                if self.failure is not None:
                    break
            self._need = 2
        if position < end and self.failure is None:
            self._buffer = bytearray(data[position:])
        return messages

    def _refuse_head(self, first: int, second: int) -> bool:
        """Check the first two bytes of a frame, before waiting for more. Returns whether the frame is refused."""
        opcode, final, size = first & 0x0F, first & 0x80, second & 0x7F
        if first & 0x70:
            return self._fail(1002, "Reserved bits are set")
        if not second & 0x80:
            return self._fail(1002, "A client's frames must be masked")
        if opcode in (CLOSE, PING, PONG):
            if not final:
                return self._fail(1002, "A control frame must not be fragmented")
            if size > MAX_CONTROL_PAYLOAD:
                return self._fail(1002, "A control frame must not exceed 125 bytes")
            return False
        if opcode not in (CONTINUATION, TEXT, BINARY):
            return self._fail(1002, "Reserved opcode")
        if opcode == CONTINUATION and self._fragments is None:
            return self._fail(1002, "A continuation without a message to continue")
        if opcode != CONTINUATION and self._fragments is not None:
            return self._fail(1002, "A new message inside a fragmented one")
        return False

    def _refuse_frame(self, first: int, second: int, size: int) -> bool:
        """Check a frame's head and size. Returns whether the frame is refused."""
        if self._refuse_head(first, second):
            return True
        short = second & 0x7F
        if (short == 126 and size < 126) or (short == 127 and (size < 65536 or size >> 63)):
            return self._fail(1002, "A length must use the fewest bytes")
        if first & 0x08:
            return False
        if size + self._size > self.max_size:
            return self._fail(1009, f"A message must not exceed {self.max_size} bytes")
        if self._fragments is not None and len(self._fragments) >= MAX_FRAGMENTS:
            return self._fail(1008, f"A message must not have more than {MAX_FRAGMENTS} fragments")
        return False

    def _accept(self, opcode: int, final: bool, payload: bytes, messages: list[Message]) -> None:
        if opcode == CLOSE:
            if self._check_close(payload):
                messages.append((CLOSE, payload))
                self.failure = Failure(NO_STATUS, "Closed")
        elif opcode in (PING, PONG):
            messages.append((opcode, payload))
        elif final and self._fragments is None:
            if opcode == TEXT and not is_utf8(payload):
                self._fail(1007, "Invalid UTF-8")
            else:
                messages.append((opcode, payload))
        else:
            self._continue(opcode, final, payload, messages)

    def _continue(self, opcode: int, final: bool, payload: bytes, messages: list[Message]) -> None:
        if self._fragments is None:
            self._opcode, self._fragments = opcode, []
            self._utf8 = codecs.getincrementaldecoder("utf-8")() if opcode == TEXT else None
        self._fragments.append(payload)
        self._size += len(payload)
        if self._utf8 is not None:
            try:
                self._utf8.decode(payload, final)
            except UnicodeDecodeError:
                self._fail(1007, "Invalid UTF-8")
                return
        if final:
            messages.append((self._opcode, b"".join(self._fragments)))
            self._fragments, self._utf8, self._size = None, None, 0

    def _check_close(self, payload: bytes) -> bool:
        if not payload:
            return True
        if len(payload) == 1 or not is_valid_close_code(int.from_bytes(payload[:2], "big")):
            return not self._fail(1002, "Invalid close code")
        return is_utf8(payload[2:]) or not self._fail(1007, "Invalid UTF-8 in a close reason")

    def _fail(self, code: int, reason: str) -> bool:
        self.failure = Failure(code, reason)
        self._buffer = self._fragments = self._utf8 = None
        return True
