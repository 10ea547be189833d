"""Logins over the life of a connection: they are checked again and again, and clients hear when a token expires.

Rule: a connection does not outlive its token. It outlives the end of any other login by at most one recheck interval.
"""

from __future__ import annotations

import logging
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Final

from ..domain import wire
from ..domain.errors import CredentialRejected
from ..domain.guards import Verdict
from ..domain.members import User
from ..domain.timestamps import from_epoch
from .clock import Clock
from .fanout import FanOut
from .offload import Offload
from .ports import Application, Login, Policy
from .session import Session

WARN_BEFORE: Final = 30.0
"""How many seconds before its token expires a client is warned."""
MAX_FAILURES: Final = 3
"""How many checks in a row may fail for a reason other than the login itself, before the login counts as ended."""

log = logging.getLogger("flask_presence")


class _Loads:
    """The order of questions to the `user_loader` that overlap: an older answer must not replace a newer one."""

    def __init__(self) -> None:
        self._asked = 0
        self._open: Counter[str] = Counter()
        self._newest: dict[str, int] = {}  # the newest question that has been answered, by session, while others wait

    def begin(self, session_id: str) -> int:
        """Note that a question begins. Returns its number."""
        self._open[session_id] += 1
        self._asked += 1
        return self._asked

    def is_newest(self, session_id: str, number: int) -> bool:
        """Note that a question has been answered. Returns whether no newer one has been."""
        newest = self._newest[session_id] = max(number, self._newest.get(session_id, 0))
        return number == newest

    def end(self, session_id: str) -> None:
        """Note that a question has ended."""
        self._open[session_id] -= 1
        if not self._open[session_id]:
            del self._open[session_id]
            self._newest.pop(session_id, None)


class LoginWatch:
    """Watches the sessions that belong to a user because of a token or a `user_loader`.

    `renew_user` is called with a session and its user, as the `user_loader` knows them now.
    """

    def __init__(
        self,
        application: Application,
        fan_out: FanOut,
        policy: Policy,
        offload: Offload,
        clock: Clock,
        renew_user: Callable[[Session, User], None],
    ) -> None:
        self._application = application
        self._fan_out = fan_out
        self._interval = policy.token_recheck
        self._offload = offload
        self._clock = clock
        self._renew_user = renew_user
        self._sessions: dict[str, Session] = {}
        self._loads = _Loads()

    def add(self, session: Session) -> None:
        """Watch the session's login, if it has one. First checks are spread over half an interval."""
        if session.user is not None and session.login is not None:
            credential, ahead = session.credential, self._clock.ahead
            if ahead and credential is not None and credential.expires_at is not None:
                session.credential = replace(credential, expires_at=credential.expires_at + ahead)
            session.warned = False
            session.recheck_at = self._clock.utc_now().timestamp() + self._interval * random.uniform(0.5, 1)  # noqa: S311
            self._sessions[session.id] = session

    def discard(self, session: Session) -> None:
        self._sessions.pop(session.id, None)

    def tick(self, now: float) -> None:
        """Do what is due at `now`, in epoch seconds."""
        for session in list(self._sessions.values()):
            self._look_after(session, now)

    def verify(self, session: Session) -> bool | None:
        """Check the session's login now, off the loop. Returns whether the session may go on; `None` if that could not
        be found out."""
        if session.user is not None and session.login is not None:
            self._check(session, session.login)
        return None if session.is_open and session.recheck_failures else session.is_open

    def confirmed_by(self, verdict: Verdict | None, session: Session) -> bool:
        """Whether the session may go on, now that the application has answered its request. Closes it if the answer is
        `None`: the login has ended."""
        if verdict is not None and verdict.seconds is not None:
            self._fan_out.meter.guards[verdict.outcome].observe(verdict.seconds)
        if session.is_open and verdict is None:
            session.close(4401, "Token expired or revoked", "expired")
        return session.is_open and verdict is not None

    def _look_after(self, session: Session, now: float) -> None:
        end = session.credential.expires_at if session.credential is not None else None
        if end is not None and now >= end:
            session.close(4401, "Token expired", "expired")
        elif now >= session.recheck_at:
            session.recheck_at = now + self._interval
            self._offload.spawn(self._check, session, session.login)
        elif end is not None and end - now <= WARN_BEFORE and not session.warned:
            session.warned = True
            self._fan_out.tell(session, wire.auth_expiring(from_epoch(end)))

    def _check(self, session: Session, login: str | bytes | None) -> None:
        """Check a login, and the one that the client has replaced it with meanwhile."""
        while login is not None:
            try:
                is_valid = self._is_valid(session, login)
                session.recheck_failures = 0
            except BaseException:  # gevent.Timeout and SystemExit count as failures too, and end nothing else
                session.recheck_failures += 1
                log.exception("the login of client %s could not be checked again", session.id)
                is_valid = session.recheck_failures < MAX_FAILURES
            login = None if is_valid else self._offload.loop.run(partial(self._end, session, login))

    def _is_valid(self, session: Session, login: str | bytes) -> bool:
        if isinstance(login, bytes):
            return self._is_loaded(session, login)
        try:
            self._application.identify(login)
        except CredentialRejected:
            return False
        return True

    def _is_loaded(self, session: Session, upgrade: bytes) -> bool:
        """Ask the `user_loader`, and renew the session's user unless a newer answer is here already."""
        loop = self._offload.loop
        number = loop.run(partial(self._loads.begin, session.id))
        try:
            user = self._application.load_user(upgrade)
            if user is None or session.user is None or user.id != session.user.id:
                return False
            loop.run(lambda: self._loads.is_newest(session.id, number) and self._renew_user(session, user))
            return True
        finally:
            loop.run(partial(self._loads.end, session.id))

    def _end(self, session: Session, login: str | bytes) -> Login:
        """Close the session because its login has ended; unless it has another one by now, which is returned."""
        if not session.is_open:
            return None
        if session.login != login:
            return session.login
        text = "Token revoked" if isinstance(login, str) else "Login ended"
        session.close(4401, text, "expired")
        return None
