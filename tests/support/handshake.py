"""WebSocket handshakes: with any headers at all, and those that the server refuses."""

from __future__ import annotations

import json
import socket
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from .client import client
from .server import Server

UPGRADE = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


def refusal(server: Server, user: str | None = None, **options: Any) -> tuple[int, str]:
    """The status and the message with which the server refuses a connection; the options are those of `client`."""
    with pytest.raises(InvalidStatus) as caught, client(server, user, **options):
        pass
    body = json.loads(caught.value.response.body or b"{}")
    return caught.value.response.status_code, body["error"]["message"]


def raw_status(server: Server, headers: dict[str, str], path: str = "/presence/ws") -> int:
    return raw_upgrade(server, headers, path)[0]


def raw_upgrade(server: Server, headers: dict[str, str], path: str = "/presence/ws") -> tuple[int, Any]:
    """The status of a GET with exactly these headers, and the answer's body if it is JSON."""
    lines = "".join(f"{key}: {value}\r\n" for key, value in headers.items())
    host = "" if "Host" in headers else f"Host: {server.host}\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as raw:
        raw.sendall(f"GET {path} HTTP/1.1\r\n{host}{lines}\r\n".encode())
        with raw.makefile("rb") as answer:
            status = int(answer.readline().split()[1])
            head: dict[bytes, bytes] = {}
            while (line := answer.readline().strip()) and status != 101:
                name, _, value = line.partition(b":")
                head[name.lower()] = value.strip()
            if not head.get(b"content-type", b"").startswith(b"application/json"):
                return status, None
            return status, json.loads(answer.read(int(head[b"content-length"])))
