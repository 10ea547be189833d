"""The open sessions of this process by user, so that one user is found among thousands of connections."""

from __future__ import annotations

from .session import Session


class UserIndex:
    """Sessions by the id of their user. Anonymous sessions are not in it. Most users have one session, so there is a
    list only for several."""

    def __init__(self) -> None:
        self._sessions: dict[str, Session | list[Session]] = {}

    def add(self, session: Session) -> None:
        if session.user is None:
            return
        earlier = self._sessions.setdefault(session.user.id, session)
        if isinstance(earlier, list):
            earlier.append(session)
        elif earlier is not session:
            self._sessions[session.user.id] = [earlier, session]

    def discard(self, session: Session) -> None:
        """Raises `KeyError` if the session has a user and was not added."""
        if session.user is None:
            return
        sessions = self._sessions[session.user.id]
        if isinstance(sessions, list) and len(sessions) > 1:
            sessions.remove(session)
        else:
            del self._sessions[session.user.id]

    def of(self, user_id: str) -> list[Session]:
        """The user's sessions, oldest first, in a new list."""
        sessions = self._sessions.get(user_id, ())
        return list(sessions) if not isinstance(sessions, Session) else [sessions]

    def __contains__(self, user_id: str) -> bool:
        return user_id in self._sessions
