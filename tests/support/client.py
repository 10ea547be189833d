"""A WebSocket client that speaks the protocol, over the `websockets` library."""

from __future__ import annotations

import itertools
import json
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from socket import SHUT_RDWR
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from .server import DEADLINE, Server


class Client:
    """A connection. Every request gets its own `requestId`, and a frame that answers no request is an event."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self._ids = itertools.count(1)
        self._events: deque[dict[str, Any]] = deque()
        self.connected: dict[str, Any] = self._read()
        self.id: str = self.connected["clientId"]

    def request(self, type: str, **fields: Any) -> dict[str, Any]:
        """Send a request, and return its answer without the `requestId`."""
        mine = f"req-{next(self._ids)}"
        self.send({"type": type, "requestId": mine, **fields})
        while True:
            frame = self._read()
            if frame.get("requestId") == mine:
                del frame["requestId"]
                return frame
            self._events.append(frame)

    def join(self, channel: str, **user_info: Any) -> dict[str, Any]:
        """Join, which must succeed."""
        fields = {"userInfo": user_info} if user_info else {}
        answer = self.request("join", channel=channel, **fields)
        assert answer["type"] == "channel:joined", answer
        return answer

    def say(self, channel: str, data: Any, **fields: Any) -> dict[str, Any]:
        answer = self.request("channel:message", channel=channel, data=data, **fields)
        assert answer["type"] == "channel:sent", answer
        return answer

    def update(self, channel: str, **user_info: Any) -> dict[str, Any]:
        answer = self.request("channel:update", channel=channel, userInfo=user_info)
        assert answer["type"] == "channel:updated", answer
        return answer

    def event(self) -> dict[str, Any]:
        """The next event."""
        return self._events.popleft() if self._events else self._read()

    def raw(self, frame: str | bytes) -> dict[str, Any]:
        """Send a frame as it is, and return the next frame."""
        self.socket.send(frame)
        return self._read()

    def send(self, frame: Any) -> None:
        self.socket.send(json.dumps(frame))

    def silent(self) -> bool:
        """Whether no event comes before the answer to a ping."""
        self.request("ping")
        return not self._events

    def events(self) -> list[dict[str, Any]]:
        """All events that come before the answer to a ping."""
        self.request("ping")
        events, self._events = list(self._events), deque()
        return events

    def cut(self) -> None:
        """Lose the connection without a close frame, even while a thread reads from it."""
        self.socket.socket.shutdown(SHUT_RDWR)

    def wait_closed(self) -> tuple[int, str]:
        """Wait until the server closes, and return its code and reason."""
        while True:
            try:
                self._events.append(self._read())
            except ConnectionClosed as closed:
                return (closed.rcvd.code, closed.rcvd.reason) if closed.rcvd else (1006, "")

    def _read(self) -> dict[str, Any]:
        frame: dict[str, Any] = json.loads(self.socket.recv(timeout=DEADLINE))
        return frame


@contextmanager
def client(
    server: Server,
    user: str | None = None,
    *,
    token: str | None = None,
    query: str = "",
    headers: dict[str, str] | None = None,
    claims: dict[str, Any] | None = None,
    **options: Any,
) -> Iterator[Client]:
    """A connection to the server, as `user` (with a token of its app), with a `token`, or anonymous."""
    if user is not None:
        token = server.token(user, **(claims or {}))
    query = query or (f"?token={token}" if token is not None else "")
    url = f"ws{server.scheme.removeprefix('http')}://{server.host}/presence/ws{query}"
    with connect(
        url,
        additional_headers=headers,
        open_timeout=DEADLINE,
        ping_interval=None,
        compression=None,
        max_queue=None,
        **options,
    ) as socket:
        yield Client(socket)
