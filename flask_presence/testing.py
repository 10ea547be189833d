"""A client for the tests of an app: it uses the real hub, guards, protocol and backend, but no socket.

Rule: no server, no threads, no sleeping. Everything that a request causes has happened when the call returns.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable
from math import ceil
from types import TracebackType
from typing import Any, Final

from flask import Flask, url_for
from flask.testing import EnvironBuilder, FlaskClient
from flask_jwt_extended import create_access_token

from .app.process import TICK
from .app.service import Service
from .domain.errors import PresenceTestError
from .domain.events import Reason
from .domain.members import User
from .hub.ports import Credential
from .hub.session import Session
from .loops.inline_loop import InlineLoop
from .transport.codec import ABNORMAL
from .transport.takeover import VERSION, Environ, Takeover
from .web.upgrade import OPENER_KEY

MAX_TICKS: Final = 10_000
"""Into how many ticks `advance` divides a long time."""
_HANDSHAKE: Final = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": VERSION,
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}
"""The headers of a handshake, with the key of RFC 6455, section 1.3."""
_REGISTERED_CLAIMS: Final = frozenset(("id", "exp", "nbf", "iat", "jti", "type", "fresh", "sub", "csrf", "aud", "iss"))


class _Identity(str):
    """A user id for the app's `user_identity_loader`, which may expect a user object: every attribute is the id."""

    __slots__ = ()

    def __getattr__(self, name: str) -> str:
        if name.startswith("__"):
            raise AttributeError(name)
        return str(self)


class _RecordingConnection:
    """A `hub.ports.Connection` that keeps what it is sent. `end` is the code and the text with which it was closed."""

    congested = False

    def __init__(self) -> None:
        self.answers: deque[Any] = deque()
        self.received: deque[Any] = deque()
        self.end: tuple[int, str] | None = None
        self.session: Session

    def send(self, frame: bytes) -> None:
        self.received.append(_decode(frame))

    def answer(self, frame: bytes) -> None:
        self.answers.append(_decode(frame))

    def close(self, code: int, text: str, reason: Reason) -> None:
        self.end = (code, text)
        self.session.closed(code, reason)

    def pause(self) -> None:
        """There is no socket to stop reading from."""

    def resume(self) -> None:
        """There is no socket to read from."""


class TestClient:
    """One connection to the service of an app. The `with` statement opens and closes it.

    `client_id` is the id that the server has assigned. Methods that send a request return the decoded answer; except
    `request`, they raise `PresenceTestError` if that is an `error`. All of these raise it if the connection is closed.
    """

    __test__ = False

    def __init__(self, app: Flask, service: Service, user: User | None, http: FlaskClient | None = None) -> None:
        self._app = app
        self._service = service
        self._user = user
        self._http = http
        self._connection = _RecordingConnection()
        self._opened: tuple[InlineLoop, Session] | None = None
        self.client_id: str = ""

    def __enter__(self) -> TestClient:
        if self._http is not None:
            _upgrade(self._app, self._http, self._open)
        else:
            rechecks_begun = self._service.hub.rechecks_begun
            credential = self._credential()
            session = self._service.hub.session(credential.user if credential else self._user, credential)
            self._open(session, rechecks_begun)
        self._loop.settle()
        self.client_id = self._connection.answers.popleft()["clientId"]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        if not self._service.hub.sessions:
            self._service.hub.backend.close()

    def _open(self, session: Session, rechecks_begun: int) -> None:
        hub = self._service.hub
        loop = _inline_loop(self._service)
        self._connection.session = session
        self._opened = loop, session
        hub.connected(session, self._connection)
        hub.recheck_if_stale(session, rechecks_begun)

    @property
    def _loop(self) -> InlineLoop:
        return self._parts[0]

    @property
    def _session(self) -> Session:
        return self._parts[1]

    @property
    def _parts(self) -> tuple[InlineLoop, Session]:
        if self._opened is None:
            raise PresenceTestError(
                "this test client is not connected: use it in a with statement, 'with presence.test_client(…) as ann:'"
            )
        return self._opened

    @property
    def closed(self) -> tuple[int, str] | None:
        """The close code and the reason, once the connection is closed: by the server, by `close` (1000), or by `drop`
        (1006). `None` while it is open."""
        self._loop.settle()
        return self._connection.end

    def close(self) -> None:
        """Close the connection as a browser does when its page closes."""
        self._end(1000, "closed")

    def drop(self) -> None:
        """Lose the connection without a close frame, as a phone does in a tunnel."""
        self._end(ABNORMAL, "lost")

    def _end(self, code: int, reason: Reason) -> None:
        loop, session = self._parts
        loop.settle()
        if self._connection.end is None:
            self._connection.end = (code, "")
            session.closed(code, reason)
        loop.settle()

    def advance(self, seconds: float) -> None:
        """Let time pass for the whole service, tick by tick and without waiting: grace periods end, tokens expire,
        logins are checked again, rate limits recover. It does not put Redis's own clock forward, which times leases
        and, on Redis, grace periods. Raises `ValueError` if `seconds` is negative or infinite."""
        if not 0 <= seconds < float("inf"):
            raise ValueError(f"time cannot advance by {seconds!r} seconds")
        loop, hub = self._loop, self._service.hub
        loop.settle()
        ticks = min(ceil(seconds / TICK), MAX_TICKS)
        for _ in range(ticks):
            hub.clock.advance(seconds / ticks)
            hub.tick()
            loop.settle()

    @property
    def received(self) -> list[Any]:
        """The events that `receive` has not returned yet, decoded, oldest first."""
        self._loop.settle()
        return list(self._connection.received)

    def receive(self) -> Any:
        """Returns the next event, decoded. Raises `PresenceTestError` at once if there is none."""
        self._loop.settle()
        if not self._connection.received:
            raise PresenceTestError("nothing was received")
        return self._connection.received.popleft()

    def join(self, channel: str, user_info: dict[str, Any] | None = None) -> dict[str, Any]:
        """Join a channel. Returns the answer, `channel:joined`."""
        request: dict[str, Any] = {"type": "join", "channel": channel}
        if user_info is not None:
            request["userInfo"] = user_info
        return self._succeed(request)

    def leave(self, channel: str) -> dict[str, Any]:
        """Leave a channel. Returns the answer, `channel:left`."""
        return self._succeed({"type": "leave", "channel": channel})

    def send(self, channel: str, event: str = "message", data: Any = None) -> dict[str, Any]:
        """Send a message to a channel; the arguments are in the order of `Presence.publish`. Returns the answer,
        `channel:sent`."""
        return self._succeed({"type": "channel:message", "channel": channel, "event": event, "data": data})

    def update(self, channel: str, **user_info: Any) -> dict[str, Any]:
        """Update this user's `userInfo` in a presence channel. Returns the answer, `channel:updated`."""
        return self._succeed({"type": "channel:update", "channel": channel, "userInfo": user_info})

    def request(self, frame: Any) -> dict[str, Any]:
        """Send any frame: a `str` or `bytes` as it is, and everything else as JSON. Returns the answer, which may be an
        `error`."""
        payload = frame.encode() if isinstance(frame, str) else frame
        if not isinstance(payload, bytes):
            payload = json.dumps(frame).encode()
        self._loop.settle()  # the backend may have something to do first
        if self._connection.end is None:
            self._session.receive(payload, is_text=not isinstance(frame, bytes))
            self._loop.settle()
        if not self._connection.answers:
            code, text = self._connection.end or (1000, "")
            raise PresenceTestError(f"the connection was closed with {code} {text!r}")
        answer: dict[str, Any] = self._connection.answers.popleft()
        return answer

    def _succeed(self, request: dict[str, Any]) -> dict[str, Any]:
        answer = self.request(request)
        if answer["type"] == "error":
            raise PresenceTestError(f"{answer['code']}: {answer['message']}", answer)
        return answer

    def _credential(self) -> Credential | None:
        """A real token, if the app uses tokens, so that guards see what they see in production."""
        user, authenticator = self._user, self._service.authenticator
        if user is None or not authenticator.takes_tokens:
            return None
        claims = {**user.claims, **user.to_dict()}
        own_claims = {key: value for key, value in claims.items() if key not in _REGISTERED_CLAIMS}
        with self._app.app_context():
            token = create_access_token(identity=_Identity(user.id), additional_claims=own_claims)
        return authenticator.verify(token)


def _upgrade(app: Flask, http: FlaskClient, connect: Callable[[Session, int], None]) -> None:
    """Send the request with which a browser would open the WebSocket: with the cookies of `http`, and from a page of
    the app. Calls `connect` if the app accepts it. Raises `PresenceTestError` with the status if not."""
    with app.test_request_context():
        url = url_for("presence.ws", _external=True)
    request = EnvironBuilder(app, url, environ_overrides={OPENER_KEY: _Opener(connect)}, headers=_HANDSHAKE)
    request.headers["Origin"] = f"{request.url_scheme}://{request.host}"
    response = http.open(request)
    if response.status_code != 101:
        problem = (response.get_json(silent=True) or {}).get("error", {})
        message = problem.get("message", response.status)
        raise PresenceTestError(
            f"the WebSocket was refused with {response.status_code}: {message}", problem, response.status_code
        )


class _Opener:
    """A `web.upgrade.Opener` that needs no socket."""

    def __init__(self, connect: Callable[[Session, int], None]) -> None:
        self._connect = connect

    def takeover(self, environ: Environ) -> Takeover:
        return _NoSocket(environ)

    def start(self, takeover: Takeover) -> None:
        """There is nothing to start before the connection is open."""

    def open(
        self, takeover: Takeover, session: Session, rechecks_begun: int, release: Callable[[], None]
    ) -> Callable[[], None]:
        takeover.opened = True
        release()
        self._connect(session, rechecks_begun)
        return lambda: None


class _NoSocket(Takeover):
    """An upgrade request that has no socket, and for which nobody sends a handshake."""

    needs_handshake = False
    multithread = True

    def __init__(self, environ: Environ) -> None:
        super().__init__(environ)
        self.possible = True


def _inline_loop(service: Service) -> InlineLoop:
    loop = service.hub.current_loop
    if not isinstance(loop, InlineLoop):
        loop = InlineLoop()
        service.hub.run_on(loop)
    return loop


def _decode(frame: bytes) -> Any:
    head = {126: 4, 127: 10}.get(frame[1], 2)
    return json.loads(frame[head:])
