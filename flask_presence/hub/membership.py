"""Which session is in which channel: joining, leaving, and being taken out by the server.

Rule: the open connections are the source of truth. A session that leaves is out at once, even if the state store is
unreachable; the store is an index that is rebuilt from the sessions.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from functools import partial

from ..backends import base
from ..domain.channels import ChannelName
from ..domain.errors import BackendUnavailable, RequestError
from ..domain.events import ChannelJoined, ChannelLeft, Reason
from ..domain.roster import Change
from ..loops.pending import Outcome, Pending, then, when_all
from .clock import Clock
from .fanout import FanOut
from .handlers import EventDispatcher
from .offload import Offload
from .ports import Policy
from .session import Session

log = logging.getLogger("flask_presence")


class SessionMembership:
    """Moves sessions in and out of channels: in the backend, in the fan-out, and for the handlers.

    `in_question` counts, by client id, the rechecks that are not done.
    """

    def __init__(
        self,
        backend: base.Membership,
        fan_out: FanOut,
        events: EventDispatcher,
        policy: Policy,
        offload: Offload,
        clock: Clock,
    ) -> None:
        self._backend = backend
        self._fan_out = fan_out
        self._events = events
        self._policy = policy
        self._offload = offload
        self._clock = clock
        self.in_question: Counter[str] = Counter()

    def entered(self, session: Session, channel: ChannelName) -> None:
        """Let the session hear a channel that the backend has just let it into."""
        channel = self._fan_out.add(session, channel)
        session.channels[channel] = channel
        self._fan_out.meter.joins[channel.type] += 1
        self._events.emit(session, ChannelJoined(session.id, session.user, channel, channel.type))

    def leave(self, session: Session, channel: ChannelName, reason: Reason) -> Pending[bool] | bool:
        """Take the session out of a channel that it is in. Returns whether the session was still in it when the backend
        had answered.

        If this raises, nothing has changed.
        """

        def finish(outcome: Outcome[Change | None]) -> bool:
            if channel not in session.channels:
                return False  # it disconnected, or left in another way, meanwhile
            try:
                change = outcome()
            except BackendUnavailable:
                change = None
            self._detach(session, channel)
            self._events.emit(session, ChannelLeft(session.id, session.user, channel, channel.type, reason))
            self._events.emit_change(session, channel, change)
            return True

        try:
            now, grace = self._clock.utc_now(), self._grace(session, channel, reason)
            change = self._backend.leave(channel, session.id, now, reason, grace=grace)
        except BackendUnavailable:
            change = None
        return then(change, finish)

    def leave_all(self, session: Session, reason: Reason, done: Callable[[], object]) -> None:
        """Take a session that has ended out of all its channels, whatever goes wrong. Calls `done` afterwards."""
        entering = session.entering
        channels = [channel for channel in session.channels.values() if channel != entering]
        leaving = [self.leave_anyway(session, channel, reason) for channel in channels]
        session.left = Pending()
        if entering is not None:  # a leave now might overtake the join, so it follows the end of the join
            left: Pending[bool] = Pending()

            def leave() -> None:
                still_in = entering in session.channels
                then(self.leave_anyway(session, entering, reason) if still_in else True, left.settle)

            session.after_join = [*(session.after_join or ()), leave]
            leaving.append(left)
        when_all(leaving, done)

    def leave_anyway(self, session: Session, channel: ChannelName, reason: Reason) -> Pending[bool] | bool:
        """Take a session that has ended out of a channel, whatever goes wrong."""
        try:
            left = self.leave(session, channel, reason)
        except Exception as problem:
            self._detach_anyway(session, channel, problem)
            return True
        if isinstance(left, Pending):
            left.when(partial(self._check_left, session, channel))
        return left

    def expel(self, session: Session, channel: ChannelName, reason: Reason, why: RequestError) -> Pending[None] | None:
        """Take a session out of a channel by the server's decision, and tell the client `why`.

        From now on, nothing that the session sends reaches the channel. If the backend is carrying out a join, the
        removal waits for it. Returns `None` if it is done already.
        """
        session.being_removed = session.being_removed or set()
        session.being_removed.add(channel)
        if session.entering != channel:
            return self._expel(session, channel, reason, why)
        later: Pending[None] = Pending()
        session.after_join = session.after_join or []
        session.after_join.append(lambda: then(self._expel(session, channel, reason, why), later.settle))
        return later

    @staticmethod
    def run_after_join(session: Session) -> None:
        """Do what was waiting for the end of the session's join."""
        removals, session.after_join = session.after_join, None
        for remove in removals or ():
            remove()

    def _expel(self, session: Session, channel: ChannelName, reason: Reason, why: RequestError) -> Pending[None] | None:
        if not session.is_open or channel not in session.channels:
            self._removed(session, channel)
            return None

        def tell(outcome: Outcome[bool]) -> None:
            self._removed(session, channel)
            if outcome() and session.is_open:
                self._fan_out.tell(session, session.dialect.removed(channel, why))

        return then(self.leave(session, channel, reason), tell)

    @staticmethod
    def _removed(session: Session, channel: ChannelName) -> None:
        if session.being_removed is not None:
            session.being_removed.discard(channel)
            session.being_removed = session.being_removed or None

    def _grace(self, session: Session, channel: ChannelName, reason: Reason) -> float:
        """For how many seconds the user of a connection that ends like this stays listed: not at all if permissions are
        in question, because nobody can ask about a user without a connection."""
        if channel.type != "presence" or session.id in self.in_question:
            return 0
        if reason == "shutdown" and self._backend.outlives_process:
            return self._policy.grace
        return self._policy.grace_abrupt if reason == "lost" else 0

    def _check_left(self, session: Session, channel: ChannelName, outcome: Outcome[bool]) -> None:
        try:
            outcome()
        except Exception as problem:
            self._detach_anyway(session, channel, problem)

    def _detach_anyway(self, session: Session, channel: ChannelName, problem: Exception) -> None:
        text = "client %s has disconnected, and taking it out of %.200r failed"
        self._offload.spawn(partial(log.error, text, session.id, str(channel), exc_info=problem))
        if channel in session.channels:
            self._detach(session, channel)

    def _detach(self, session: Session, channel: ChannelName) -> None:
        del session.channels[channel]
        self._fan_out.remove(session, channel)
        self._fan_out.meter.leaves[channel.type] += 1
