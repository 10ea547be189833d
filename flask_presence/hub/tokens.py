"""Logins over the life of a connection: asked about again and again; the end of a token is announced.

Law: a connection does not outlive its token, nor the end of a login of any kind for longer than the recheck.
"""

from __future__ import annotations

import logging
import random
from functools import partial
from typing import TYPE_CHECKING, Final

from ..domain import wire
from ..domain.errors import CredentialRejected
from ..domain.timestamps import from_epoch

if TYPE_CHECKING:
    from .hub import Hub
    from .ports import Credential
    from .session import Session

WARN_BEFORE: Final = 30.0
"""Seconds before a token's end at which the client hears of it."""
MAX_FAILURES: Final = 3
"""Rechecks in a row that may fail for another reason than the login, before it counts as ended."""

log = logging.getLogger("flask_presence")


class TokenWatch:
    """The sessions that a token, or a `user_loader`, has opened for somebody."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._sessions: dict[str, Session] = {}

    def add(self, session: Session) -> None:
        """Watch the session's login, if it has one; the first recheck is spread out over the interval."""
        if session.user is not None and session.grounds is not None:
            session.warned = False
            session.recheck_at = self._hub.now().timestamp() + self._hub.policy.token_recheck * random.uniform(0.5, 1)  # noqa: S311
            self._sessions[session.id] = session

    def discard(self, session: Session) -> None:
        self._sessions.pop(session.id, None)

    def look_after(self, now: float) -> None:
        """Do what is due at `now`, in epoch seconds."""
        for session in list(self._sessions.values()):
            self._look_after(session, session.credential, now)

    def verify(self, session: Session) -> bool | None:
        """Ask about the session's login now, beside the loop; whether the session may go on, `None` where that could
        not be found out."""
        if session.user is not None and session.grounds is not None:
            self._recheck(session, session.grounds)
        return None if session.is_open and session.recheck_failures else session.is_open

    def _look_after(self, session: Session, credential: Credential | None, now: float) -> None:
        end = credential.expires_at if credential is not None else None
        if end is not None and now >= end:
            session.connection.close(4401, "Token expired", "expired")
        elif now >= session.recheck_at:
            session.recheck_at = now + self._hub.policy.token_recheck
            self._hub.loop.spawn(self._recheck, session, session.grounds)
        elif end is not None and end - now <= WARN_BEFORE and not session.warned:
            session.warned = True
            self._hub.tell_session(session, wire.auth_expiring(from_epoch(end)))

    def _recheck(self, session: Session, grounds: str | bytes) -> None:
        try:
            is_good = self._is_good(session, grounds)
            session.recheck_failures = 0
        except BaseException:  # such as gevent.Timeout, or SystemExit: it counts, and ends nothing else
            session.recheck_failures += 1
            log.exception("the login of client %s could not be checked again", session.id)
            is_good = session.recheck_failures < MAX_FAILURES
        if not is_good:
            self._hub.loop.run(partial(self._revoke, session, grounds))

    def _is_good(self, session: Session, grounds: str | bytes) -> bool:
        if isinstance(grounds, bytes):
            user = self._hub.application.load_user(grounds)
            return user is not None and session.user is not None and user.id == session.user.id
        try:
            self._hub.application.identify(grounds)
        except CredentialRejected:
            return False
        return True

    def _revoke(self, session: Session, grounds: str | bytes) -> None:
        if session.is_open and session.grounds == grounds:
            text = "Token revoked" if isinstance(grounds, str) else "Login ended"
            session.connection.close(4401, text, "expired")
