"""The open sessions of this process by user, so that one user is found among thousands of connections."""

from __future__ import annotations

from .session import Session


class UserIndex:
    """Sessions by the id of their user. Anonymous sessions are not in it."""

    def __init__(self) -> None:
        self._sessions: dict[str, list[Session]] = {}

    def add(self, session: Session) -> None:
        if session.user is not None:
            self._sessions.setdefault(session.user.id, []).append(session)

    def discard(self, session: Session) -> None:
        """Raises `KeyError` if the session has a user and was not added."""
        if session.user is None:
            return
        sessions = self._sessions[session.user.id]
        sessions.remove(session)
        if not sessions:
            del self._sessions[session.user.id]

    def of(self, user_id: str) -> list[Session]:
        """The user's sessions, oldest first, in a new list."""
        return list(self._sessions.get(user_id, ()))

    def __contains__(self, user_id: str) -> bool:
        return user_id in self._sessions
