"""What a process with sockets does beside asking: it changes, hears, heals, and stays alive in Redis.

Law: everything here runs in the loop, and nothing here waits. A change settles at its own place among the channel's
events; one that Redis may not have got is told again when Redis is back.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from ....domain.channels import ChannelName
from ....domain.errors import BackendUnavailable, NotFound, NotMember
from ....domain.events import Reason
from ....domain.members import Profile, User
from ....domain.roster import Change, Joined, Updated
from ....loops.base import Loop
from ....loops.pending import Outcome, Pending, then, when_all
from ...base import Listener
from ..client.client import Client
from ..client.pipeline import Pipeline
from ..client.subscriber import Subscriber
from ..store import control as orders
from ..store.calls import NOWHERE, Call, Lost, Operation, Placed, Position, Refused
from ..store.channels import Gone, Operations
from ..store.entries import Entry
from ..store.keys import Keys, unescape
from ..store.server_check import inspect
from ..store.workers import Nodes
from .breaker import Link
from .heartbeat import Keeper, heartbeat
from .join import Joining
from .local_channel import Room
from .local_channels import Rooms

DEAF: Final = 2.0
"""Seconds that making a subscription may take."""
ORDER_MARGIN: Final = 2.0
"""Seconds before the last sign of life of a lost subscription from when on orders may have been missed."""


class Worker:
    """One process's part in the service."""

    def __init__(
        self, keys: Keys, client: Client, nodes: Nodes, loop: Loop, listener: Listener, lease: float, max_info: int
    ) -> None:
        self.loop = loop
        self._client = client
        self._keys = keys
        self._listener = listener
        self._max_info = max_info
        self.link = Link(fence=lease - 2 * heartbeat(lease))
        self._pipeline = Pipeline(client, loop, self._failed)
        self._keeper = Keeper(
            nodes, self._pipeline, self.link, listener, lease, self._reborn, self._returned, self._failed
        )
        self._operations = Operations(keys, self._keeper.node, max_info)
        self._subscriber = Subscriber(client, loop, self._hear, self._lost, self._is_behind)
        self._rooms = Rooms(keys, lambda: self._operations, self._pipeline, self._subscriber, listener, keep=lease / 2)
        self._inbox = keys.inbox(self._keeper.node)
        self._probe_after = lease / 2
        self._probed_at = 0.0
        self._obeyed: dict[str, float] = {}
        self._deaf_since = 0
        self._awaits_control = False
        self.ended = False

    def begin(self) -> None:
        """Come to life. Heartbeats before anything else, as the pipeline keeps the order."""
        self._keeper.beat()
        self._pipeline.run(inspect())
        self._subscriber.want(self._keys.control)
        self._subscriber.want(self._inbox)
        self.loop.attend(self)

    def listen(self) -> None:
        self._subscriber.listen()

    def catch_up(self, *, wait: bool) -> bool:
        if self.ended:
            return False
        self.tick(time.monotonic())
        return self._subscriber.catch_up(wait=wait)

    def tick(self, now: float) -> None:
        """Do what is due at `now`, in seconds of the monotonic clock."""
        self._keeper.tick(now)
        if self.link.up:
            self._rooms.tick(now)
            self._probe(now)

    def end(self) -> Pending[None]:
        """This process has no sockets any more; settled when Redis knows that, or others will have to find out."""
        ended: Pending[None] = Pending()
        leaving = [pending for room in self._rooms for pending in room.leaving.values()]
        when_all(leaving, lambda: self._take_leave().when(ended.settle))
        return ended

    def disconnect(self) -> None:
        """Let go of what this process is connected by."""
        self.ended = True
        self._subscriber.close()
        self._client.close()

    def forked(self) -> None:
        """This process is a child of the worker's: the greenlets that it inherits must not read for the parent."""
        self.ended = True
        self.loop.soon(self._let_go)

    def _let_go(self) -> None:
        self._subscriber.forked()
        self._client.forked()

    def _take_leave(self) -> Pending[None]:
        if self.link.up and all(room.is_empty and not room.dirty for room in self._rooms):
            self._rooms.leave_all()
            return self._keeper.end()
        ended: Pending[None] = Pending()
        ended.settle(lambda: None)
        return ended

    def opened(self, client_id: str, user: User | None) -> None:
        self._keeper.opened(client_id, user)

    def closed(self, client_id: str) -> None:
        self._keeper.closed(client_id)

    def join(
        self,
        channel: ChannelName,
        client_id: str,
        user: User | None,
        info: Mapping[str, Any] | None,
        now: datetime,
        owned: Mapping[str, Any],
    ) -> Pending[Joined]:
        self.link.check()
        room = self._rooms.enter(channel)
        operations = lambda: self._operations  # noqa: E731
        return Joining(self._rooms, self._pipeline, operations, room, client_id, user, info, now, owned).begin()

    def leave(self, channel: ChannelName, client_id: str, reason: Reason, hold: float) -> Pending[Change | None] | None:
        room = self._rooms.get(channel)
        if room is None:
            return None
        if not room.has(client_id):
            return room.leaving.get(client_id)
        room.goes(client_id)
        gone = Gone(self._keeper.user_of(client_id) if channel.type == "presence" else None, hold, reason)
        if not self.link.up:
            room.leaves_unheard(client_id, gone)
            return None

        def left(outcome: Outcome[Change | None]) -> Change | None:
            del room.leaving[client_id]
            try:
                return outcome()
            except (NotFound, NotMember):
                return None  # Redis has lost the connection, as was meant
            except BackendUnavailable:
                room.leaves_unheard(client_id, gone)
                raise

        operation = self._operations.leave(channel, client_id, gone, room.replica.position)
        leaving: Pending[Change | None] = Pending()
        room.leaving[client_id] = leaving
        self._rooms.place(room, self._pipeline.run(operation, room.replica)).then(left).when(leaving.settle)
        return leaving

    def update(
        self,
        channel: ChannelName,
        client_id: str,
        info: Mapping[str, Any],
        now: datetime,
        owned: Mapping[str, Any] | None,
    ) -> Pending[Updated]:
        self.link.check()
        room = self._rooms.get(channel)
        sure = room is not None and room.has(client_id) and channel.type == "presence"

        def make() -> Operation[Placed[tuple[Entry, Change | None]]]:
            known = room.replica.position if room is not None else NOWHERE
            return self._operations.update(channel, client_id, info, now, known, owned=owned, sure=sure)

        def shape(done: tuple[Entry, Change | None]) -> Updated:
            return Updated(done[0].member, done[1])

        if room is None or not sure:
            return self._pipeline.run(make()).map(lambda placed: shape(placed.value))
        return self._rooms.place(room, self._surely(room, make)).map(shape)

    def publish(self, channel: str, payload: bytes, exclude: str | None) -> Pending[int]:
        self.link.check()
        room = self._rooms.get(channel)
        if room is None:
            raise BackendUnavailable("the channel has just been closed")
        replica = room.replica

        def sent(placed: Placed[int]) -> int:
            replica.expect(placed.position)
            return placed.value

        def make() -> Operation[Placed[int]]:
            return self._operations.publish(channel, payload, exclude, replica.position)

        return self._surely(room, make, halt=False).map(sent)

    def expect(self, channel: str, position: Position) -> None:
        """Something was published of a channel, and must be heard if it is heard here."""
        room = self._rooms.get(channel)
        if room is not None:
            room.replica.expect(position)

    def check(self) -> None:
        """`BackendUnavailable` where a join would fail, as far as this process knows."""
        self.link.check()
        if self._subscriber.deaf_for > DEAF:
            raise Refused("Redis does not let us hear what is published")

    def obey_here(self, order: orders.Order) -> Pending[int]:
        """Do what this process itself has ordered everybody to do; how many connections it was about."""
        self._obeyed[order.id] = time.monotonic()
        done: Pending[int] = Pending()
        then(self._obey_kind(order), done.settle)
        return done

    def _obey_kind(self, order: orders.Order) -> int | Pending[int]:
        if order.kind == "recheck":
            return self._listener.recheck(order.user, order.channel)
        if order.kind == "remove":
            return self._listener.remove_from(order.channel or "", order.user or "", order.text)
        return self._listener.close_matching(order.user, order.client, order.text)

    def profile(self, channel: ChannelName, client_id: str) -> Profile | None:
        """What is said of the user of a connection in a channel, as far as this process knows."""
        room = self._rooms.get(channel)
        entry = room.entry_of(client_id) if room is not None else None
        return None if entry is None else entry.document.profile

    def post(self) -> Pending[None]:
        """Have the others know what has been counted here; settled when they can."""
        return self._keeper.post()

    @property
    def birth(self) -> int:
        """When the data in Redis began, in ms, as far as this process knows."""
        return self._keeper.birth

    @property
    def node(self) -> str:
        return self._keeper.node

    @property
    def listens(self) -> bool:
        """Whether it hears orders."""
        return self._subscriber.connected and self._subscriber.want(self._keys.control).settled

    def _surely(self, room: Room, make: Any, *, halt: bool = True) -> Pending[Any]:
        """What an operation gives; where Redis knows nothing of what it rests on, heal and try once more."""
        standing = room.replica if halt else None

        def again(outcome: Outcome[Any]) -> Any:
            try:
                return outcome()
            except Lost:
                return self._rooms.heal(room).map(lambda _: self._pipeline.run(make(), standing))

        def still_lost(outcome: Outcome[Any]) -> Any:
            try:
                return outcome()
            except Lost:
                raise BackendUnavailable("Redis loses what it is told") from None

        return self._pipeline.run(make(), standing).then(again).then(still_lost)

    def _hear(self, topic: str, data: bytes) -> None:
        if topic == self._keys.control:
            self._obey(orders.parse_order(data))
        elif topic != self._inbox:
            self._rooms.hear(topic, data)
        elif data:
            user, payload = data.split(b"\0", 1)
            self._listener.deliver_to_user(unescape(user.decode()), payload)

    def _obey(self, order: orders.Order) -> None:
        now = time.monotonic()
        if order.id in self._obeyed:
            return
        self._obeyed = {known: at for known, at in self._obeyed.items() if now - at < 2 * orders.LASTS}
        if order.origin != self.node:
            self.obey_here(order).when(lambda closed: self._pipeline.run(orders.report(self._keys, order, closed())))

    def _lost(self) -> None:
        if not self._deaf_since:
            self._deaf_since = self._keeper.time_at(self._subscriber.heard_at - ORDER_MARGIN)
        self._rooms.lost()
        self._keeper.compare_soon()
        self._await_control()

    def _await_control(self) -> None:
        if not self._awaits_control:
            self._awaits_control = True
            self._subscriber.want(self._keys.control).when(self._make_up)

    def _make_up(self, subscribed: Outcome[None]) -> None:
        """Obey what was ordered while nothing was heard."""
        self._awaits_control = False

        def obey(outcome: Outcome[list[orders.Order]]) -> None:
            try:
                given = outcome()
            except BackendUnavailable:
                self._subscriber.reset()  # then this is done once more
                return
            self._deaf_since = 0
            for order in given:
                self._obey(order)

        try:
            subscribed()
        except BackendUnavailable:
            self._await_control()  # it was given up, but is gone on with
            return
        if self._deaf_since:
            self._pipeline.run(orders.missed(self._keys, self._deaf_since)).when(obey)

    def _failed(self, problem: BackendUnavailable) -> None:
        self.link.failed(problem)
        self._pipeline.fail_all(problem)
        self._subscriber.give_up(problem)
        self._rooms.give_up(problem)

    def _returned(self) -> None:
        self._rooms.look_soon()
        self._keeper.tell_again()

    def _reborn(self) -> list[str]:
        self._operations = Operations(self._keys, self._keeper.node, self._max_info)
        self._subscriber.drop(self._inbox)
        self._inbox = self._keys.inbox(self._keeper.node)
        self._subscriber.want(self._inbox)
        self._rooms.heal_all()
        return [room.name for room in self._rooms]

    def _is_behind(self) -> bool:
        return any(room.replica.awaited or room.healing for room in self._rooms)

    def _probe(self, now: float) -> None:
        """A subscription that hears nothing for long is asked for a sign of life."""
        quiet = now - self._subscriber.heard_at
        if not self._subscriber.connected or quiet < self._probe_after:
            return
        if quiet > 2 * self._probe_after:
            self._subscriber.reset()
        elif now - self._probed_at > self._probe_after:
            self._probed_at = now
            self._pipeline.run(_publish(self._inbox))


def _publish(topic: str) -> Operation[None]:
    yield Call("PUBLISH", (topic,), ("",))
