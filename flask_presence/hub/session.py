"""One connection as the hub sees it: its user, its channels, and its requests, which are answered in order.

Rule: a frame is handled only after all earlier ones have been answered; only messages that no guard decides about may
be under way together. The queue of frames is bounded; when it is full, the hub stops reading from the connection.

Most connections are idle, so a container exists only while there is something in it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import ClassVar, Final, Protocol

from ..domain.channels import ChannelName
from ..domain.errors import RateLimitExceeded
from ..domain.events import Event, Reason
from ..domain.limits import RateLimit
from ..domain.members import User
from ..domain.meter import Meter
from ..domain.wire import Frame, Request
from ..loops.pending import Outcome, Pending
from .clock import Clock
from .dialects import NATIVE, Dialect
from .ports import Connection, Credential, Login, Policy

MAX_WAITING_FRAMES: Final = 1024
MAX_WAITING_BYTES: Final = 131072
MAX_WAITING_EVENTS: Final = 1024
MESSAGES_PER_FRAME: Final = 50
"""How many kept messages a client may ask for at the price of one frame."""


Handle = Callable[["Session", bytes, bool, bool], None]
"""Answers a frame of a session: the payload, whether it is a text (so that its UTF-8 has been checked), and whether it
is within the rate limit."""


class SessionOwner(Protocol):
    """The hub, as its sessions see it."""

    policy: Policy
    meter: Meter
    clock: Clock

    @property
    def handle(self) -> Handle: ...

    def answer(self, session: Session, payload: bytes) -> None:
        """Send the session a frame's JSON that does not count as caused by others."""

    def disconnected(self, session: Session, code: int, reason: Reason) -> None:
        """The session's connection has ended."""


class Turn:
    """A message under way. Its answer is sent after those of the messages before it."""

    __slots__ = ("outcome", "request")

    def __init__(self, request: Request) -> None:
        self.request = request
        self.outcome: Outcome[Frame | None] | None = None


class Session:
    """A connection, its user, and the channels it is in, in order of joining."""

    __slots__ = (
        "_limit",
        "_owner",
        "_paused",
        "_queue",
        "_queued_bytes",
        "after_join",
        "being_removed",
        "busy",
        "channels",
        "connection",
        "credential",
        "ended",
        "entering",
        "events",
        "id",
        "is_open",
        "joining",
        "left",
        "recheck_after_join",
        "recheck_at",
        "recheck_failures",
        "turns",
        "upgrade",
        "user",
        "warned",
    )

    has_signed_login: ClassVar[bool] = False
    """Whether a signer decides who its user is, so that only a new connection asks about its permissions again."""

    connection: Connection

    def __init__(
        self,
        owner: SessionOwner,
        client_id: str,
        user: User | None,
        credential: Credential | None,
        upgrade: bytes | None = None,
    ) -> None:
        self._owner = owner
        self.id = client_id
        self.user = user
        self.credential = credential
        self.upgrade = upgrade
        self.channels: dict[str, ChannelName] = {}
        self.is_open = True
        self.ended: Reason | None = None  # why it is no longer open
        self.left: Pending[None] | None = None  # after the end: settled once it has left every channel
        self.busy = False
        self.turns: deque[Turn] | None = None  # messages under way, in the order of their answers
        self.events: deque[Event] | None = None  # events not yet handled, while handlers run
        self.joining: ChannelName | None = None  # while the application or the backend decides about a join
        self.entering: ChannelName | None = None  # while the backend carries out a join
        self.after_join: list[Callable[[], object]] | None = None  # removals that wait for `entering`
        self.being_removed: set[str] | None = None  # channels that the server is taking it out of
        self.recheck_after_join = False  # permissions may have changed since the guard was asked
        self.warned = False
        self.recheck_at = 0.0
        self.recheck_failures = 0
        rate = owner.policy.rate_limit
        self._limit = RateLimit(*rate, owner.clock.monotonic()) if rate else None
        self._queue: deque[tuple[bytes, bool, bool]] | None = None  # as for `Handle`
        self._queued_bytes = 0
        self._paused = False

    @property
    def dialect(self) -> Dialect:
        """How it hears what happens."""
        return NATIVE

    @property
    def user_id(self) -> str | None:
        return self.user.id if self.user else None

    @property
    def login(self) -> Login:
        return self.credential.token if self.credential else self.upgrade

    def matches(self, user_id: str | None, client_id: str | None) -> bool:
        """Whether it belongs to that user and has that client id (`None` matches any)."""
        return user_id in (None, self.user_id) and client_id in (None, self.id)

    def is_in(self, channel: str) -> bool:
        """Whether it is in the channel, and nobody is taking it out."""
        return channel in self.channels and not (self.being_removed and channel in self.being_removed)

    def has_entered(self, channel: str) -> bool:
        """Whether it is in the channel, or is about to be because a signer has decided so."""
        return channel in self.channels or (self.has_signed_login and self.entering == channel)

    def receive(self, payload: bytes, *, is_text: bool) -> None:
        """Handle a message from the client now, or as soon as those before it have been answered."""
        self._owner.meter.received += 1
        admitted = self.admit()
        if not self.is_open:
            return
        if not self._queue and not self._must_wait:
            self._owner.handle(self, payload, is_text, admitted)
            return
        if self._queue is None:
            self._queue = deque()
        self._queue.append((payload, is_text, admitted))
        self._queued_bytes += len(payload)
        self._balance()

    def admit(self) -> bool:
        """Whether one more frame is within the rate limit. Closes the connection if the client keeps exceeding it."""
        if self._limit is None or self._limit.admit(self._owner.clock.monotonic()):
            return True
        if self._limit.exhausted:
            self.close(1008, "Too many requests", "closed")
        return False

    def pay_for(self, messages: int) -> None:
        """Take from the rate limit what a request for so many kept messages costs beyond its own frame. Raises
        `RateLimitExceeded` if that is too much."""
        extra = (messages - 1) // MESSAGES_PER_FRAME
        if extra and self._limit is not None and not self._limit.admit(self._owner.clock.monotonic(), extra):
            raise RateLimitExceeded

    def put_back(self, payload: bytes, *, is_text: bool, admitted: bool) -> None:
        """Put a frame back at the front of the queue, to be handled after `finish`."""
        if self._queue is None:
            self._queue = deque()
        self._queue.appendleft((payload, is_text, admitted))
        self._queued_bytes += len(payload)
        self.busy = True

    def finish(self) -> None:
        """Go on: the request under way has been answered."""
        self.busy = False
        self.proceed()

    def proceed(self) -> None:
        """Handle queued frames, until one has to wait again."""
        while self._queue and self.is_open and not self._must_wait:
            payload, is_text, admitted = self._queue.popleft()
            self._queued_bytes -= len(payload)
            self._owner.handle(self, payload, is_text, admitted)
        if not self._queue:
            self._queue = None
        self._balance()

    @property
    def _must_wait(self) -> bool:
        """Whether a request is under way, answers have to be sent first, or handlers lag too far behind this
        connection's events."""
        if self.busy or self.connection.congested:
            return True
        return self.events is not None and len(self.events) >= MAX_WAITING_EVENTS

    def _balance(self) -> None:
        """Stop reading from the client while its queue is full."""
        is_full = self._queue is not None and (
            len(self._queue) >= MAX_WAITING_FRAMES or self._queued_bytes >= MAX_WAITING_BYTES
        )
        if is_full != self._paused and self.is_open:
            self._paused = is_full
            if is_full:
                self.connection.pause()
            else:
                self.connection.resume()

    @property
    def hears_user_messages(self) -> bool:
        """Whether messages to its user are sent to it."""
        return True

    def close(self, code: int, text: str, reason: Reason) -> None:
        """Close the connection, if it is open, with what the session's dialect says for the native `code`."""
        farewell = self.dialect.farewell(code, text)
        if farewell.frame is not None:
            self._owner.answer(self, farewell.frame)  # which, unlike `tell`, a full outbox still takes
        self.connection.close(farewell.code, text, reason)

    def closed(self, code: int, reason: Reason) -> None:
        """End the session: its connection is gone."""
        if self.is_open:
            self.is_open, self.ended = False, reason
            self._queue = None
            self._owner.disconnected(self, code, reason)
