"""The application's event handlers, run off the event loop.

Rule: handlers hear the events of one connection in the order in which they happened. No handler delays a frame, or
another connection's events.
"""

from __future__ import annotations

from collections import deque

from ..domain.channels import ChannelName
from ..domain.events import Event, MemberJoined, MemberLeft, MemberUpdated
from ..domain.members import User
from ..domain.roster import Change
from .offload import Offload
from .ports import Application, Login
from .session import Session


class _NoSession:
    """Stands in for the session of connections that another process had, or that ended long ago."""

    def __init__(self) -> None:
        self.events: deque[Event] | None = None
        self.login: Login = None

    def proceed(self) -> None:
        """Nothing waits for these events."""


class EventDispatcher:
    """Keeps a queue of events per session, while there are any. `running` counts the queues."""

    def __init__(self, application: Application, offload: Offload) -> None:
        self._application = application
        self._offload = offload
        self._no_session = _NoSession()
        self.running = 0

    def listens(self, event_name: str) -> bool:
        """Whether anybody would hear such an event."""
        return self._application.listens(event_name)

    def notify(self, event: Event) -> None:
        """Dispatch an event of a connection that has no session here. Without a loop, the handlers have run when this
        returns."""
        if self._offload.current_loop is not None:
            self.emit(self._no_session, event)
        elif self._application.listens(event.name):
            self._application.observe(event)
            self._application.notify(event, None)

    def emit(self, session: Session | _NoSession, event: Event) -> None:
        """Dispatch an event, after all earlier ones of its session."""
        if not self._application.listens(event.name):
            return
        self._application.observe(event)
        if not self._application.has_handlers(event.name):
            return
        if session.events is None:
            session.events = deque((event,))
            self.running += 1
            self._offload.spawn(self._run_handlers, session)
        else:
            session.events.append(event)

    def emit_change(self, session: Session, channel: ChannelName, change: Change | None) -> None:
        """Dispatch the event of a member list's change, if there was one."""
        if change is not None:
            self.emit(session, member_event(session.id, session.user, channel, change))

    def _run_handlers(self, session: Session | _NoSession) -> None:
        loop = self._offload.loop
        while (event := loop.run(lambda: self._next(session))) is not None:
            self._application.notify(event, session.login)
            loop.sleep(0)  # handlers that never wait must not run a thousand at a time

    def _next(self, session: Session | _NoSession) -> Event | None:
        if session.events:
            event = session.events.popleft()
            session.proceed()
            return event
        session.events = None
        self.running -= 1
        return None


def member_event(client_id: str, user: User | None, channel: ChannelName, change: Change) -> Event:
    """The event that handlers hear of a change to a member list, caused by the connection with that client id."""
    if change.kind == "left":
        return MemberLeft(client_id, user, channel, change.member, change.reason)
    kind = MemberJoined if change.kind == "joined" else MemberUpdated
    return kind(client_id, user, channel, change.member)
