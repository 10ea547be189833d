"""A client of the Pusher protocol, over the `websockets` library, and the signatures that a signer gives it."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from flask import Flask
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from flask_presence.app.service import Service
from flask_presence.domain.events import Reason
from flask_presence.loops.inline_loop import InlineLoop

from .raw import split_frames
from .server import DEADLINE, Server

KEY = "test-key"
SECRET = "a secret of the tests"
SETTINGS = {"PRESENCE_PUSHER_KEY": KEY, "PRESENCE_PUSHER_SECRET": SECRET}

Frame = dict[str, Any]


def sign(text: str) -> str:
    """The signature of a text, with the key in front of it."""
    return f"{KEY}:{hmac.new(SECRET.encode(), text.encode(), hashlib.sha256).hexdigest()}"


def decoded(frame: Frame) -> Frame:
    """A frame whose `data` is the value that its string stands for, if that is JSON."""
    if isinstance(frame["data"], str):
        try:
            return {**frame, "data": json.loads(frame["data"])}
        except ValueError:
            pass
    return frame


class PusherClient:
    """A connection. It checks the shape of every frame that it reads."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self._frames: deque[Frame] = deque()
        self.greeting = self._read()
        assert self.greeting["event"] == "pusher:connection_established", self.greeting
        self.id: str = json.loads(self.greeting["data"])["socket_id"]

    def send(self, event: str, data: Any = None, channel: str | None = None) -> None:
        """Send a frame, without `data` and `channel` if they are `None`."""
        fields = {"event": event, "channel": channel, "data": data}
        self.socket.send(json.dumps({key: value for key, value in fields.items() if value is not None}))

    def auth(self, channel: str, channel_data: str | None = None) -> dict[str, str]:
        """What a signer answers for this connection."""
        if channel_data is None:
            return {"auth": sign(f"{self.id}:{channel}")}
        return {"auth": sign(f"{self.id}:{channel}:{channel_data}"), "channel_data": channel_data}

    def ask(self, channel: str, **fields: Any) -> Frame:
        """Subscribe with these fields, and return the decoded answer."""
        self.send("pusher:subscribe", {"channel": channel, **fields})
        answers = ("pusher_internal:subscription_succeeded", "pusher:subscription_error")
        return decoded(self.until(lambda frame: frame["event"] in answers and frame["channel"] == channel))

    def subscribe(self, channel: str, user_id: Any = None, user_info: Any = None) -> Any:
        """Subscribe, with a signature if the channel needs one, which must succeed. Returns the answer's data."""
        fields: dict[str, str] = {}
        if user_id is not None:
            data = {"user_id": user_id} if user_info is None else {"user_id": user_id, "user_info": user_info}
            fields = self.auth(channel, json.dumps(data))
        elif channel.startswith(("private-", "presence-")):
            fields = self.auth(channel)
        answer = self.ask(channel, **fields)
        assert answer["event"] == "pusher_internal:subscription_succeeded", answer
        return answer["data"]

    def members(self, channel: str, user_id: Any, user_info: Any = None) -> dict[str, Any]:
        """Subscribe to a presence channel. Returns the `user_info` of every member by id, in order of joining."""
        presence = self.subscribe(channel, user_id, user_info)["presence"]
        assert set(presence) == {"ids", "hash", "count"}
        assert set(presence["ids"]) == set(presence["hash"])
        assert len(presence["ids"]) == presence["count"] == len(presence["hash"])
        return {user: presence["hash"][user] for user in presence["ids"]}

    def sign_in(self, user_id: Any, user_info: Any = None) -> Frame:
        """Sign in, and return the decoded answer."""
        data = json.dumps({"id": user_id} if user_info is None else {"id": user_id, "user_info": user_info})
        self.send("pusher:signin", {"auth": sign(f"{self.id}::user::{data}"), "user_data": data})
        return decoded(self.until(lambda frame: frame["event"] in ("pusher:signin_success", "pusher:error")))

    def until(self, is_it: Any) -> Frame:
        """The next new frame that is asked for. The frames before it can be read afterwards."""
        while True:
            frame = self._read()
            if is_it(frame):
                return frame
            self._frames.append(frame)

    def frame(self) -> Frame:
        """The next frame, as it was sent."""
        return self._frames.popleft() if self._frames else self._read()

    def event(self) -> Frame:
        """The next frame, decoded."""
        return decoded(self.frame())

    def frames(self) -> list[Frame]:
        """All frames that come before the answer to a ping, decoded."""
        self.send("pusher:ping")
        pong = self.until(lambda frame: frame["event"] == "pusher:pong")
        assert pong == {"event": "pusher:pong", "data": "{}"}
        frames, self._frames = [decoded(frame) for frame in self._frames], deque()
        return frames

    def error(self) -> int:
        """The code of the next frame, which must be an error that has a message."""
        frame = self.frame()
        assert frame["event"] == "pusher:error", frame
        return int(frame["data"]["code"])

    def refusal(self, frame: str | bytes) -> int:
        """The code of the error that answers a frame, which is sent as it is."""
        self.socket.send(frame)
        return self.error()

    def wait_closed(self) -> int:
        """Wait until the server closes, and return its code. The frames before it can be read afterwards."""
        while True:
            try:
                self._frames.append(self._read())
            except ConnectionClosed as closed:
                return closed.rcvd.code if closed.rcvd else 1006

    def last_words(self) -> tuple[int, int]:
        """Wait until the server closes. Returns the code of the error before that, and of the close."""
        code = self.wait_closed()
        last = self._frames.pop()
        assert last["event"] == "pusher:error", last
        return int(last["data"]["code"]), code

    def _read(self) -> Frame:
        frame: Frame = json.loads(self.socket.recv(timeout=DEADLINE))
        assert {"event", "data"} <= set(frame) <= {"event", "channel", "data", "user_id"}, frame
        if frame["event"] == "pusher:error":
            assert set(frame) == {"event", "data"}
            assert set(frame["data"]) == {"code", "message"}
            assert type(frame["data"]["code"]) is int
            assert frame["data"]["message"]
        else:
            assert all(isinstance(value, str) for value in frame.values()), frame
        return frame


@contextmanager
def pusher_socket(
    server: Server, *, key: str = KEY, query: str = "protocol=7", path: str = "", **options: Any
) -> Iterator[ClientConnection]:
    """A socket after the handshake."""
    url = f"ws{server.scheme.removeprefix('http')}://{server.host}{path}/app/{key}?{query}"
    with connect(url, open_timeout=DEADLINE, ping_interval=None, compression=None, max_queue=None, **options) as socket:
        yield socket


@contextmanager
def pusher_client(server: Server, **options: Any) -> Iterator[PusherClient]:
    """A connection to the server; the options are those of `pusher_socket`."""
    with pusher_socket(server, **options) as socket:
        yield PusherClient(socket)


class PusherTab:
    """A connection to an app in this process, without a socket. `advance` puts the app's clock forward. `end` is the
    code and the text with which it was closed."""

    congested = False

    def __init__(self, app: Flask) -> None:
        self.app = app
        self.end: tuple[int, str] | None = None
        self._sent: list[Frame] = []
        self._service: Service = app.extensions["presence.service"]

    def __enter__(self) -> PusherTab:
        hub = self._service.hub
        if hub.current_loop is None:
            hub.run_on(InlineLoop())
        assert isinstance(hub.current_loop, InlineLoop)
        assert hub.pusher is not None
        self._loop = hub.current_loop
        self.session = hub.pusher.session()
        hub.connected(self.session, self)
        return self

    def __exit__(self, *_: object) -> None:
        if self.end is None:
            self.close(1000, "", "closed")
        self._loop.settle()

    def send(self, frame: bytes) -> None:
        """See `hub.ports.Connection`, for this and the next three methods."""
        self._sent.append(json.loads(split_frames(frame)[0][0][1]))

    answer = send

    def close(self, code: int = 1000, text: str = "", reason: Reason = "closed") -> None:
        self.end = (code, text)
        self.session.closed(code, reason)

    def pause(self) -> None:
        """There is no socket to stop reading from."""

    def resume(self) -> None:
        """There is no socket to read from."""

    def frames(self) -> list[Frame]:
        """All frames that were not read yet."""
        self._loop.settle()
        sent, self._sent = self._sent, []
        return sent

    def receive(self, event: str, data: Any) -> None:
        """Let the app receive a frame."""
        self.session.receive(json.dumps({"event": event, "data": data}).encode(), is_text=True)
        self._loop.settle()

    def subscribe(self, channel: str, user_id: str | None = None) -> None:
        """Subscribe, which must succeed."""
        self.frames()
        data = None if user_id is None else json.dumps({"user_id": user_id})
        text = f"{self.session.id}:{channel}" + ("" if data is None else f":{data}")
        fields = {"auth": sign(text)} | ({} if data is None else {"channel_data": data})
        self.receive("pusher:subscribe", {"channel": channel, **fields})
        assert self.frames()[0]["event"] == "pusher_internal:subscription_succeeded"

    def sign_in(self, user_id: str) -> None:
        """Sign in, which must succeed."""
        self.frames()
        data = json.dumps({"id": user_id})
        self.receive("pusher:signin", {"auth": sign(f"{self.session.id}::user::{data}"), "user_data": data})
        assert self.frames()[0]["event"] == "pusher:signin_success"

    def advance(self, seconds: float) -> None:
        self._loop.settle()
        self._service.hub.clock.advance(seconds)
        self._service.hub.tick()
        self._loop.settle()
