"""An echo server on the transport alone, for a conformance suite: `python -m tests.support.echo FD`."""

from __future__ import annotations

import base64
import hashlib
import re
import sys
from typing import Any

import gevent
from gevent.server import StreamServer
from gevent.socket import socket as gevent_socket

from flask_presence.loops.gevent_loop import GeventLoop
from flask_presence.transport.codec import BINARY, TEXT, encode_frame
from flask_presence.transport.connection import Connection
from flask_presence.transport.group import ConnectionGroup
from flask_presence.transport.outbox import Limits
from flask_presence.transport.takeover import _detach

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Echo:
    """A frame receiver that sends every message back."""

    connection: Connection
    id = "echo"
    user_id = None

    def receive(self, payload: bytes, *, is_text: bool) -> None:
        self.connection.answer(encode_frame(payload, TEXT if is_text else BINARY))

    def proceed(self) -> None:
        """Nothing has waited."""

    def admit(self) -> bool:
        return True

    def closed(self, code: int, reason: Any) -> None:
        """Nothing to clean up."""


def main(fd: int) -> None:
    listener = gevent_socket(fileno=fd)
    listener.setblocking(False)
    limits = Limits(max_message_size=1 << 24, max_outbox=1 << 26)
    group = ConnectionGroup(GeventLoop(), limits)

    def serve(client: Any, _address: Any) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            byte = client.recv(1)
            if not byte:
                return
            head += byte
        match = re.search(rb"sec-websocket-key: *(\S+)", head, re.IGNORECASE)
        assert match is not None
        accept = base64.b64encode(hashlib.sha1(match[1] + GUID).digest())
        client.sendall(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
        )
        plain = _detach(client)
        plain.setblocking(False)
        echo = Echo()
        echo.connection = Connection(group, plain, echo)
        echo.connection.start()

    server = StreamServer(listener, serve)
    gevent.signal_handler(15, server.stop)
    server.serve_forever()


if __name__ == "__main__":
    main(int(sys.argv[1]))
