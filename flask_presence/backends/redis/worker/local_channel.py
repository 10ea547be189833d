"""A channel, as this process has it: its own connections in it, and its copy of the list.

Law: who is `here` is in the channel, whatever Redis says: the sockets are the truth.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container
from datetime import datetime, timezone

from ....domain.channels import ChannelName
from ....domain.roster import Change
from ....loops.pending import Pending
from ...base import Listener
from ..store.channels import Gone, Holder
from ..store.entries import Entry
from .replica import News, Replica


class Room:
    """The connections that are in the channel for sure, those that are coming and those that are leaving."""

    def __init__(self, name: ChannelName, listener: Listener) -> None:
        self.name = name
        self.replica = Replica(self._tell, self._is_here)
        self.leaving: dict[str, Pending[Change | None]] = {}
        self.left_unheard: dict[str, Gone] = {}  # connections that left without Redis having said so
        self.healing: Pending[None] | None = None
        self.heal_again = False
        self.dirty = False  # Redis may know of connections that are not here, or not know of some that are
        self.waiting_since: float | None = None
        self.waiting_at = self.replica.position
        self.empty_since: float | None = None
        self._listener = listener
        self._here: dict[str, str] = {}  # client id -> user, as entries know them
        self._users: Counter[str] = Counter()
        self._coming: Counter[str] = Counter()

    def comes(self, client_id: str) -> None:
        """A connection is about to be in the channel; `arrives` or `stays_out` follows."""
        self._coming[client_id] += 1
        self.empty_since = None

    def stays_out(self, client_id: str) -> None:
        self._coming[client_id] -= 1
        if not self._coming[client_id]:
            del self._coming[client_id]

    def arrives(self, client_id: str, user: str) -> None:
        self.stays_out(client_id)
        if client_id in self.leaving:
            self.dirty = True  # it has turned round at the door; Redis may have seen that the other way round
        elif client_id not in self._here:
            self._here[client_id] = user
            self._users[user] += 1

    def goes(self, client_id: str) -> None:
        user = self._here.pop(client_id)
        self._users[user] -= 1
        if not self._users[user]:
            del self._users[user]

    def leaves_unheard(self, client_id: str, gone: Gone) -> None:
        """It has gone, and Redis has not said that it knows."""
        self.dirty = True
        self.left_unheard[client_id] = gone

    def has(self, client_id: str) -> bool:
        return client_id in self._here

    def entry_of(self, client_id: str) -> Entry | None:
        """What is listed of the user of a connection that is here."""
        return self.replica.entries.get(self._here.get(client_id, ""))

    @property
    def is_empty(self) -> bool:
        return not self._here and not self._coming and not self.leaving

    @property
    def has_comers(self) -> bool:
        return bool(self._coming)

    @property
    def count(self) -> int:
        return len(self._here)

    def expected(self) -> Container[str]:
        """The connections that Redis may know of."""
        return {*self._here, *self._coming}

    def holders(self) -> list[Holder]:
        """The connections that Redis must know of."""
        entries = self.replica.entries
        holders = [Holder(client_id, user, entries.get(user)) for client_id, user in self._here.items()]
        return [holder for holder in holders if not holder.user or holder.entry is not None]

    def _is_here(self, user: str) -> bool:
        return user in self._users

    def _tell(self, news: News) -> None:
        if news.kind == "message" or news.entry is None:
            self._listener.deliver(self.name, news.message, news.client or None)
        else:
            change = Change(news.kind, news.entry.member, news.reason)
            self._listener.announce(self.name, change, news.client or None, datetime.now(timezone.utc))
