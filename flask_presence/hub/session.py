"""One connection's side of the hub: its place in the channels, and its requests in strict order.

Law: a frame is handled when all before it have been answered. What waits is bounded: beyond that the
connection is no longer read from.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from ..domain.channels import ChannelName
from ..domain.events import Event, Reason
from ..domain.limits import RateLimit
from ..domain.members import User
from ..domain.wire import Frame, Request
from ..loops.pending import Outcome, Pending

if TYPE_CHECKING:
    from .hub import Hub
    from .ports import Connection, Credential, Grounds

MAX_WAITING_FRAMES: Final = 1024
MAX_WAITING_BYTES: Final = 131072
MAX_WAITING_EVENTS: Final = 1024


class Turn:
    """A request whose answer must come after those before it; `outcome` once there is one."""

    __slots__ = ("outcome", "request")

    def __init__(self, request: Request) -> None:
        self.request = request
        self.outcome: Outcome[Frame | None] | None = None


class Session:
    """A connection, its user, and the channels it is in (in order of joining)."""

    __slots__ = (
        "_limit",
        "_paused",
        "_queue",
        "_queued",
        "ask_again",
        "busy",
        "channels",
        "connection",
        "credential",
        "deferred",
        "entering",
        "events",
        "going",
        "hub",
        "id",
        "is_open",
        "joining",
        "left",
        "recheck_at",
        "recheck_failures",
        "turns",
        "upgrade",
        "user",
        "warned",
    )

    connection: Connection

    def __init__(
        self,
        hub: Hub,
        client_id: str,
        user: User | None,
        credential: Credential | None,
        upgrade: bytes | None = None,
    ) -> None:
        self.hub = hub
        self.id = client_id
        self.user = user
        self.credential = credential
        self.upgrade = upgrade
        self.channels: dict[str, ChannelName] = {}
        self.is_open = True
        self.left: Pending[None] | None = None  # settled when it has left every channel, after its end
        self.busy = False
        self.turns: deque[Turn] = deque()  # messages that are on their way, in the order of their answers
        self.events: deque[Event] | None = None  # for handlers, while some are being run
        self.joining: ChannelName | None = None  # while the application, or the backend, is asked whether it comes in
        self.entering: ChannelName | None = None  # while the backend lets it in: nothing may take it out meanwhile
        self.deferred: list[Callable[[], object]] | None = None  # what takes it out once it is in
        self.going: set[str] | None = None  # channels that the server takes it out of
        self.ask_again = False  # the application may have changed its mind meanwhile
        self.warned = False
        self.recheck_at = 0.0
        self.recheck_failures = 0
        rate = hub.policy.rate_limit
        self._limit = RateLimit(*rate, time.monotonic()) if rate else None
        self._queue: deque[tuple[bytes, bool, bool]] | None = None  # as for `handle`
        self._queued = 0  # bytes
        self._paused = False

    @property
    def user_id(self) -> str | None:
        return self.user.id if self.user else None

    @property
    def grounds(self) -> Grounds:
        """What the connection rests on."""
        return self.credential.token if self.credential else self.upgrade

    def matches(self, user_id: str | None, client_id: str | None) -> bool:
        """Whether this is a connection of that user and with that client id; `None` stands for any."""
        return user_id in (None, self.user_id) and client_id in (None, self.id)

    def receive(self, payload: bytes, *, is_text: bool) -> None:
        """A message from the client: handled now, or once those before it are done."""
        self.hub.meter.received += 1
        admitted = self.admit()
        if not self.is_open:
            return
        if not self._queue and not self._must_wait:
            self.hub.handle(self, payload, is_text, admitted)
            return
        if self._queue is None:
            self._queue = deque()
        self._queue.append((payload, is_text, admitted))
        self._queued += len(payload)
        self._balance()

    def admit(self) -> bool:
        """Whether one more frame is within the rate limit. Who keeps on beyond it is disconnected."""
        if self._limit is None or self._limit.admit(time.monotonic()):
            return True
        if self._limit.exhausted:
            self.connection.close(1008, "Too many requests", "closed")
        return False

    def put_back(self, payload: bytes, *, is_text: bool, admitted: bool) -> None:
        """A frame that is not to be handled yet: `finish` lets it come."""
        if self._queue is None:
            self._queue = deque()
        self._queue.appendleft((payload, is_text, admitted))
        self._queued += len(payload)
        self.busy = True

    def finish(self) -> None:
        """The request that was under way has been answered."""
        self.busy = False
        self.proceed()

    def proceed(self) -> None:
        """Go on with the frames that waited, as far as that is possible."""
        while self._queue and self.is_open and not self._must_wait:
            payload, is_text, admitted = self._queue.popleft()
            self._queued -= len(payload)
            self.hub.handle(self, payload, is_text, admitted)
        if not self._queue:
            self._queue = None
        self._balance()

    @property
    def _must_wait(self) -> bool:
        """A request is under way, or the handlers are too far behind what this connection does."""
        return self.busy or (self.events is not None and len(self.events) >= MAX_WAITING_EVENTS)

    def _balance(self) -> None:
        """Read from the client as long as what it has sent is not piling up."""
        pile = self._queue is not None and (len(self._queue) >= MAX_WAITING_FRAMES or self._queued >= MAX_WAITING_BYTES)
        if pile != self._paused and self.is_open:
            self._paused = pile
            if pile:
                self.connection.pause()
            else:
                self.connection.resume()

    def closed(self, code: int, reason: Reason) -> None:
        """The connection has ended: out of every channel, at once."""
        if self.is_open:
            self.is_open = False
            self._queue = None
            self.hub.disconnected(self, code, reason)
