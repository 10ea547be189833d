"""Sending: to everybody in a channel, to a user, and to a single connection of this process.

Rule: a message is framed once, however many connections it goes to.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from ..domain.channels import ChannelName
from ..domain.history import HistoryRules
from ..domain.readings import Backlog
from ..domain.roster import Change
from .dialects import NATIVE, Dialect
from .instruments import Instruments
from .ports import Application, Connection, Transport
from .session import Session


class Listeners:
    """Connections of one dialect, by client id."""

    __slots__ = ("_connections", "_everyone")

    def __init__(self) -> None:
        self._connections: dict[str, Connection] = {}
        self._everyone: tuple[Connection, ...] | None = None

    def add(self, client_id: str, connection: Connection) -> None:
        self._connections[client_id] = connection
        self._everyone = None

    def remove(self, client_id: str) -> None:
        """Raises `KeyError` if the client is not among them."""
        del self._connections[client_id]
        self._everyone = None

    def get(self, client_id: str | None) -> Connection | None:
        return self._connections.get(client_id) if client_id is not None else None

    def __len__(self) -> int:
        return len(self._connections)

    @property
    def everyone(self) -> tuple[Connection, ...]:
        """All of them. The same object until somebody comes or goes, so that the transport can merge broadcasts."""
        if self._everyone is None:
            self._everyone = tuple(self._connections.values())
        return self._everyone


class Audience(Listeners):
    """The connections of this process in one channel: the native ones, and `others`, by dialect, if there are any."""

    __slots__ = ("guards_version", "is_guarded", "is_kept", "name", "others")

    def __init__(self, name: ChannelName, *, is_kept: bool) -> None:
        super().__init__()
        self.name = name
        self.is_kept = is_kept  # whether the channel keeps its last messages
        self.is_guarded = False  # whether a message guard decides who may send
        self.guards_version = 0  # `Application.message_guards_version` when that was looked up
        self.others: dict[Dialect, Listeners] | None = None

    def enter(self, session: Session) -> None:
        """Let the session hear the channel."""
        if session.dialect is NATIVE:
            self.add(session.id, session.connection)
            return
        self.others = self.others or {}
        self.others.setdefault(session.dialect, Listeners()).add(session.id, session.connection)

    def exit(self, session: Session) -> None:
        """Undo `enter`. Raises `KeyError` if the session does not hear the channel."""
        if session.dialect is NATIVE:
            self.remove(session.id)
            return
        others = self.others or {}
        others[session.dialect].remove(session.id)
        if not others[session.dialect]:
            del others[session.dialect]
            self.others = others or None

    @property
    def is_empty(self) -> bool:
        return not self and not self.others


class FanOut:
    """Owns the audiences. `frame` turns a message's JSON into what a `Connection` takes."""

    def __init__(
        self,
        application: Application,
        instruments: Instruments,
        history: HistoryRules,
        frame: Callable[[bytes], bytes],
    ) -> None:
        self.transport: Transport | None = None
        self._history = history
        self._keeps_any = bool(history)
        self._application = application
        self._instruments = instruments
        self.meter = instruments.meter
        self._frame = frame
        self._audiences: dict[str, Audience] = {}

    def add(self, session: Session, channel: ChannelName) -> ChannelName:
        """Let the session hear `channel` from now on. Returns the name, as one object for all who hear the channel."""
        audience = self._audiences.get(channel)
        if audience is None:
            is_kept = self._history.find(channel) is not None
            audience = self._audiences[channel] = Audience(channel, is_kept=is_kept)
        audience.enter(session)
        return audience.name

    def remove(self, session: Session, channel: ChannelName) -> None:
        audience = self._audiences[channel]
        audience.exit(session)
        if audience.is_empty:
            del self._audiences[channel]

    def deliver(self, channel: str, payload: bytes, exclude: str | None) -> int:
        """See `Listener.deliver`."""
        audience = self._audiences.get(channel)
        if audience is None:
            return 0
        count = self._send(audience, payload, exclude) if audience else 0
        if audience.others is not None:
            for dialect, listeners in audience.others.items():
                count += self._send(listeners, dialect.channel_frame(channel, payload), exclude)
        self._instruments.delivered(channel, count)
        return count

    def announce(self, channel: ChannelName, change: Change, exclude: str | None, now: datetime) -> None:
        """See `Listener.announce`."""
        audience = self._audiences.get(channel)
        if audience is None:
            return
        count = self._send(audience, NATIVE.member_event(channel, change, now), exclude) if audience else 0
        if audience.others is not None:
            for dialect, listeners in audience.others.items():
                count += self._send(listeners, dialect.member_event(channel, change, now), exclude)
        self._instruments.delivered(channel, count)

    def _send(self, listeners: Listeners, payload: bytes, exclude: str | None) -> int:
        """Send a frame's JSON to all listeners except `exclude`. Returns how many."""
        skipped, frame = listeners.get(exclude), self._frame(payload)
        if self.transport is not None:
            self.transport.send_all(listeners.everyone, frame, skipped)
        else:
            for connection in listeners.everyone:
                if connection is not skipped:
                    connection.send(frame)
        return len(listeners) - (skipped is not None)

    def deliver_to_user(self, user_id: str, sessions: Sequence[Session], payload: bytes) -> int:
        """Send a native frame's JSON to those of a user's sessions that hear such messages. Returns how many."""
        frames: dict[Dialect, bytes] = {}
        hearing = [session for session in sessions if session.hears_user_messages]
        for session in hearing:
            dialect = session.dialect
            if dialect not in frames:
                frames[dialect] = self._frame(dialect.user_frame(user_id, payload))
            session.connection.send(frames[dialect])
        self.meter.deliveries += len(hearing)
        return len(hearing)

    def answer(self, session: Session, payload: bytes) -> None:
        """Send one session the answer to its request, as a frame's JSON."""
        self.meter.answers += 1
        session.connection.answer(self._frame(payload))

    def tell(self, session: Session, payload: bytes) -> None:
        """Send one session a frame's JSON that it did not ask for."""
        self.meter.answers += 1
        session.connection.send(self._frame(payload))

    def is_guarded(self, channel: str) -> bool:
        """Whether a message guard decides who may send to `channel`. Looks patterns up once per channel."""
        version = self._application.message_guards_version
        if not version:
            return False
        audience = self._audiences.get(channel)
        if audience is None:
            return False
        if audience.guards_version != version:
            audience.guards_version = version
            audience.is_guarded = self._application.has_message_guard(ChannelName(channel))
        return audience.is_guarded

    def is_kept(self, channel: str) -> bool:
        """Whether `channel`, in which this process has connections, keeps its last messages."""
        audience = self._audiences.get(channel) if self._keeps_any else None
        return audience is not None and audience.is_kept

    def keeps(self, channel: str) -> bool:
        """Whether `channel` keeps its last messages, even if nobody here is in it."""
        return self._history.find(channel) is not None

    def backlog(self) -> Backlog:
        """What is still to be sent, over all connections of this process."""
        return self.transport.backlog() if self.transport is not None else Backlog()
