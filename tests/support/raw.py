"""Raw bytes on a socket, for clients that behave as no library allows."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from .server import DEADLINE

ZERO_MASK = bytes(4)


def upgrade_request(port: int, token: str | None = None) -> bytes:
    """A handshake for the socket of a server on this host."""
    query = f"?token={token}" if token else ""
    return (
        f"GET /presence/ws{query} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    ).encode()


def greet(raw: socket.socket, port: int, token: str | None = None) -> None:
    """Do the handshake on a connected socket, and read the first frame."""
    raw.sendall(upgrade_request(port, token))
    head = b""
    while b'"connected"' not in head:
        part = raw.recv(4096)
        assert part, f"the server closed the connection after {head!r}"
        head += part
    assert b" 101 " in head


def upgraded(port: int, token: str | None = None) -> socket.socket:
    """A socket after the handshake and the first frame, with nothing left to read."""
    raw = socket.create_connection(("127.0.0.1", port), timeout=DEADLINE)
    greet(raw, port, token)
    return raw


@contextmanager
def small_socket(port: int) -> Iterator[socket.socket]:
    """A connected socket with a small buffer, so that the server soon notices if nobody reads from it."""
    with socket.socket() as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.settimeout(DEADLINE)
        raw.connect(("127.0.0.1", port))
        yield raw


def masked(payload: bytes, opcode: int = 1, *, final: bool = True, mask: bytes = ZERO_MASK) -> bytes:
    """A client's frame of less than 64 KiB."""
    size = len(payload)
    length = bytes((0x80 | size,)) if size < 126 else bytes((0xFE,)) + size.to_bytes(2, "big")
    if mask != ZERO_MASK:
        payload = bytes(byte ^ mask[position % 4] for position, byte in enumerate(payload))
    return bytes((final << 7 | opcode,)) + length + mask + payload


def split_frames(data: bytes) -> tuple[list[tuple[int, bytes]], bytes]:
    """The opcodes and payloads of the whole frames in `data`, which a server sent, and the rest of `data`."""
    frames, position = [], 0
    while len(data) - position >= 2:
        size, start = data[position + 1], position + 2
        if size >= 126:
            start += 2 if size == 126 else 8
            size = int.from_bytes(data[position + 2 : start], "big")
        if len(data) < start + size:
            break
        frames.append((data[position] & 15, data[start : start + size]))
        position = start + size
    return frames, data[position:]
