"""A channel as this worker sees it: its own connections in it, and its copy of the member list.

Rule: the open connections are the source of truth. A connection that is here is in the channel, whatever Redis says.
"""

from __future__ import annotations

from collections import Counter

from ....domain.channels import ChannelName
from ....domain.history import Position, Retention, Tail
from ....domain.roster import Change
from ....loops.pending import Pending
from ...base import Listener
from ..store.channels import Departure, LiveConnection
from ..store.entries import Entry
from .replica import Replica, ReplicaEvent


class LocalChannel:
    """The connections that are here for certain, those that are joining, and those that are leaving."""

    def __init__(self, name: ChannelName, listener: Listener, retention: Retention | None) -> None:
        self.name = name
        self.retention = retention  # of its messages, if it keeps any
        self.replica = Replica(self._tell, self._has_user, None if retention is None else Tail(retention))
        self.health = self.replica.health
        self.leaving: dict[str, Pending[Change | None]] = {}
        self.unconfirmed: dict[str, Departure] = {}  # connections that left, without Redis having confirmed it
        self.waiting_since: float | None = None
        self.waiting_at = (self.replica.position, 0)
        self._steps = 0
        self.empty_since: float | None = None
        self.list_asked = False  # by a join under way; others that wait for a list need not ask for it too
        self.compare_due = False  # with Redis, as soon as the copy is current
        self._listener = listener
        self._here: dict[str, str] = {}  # client id -> user, escaped as in entries
        self._users: Counter[str] = Counter()
        self._joining: Counter[str] = Counter()

    def begin_join(self, client_id: str) -> None:
        """Note that a connection is joining. `end_join` or `joined` follows."""
        self._joining[client_id] += 1
        self.empty_since = None

    def end_join(self, client_id: str) -> None:
        """Note that the connection has not joined, or has been noted as here."""
        self._joining[client_id] -= 1
        if not self._joining[client_id]:
            del self._joining[client_id]

    def joined(self, client_id: str, user: str) -> None:
        self.end_join(client_id)
        if client_id in self.leaving:
            self.health.doubt()  # it left and joined at once; Redis may have seen that in the other order
        elif client_id not in self._here:
            self._here[client_id] = user
            self._users[user] += 1

    def left(self, client_id: str) -> None:
        user = self._here.pop(client_id)
        self._users[user] -= 1
        if not self._users[user]:
            del self._users[user]

    def left_unconfirmed(self, client_id: str, departure: Departure) -> None:
        """Note that a connection has left, and that Redis has not confirmed it."""
        self.health.doubt()
        self.unconfirmed[client_id] = departure

    def without_grace(self, user_id: str | None, client_id: str | None) -> None:
        """See `LocalChannels.without_grace`."""
        for client, departure in self.unconfirmed.items():
            user = departure.user.id if departure.user is not None else None
            if user_id in (None, user) and client_id in (None, client):
                self.unconfirmed[client] = departure._replace(grace=0)

    def has(self, client_id: str) -> bool:
        return client_id in self._here

    def entry_of(self, client_id: str) -> Entry | None:
        """The entry of the user of a connection that is here."""
        return self.replica.entries.get(self._here.get(client_id, ""))

    def wants_list(self, position: Position) -> bool:
        """Whether a list that Redis has at `position` should replace that of the copy."""
        return not self.health.is_current or position.epoch != self.replica.position.epoch

    def heal_progressed(self) -> None:
        """Note that a heal has taken a step: connections were restored, or a slice of a long list was read."""
        self._steps += 1

    @property
    def progress(self) -> tuple[Position, int]:
        """Changes as long as the copy moves on, or its heal does."""
        return self.replica.position, self._steps

    @property
    def is_empty(self) -> bool:
        return not self._here and not self._joining and not self.leaving

    @property
    def has_joining(self) -> bool:
        return bool(self._joining)

    @property
    def count(self) -> int:
        """How many connections are here."""
        return len(self._here)

    def possible(self) -> set[str]:
        """The connections that Redis may know: here, or joining."""
        return {*self._here, *self._joining}

    def live_connections(self) -> list[LiveConnection]:
        """The connections that Redis must know."""
        entries = self.replica.entries
        found = [LiveConnection(client_id, user, entries.get(user)) for client_id, user in self._here.items()]
        return [connection for connection in found if not connection.user or connection.entry is not None]

    @property
    def is_settled(self) -> bool:
        """Whether Redis and this worker should count the same connections."""
        known = {connection.client_id for connection in self.live_connections()}
        return self.is_empty or (not self.leaving and self.possible() == known)

    def _has_user(self, user: str) -> bool:
        return user in self._users

    def _tell(self, event: ReplicaEvent) -> None:
        if event.kind == "message" or event.member is None:
            self._listener.deliver(self.name, event.message, event.client or None)
        else:
            change = Change(event.kind, event.member, event.reason)
            self._listener.announce(self.name, change, event.client or None, self._listener.utc_now())
