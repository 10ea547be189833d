"""Everything under one prefix in Redis: the operations of the store, composed."""

from __future__ import annotations

from .channels import ChannelOperations
from .counts import WorkerCounts
from .dead_workers import DeadWorkers
from .directory import ChannelDirectory
from .grace import Graces
from .history import HistoryOperations
from .keys import Keys
from .workers import Workers


class Store:
    """The operations under one prefix. `lease` and `grace` in seconds: when a silent worker counts as dead, and for how
    long its users stay listed. `max_info` bounds a member's merged `userInfo`, in bytes of JSON, and `max_members` the
    members of a presence channel. `layout` is that of this process, if the service has shards."""

    def __init__(
        self,
        keys: Keys,
        *,
        lease: float,
        max_info: int,
        max_members: int | None = None,
        grace: float = 0,
        layout: str = "",
    ) -> None:
        self.keys = keys
        self.lease = lease
        self.workers = Workers(keys, lease, layout)
        self.counts = WorkerCounts(keys)
        self.graces = Graces(keys)
        self.history = HistoryOperations(keys)
        self.dead_workers = DeadWorkers(keys, self.workers, self.counts, self.graces, lease, grace)
        self.directory = ChannelDirectory(keys, self.workers, self.graces)
        self._max_info = max_info
        self._max_members = max_members

    def channels(self, worker_id: str = "") -> ChannelOperations:
        """What a worker does with channels; without an id, what any process does."""
        return ChannelOperations(self.keys, self.graces, worker_id, self._max_info, self._max_members)
