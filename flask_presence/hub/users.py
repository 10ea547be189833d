"""The open connections of this process by user, so that one user is found among many thousands.

Law: a user is here as long as a connection of theirs is; who is anonymous is nobody's.
"""

from __future__ import annotations

from .session import Session


class UserIndex:
    """Owner of nothing but the order: sessions come and go with the hub's."""

    def __init__(self) -> None:
        self._sessions: dict[str, list[Session]] = {}

    def add(self, session: Session) -> None:
        """The session's user is known."""
        if session.user is not None:
            self._sessions.setdefault(session.user.id, []).append(session)

    def discard(self, session: Session) -> None:
        """The session has ended."""
        if session.user is None:
            return
        sessions = self._sessions[session.user.id]
        sessions.remove(session)
        if not sessions:
            del self._sessions[session.user.id]

    def of(self, user_id: str) -> list[Session]:
        """Oldest first; a list of the caller's own."""
        return list(self._sessions.get(user_id, ()))

    def __contains__(self, user_id: str) -> bool:
        return user_id in self._sessions
