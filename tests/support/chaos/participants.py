"""A client of the chaos: it replays its events, and notes those that are impossible."""

from __future__ import annotations

import itertools
import json
import queue
import threading
import time
from collections import Counter
from contextlib import ExitStack
from typing import Any, NamedTuple

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from ..server import DEADLINE, Server


class Answer(NamedTuple):
    """The frame that answers a request, `None` if the connection ended first, and the seconds that it took."""

    frame: dict[str, Any] | None
    seconds: float


class Participant:
    """A connection of a user. `views` has the members of each channel that it is in, by id."""

    def __init__(self, server: Server, user: str, token: str) -> None:
        self.server = server
        self.user = user
        self.views: dict[str, dict[str, Any]] = {}
        self.wrong: list[str] = []
        self.heard: Counter[str] = Counter()
        self.open = True
        self.has_left = False
        self._answers: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._ids = itertools.count(1)
        self._lock = threading.Lock()
        self._stack = ExitStack()
        self._socket = self._stack.enter_context(
            connect(
                f"ws://{server.host}/presence/ws?token={token}",
                open_timeout=DEADLINE,
                ping_interval=None,
                compression=None,
                max_queue=None,
            )
        )
        json.loads(self._socket.recv(DEADLINE))
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def request(self, type: str, **fields: Any) -> Answer:
        with self._lock:
            began = time.monotonic()
            frame = self._request(type, fields)
            return Answer(frame, time.monotonic() - began)

    def close(self) -> None:
        self.has_left = True
        self._stack.close()
        self._reader.join(DEADLINE)

    def _request(self, type: str, fields: dict[str, Any]) -> dict[str, Any] | None:
        request_id = next(self._ids)
        try:
            self._socket.send(json.dumps({"type": type, "requestId": request_id, **fields}))
        except ConnectionClosed:
            return None
        try:
            answer = self._answers.get(timeout=DEADLINE)
        except queue.Empty:
            self.wrong.append(f"no answer to {type} {fields}")
            return None
        if answer is not None and answer.get("requestId") != request_id:
            self.wrong.append(f"an answer to another request: {answer}")
        return answer

    def _read(self) -> None:
        try:
            while True:
                self._handle(json.loads(self._socket.recv()))
        except (ConnectionClosed, OSError):
            self.open = False
            self._answers.put(None)

    def _handle(self, frame: dict[str, Any]) -> None:
        kind, channel = frame["type"], frame.get("channel", "")
        if kind == "channel:joined":
            self.views[channel] = {member["id"]: member for member in frame.get("members", [])}
            if channel.startswith("presence-") and self.views[channel].get(self.user) != frame["me"]:
                self.wrong.append(f"a snapshot without this member: {frame}")
        elif kind == "channel:left":
            self.views.pop(channel, None)
        elif kind == "channel:updated":
            self.views[channel][self.user] = frame["member"]
        elif kind == "channel:message":
            self._hear(channel, frame)
        elif kind.startswith("presence:"):
            self._replay(kind, channel, frame["member"])
        if "requestId" in frame:
            self._answers.put(frame)

    def _hear(self, channel: str, frame: dict[str, Any]) -> None:
        self.heard[f"{channel} {frame['data']}"] += 1
        if channel not in self.views or self.heard[f"{channel} {frame['data']}"] > 1:
            self.wrong.append(f"a message twice, or from a channel not joined: {frame}")

    def _replay(self, kind: str, channel: str, member: dict[str, Any]) -> None:
        view = self.views.get(channel)
        if view is None or (member["id"] in view) == (kind == "presence:member_joined"):
            self.wrong.append(f"{kind} of {member['id']} in {channel}, whose members are {sorted(view or ())}")
        elif kind == "presence:member_left":
            del view[member["id"]]
        if view is not None and kind != "presence:member_left":
            view[member["id"]] = member
