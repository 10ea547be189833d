"""The workers on this worker's host, and which of them have ended.

Rule: the list of all workers is read only when it may have changed for this host, because it grows with the service.
"""

from __future__ import annotations

from ....domain.errors import BackendUnavailable
from ..store.calls import Operation
from ..store.workers import HeartbeatReply, Workers
from .worker_id import has_ended, on_this_host


class Neighbours:
    """Keeps the ids of the workers on this host."""

    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        self._ids: list[str] = []
        self._last_start = ""
        self._is_stale = True

    def note(self, reply: HeartbeatReply, *, first: bool) -> None:
        """Note what a heartbeat says about changes. A stray may be a worker of this host that is listed again, and a
        worker whose lease ended may have missed a start."""
        if first or reply.lease != "held" or reply.has_strays or reply.last_start != self._last_start:
            self._is_stale = True
        self._last_start = reply.last_start

    def gone(self) -> Operation[list[str]]:
        """The workers that are still listed, although their process on this host has ended."""
        if self._is_stale:
            self._is_stale = False  # before the list is read: what changes meanwhile is read again
            try:
                self._ids = on_this_host((yield from self._workers.all()))
            except BackendUnavailable:
                self._is_stale = True
                raise
        gone = [worker_id for worker_id in self._ids if has_ended(worker_id)]
        if gone:
            listed = yield from self._workers.listed(gone)
            removed = set(gone) - set(listed)
            self._ids = [worker_id for worker_id in self._ids if worker_id not in removed]
            gone = listed
        return gone
