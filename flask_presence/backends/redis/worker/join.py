"""One join on Redis, from the request to its place in the channel's order.

Rule: the join is settled when the worker's copy has reached the join's position and lists the new member. Until then
the connection is joining; after that it is here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ....domain.errors import BackendUnavailable
from ....domain.roster import Joined, Joiner
from ....loops.pending import Outcome, Pending
from ..client.pipeline import Pipeline
from ..store.calls import Operation, Placed
from ..store.channels import ChannelOperations, Entered
from ..store.keys import escape
from .local_channel import LocalChannel
from .local_channels import LocalChannels

MAX_TRIES: Final = 4
"""How often Redis may lose the new member before the join fails."""


class Join:
    """A connection that joins. `operations` returns those of the worker's id at the time of the call."""

    def __init__(
        self,
        channels: LocalChannels,
        pipeline: Pipeline,
        operations: Callable[[], ChannelOperations],
        local: LocalChannel,
        joiner: Joiner,
    ) -> None:
        self._channels = channels
        self._pipeline = pipeline
        self._operations = operations
        self._local = local
        self._joiner = joiner
        self._client_id = joiner.client_id
        user = joiner.user if local.name.type == "presence" else None
        self._user_key = escape(user.id) if user is not None else ""
        self._is_new = not local.has(joiner.client_id)
        self._tries = 0

    def begin(self) -> Pending[Joined]:
        self._local.begin_join(self._client_id)
        return self._enter().then(self._finish)

    def _enter(self) -> Pending[Entered]:
        entering: Pending[Entered] = self._channels.subscribed(self._local).map(self._ask)
        return entering

    def _ask(self, _: None) -> Pending[Entered]:
        losses = self._local.health.losses
        asking = self._pipeline.run(self._operation(), self._local.replica)
        return asking.map(lambda placed: self._reach(placed, losses))

    def _operation(self) -> Operation[Placed[Entered]]:
        local = self._local
        return self._operations().join(self._joiner, local.replica.position, with_list=not local.health.is_current)

    def _reach(self, placed: Placed[Entered], losses: int) -> Pending[Entered]:
        local, entered = self._local, placed.value
        has_list = bool(entered.entries) or not self._user_key
        if not local.health.is_current and has_list and local.replica.position <= placed.position:
            self._channels.load(local, placed.position, entered.entries, losses)
        return local.replica.reach(placed.position).map(lambda _: entered)

    def _finish(self, outcome: Outcome[Entered]) -> Joined | Pending[Joined]:
        local = self._local
        try:
            entered = outcome()
            entry = local.replica.entries.get(self._user_key)
            if self._user_key and entry is None:
                # Redis has lost its data meanwhile, and the new member with it.
                self._tries += 1
                if self._tries >= MAX_TRIES:
                    raise BackendUnavailable("Redis keeps losing its data")
                return self._enter().then(self._finish)
        except BackendUnavailable:
            local.end_join(self._client_id)
            local.health.doubt()  # Redis may have let it in all the same
            raise
        except Exception:
            local.end_join(self._client_id)
            raise
        local.joined(self._client_id, self._user_key)
        if entry is None:
            return Joined(self._is_new)
        members = tuple(other.member for other in local.replica.entries.values())
        return Joined(self._is_new, entered.change, members, entry.member)
