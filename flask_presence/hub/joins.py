"""Joins: the guard is asked off the loop, and then the backend lets the connection in.

Rule: the newest verdict about a connection counts. If permissions may have changed while a guard was asked, the login
is verified and the guard is asked again. A verdict that could not be stored is asked for again.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, TypeVar

from ..backends import base
from ..domain import wire
from ..domain.channels import ChannelName
from ..domain.errors import BackendUnavailable, CredentialRejected, Forbidden, JoinFailed
from ..domain.guards import Verdict
from ..domain.history import DEFAULT_LIMIT, Replay
from ..domain.members import NOTHING_OWNED, OwnedInfo, User, client_info
from ..domain.roster import Joined, Joiner, Updated
from ..loops.pending import Outcome, Pending, then, throw
from .clock import Clock
from .handlers import EventDispatcher
from .logins import LoginWatch
from .membership import SessionMembership
from .offload import Offload
from .ports import Application, Policy
from .rechecks import Rechecks
from .session import Session

T = TypeVar("T")
Answer = wire.Frame | None | Pending[wire.Frame | None]

MAX_QUESTIONS: Final = 10
"""How often a guard is asked about one join, if permissions keep changing while it is asked."""


@dataclass(frozen=True, slots=True)
class _Attempt:
    """A session that wants to join a channel, with the part of its `userInfo` that a client may decide.

    `owned` is what the verdict gives it; `None` if no guard is asked, because a signer has decided. `questions` counts
    how often the guard has been asked. `user` is the user to list, if it is not simply the session's. `answer` makes
    the answer of the outcome.
    """

    session: Session
    channel: ChannelName
    info: Mapping[str, Any] | None
    replay: Replay
    owned: OwnedInfo | None = NOTHING_OWNED
    questions: int = 0
    user: User | None = None
    answer: Callable[[ChannelName, Joined], Any] = wire.joined


class Joins:
    """Lets sessions into channels, and answers their requests to join."""

    def __init__(
        self,
        application: Application,
        backend: base.Membership,
        policy: Policy,
        membership: SessionMembership,
        events: EventDispatcher,
        logins: LoginWatch,
        rechecks: Rechecks,
        offload: Offload,
        clock: Clock,
    ) -> None:
        self._application = application
        self._backend = backend
        self._policy = policy
        self._membership = membership
        self._events = events
        self._logins = logins
        self._rechecks = rechecks
        self._offload = offload
        self._clock = clock

    def join(self, session: Session, request: wire.Join) -> Answer:
        """Answer a request to join."""
        channel = ChannelName.parse(request.channel or "")
        info = request.userInfo
        if info is not None:
            info = client_info(info, session.user, self._policy.max_user_info)
        if channel.type != "public" and session.user is None:
            raise Forbidden("Authentication required")
        limit = self._policy.max_channels
        if channel not in session.channels and len(session.channels) >= limit:
            raise JoinFailed(f"A connection may be in at most {limit} channels")
        replay = Replay(request.since, request.history)
        if replay.wanted:
            session.pay_for(request.history or DEFAULT_LIMIT)
        attempt = _Attempt(session, channel, info, replay)
        if channel.type == "public" and session.credential is None:
            answer: Answer = self._enter(attempt)
            return answer
        return self._ask(attempt)

    def enter_signed(
        self,
        session: Session,
        channel: ChannelName,
        user: User | None,
        info: Mapping[str, Any],
        replay: Replay,
        answer: Callable[[ChannelName, Joined], T],
    ) -> T | Pending[T | None] | None:
        """Let a session into a channel because a signer has decided so. `user` is listed with `info`. Returns the
        `answer` of the outcome, or `None` if the session has ended meanwhile."""
        entered: T | Pending[T | None] | None = self._enter(
            _Attempt(session, channel, info, replay, owned=None, user=user, answer=answer)
        )
        return entered

    def answered(self, session: Session) -> None:
        """Do what was waiting for the end of a join."""
        channel, session.joining, session.entering = session.joining, None, None
        self._membership.run_after_join(session)
        if session.recheck_after_join and channel is not None and channel in session.channels:
            self._rechecks.add((session,), channel)

    def _ask(self, attempt: _Attempt) -> Pending[Any]:
        attempt.session.joining, attempt.session.recheck_after_join = attempt.channel, False
        attempt, asked_at = replace(attempt, questions=attempt.questions + 1), time.monotonic()
        return self._offload.ask(partial(self._authorize, attempt)).then(partial(self._decide, attempt, asked_at))

    def _authorize(self, attempt: _Attempt) -> Verdict | None:
        """The application's verdict; `None` if the login has ended. If permissions have changed since the first
        question, the user may have changed too."""
        session = attempt.session
        if attempt.questions > 1:
            is_valid = self._logins.verify(session)
            if is_valid is None:
                raise JoinFailed("Temporarily unavailable", retryable=True)
            if not is_valid:
                return None
        info = copy.deepcopy(dict(attempt.info or {}))
        try:
            return self._application.authorize(session.login, session.user, attempt.channel, info)
        except CredentialRejected:
            return None

    def _decide(self, attempt: _Attempt, asked_at: float, outcome: Outcome[Verdict | None]) -> Answer:
        session, channel = attempt.session, attempt.channel
        if session.recheck_after_join and session.is_open:
            if attempt.questions >= MAX_QUESTIONS:
                raise JoinFailed("Permissions keep changing", retryable=True)
            return self._ask(attempt)
        verdict = outcome()
        if not self._logins.confirmed_by(verdict, session):
            return None
        assert verdict is not None
        self._rechecks.supersede(session, channel, asked_at)
        if verdict.allowed:
            owned = OwnedInfo(verdict.owned, asked_at, time.monotonic())
            answer: Answer = self._enter(replace(attempt, owned=owned))
            return answer
        if channel not in session.channels:
            raise Forbidden(verdict.reason)
        return then(self._membership.leave(session, channel, "denied"), lambda _: throw(Forbidden(verdict.reason)))

    def _enter(self, attempt: _Attempt) -> Any:
        session, channel = attempt.session, attempt.channel
        try:
            now = self._clock.utc_now()
            user = attempt.user or session.user
            joiner = Joiner(channel, session.id, user, attempt.info, now, attempt.owned, attempt.replay)
            joining = self._backend.join(joiner)
        except (JoinFailed, BackendUnavailable) as problem:
            return self._not_entered(attempt, problem)
        if isinstance(joining, Pending):
            session.entering = channel
        return then(joining, partial(self._entered, attempt))

    def _entered(self, attempt: _Attempt, outcome: Outcome[Joined]) -> Any:
        session, channel = attempt.session, attempt.channel
        try:
            joined = outcome()
        except (JoinFailed, BackendUnavailable) as problem:
            return self._not_entered(attempt, problem)
        if joined.is_new:
            self._membership.entered(session, channel)
        self._events.emit_change(session, channel, joined.change)
        if attempt.owned and attempt.owned.info and joined.change is not None and joined.change.kind == "updated":
            self._rechecks.confirm(session, channel)
        if session.ended is not None:  # while the backend let it in, so nothing else takes it out
            return then(self._membership.leave_anyway(session, channel, session.ended), lambda _: None)
        return attempt.answer(channel, joined)

    def _not_entered(self, attempt: _Attempt, problem: JoinFailed | BackendUnavailable) -> Answer:
        """Raise the problem. A repeated join has superseded earlier verdicts, so its own takes effect all the same."""
        session, channel = attempt.session, attempt.channel
        if attempt.owned is None or not session.is_in(channel):
            raise problem
        if isinstance(problem, BackendUnavailable):
            self._rechecks.ask_again(session, channel)
            raise problem
        if channel.type != "presence":
            raise problem

        def finish(outcome: Outcome[Updated]) -> wire.Frame:
            try:
                self._events.emit_change(session, channel, outcome().change)
            except BackendUnavailable:
                self._rechecks.ask_again(session, channel)
            raise problem

        try:
            updating = self._backend.update(channel, session.id, {}, self._clock.utc_now(), attempt.owned)
        except BackendUnavailable:
            self._rechecks.ask_again(session, channel)
            raise problem from None
        return then(updating, finish)
