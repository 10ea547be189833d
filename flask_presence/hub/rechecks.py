"""Permissions that may have changed: guards are asked again about connections that are in a channel already.

Rule: the application is asked off the event loop, about a few connections at a time, so that a crowd delays nobody.
Its verdicts take effect in the loop, and only if the connection is still there. A client that may no longer be in a
channel is taken out and told.
"""

from __future__ import annotations

import copy
import itertools
import logging
from collections import deque
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, Final, NamedTuple

from ..backends.base import Membership
from ..domain.channels import ChannelName
from ..domain.errors import BackendUnavailable, CredentialRejected, Forbidden, UpdateFailed
from ..domain.guards import Verdict
from ..domain.members import NOTHING, without_known
from ..domain.meter import Meter
from ..domain.roster import Updated
from ..loops.pending import Outcome, then
from .clock import utc_now
from .handlers import EventDispatcher
from .logins import LoginWatch
from .membership import SessionMembership
from .offload import Offload
from .ports import Application
from .session import Session

MAX_FAILURES: Final = 3
"""How often asking about a connection may fail, before it is taken out of the channels in question."""
RETRY_AFTER: Final = 1.0
"""Seconds."""
MAX_CONCURRENT: Final = 4
"""About how many connections the application is asked at the same time."""

log = logging.getLogger("flask_presence")


class _Task(NamedTuple):
    """A session to ask about, in one channel or in all (`None`), and how often that has failed."""

    session: Session
    channel: str | None
    failures: int = 0


class _Question(NamedTuple):
    """A channel that a session is in, what its user has said there, what the guard owns, and the question's number."""

    channel: ChannelName
    said: Mapping[str, Any]
    owned: Mapping[str, Any]
    number: int


class Rechecks:
    """A queue of sessions to ask about, first come, first served."""

    def __init__(
        self,
        application: Application,
        backend: Membership,
        membership: SessionMembership,
        events: EventDispatcher,
        logins: LoginWatch,
        offload: Offload,
        meter: Meter,
    ) -> None:
        self._application = application
        self._backend = backend
        self._membership = membership
        self._events = events
        self._logins = logins
        self._offload = offload
        self._meter = meter
        self._waiting: deque[_Task] = deque()
        self._failed: list[_Task] = []
        self._retry_at = 0.0
        self._working = 0
        self._numbers = itertools.count(1)
        self._newest: dict[tuple[str, str], int] = {}

    def add(self, sessions: Iterable[Session], channel: str | None) -> None:
        """Ask about these sessions, in one channel or in all of theirs (`None`)."""
        self._start(_Task(session, channel) for session in sessions)

    def tick(self, now: float) -> None:
        """At `now`, in epoch seconds, retry what failed a moment ago."""
        if self._failed and now >= self._retry_at:
            failed, self._failed = self._failed, []
            self._retry_at = now + RETRY_AFTER
            self._start(failed)

    def next_number(self) -> int:
        """The number of a question that is about to be asked. Numbers grow."""
        return next(self._numbers)

    def is_newest(self, channel: ChannelName, session: Session, number: int) -> bool:
        """Whether no later question about the session's user in the channel has been answered yet. Verdicts may arrive
        in another order than questions were asked; the newest counts."""
        if not self._working or session.user is None:
            return True
        place = (channel, session.user.id)
        if number < self._newest.get(place, 0):
            return False
        self._newest[place] = number
        return True

    def _start(self, tasks: Iterable[_Task]) -> None:
        self._waiting.extend(tasks)
        while self._working < min(MAX_CONCURRENT, len(self._waiting)):
            self._working += 1
            self._offload.spawn(self._work)

    def _work(self) -> None:
        loop = self._offload.loop
        while (task := loop.run(self._next)) is not None:
            try:
                answered = self._ask(task)
            except BaseException:  # as in `LoginWatch`; the other tasks are worked on all the same
                log.exception("client %s could not be rechecked", task.session.id)
                answered = False
            if not answered:
                loop.run(partial(self._fail, task))
            loop.sleep(0)

    def _next(self) -> _Task | None:
        while self._waiting:
            task = self._waiting.popleft()
            if task.session.is_open:
                return task
        self._working -= 1
        if not self._working:
            self._newest.clear()
        return None

    def _fail(self, task: _Task) -> None:
        """Retry later; after too many failures, take the session out."""
        if not task.session.is_open:
            return
        if task.failures + 1 < MAX_FAILURES:
            self._failed.append(task._replace(failures=task.failures + 1))
            return
        for channel in list(task.session.channels.values()):
            if task.channel in (None, channel) and channel.type != "public":
                self._membership.expel(task.session, channel, "denied", Forbidden())

    def _ask(self, task: _Task) -> bool:
        """Whether all questions about the session have been answered."""
        loop, session = self._offload.loop, task.session
        is_valid = self._logins.verify(session)
        if not is_valid:
            return is_valid is False
        for question in loop.run(partial(self._questions, session, task.channel)):
            shown = copy.deepcopy(dict(without_known(question.said, session.user)))
            try:
                verdict = self._application.authorize(session.login, session.user, question.channel, shown)
            except CredentialRejected:
                return self._logins.verify(session) is not None
            loop.run(partial(self._apply, session, question, verdict))
        return True

    def _questions(self, session: Session, channel: str | None) -> list[_Question]:
        questions = []
        for name in session.channels.values():
            if channel in (None, name) and name.type != "public":
                profile = self._backend.profile(name, session.id) if name.type == "presence" else None
                said, owned = (profile.said, profile.owned) if profile is not None else (NOTHING, NOTHING)
                questions.append(_Question(name, said, owned, self.next_number()))
        return questions

    def _apply(self, session: Session, question: _Question, verdict: Verdict) -> None:
        channel = question.channel
        if verdict.seconds is not None:
            self._meter.guards[verdict.outcome].observe(verdict.seconds)
        if not session.is_open or channel not in session.channels:
            return
        if not self.is_newest(channel, session, question.number):
            return
        if not verdict.allowed:
            self._membership.expel(session, channel, "denied", Forbidden(verdict.reason))
        elif channel.type == "presence" and (verdict.owned or question.owned):
            try:
                updating = self._backend.update(channel, session.id, {}, utc_now(), verdict.owned)
            except (BackendUnavailable, UpdateFailed) as problem:
                self._not_updated(session, channel, problem)
            else:
                then(updating, partial(self._updated, session, channel))

    def _updated(self, session: Session, channel: ChannelName, outcome: Outcome[Updated]) -> None:
        try:
            self._events.emit_change(session, channel, outcome().change)
        except (BackendUnavailable, UpdateFailed) as problem:
            self._not_updated(session, channel, problem)

    @staticmethod
    def _not_updated(session: Session, channel: ChannelName, problem: Exception) -> None:
        text = "the owned info that the guard gives client %s in %.200r was not stored; its next join stores it: %s"
        log.warning(text, session.id, str(channel), problem)
