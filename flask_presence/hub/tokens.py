"""Tokens over the life of a connection: announced before they end, asked again, and the end.

Law: a connection does not outlive its token, nor the token's revocation for longer than the recheck.
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
"""Rechecks in a row that may fail for another reason than the token, before it counts as revoked."""

log = logging.getLogger("flask_presence")


class TokenWatch:
    """The sessions that a token opened."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._sessions: dict[str, Session] = {}

    def add(self, session: Session) -> None:
        """Watch the session's token, if it has one; the first recheck is spread out over the interval."""
        if session.credential is not None:
            session.warned = False
            session.recheck_at = self._hub.now().timestamp() + self._hub.policy.token_recheck * random.uniform(0.5, 1)  # noqa: S311
            self._sessions[session.id] = session

    def discard(self, session: Session) -> None:
        self._sessions.pop(session.id, None)

    def look_after(self, now: float) -> None:
        """Do what is due at `now`, in epoch seconds."""
        for session in list(self._sessions.values()):
            if session.credential is not None:
                self._look_after(session, session.credential, now)

    def _look_after(self, session: Session, credential: Credential, now: float) -> None:
        end = credential.expires_at
        if end is not None and now >= end:
            session.connection.close(4401, "Token expired", "expired")
        elif now >= session.recheck_at:
            session.recheck_at = now + self._hub.policy.token_recheck
            self._hub.loop.spawn(self._recheck, session, credential)
        elif end is not None and end - now <= WARN_BEFORE and not session.warned:
            session.warned = True
            self._hub.meter.answers += 1
            session.connection.send(self._hub.frame(wire.auth_expiring(from_epoch(end))))

    def verify(self, session: Session) -> bool:
        """Ask about the session's token now, beside the loop; whether the session may go on."""
        if session.credential is not None:
            self._recheck(session, session.credential)
        return session.is_open

    def _recheck(self, session: Session, credential: Credential) -> None:
        try:
            self._hub.application.identify(credential.token)
            session.recheck_failures = 0
        except CredentialRejected:
            self._hub.loop.run(partial(self._revoke, session, credential))
        except Exception:
            session.recheck_failures += 1
            log.exception("the token of client %s could not be checked again", session.id)
            if session.recheck_failures >= MAX_FAILURES:
                self._hub.loop.run(partial(self._revoke, session, credential))

    def _revoke(self, session: Session, credential: Credential) -> None:
        if session.is_open and session.credential is credential:
            session.connection.close(4401, "Token revoked", "expired")
