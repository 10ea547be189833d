"""What the application has said of connections, asked again while they live.

Law: asked beside the event loop, a few at a time, so that a crowd delays nobody; what is answered takes effect in the
loop, and only if the connection is still there. Whoever may no longer be in a channel leaves it, and is told.
"""

from __future__ import annotations

import copy
import itertools
import logging
from collections import deque
from collections.abc import Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ..domain.channels import ChannelName
from ..domain.errors import BackendUnavailable, CredentialRejected, Forbidden, UpdateFailed
from ..domain.guards import Verdict
from ..domain.members import NOTHING, without_known
from ..domain.roster import Updated
from ..loops.pending import Outcome, then

if TYPE_CHECKING:
    from .hub import Hub
    from .session import Session

MAX_FAILURES: Final = 3
"""How often it may be impossible to find out about a connection, before it leaves the channels that it was about."""
ASK_AGAIN_AFTER: Final = 1.0
"""Seconds."""
AT_ONCE: Final = 4
"""Connections that the application is asked about at the same time, at the most."""

log = logging.getLogger("flask_presence")


class _Task(NamedTuple):
    """A connection to ask about, in one channel or in all, and how often that has failed."""

    session: Session
    channel: str | None
    failures: int = 0


class _Question(NamedTuple):
    """A channel that a connection is in, what is said and what is owned there, and when that was asked about."""

    channel: ChannelName
    said: Mapping[str, Any]
    owned: Mapping[str, Any]
    number: int


class Rechecks:
    """The connections that are to be asked about, in the order in which they were named."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._waiting: deque[_Task] = deque()
        self._again: list[_Task] = []
        self._again_at = 0.0
        self._working = 0
        self._numbers = itertools.count(1)
        self._newest: dict[tuple[str, str], int] = {}

    def add(self, sessions: Iterable[Session], channel: str | None) -> None:
        """Ask about these, in all their channels or in one."""
        self._go_on(_Task(session, channel) for session in sessions)

    def tick(self, now: float) -> None:
        """Ask once more, at `now` in epoch seconds, what could not be found out a moment ago."""
        if self._again and now >= self._again_at:
            again, self._again = self._again, []
            self._again_at = now + ASK_AGAIN_AFTER
            self._go_on(again)

    def number(self) -> int:
        """Grows with every question."""
        return next(self._numbers)

    def is_newest(self, channel: ChannelName, session: Session, number: int) -> bool:
        """Whether no verdict that was asked for later has been heard about the session's user in the channel. Answers
        may come in another order than questions; what is known of it is forgotten when none is on its way."""
        if not self._working or session.user is None:
            return True
        place = (channel, session.user.id)
        if number < self._newest.get(place, 0):
            return False
        self._newest[place] = number
        return True

    def _go_on(self, tasks: Iterable[_Task]) -> None:
        self._waiting.extend(tasks)
        while self._working < min(AT_ONCE, len(self._waiting)):
            self._working += 1
            self._hub.loop.spawn(self._work)

    def _work(self) -> None:
        loop = self._hub.loop
        while (task := loop.run(self._next)) is not None:
            try:
                answered = self._ask(task)
            except BaseException:  # as in `TokenWatch`; the others in the queue are asked about all the same
                log.exception("client %s could not be asked about again", task.session.id)
                answered = False
            if not answered:
                loop.run(partial(self._put_off, task))
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

    def _put_off(self, task: _Task) -> None:
        """Ask once more in a while; where nothing can be found out, nobody stays."""
        if not task.session.is_open:
            return
        if task.failures + 1 < MAX_FAILURES:
            self._again.append(task._replace(failures=task.failures + 1))
            return
        for channel in list(task.session.channels.values()):
            if task.channel in (None, channel) and channel.type != "public":
                self._hub.expel(task.session, channel, "denied", Forbidden())

    def _ask(self, task: _Task) -> bool:
        """Whether everything that was to be asked has been answered."""
        loop, session = self._hub.loop, task.session
        is_good = self._hub.verify(session)
        if not is_good:
            return is_good is False
        for question in loop.run(partial(self._questions, session, task.channel)):
            shown = copy.deepcopy(dict(without_known(question.said, session.user)))
            try:
                verdict = self._hub.application.authorize(session.grounds, session.user, question.channel, shown)
            except CredentialRejected:
                return self._hub.verify(session) is not None
            loop.run(partial(self._apply, session, question, verdict))
        return True

    def _questions(self, session: Session, channel: str | None) -> list[_Question]:
        questions = []
        for name in session.channels.values():
            if channel in (None, name) and name.type != "public":
                profile = self._hub.backend.profile(name, session.id) if name.type == "presence" else None
                said, owned = (profile.said, profile.owned) if profile is not None else (NOTHING, NOTHING)
                questions.append(_Question(name, said, owned, self.number()))
        return questions

    def _apply(self, session: Session, question: _Question, verdict: Verdict) -> None:
        hub, channel = self._hub, question.channel
        if verdict.seconds is not None:
            hub.meter.guards[verdict.outcome].observe(verdict.seconds)
        if not session.is_open or channel not in session.channels:
            return
        if not self.is_newest(channel, session, question.number):
            return
        if not verdict.allowed:
            hub.expel(session, channel, "denied", Forbidden(verdict.reason))
        elif channel.type == "presence" and (verdict.owned or question.owned):
            try:
                updating = hub.backend.update(channel, session.id, {}, hub.now(), verdict.owned)
            except (BackendUnavailable, UpdateFailed) as problem:
                self._not_updated(session, channel, problem)
            else:
                then(updating, partial(self._updated, session, channel))

    def _updated(self, session: Session, channel: ChannelName, outcome: Outcome[Updated]) -> None:
        try:
            self._hub.emit_change(session, channel, outcome().change)
        except (BackendUnavailable, UpdateFailed) as problem:
            self._not_updated(session, channel, problem)

    @staticmethod
    def _not_updated(session: Session, channel: ChannelName, problem: Exception) -> None:
        text = "what the guard gives client %s in %.200r now could not be noted, and will be at its next join: %s"
        log.warning(text, session.id, str(channel), problem)
