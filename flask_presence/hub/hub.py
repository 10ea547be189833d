"""The hub: the open connections of this process, and the fan-out to them.

Law: everything here runs in the event loop, except the methods under "For the server's own code",
which may be called from any thread and bring themselves in.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from functools import partial
from typing import TypeVar

from ..backends import Backend, Loop
from ..domain import wire
from ..domain.channels import Channel, ChannelName, ChannelType, Stats
from ..domain.errors import BackendUnavailable, Removed, RequestError
from ..domain.events import (
    ChannelJoined,
    ChannelLeft,
    ClientConnected,
    ClientDisconnected,
    Event,
    MemberJoined,
    MemberLeft,
    MemberUpdated,
    Reason,
)
from ..domain.frozen import freeze
from ..domain.members import Member, User
from ..domain.readings import Outbox, Reading, Survey
from ..domain.roster import Change
from ..loops.pending import Outcome, Pending, then, when_all
from .audience import Audience
from .handlers import EventQueue
from .instruments import Instruments
from .ports import Application, Connection, Credential, Policy, Transport
from .rechecks import Rechecks
from .requests import RequestHandler
from .session import Session
from .tokens import TokenWatch
from .users import UserIndex

T = TypeVar("T")
log = logging.getLogger("flask_presence")


class Hub:
    """Owner of the sessions and of who hears which channel.

    `frame` turns a message's JSON into what a `Connection` takes; it is called once for a broadcast,
    however many hear it. `instruments`, and their `meter`, count what happens here.
    """

    def __init__(
        self, backend: Backend, application: Application, policy: Policy, frame: Callable[[bytes], bytes]
    ) -> None:
        self.backend = backend
        self.application = application
        self.policy = policy
        self.frame = frame
        self.handle = RequestHandler(self).handle
        self._begin()
        backend.bind(self)

    def _begin(self) -> None:
        """Without connections, and on no loop yet."""
        self.sessions: dict[str, Session] = {}
        self._audiences: dict[str, Audience] = {}
        self._loop: Loop | None = None
        self._transport: Transport | None = None
        self.instruments = Instruments()
        self.meter = self.instruments.meter
        self._events = EventQueue(self)
        self._tokens = TokenWatch(self)
        self._rechecks = Rechecks(self)
        self._users = UserIndex()

    @property
    def current_loop(self) -> Loop | None:
        """The loop that the hub runs on, once it has had a connection."""
        return self._loop

    @property
    def loop(self) -> Loop:
        assert self._loop is not None, "the hub has no connections yet, so nothing runs"
        return self._loop

    def run_on(self, loop: Loop, transport: Transport | None = None) -> None:
        """Use `loop` from now on, and `transport` for what concerns all connections, if they have one in common.
        `RuntimeError` while connections live on another loop."""
        if self._loop is not loop and self.sessions:
            raise RuntimeError("the connections of this process run on another event loop")
        self._loop = loop
        self._transport = transport
        self.backend.start(loop)

    def forked(self) -> None:
        """This process has none of the connections of the one that it was forked from."""
        self._begin()
        self.backend.forked()

    @staticmethod
    def now() -> datetime:
        return datetime.now(timezone.utc)

    def session(self, user: User | None, credential: Credential | None, upgrade: bytes | None = None) -> Session:
        """A session for a connection that is about to be. Nobody sees it before `connected`."""
        return Session(self, secrets.token_urlsafe(16), user, credential, upgrade)

    def connected(self, session: Session, connection: Connection) -> None:
        """The session's connection is open: greet it."""
        session.connection = connection
        self.sessions[session.id] = session
        self._users.add(session)
        self.backend.opened(session.id, session.user)
        self._tokens.add(session)
        self.meter.opened += 1
        self.answer(session, wire.connected(session.id, session.user, self.now()))
        self.emit(session, ClientConnected(session.id, session.user))

    def disconnected(self, session: Session, code: int, reason: Reason) -> None:
        """The session's connection is gone: out of its channels, and out of sight."""
        del self.sessions[session.id]
        self._users.discard(session)
        self._tokens.discard(session)
        self.meter.close(code)
        self.meter.slow += reason == "slow"
        leaving = []
        for channel in list(session.channels.values()):
            try:
                left = self.leave(session, channel, reason)
            except Exception as problem:
                self._gone_anyway(session, channel, problem)
            else:
                leaving.append(left)
                if isinstance(left, Pending):
                    left.when(partial(self._check_left, session, channel))
        session.left = Pending()
        deferred, session.deferred = session.deferred, None
        for take_out in deferred or ():
            take_out()  # it is leaving everything already
        when_all(leaving, partial(self._finish, session, ClientDisconnected(session.id, session.user, code, reason)))

    def _finish(self, session: Session, event: ClientDisconnected) -> None:
        self.backend.closed(session.id)
        self.emit(session, event)
        assert session.left is not None
        session.left.settle(lambda: None)

    def _check_left(self, session: Session, channel: ChannelName, outcome: Outcome[bool]) -> None:
        try:
            outcome()
        except Exception as problem:
            self._gone_anyway(session, channel, problem)

    def _gone_anyway(self, session: Session, channel: ChannelName, problem: Exception) -> None:
        text = "client %s is gone, and could not be taken out of %.200r"
        self.loop.spawn(partial(log.error, text, session.id, str(channel), exc_info=problem))
        if channel in session.channels:
            self._detach(session, channel)

    def attach(self, session: Session, channel: ChannelName) -> None:
        """From now on the session hears `channel`."""
        session.channels[channel] = channel
        audience = self._audiences.get(channel)
        if audience is None:
            audience = self._audiences[channel] = Audience()
        audience.add(session.id, session.connection)
        self.meter.joins[channel.type] += 1

    def leave(self, session: Session, channel: ChannelName, reason: Reason) -> Pending[bool] | bool:
        """Take the session out of a channel that it is in; whether it was in it until then.

        What raises has changed nothing. With the state store away it is out all the same: the sockets are the
        truth, and the store an index that is rebuilt from them.
        """

        def finish(outcome: Outcome[Change | None]) -> bool:
            if channel not in session.channels:
                return False  # its connection ended, or it left in another way, while it was leaving
            try:
                change = outcome()
            except BackendUnavailable:
                change = None
            self._detach(session, channel)
            self.emit(session, ChannelLeft(session.id, session.user, channel, channel.type, reason))
            self.emit_change(session, channel, change)
            return True

        hold = self._grace(channel, reason)
        try:
            change = self.backend.leave(channel, session.id, self.now(), reason, hold=hold)
        except BackendUnavailable:
            change = None
        return then(change, finish)

    def _grace(self, channel: ChannelName, reason: Reason) -> float:
        """Seconds for which the user of a connection that ends so stays listed."""
        if channel.type != "presence":
            return 0
        if reason == "shutdown" and self.backend.outlives:
            return self.policy.grace
        return self.policy.grace_abrupt if reason == "lost" else 0

    def adopt(self, session: Session, credential: Credential) -> None:
        """The session has a new token, and with it a user."""
        self._users.discard(session)
        session.user = credential.user
        session.credential = credential
        self._users.add(session)
        self.backend.opened(session.id, session.user)
        self._tokens.add(session)

    def emit_joined(self, session: Session, channel: ChannelName) -> None:
        self.emit(session, ChannelJoined(session.id, session.user, channel, channel.type))

    def emit_change(self, session: Session, channel: ChannelName, change: Change | None) -> None:
        if change is not None:
            self.emit(session, member_event(session.id, session.user, channel, change))

    def notice(self, event: Event) -> None:
        """Have handlers hear of a connection that no process has any more."""
        self._events.put_orphan(event)

    def emit(self, session: Session, event: Event) -> None:
        """Have the application's handlers hear of `event`, after those before it."""
        self._events.put(session, event)

    def is_guarded(self, channel: str) -> bool:
        """Whether a message guard decides who may send to `channel`. Patterns are looked up once for a channel."""
        registered = self.application.message_guards
        if not registered:
            return False
        audience = self._audiences.get(channel)
        if audience is None:
            return False
        if audience.guards_known != registered:
            audience.guards_known = registered
            audience.guarded = self.application.has_message_guard(ChannelName(channel))
        return audience.guarded

    def deliver(self, channel: str, payload: bytes, exclude: str | None) -> int:
        audience = self._audiences.get(channel)
        if audience is None:
            return 0
        skipped, frame = audience.get(exclude), self.frame(payload)
        if self._transport is not None:
            self._transport.send_all(audience.everyone, frame, skipped)
        else:
            for connection in audience.everyone:
                if connection is not skipped:
                    connection.send(frame)
        count = len(audience) - (skipped is not None)
        self.instruments.delivered(channel, count)
        return count

    def answer(self, session: Session, payload: bytes) -> None:
        """Send a frame's JSON to one connection alone."""
        self.meter.answers += 1
        session.connection.answer(self.frame(payload))

    def tell_session(self, session: Session, payload: bytes) -> None:
        """Send one connection a frame's JSON that it has not asked for."""
        self.meter.answers += 1
        session.connection.send(self.frame(payload))

    def reading(self) -> Reading:
        return self.instruments.read(self._transport.outbox() if self._transport is not None else Outbox())

    def announce(self, channel: ChannelName, change: Change, exclude: str | None, now: datetime) -> None:
        self.deliver(channel, wire.member_event(channel, change, now), exclude)

    def close_matching(self, user_id: str | None, client_id: str | None, text: str) -> int | Pending[int]:
        chosen = [session for session in self.sessions.values() if session.matches(user_id, client_id)]
        for session in chosen:
            session.connection.close(4403, text, "disconnected")
        return _count_once([session.left for session in chosen])

    def expel(self, session: Session, channel: ChannelName, reason: Reason, why: RequestError) -> Pending[None] | None:
        """Take a session out of a channel by the server's will, and tell it `why`.

        A join that is at the backend is over first; from now on nothing that the session says goes to the channel.
        """
        going = session.going = session.going or set()
        going.add(channel)
        if session.entering != channel:
            return self._expel(session, channel, reason, why)
        later: Pending[None] = Pending()
        session.deferred = session.deferred or []
        session.deferred.append(lambda: then(self._expel(session, channel, reason, why), later.settle))
        return later

    def _expel(self, session: Session, channel: ChannelName, reason: Reason, why: RequestError) -> Pending[None] | None:
        if not session.is_open or channel not in session.channels:
            self._gone(session, channel)
            return None

        def tell(outcome: Outcome[bool]) -> None:
            self._gone(session, channel)
            if outcome() and session.is_open:
                self.tell_session(session, wire.removed(str(channel), why.code, why.message))

        return then(self.leave(session, channel, reason), tell)

    @staticmethod
    def _gone(session: Session, channel: ChannelName) -> None:
        if session.going is not None:
            session.going.discard(channel)
            session.going = session.going or None

    def join_is_over(self, session: Session) -> None:
        """The session's join has been answered: what has waited for that happens now."""
        channel, session.joining, session.entering = session.joining, None, None
        deferred, session.deferred = session.deferred, None
        for take_out in deferred or ():
            take_out()
        if session.ask_again and channel is not None and channel in session.channels:
            self._rechecks.add((session,), channel)

    def take_out(self, channel: str, user_id: str, text: str) -> int | Pending[int]:
        chosen = [session for session in self._users.of(user_id) if channel in session.channels]
        leaving = [self.expel(one, one.channels[channel], "removed", Removed(text or None)) for one in chosen]
        return _count_once(leaving)

    def ask_again(self, user_id: str | None, channel: str | None) -> int:
        among = self._users.of(user_id) if user_id is not None else list(self.sessions.values())
        if channel is not None:
            for session in among:
                session.ask_again |= session.joining == channel
            among = [session for session in among if channel in session.channels]
        else:
            for session in among:
                session.ask_again |= session.joining is not None
        self._rechecks.add(among, channel)
        return len(among)

    def verify(self, session: Session) -> bool | None:
        """Have a connection's login verified again, beside the loop; `None` where that could not be found out."""
        return self._tokens.verify(session)

    def verdict_number(self) -> int:
        """When the application is asked about somebody's place in a channel."""
        return self._rechecks.number()

    def is_newest(self, channel: ChannelName, session: Session, number: int) -> bool:
        """Whether a verdict that was asked for then is the newest about the session's user in the channel so far."""
        return self._rechecks.is_newest(channel, session, number)

    def tell_user(self, user_id: str, payload: bytes) -> int:
        sessions = self._users.of(user_id)
        frame = self.frame(payload)
        self.meter.deliveries += len(sessions)
        for session in sessions:
            session.connection.send(frame)
        return len(sessions)

    def is_here(self, user_id: str) -> bool:
        return user_id in self._users

    def tick(self, now: float | None = None) -> None:
        """Do what is due at `now`, in epoch seconds; called a few times a second."""
        if now is None:
            now = self.now().timestamp()
        self._tokens.look_after(now)
        self._rechecks.tick(now)
        self.instruments.tick(now)
        self.backend.tick(now)

    # For the server's own code

    def publish(self, channel: str, payload: bytes, exclude: str | None = None) -> int:
        """Send a frame's JSON to every connection in `channel` but `exclude`; how many."""
        return self._ask(lambda: self.backend.broadcast(channel, payload, exclude))

    def channel(self, name: str) -> Channel | None:
        return self._ask(lambda: self.backend.get(name))

    def channels(self, kind: ChannelType | None = None, prefix: str | None = None) -> list[Channel]:
        return self._ask(lambda: self.backend.channels(kind, prefix))

    def members(self, name: str) -> list[Member]:
        return self._ask(lambda: list(self.backend.members(name)))

    def stats(self) -> Stats:
        def count() -> Stats:
            total, by_type = self.backend.counts()
            return Stats(sum(by_type.values()), total, freeze(by_type), self.backend.connections())

        return self._ask(count)

    def connections(self) -> int:
        """All open connections of the service."""
        return self._ask(self.backend.connections)

    def survey(self) -> Survey:
        """What all processes of the service are doing."""
        return self._ask(self.backend.survey)

    def connections_of(self, name: str) -> Mapping[str, int]:
        """How many connections each member has in a presence channel; 0 for one who is held."""
        return self._ask(lambda: self.backend.connections_of(name))

    def check(self) -> None:
        """Raise `BackendUnavailable` where the state store does not answer."""
        self._ask(self.backend.check)

    def disconnect(self, user_id: str | None, client_id: str | None, text: str) -> int:
        """Close, with 4403, the connections that match all that is given; how many."""
        return self._ask(lambda: self.backend.disconnect(user_id, client_id, text))

    def remove(self, channel: str, user_id: str, text: str) -> int:
        """Take a user's connections out of a channel; how many."""
        return self._ask(lambda: self.backend.remove(channel, user_id, text))

    def recheck(self, user_id: str | None, channel: str | None) -> int:
        """Have the application asked again about the connections that match all that is given; how many."""
        return self._ask(lambda: self.backend.recheck(user_id, channel))

    def tell(self, user_id: str, payload: bytes) -> int:
        """Send a frame's JSON to all connections of a user; how many."""
        return self._ask(lambda: self.backend.tell(user_id, payload))

    def is_online(self, user_id: str) -> bool:
        """Whether a user has an open connection."""
        return self._ask(lambda: self.backend.is_online(user_id))

    def say_goodbye(self, client_id: str) -> None:
        """Close a connection because the server stops, if it is still there."""

        def close() -> None:
            session = self.sessions.get(client_id)
            if session is not None:
                session.connection.close(1001, "Server shutting down", "shutdown")

        self.loop.run(close)

    @property
    def handlers_running(self) -> int:
        """Connections some of whose events have not been heard yet."""
        return self._events.running

    def _ask(self, question: Callable[[], T]) -> T:
        if self._loop is None or self.backend.blocking:
            return question()
        return self._loop.run(question)

    def _detach(self, session: Session, channel: ChannelName) -> None:
        del session.channels[channel]
        self.meter.leaves[channel.type] += 1
        audience = self._audiences[channel]
        audience.remove(session.id)
        if not audience:
            del self._audiences[channel]


def _count_once(leaving: Sequence[Pending[None] | None]) -> int | Pending[int]:
    """How many they are, once all have left; `None` stands for one that has."""
    done: Pending[int] = Pending()
    when_all(leaving, lambda: done.settle(lambda: len(leaving)))
    return len(leaving) if done.settled else done


def member_event(client_id: str, user: User | None, channel: ChannelName, change: Change) -> Event:
    """What handlers hear of a change, which a connection with that id has caused."""
    if change.kind == "left":
        return MemberLeft(client_id, user, channel, change.member, change.reason)
    kind = MemberJoined if change.kind == "joined" else MemberUpdated
    return kind(client_id, user, channel, change.member)
