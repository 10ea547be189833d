"""Sending: to everybody in a channel, to a user, and to a single connection of this process.

Rule: a message is framed once, however many connections it goes to.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from ..domain import wire
from ..domain.channels import ChannelName
from ..domain.history import HistoryRules
from ..domain.readings import Backlog
from ..domain.roster import Change
from .instruments import Instruments
from .ports import Application, Connection, Transport
from .session import Session


class Audience:
    """The connections of this process in one channel, by client id."""

    __slots__ = ("_connections", "_everyone", "guards_version", "is_guarded", "is_kept", "name")

    def __init__(self, name: ChannelName, *, is_kept: bool) -> None:
        self.name = name
        self.is_kept = is_kept  # whether the channel keeps its last messages
        self.is_guarded = False  # whether a message guard decides who may send
        self.guards_version = 0  # `Application.message_guards_version` when that was looked up
        self._connections: dict[str, Connection] = {}
        self._everyone: tuple[Connection, ...] | None = None

    def add(self, client_id: str, connection: Connection) -> None:
        self._connections[client_id] = connection
        self._everyone = None

    def remove(self, client_id: str) -> None:
        """Raises `KeyError` if the client is not in the channel."""
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
        audience.add(session.id, session.connection)
        return audience.name

    def remove(self, session: Session, channel: ChannelName) -> None:
        audience = self._audiences[channel]
        audience.remove(session.id)
        if not audience:
            del self._audiences[channel]

    def deliver(self, channel: str, payload: bytes, exclude: str | None) -> int:
        """See `Listener.deliver`."""
        audience = self._audiences.get(channel)
        if audience is None:
            return 0
        skipped, frame = audience.get(exclude), self._frame(payload)
        if self.transport is not None:
            self.transport.send_all(audience.everyone, frame, skipped)
        else:
            for connection in audience.everyone:
                if connection is not skipped:
                    connection.send(frame)
        count = len(audience) - (skipped is not None)
        self._instruments.delivered(channel, count)
        return count

    def announce(self, channel: ChannelName, change: Change, exclude: str | None, now: datetime) -> None:
        """See `Listener.announce`."""
        self.deliver(channel, wire.member_event(channel, change, now), exclude)

    def deliver_to(self, sessions: Sequence[Session], payload: bytes) -> int:
        """Send a frame's JSON to these sessions. Returns how many there are."""
        frame = self._frame(payload)
        self.meter.deliveries += len(sessions)
        for session in sessions:
            session.connection.send(frame)
        return len(sessions)

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

    def backlog(self) -> Backlog:
        """What is still to be sent, over all connections of this process."""
        return self.transport.backlog() if self.transport is not None else Backlog()
