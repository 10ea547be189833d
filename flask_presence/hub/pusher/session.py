"""One connection that speaks the Pusher protocol.

Rule: it begins without a user. A signature gives it one, and it keeps that user to its end.
"""

from __future__ import annotations

from ...domain.limits import RateLimit
from ...domain.pusher.names import new_socket_id
from ...domain.pusher.users import SignedUser
from ..dialects import Dialect
from ..session import Session, SessionOwner


class PusherSession(Session):
    """`event_limit` bounds its client events. `signed_in` is the user that it has signed in as. `hears_user` says that
    it has subscribed to that user's address. `opened_at` is in seconds of the monotonic clock."""

    __slots__ = ("_dialect", "event_limit", "hears_user", "opened_at", "signed_in")

    has_signed_login = True

    def __init__(self, owner: SessionOwner, dialect: Dialect, event_limit: RateLimit | None) -> None:
        super().__init__(owner, new_socket_id(), None, None)
        self._dialect = dialect
        self.event_limit = event_limit
        self.signed_in: SignedUser | None = None
        self.hears_user = False
        self.opened_at = owner.clock.monotonic()

    @property
    def dialect(self) -> Dialect:
        return self._dialect

    @property
    def rests_on_signature(self) -> bool:
        """Whether a signer has decided about it: who its user is, or that it may be in a channel."""
        if self.user is not None or self.entering is not None:
            return True
        return any(channel.type != "public" for channel in self.channels.values())

    @property
    def hears_user_messages(self) -> bool:
        return self.hears_user
