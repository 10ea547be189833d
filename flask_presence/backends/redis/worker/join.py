"""One join on Redis, from the request to its place in the channel's order.

Rule: the join is settled when the worker's copy has reached the join's position and lists the new member. Until then
the connection is joining; after that it is here.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Final

from ....domain.errors import BackendUnavailable
from ....domain.history import DEFAULT_LIMIT, Extract, Replayed, replay
from ....domain.roster import Joined, Joiner
from ....loops.pending import Outcome, Pending
from ..client.pipeline import Pipeline
from ..store.calls import Placed
from ..store.channels import ChannelOperations, Entered
from ..store.keys import escape
from ..store.store import Store
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
        store: Store,
        operations: Callable[[], ChannelOperations],
        local: LocalChannel,
        joiner: Joiner,
    ) -> None:
        self._channels = channels
        self._pipeline = pipeline
        self._store = store
        self._operations = operations
        self._local = local
        self._joiner = joiner
        self._client_id = joiner.client_id
        user = joiner.user if local.name.type == "presence" else None
        self._user_key = escape(user.id) if user is not None else ""
        self._is_new = not local.has(joiner.client_id)
        self._tries = self._reads = 0
        self._log: Extract | None = None  # what was read of the kept messages
        self._wants_newest = False

    def begin(self) -> Pending[Joined]:
        self._local.begin_join(self._client_id)
        return self._enter().then(self._finish)

    def _enter(self) -> Pending[Entered]:
        entering: Pending[Entered] = self._channels.subscribed(self._local).map(self._ask)
        return entering

    def _ask(self, _: None) -> Pending[Entered]:
        local = self._local
        losses = local.health.losses
        with_list = not local.health.is_current and not local.list_asked
        operation = self._operations().join(self._joiner, local.replica.position, with_list=with_list)
        local.list_asked |= with_list

        def answered(outcome: Outcome[Placed[Entered]]) -> Pending[Entered]:
            if with_list:
                local.list_asked = False
            return self._reach(outcome(), losses)

        return self._pipeline.run(operation, local.replica).then(answered)

    def _reach(self, placed: Placed[Entered], losses: int) -> Pending[Entered]:
        local, entered = self._local, placed.value
        has_list = bool(entered.entries) or not self._user_key
        # A list without the messages before it would make connections here miss those, if the channel keeps them.
        may_load = has_list and not (local.retention is not None and local.count)
        if not local.health.is_current and may_load and local.replica.position <= placed.position:
            self._channels.load(local, placed.position, entered.entries, losses)
        if not local.health.is_current and local.health.healing is None:
            self._channels.heal(local)  # because the list is too long for one step
        return local.replica.at_its_place(placed)

    def _finish(self, outcome: Outcome[Entered]) -> Joined | Pending[Joined]:
        local, replayed = self._local, None
        try:
            entered = outcome()
            entry = local.replica.entries.get(self._user_key)
            if self._user_key and entry is None:
                # Redis has lost its data meanwhile, and the new member with it.
                return self._try_again().then(self._finish)
            if local.retention is not None and (replayed := self._replayed()) is None:
                return self._read_log().then(lambda read: self._finish(partial(_after, read, entered)))
        except BackendUnavailable:
            local.end_join(self._client_id)
            local.health.doubt()  # Redis may have let it in all the same
            raise
        except Exception:
            local.end_join(self._client_id)
            raise
        local.joined(self._client_id, self._user_key)
        if entry is None:
            return Joined(self._is_new, replayed=replayed)
        members = tuple(local.replica.entries.values())
        return Joined(self._is_new, entered.change, members, entry, replayed, local.replica.list_json())

    def _try_again(self) -> Pending[Entered]:
        self._tries += 1
        if self._tries >= MAX_TRIES:
            raise BackendUnavailable("Redis keeps losing its data")
        return self._enter()

    def _replayed(self) -> Replayed | None:
        """What the connection wants to hear, up to the position of the copy; `None` if it has to be read first."""
        replica, wanted = self._local.replica, self._joiner.replay
        tail, position = replica.tail, replica.position
        assert tail is not None, "the channel keeps messages"
        if not wanted.wanted:
            return Replayed(str(position))
        tail.expire(time.monotonic())
        if self._log is not None:
            extract = tail.continued(self._log, position)
            found = None if extract is None else replay(extract, wanted)
            if found is not None and found.recovered is False and not self._wants_newest:
                self._wants_newest = True  # instead of what came since then
                return None
            return found
        return replay(tail.extract(position), wanted) if tail.serves(wanted, position) else None

    def _read_log(self) -> Pending[None]:
        self._reads += 1
        if self._reads > MAX_TRIES:
            raise BackendUnavailable("the kept messages change too fast")
        wanted, position = self._joiner.replay, self._local.replica.position
        since = None if self._wants_newest else wanted.known_since(position)
        limit = (wanted.limit or DEFAULT_LIMIT) if since is None else None
        reading = self._store.history.extract(self._local.name, after=since, limit=limit)

        def keep(extract: Extract) -> None:
            self._log = extract

        return self._pipeline.run(reading).map(keep)


def _after(read: Outcome[None], entered: Entered) -> Entered:
    """What was entered, if the kept messages could be read."""
    read()
    return entered
