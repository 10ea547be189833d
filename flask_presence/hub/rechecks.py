"""What the application has said of connections, asked again while they live.

Law: asked beside the event loop, a few at a time, so that a crowd delays nobody; what is answered takes effect in the
loop, and only if the connection is still there. Whoever may no longer be in a channel leaves it, and is told.
"""

from __future__ import annotations

import copy
import logging
from collections import deque
from collections.abc import Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ..backends.pending import Outcome, then
from ..domain.channels import ChannelName
from ..domain.errors import BackendUnavailable, CredentialRejected, Forbidden, UpdateFailed
from ..domain.guards import Verdict
from ..domain.members import NOTHING, without_known
from ..domain.roster import Updated

if TYPE_CHECKING:
    from .hub import Hub
    from .session import Session

AT_ONCE: Final = 4
"""Connections that the application is asked about at the same time, at the most."""

log = logging.getLogger("flask_presence")


class _Question(NamedTuple):
    """A channel that a connection is in, what its clients have said there, and what the guard owns."""

    channel: ChannelName
    said: Mapping[str, Any]
    owned: Mapping[str, Any]


class Rechecks:
    """The connections that are to be asked about, in the order in which they were named."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._waiting: deque[tuple[Session, str | None]] = deque()
        self._working = 0

    def add(self, sessions: Iterable[Session], channel: str | None) -> None:
        """Ask about these, in all their channels or in one."""
        self._waiting.extend((session, channel) for session in sessions)
        while self._working < min(AT_ONCE, len(self._waiting)):
            self._working += 1
            self._hub.loop.spawn(self._work)

    def _work(self) -> None:
        loop = self._hub.loop
        while (task := loop.run(self._next)) is not None:
            try:
                self._ask(*task)
            except Exception:
                log.exception("client %s could not be asked about again", task[0].id)
            loop.sleep(0)

    def _next(self) -> tuple[Session, str | None] | None:
        while self._waiting:
            session, channel = self._waiting.popleft()
            if session.is_open:
                return session, channel
        self._working -= 1
        return None

    def _ask(self, session: Session, channel: str | None) -> None:
        loop, application = self._hub.loop, self._hub.application
        if not self._hub.verify(session):
            return
        for question in loop.run(partial(self._questions, session, channel)):
            shown = copy.deepcopy(dict(without_known(question.said, session.user)))
            try:
                verdict = application.authorize(session.grounds, session.user, question.channel, shown)
            except CredentialRejected:
                self._hub.verify(session)
                return
            loop.run(partial(self._apply, session, question, verdict))

    def _questions(self, session: Session, channel: str | None) -> list[_Question]:
        questions = []
        for name in session.channels.values():
            if channel in (None, name) and name.type != "public":
                profile = self._hub.backend.profile(name, session.id) if name.type == "presence" else None
                said, owned = (profile.said, profile.owned) if profile is not None else (NOTHING, NOTHING)
                questions.append(_Question(name, said, owned))
        return questions

    def _apply(self, session: Session, question: _Question, verdict: Verdict) -> None:
        hub, channel = self._hub, question.channel
        if verdict.seconds is not None:
            hub.meter.guards[verdict.outcome].observe(verdict.seconds)
        if not session.is_open or channel not in session.channels:
            return
        if not verdict.allowed:
            hub.expel(session, channel, "denied", Forbidden(verdict.reason))
        elif channel.type == "presence" and verdict.owned != question.owned:
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
