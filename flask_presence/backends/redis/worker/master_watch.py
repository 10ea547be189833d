"""Asks the Sentinels or the cluster now and then which server is the master, and leaves the one that is no longer.

Rule: a server that has been cut off from the others may still answer as a master, so the others say who is.
"""

from __future__ import annotations

import logging
from typing import Final

from ....domain.errors import BackendUnavailable
from ....loops.base import Loop
from ..client.client import Client
from ..client.pipeline import Pipeline
from ..client.subscriber import Subscriber

LOOK_UP_EVERY: Final = 2.0
"""Seconds between two questions."""

log = logging.getLogger("flask_presence")


class MasterWatch:
    """Keeps the connections of a worker at the master, if Sentinels or a cluster name it."""

    def __init__(self, client: Client, loop: Loop, pipeline: Pipeline, subscriber: Subscriber) -> None:
        self._client = client
        self._loop = loop
        self._pipeline = pipeline
        self._subscriber = subscriber
        self._due_at = 0.0
        self._is_asking = False
        self._has_failed = False

    def tick(self, now: float) -> None:
        """Ask if that is due at `now`, in seconds of the monotonic clock."""
        if self._client.follows_master and now >= self._due_at and not self._is_asking:
            self._is_asking = True
            self._due_at = now + LOOK_UP_EVERY
            self._loop.spawn(self._ask)

    def _ask(self) -> None:
        """Off the loop: the question blocks."""
        try:
            self._client.look_up_master()
            self._has_failed = False
        except BackendUnavailable as problem:
            if not self._has_failed:  # the connections that there are may be fine, so nothing else says so
                log.warning("nobody says which Redis is the master, so no connections to it can be made: %s", problem)
            self._has_failed = True
        finally:
            self._loop.run(self._asked)

    def _asked(self) -> None:
        self._is_asking = False
        self._pipeline.leave_old_master()
        self._subscriber.leave_old_master()
