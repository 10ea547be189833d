"""One join, from the door to its place in the channel's order.

Law: the answer stands where the copy stands after the join, with the joiner in it; until then the connection is
coming, and afterwards it is here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final

from ....domain.errors import BackendUnavailable
from ....domain.members import User
from ....domain.roster import Joined
from ....loops.pending import Outcome, Pending
from ..client.pipeline import Pipeline
from ..store.calls import Operation, Placed
from ..store.channels import Entered, Operations
from ..store.keys import escape
from .local_channel import Room
from .local_channels import Rooms

MAX_TRIES: Final = 4
"""How often Redis may lose a joiner before the join has been answered."""


class Joining:
    """A connection that comes into a room. `operations` are those of the node by the time they are asked for."""

    def __init__(
        self,
        rooms: Rooms,
        pipeline: Pipeline,
        operations: Callable[[], Operations],
        room: Room,
        client_id: str,
        user: User | None,
        info: Mapping[str, Any] | None,
        now: datetime,
        owned: Mapping[str, Any],
    ) -> None:
        self._rooms = rooms
        self._pipeline = pipeline
        self._operations = operations
        self._room = room
        self._client_id = client_id
        self._user = user
        self._info = info
        self._now = now
        self._owned = owned
        self._whose = escape(user.id) if user is not None and room.name.type == "presence" else ""
        self._fresh = not room.has(client_id)
        self._tries = 0

    def begin(self) -> Pending[Joined]:
        self._room.comes(self._client_id)
        return self._enter().then(self._arrive)

    def _enter(self) -> Pending[Entered]:
        entering: Pending[Entered] = self._rooms.subscribed(self._room).map(self._ask)
        return entering

    def _ask(self, _: None) -> Pending[Entered]:
        losses = self._room.replica.losses
        return self._pipeline.run(self._operation(), self._room.replica).map(lambda placed: self._reach(placed, losses))

    def _operation(self) -> Operation[Placed[Entered]]:
        replica = self._room.replica
        return self._operations().join(
            *(self._room.name, self._client_id, self._user, self._info, self._now, replica.position),
            owned=self._owned,
            with_list=replica.stale,
        )

    def _reach(self, placed: Placed[Entered], losses: int) -> Pending[Entered]:
        replica, entered = self._room.replica, placed.value
        if replica.stale and (entered.entries or not self._whose) and replica.position <= placed.position:
            self._rooms.load(self._room, placed.position, entered.entries, losses)
        return replica.reach(placed.position).map(lambda _: entered)

    def _arrive(self, outcome: Outcome[Entered]) -> Joined | Pending[Joined]:
        room = self._room
        try:
            entered = outcome()
            entry = room.replica.entries.get(self._whose)
            if self._whose and entry is None:
                # Redis has lost the joiner meanwhile, together with everybody else.
                self._tries += 1
                if self._tries >= MAX_TRIES:
                    raise BackendUnavailable("Redis loses what it is told")
                return self._enter().then(self._arrive)
        except BackendUnavailable:
            room.stays_out(self._client_id)
            room.dirty = True  # Redis may have let it in all the same
            raise
        except Exception:
            room.stays_out(self._client_id)
            raise
        room.arrives(self._client_id, self._whose)
        if entry is None:
            return Joined(self._fresh)
        members = tuple(other.member for other in room.replica.entries.values())
        return Joined(self._fresh, entered.change, members, entry.member)
