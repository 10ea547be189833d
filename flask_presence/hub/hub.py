"""The hub: the open connections of this process, and everything that is done with them.

Rule: everything here runs in the event loop, except `directory` and what says otherwise.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial

from ..backends.base import Backend
from ..domain.channels import ChannelName
from ..domain.errors import Removed
from ..domain.events import ClientConnected, ClientDisconnected, Event, Reason
from ..domain.members import User
from ..domain.readings import Reading
from ..loops.base import Loop
from ..loops.pending import Pending, when_all
from .clock import Clock
from .directory import Directory
from .fanout import FanOut
from .handlers import EventDispatcher
from .instruments import Instruments
from .joins import Joins
from .logins import LoginWatch
from .membership import SessionMembership
from .offload import Offload
from .ports import Application, Connection, Credential, Policy, Transport
from .pusher.requests import PusherRequests
from .rechecks import Rechecks
from .requests import Requests
from .session import Session
from .users import UserIndex


class Hub:
    """Owns the sessions, composes the parts that serve them, and is the backend's `Listener`.

    `frame` turns a message's JSON into what a `Connection` takes. `instruments`, and their `meter`, count what happens
    here. `directory` is for the application's own code. `clock` is the service's time.
    """

    def __init__(
        self, backend: Backend, application: Application, policy: Policy, frame: Callable[[bytes], bytes]
    ) -> None:
        self.backend = backend
        self.policy = policy
        self.clock = Clock()
        self._application = application
        self._frame = frame
        self._offload = Offload()
        self.directory = Directory(backend, self._offload)
        self._begin()
        backend.bind(self)

    def _begin(self) -> None:
        """Start without connections, and without a loop."""
        backend, application, policy = self.backend, self._application, self.policy
        self.sessions: dict[str, Session] = {}
        self.rechecks_begun = 0
        self.instruments = Instruments()
        self.meter = self.instruments.meter
        self._users = UserIndex()
        offload = self._offload
        offload.current_loop = None
        self._fan_out = fan_out = FanOut(application, self.instruments, policy.history, self._frame)
        self._events = EventDispatcher(application, offload)
        self._membership = SessionMembership(backend, fan_out, self._events, policy, offload, self.clock)
        self._logins = LoginWatch(application, fan_out, policy, offload, self.clock, self._renew_user)
        self._rechecks = Rechecks(
            *(application, backend, self._membership, self._events, self._logins, offload, self.meter),
            *(self.clock, self.directory.recheck),
        )
        joins = Joins(
            *(application, backend, policy, self._membership, self._events, self._logins, self._rechecks, offload),
            self.clock,
        )
        requests = Requests(
            *(application, backend, policy, fan_out, self._membership, self._events, joins, self._logins, offload),
            *(self, self.clock),
        )
        self.pusher = (
            PusherRequests(policy, policy.pusher, fan_out, requests, joins, self._membership, self._offload, self)
            if policy.pusher is not None
            else None
        )
        # Bound once, because the hot path calls them:
        self.handle = requests.handle
        self.deliver = fan_out.deliver
        self.announce = fan_out.announce
        self.answer = fan_out.answer

    @property
    def current_loop(self) -> Loop | None:
        """The loop that the hub runs on; `None` before the first connection."""
        return self._offload.current_loop

    @property
    def loop(self) -> Loop:
        return self._offload.loop

    def run_on(self, loop: Loop, transport: Transport | None = None) -> None:
        """Use `loop` from now on, and `transport` for what concerns all connections at once, if they share one.

        Raises `RuntimeError` if there are connections on another loop.
        """
        if self.current_loop is not loop and self.sessions:
            raise RuntimeError("the connections of this process run on another event loop")
        self._offload.current_loop = loop
        self._fan_out.transport = transport
        self.backend.start(loop)

    def forked(self) -> None:
        """Forget all connections: they belong to the process that this one was forked from."""
        self._begin()
        self.backend.forked()

    def session(self, user: User | None, credential: Credential | None, upgrade: bytes | None = None) -> Session:
        """A new session, which nobody sees before `connected`."""
        return Session(self, secrets.token_urlsafe(16), user, credential, upgrade)

    def recheck_if_stale(self, session: Session, rechecks_begun: int) -> None:
        """Recheck a session whose login was verified while `rechecks_begun` had that value, if it has grown since: the
        login may have been one of those that the recheck was meant for."""
        if session.is_open and rechecks_begun != self.rechecks_begun and not session.has_signed_login:
            self._rechecks.add((session,), None)

    def connected(self, session: Session, connection: Connection) -> None:
        """Greet the client: the session's connection is open."""
        session.connection = connection
        self.sessions[session.id] = session
        self._users.add(session)
        self.backend.opened(session.id, session.user)
        self._logins.add(session)
        if self.pusher is not None and session.has_signed_login:
            self.pusher.opened(session)
        self.meter.opened += 1
        greeting = session.dialect.connected(session.id, session.user, self.clock.utc_now())
        self._fan_out.answer(session, greeting)
        self._events.emit(session, ClientConnected(session.id, session.user))

    def disconnected(self, session: Session, code: int, reason: Reason) -> None:
        """Forget the session and take it out of its channels: its connection is gone."""
        del self.sessions[session.id]
        self._users.discard(session)
        self._logins.discard(session)
        self.meter.count_close(code)
        self.meter.slow += reason == "slow"
        event = ClientDisconnected(session.id, session.user, code, reason)
        self._membership.leave_all(session, reason, partial(self._finish, session, event))

    def _finish(self, session: Session, event: ClientDisconnected) -> None:
        self.backend.closed(session.id)
        self._events.emit(session, event)
        assert session.left is not None
        session.left.settle(lambda: None)

    def adopt(self, session: Session, credential: Credential) -> None:
        """Give the session a new token, and with it a user."""
        session.credential = credential
        self.identify(session, credential.user)
        self._logins.add(session)

    def identify(self, session: Session, user: User) -> None:
        """Note that the session belongs to `user` from now on."""
        self._users.discard(session)
        session.user = user
        self._users.add(session)
        self.backend.opened(session.id, user)

    def _renew_user(self, session: Session, user: User) -> None:
        """Let guards and handlers see the user as the `user_loader` knows them now."""
        if session.is_open and session.user != user:
            session.user = user
            self.backend.opened(session.id, user)

    def tick(self) -> None:
        """Do what is due. Called a few times a second."""
        now = self.clock.epoch()
        self._logins.tick(now)
        self._rechecks.tick(now)
        if self.pusher is not None:
            self.pusher.tick(now)
        self.instruments.tick(now)
        self.backend.tick(now)

    def say_goodbye(self, client_id: str) -> None:
        """Close a connection with 1001 because the server shuts down, if it is still there. From any thread."""

        def close() -> None:
            session = self.sessions.get(client_id)
            if session is not None:
                session.close(1001, "Server shutting down", "shutdown")

        self.loop.run(close)

    @property
    def handlers_running(self) -> int:
        """How many connections have events that handlers have not heard yet."""
        return self._events.running

    # The rest of `Listener`, see there

    def close_matching(self, user_id: str | None, client_id: str | None, text: str) -> int | Pending[int]:
        chosen = [session for session in self.sessions.values() if session.matches(user_id, client_id)]
        for session in chosen:
            session.close(4403, text, "disconnected")
        return _count_once_done([session.left for session in chosen])

    def remove_from(self, channel: str, user_id: str, text: str) -> int | Pending[int]:
        sessions = self._users.of(user_id)
        for session in sessions:
            session.recheck_after_join |= session.joining == channel
        chosen = [session for session in sessions if session.has_entered(channel)]
        name, why = ChannelName(channel), Removed(text or None)
        return _count_once_done([self._membership.expel(session, name, "removed", why) for session in chosen])

    def recheck(self, user_id: str | None, channel: str | None, *, ask_signers: bool = True) -> int:
        self.rechecks_begun += 1
        among = self._users.of(user_id) if user_id is not None else list(self.sessions.values())
        if channel is not None:
            for session in among:
                session.recheck_after_join |= session.joining == channel
            among = [session for session in among if session.has_entered(channel)]
        else:
            for session in among:
                session.recheck_after_join |= session.joining is not None
        if self.pusher is not None and ask_signers:
            self.pusher.recheck(among, user_id, channel)
        self._rechecks.add((session for session in among if not session.has_signed_login), channel)
        return len(among)

    def deliver_to_user(self, user_id: str, payload: bytes) -> int:
        return self._fan_out.deliver_to_user(user_id, self._users.of(user_id), payload)

    def has_user(self, user_id: str) -> bool:
        return user_id in self._users

    def give_up_channel(self, channel: str) -> None:
        for session in [session for session in self.sessions.values() if channel in session.channels]:
            session.close(1011, "Messages were missed", "lost")

    def utc_now(self) -> datetime:
        return self.clock.utc_now()

    def notify(self, event: Event) -> None:
        self._events.notify(event)

    def reading(self) -> Reading:
        return self.instruments.read(self._fan_out.backlog())


def _count_once_done(leaving: Sequence[Pending[None] | None]) -> int | Pending[int]:
    """How many there are, once all have left; `None` stands for one that has left already."""
    done: Pending[int] = Pending()
    when_all(leaving, lambda: done.settle(lambda: len(leaving)))
    return len(leaving) if done.settled else done
