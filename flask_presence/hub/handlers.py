"""The application's event handlers, run beside the event loop.

Law: the events of one connection are heard in the order in which they happened; no handler delays a frame
or another connection's events.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from ..domain.events import Event

if TYPE_CHECKING:
    from .hub import Hub
    from .ports import Grounds
    from .session import Session


class _Orphans:
    """Whose events are heard where no session is: connections that ended with their process, or long ago."""

    def __init__(self) -> None:
        self.events: deque[Event] | None = None
        self.grounds: Grounds = None

    def proceed(self) -> None:
        """Nobody waits for these events."""


class EventQueue:
    """A queue per session, worked off while there is something in it. `running` counts those."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._orphans = _Orphans()
        self.running = 0

    def put_orphan(self, event: Event) -> None:
        """Have an event of a connection without a session heard: after those before it, and before this returns
        where no loop is that could be held up."""
        if self._hub.current_loop is not None:
            self.put(self._orphans, event)
        else:
            self._hub.application.notify(event, None)

    def put(self, session: Session | _Orphans, event: Event) -> None:
        """Have `event` heard, if anybody listens."""
        if not self._hub.application.listens(event.name):
            return
        if session.events is None:
            session.events = deque((event,))
            self.running += 1
            self._hub.loop.spawn(self._work_off, session)
        else:
            session.events.append(event)

    def _work_off(self, session: Session | _Orphans) -> None:
        loop = self._hub.loop
        while (event := loop.run(lambda: self._next(session))) is not None:
            self._hub.application.notify(event, session.grounds)
            loop.sleep(0)  # a thousand handlers that never wait would be one long one to everybody else

    def _next(self, session: Session | _Orphans) -> Event | None:
        if session.events:
            event = session.events.popleft()
            session.proceed()
            return event
        session.events = None
        self.running -= 1
        return None
