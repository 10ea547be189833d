"""Permissions that may have changed: guards are asked again about connections that are in a channel already.

Rule: the application is asked off the event loop, about a few connections at a time, so that a crowd delays nobody, and
a slow guard delays nobody else either. Its verdicts take effect in the loop, and only if the connection is still there
and no newer verdict about it has. A client that may no longer be in a channel is taken out and told.
"""

from __future__ import annotations

import copy
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Final, NamedTuple

from ..backends.base import Membership
from ..domain.channels import ChannelName
from ..domain.errors import BackendUnavailable, CredentialRejected, Forbidden, UpdateFailed
from ..domain.guards import Verdict
from ..domain.members import NO_INFO, OwnedInfo, guard_info
from ..domain.meter import Meter
from ..domain.roster import Updated
from ..loops.pending import Outcome, then
from .clock import Clock
from .handlers import EventDispatcher
from .logins import LoginWatch
from .membership import SessionMembership
from .offload import Offload
from .ports import Application
from .session import Session

MAX_FAILURES: Final = 3
"""How often asking about a connection may fail, before it is taken out of the channels in question."""
RETRY_AFTER: Final = 1.0
"""Seconds until a failed recheck is tried again."""
MAX_CONCURRENT: Final = 4
"""How many connections the application is asked about at the same time."""
SLOW_AFTER: Final = 1.0
"""Seconds after which a question no longer counts towards `MAX_CONCURRENT`, so that slow guards hold up nobody else."""
MAX_SLOW: Final = 1000
"""The maximum number of slow questions that do not count."""

log = logging.getLogger("flask_presence")


class _Task(NamedTuple):
    """A session to ask about: first its login, then the guard of one channel after the other.

    `channel` is the one to ask about, or `None` for all. `rest` are those that are left once the login is verified.
    `confirms` says that the question only confirms an earlier verdict. `about_user` says that the answer also decides
    what the user's other connections show: if the session leaves first, the guard is asked about those instead.
    """

    session: Session
    channel: str | None
    rest: tuple[ChannelName, ...] | None = None
    failures: int = 0
    confirms: bool = False
    about_user: bool = False


class _Question:
    """One question to a guard. `superseded`: a verdict that was asked for later has taken effect."""

    def __init__(self, session: Session, channel: ChannelName, client_info: Mapping[str, Any]) -> None:
        self.session = session
        self.channel = channel
        self.client_info = client_info
        self.asked_at = time.monotonic()
        self.superseded = False


class Rechecks:
    """A queue of sessions to ask about, which take turns, channel by channel.

    `recheck_everywhere`, which may block, rechecks all connections of a user in a channel, on all workers. A runner is
    a greenlet or a thread that takes tasks from the queue.
    """

    def __init__(
        self,
        application: Application,
        backend: Membership,
        membership: SessionMembership,
        events: EventDispatcher,
        logins: LoginWatch,
        offload: Offload,
        meter: Meter,
        clock: Clock,
        recheck_everywhere: Callable[[str, str], object],
    ) -> None:
        self._application = application
        self._backend = backend
        self._membership = membership
        self._events = events
        self._logins = logins
        self._offload = offload
        self._meter = meter
        self._clock = clock
        self._recheck_everywhere = recheck_everywhere
        self._logins_waiting: deque[_Task] = deque()  # they come first, because guards may take long
        self._waiting: deque[_Task] = deque()
        self._failed: list[_Task] = []
        self._retry_at = 0.0
        self._working: dict[int, float] = {}  # when each runner began its current task, by its number
        self._last_runner = 0
        self._open_questions: set[_Question] = set()
        self._recheck_later: list[tuple[str, str]] = []  # users and channels
        self._recheck_later_at = 0.0
        self._not_stored: set[tuple[str, str]] = set()  # client ids and channels that the log has named

    def add(self, sessions: Iterable[Session], channel: str | None) -> None:
        """Ask about these sessions, in one channel or in all of theirs (`None`)."""
        for session in sessions:
            self._add(_Task(session, channel))
        self._start_runners()

    def confirm(self, session: Session, channel: ChannelName) -> None:
        """Ask once more about a session whose verdict has changed what a guard owns of a member who was listed already:
        a newer verdict, about another connection of the user, may have taken effect while the guard was asked."""
        self._add(_Task(session, channel, confirms=True, about_user=True))
        self._start_runners()

    def ask_again(self, session: Session, channel: ChannelName) -> None:
        """Ask about a session whose verdict has superseded earlier ones, and could not be stored."""
        self._add(_Task(session, channel, about_user=True))
        self._start_runners()

    def _add(self, task: _Task) -> None:
        self._membership.in_question[task.session.id] += 1
        self._logins_waiting.append(task)

    def _abandon(self, task: _Task) -> None:
        """End a task whose session is closed, or has left the channel."""
        self._end(task)
        user_id = task.session.user_id
        if task.about_user and task.channel is not None and user_id is not None:
            self._recheck_later.append((user_id, str(task.channel)))

    def _end(self, task: _Task) -> None:
        in_question = self._membership.in_question
        in_question[task.session.id] -= 1
        if not in_question[task.session.id]:
            del in_question[task.session.id]

    def tick(self, now: float) -> None:
        """At `now`, in epoch seconds, retry what failed a moment ago, and start more runners if guards are slow."""
        if self._failed and now >= self._retry_at:
            failed, self._failed = self._failed, []
            self._retry_at = now + RETRY_AFTER
            self._logins_waiting.extend(failed)
        if self._recheck_later and now >= self._recheck_later_at:
            due, self._recheck_later = self._recheck_later, []
            self._recheck_later_at = now + RETRY_AFTER
            self._offload.spawn(self._recheck_others, due)
        if self._waiting or self._logins_waiting:
            self._start_runners()
        elif not self._working and not self._failed:
            self._not_stored.clear()

    def _recheck_others(self, due: list[tuple[str, str]]) -> None:
        """Recheck all connections of users in channels. Off the loop."""
        for user_id, channel in due:
            try:
                self._recheck_everywhere(user_id, channel)
            except BackendUnavailable:
                self._offload.loop.run(partial(self._recheck_later.append, (user_id, channel)))

    def supersede(self, session: Session, channel: ChannelName, asked_at: float) -> None:
        """Note that a verdict about the session in the channel takes effect. It was asked for at `asked_at`, in seconds
        of the monotonic clock. Older questions that are still open no longer count."""
        for question in self._open_questions:
            if question.session is session and question.channel == channel and question.asked_at < asked_at:
                question.superseded = True

    def _start_runners(self) -> None:
        moment = time.monotonic()
        slow = sum(moment - since > SLOW_AFTER for since in self._working.values())
        free = MAX_CONCURRENT + min(slow, MAX_SLOW) - len(self._working)
        for _ in range(min(free, len(self._logins_waiting) + len(self._waiting))):
            self._last_runner += 1
            self._working[self._last_runner] = moment
            self._offload.spawn(self._work, self._last_runner)

    def _work(self, number: int) -> None:
        loop = self._offload.loop
        while (task := loop.run(partial(self._next, number))) is not None:
            try:
                rest = self._ask(task)
            except BaseException:  # as in `LoginWatch`; the other tasks are worked on all the same
                log.exception("client %s could not be rechecked", task.session.id)
                loop.run(partial(self._fail, task))
            else:
                loop.run(partial(self._go_on, task, rest))
            loop.sleep(0)

    def _next(self, number: int) -> _Task | None:
        while self._logins_waiting or self._waiting:
            task = (self._logins_waiting or self._waiting).popleft()
            if task.session.is_open:
                self._working[number] = time.monotonic()
                return task
            self._abandon(task)
        del self._working[number]
        return None

    def _go_on(self, task: _Task, rest: tuple[ChannelName, ...] | None) -> None:
        if rest is None:
            self._abandon(task)
        elif rest:
            self._waiting.append(task._replace(rest=rest))
        else:
            self._end(task)

    def _fail(self, task: _Task) -> None:
        """Retry later, from the beginning; after too many failures, take the session out."""
        if task.session.is_open and task.failures + 1 < MAX_FAILURES:
            self._failed.append(task._replace(rest=None, failures=task.failures + 1))
            return
        self._abandon(task)
        if not task.session.is_open:
            return
        for channel in list(task.session.channels.values()):
            if task.channel in (None, channel) and channel.type != "public":
                self._membership.expel(task.session, channel, "denied", Forbidden())

    def _ask(self, task: _Task) -> tuple[ChannelName, ...] | None:
        """Verify the login, or ask about the next channel. Returns the channels that are left; `None` if the session is
        closed, or has left the only channel in question. Raises if the login could not be verified."""
        session = task.session
        if task.rest is None:
            self._verify(session)
            return self._offload.loop.run(partial(self._channels, session, task.channel))
        channel, *rest = task.rest
        was_answered = self._ask_about(session, channel, confirms=task.confirms)
        return tuple(rest) if session.is_open and (was_answered or rest) else None

    def _verify(self, session: Session) -> None:
        if self._logins.verify(session) is None:
            raise RuntimeError("the login could not be verified")

    def _channels(self, session: Session, channel: str | None) -> tuple[ChannelName, ...] | None:
        """The channels to ask about. If the session is joining one of them, its guard was asked about the user as they
        were before the login was verified, so it is asked again."""
        session.recheck_after_join |= session.joining is not None and channel in (None, session.joining)
        chosen = [name for name in session.channels.values() if channel in (None, name) and name.type != "public"]
        return tuple(chosen) if chosen or channel is None else None

    def _ask_about(self, session: Session, channel: ChannelName, *, confirms: bool) -> bool:
        """Ask the guard, with the login that the session has by then. Returns whether the verdict, or a newer one, has
        taken effect. Raises if that login is rejected, although it passes `_verify`."""
        loop = self._offload.loop
        while (question := loop.run(partial(self._begin_question, session, channel))) is not None:
            login, info = session.login, copy.deepcopy(guard_info(question.client_info, session.user))
            try:
                verdict = self._application.authorize(login, session.user, channel, info)
            except CredentialRejected:
                if session.login != login:
                    continue  # the client has sent another token meanwhile
                self._verify(session)
                if session.is_open:
                    raise RuntimeError("the login was rejected, but then passed its own check") from None
                return False
            else:
                return loop.run(partial(self._apply, question, verdict, confirms=confirms))
            finally:
                loop.run(partial(self._open_questions.discard, question))
        return False

    def _begin_question(self, session: Session, channel: ChannelName) -> _Question | None:
        if not session.is_open or channel not in session.channels:
            return None
        profile = self._backend.profile(channel, session.id) if channel.type == "presence" else None
        question = _Question(session, channel, NO_INFO if profile is None else profile.client_info)
        self._open_questions.add(question)
        return question

    def _apply(self, question: _Question, verdict: Verdict, *, confirms: bool) -> bool:
        session, channel = question.session, question.channel
        if verdict.seconds is not None:
            self._meter.guards[verdict.outcome].observe(verdict.seconds)
        if not session.is_open or channel not in session.channels:
            return False
        if question.superseded:
            return True
        self.supersede(session, channel, question.asked_at)
        if not verdict.allowed:
            self._membership.expel(session, channel, "denied", Forbidden(verdict.reason))
        elif channel.type == "presence":
            # Even if the verdict owns nothing: the store may know of keys that an earlier verdict owned.
            owned = OwnedInfo(verdict.owned, question.asked_at, time.monotonic())
            try:
                updating = self._backend.update(channel, session.id, {}, self._clock.utc_now(), owned)
            except (BackendUnavailable, UpdateFailed) as problem:
                self._not_updated(session, channel, problem)
            else:
                confirmed = confirms or not verdict.owned
                then(updating, partial(self._updated, session, channel, confirmed=confirmed))
        return True

    def _updated(self, session: Session, channel: ChannelName, outcome: Outcome[Updated], *, confirmed: bool) -> None:
        try:
            change = outcome().change
            self._events.emit_change(session, channel, change)
            if change is not None and not confirmed:
                self.confirm(session, channel)
        except (BackendUnavailable, UpdateFailed) as problem:
            self._not_updated(session, channel, problem)

    def _not_updated(self, session: Session, channel: ChannelName, problem: Exception) -> None:
        """Ask again in a moment, however often: what was taken from a user must not stay."""
        self._membership.in_question[session.id] += 1
        task = _Task(session, channel, about_user=True)
        if not session.is_open or channel not in session.channels:
            self._abandon(task)
            return
        self._failed.append(task)
        if (session.id, channel) not in self._not_stored:
            self._not_stored.add((session.id, channel))
            text = "the owned info that the guard gives client %s in %.200r was not stored, and is asked for again: %s"
            self._offload.spawn(partial(log.warning, text, session.id, str(channel), problem))
