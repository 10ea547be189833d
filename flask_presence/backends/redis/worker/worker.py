"""This worker's share of the service: what its connections change, what it receives, and how it stays consistent.

Rule: everything here runs in the event loop, and nothing blocks. An outcome is settled at its own place among the
channel's events. A leave that Redis may not have received is made up for when Redis is back.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial
from typing import Any, Final, TypeVar

from ....domain.channels import ChannelName
from ....domain.errors import BackendUnavailable, NotFound, NotMember
from ....domain.events import Reason
from ....domain.history import HistoryRules, Position, Published
from ....domain.members import OwnedInfo, Profile, User
from ....domain.roster import Change, Joined, Joiner, Updated
from ....loops.base import Loop
from ....loops.pending import Outcome, Pending, when_all
from ...base import Listener
from ..client.client import Client
from ..client.pipeline import Pipeline
from ..client.subscriber import Subscriber
from ..store.calls import NOWHERE, Call, Lost, Operation, Placed, Refused
from ..store.channels import Departure
from ..store.control import ControlMessage
from ..store.entries import Entry
from ..store.layout import WHOLE, OtherLayout, Shard
from ..store.server_check import check_server
from ..store.store import Store
from ..store.workers import decode_user_message
from .breaker import CircuitBreaker
from .control_receiver import ControlReceiver
from .heartbeat import Heartbeat, heartbeat_interval
from .join import Join
from .local_channel import LocalChannel
from .local_channels import LocalChannels
from .master_watch import MasterWatch

T = TypeVar("T")
U = TypeVar("U")

log = logging.getLogger("flask_presence")

SUBSCRIBE_TIMEOUT: Final = 2.0
"""Seconds that a subscription may take before joins count as impossible."""
MAX_CLOCK_ERROR: Final = 1000
"""Milliseconds by which a worker may be wrong about the time in Redis."""


class Worker:
    """One process's share of the service, or of one `shard` of it. `tell_others` tells the workers of the other shards
    of a control message that ends grace periods."""

    def __init__(
        self,
        store: Store,
        client: Client,
        loop: Loop,
        listener: Listener,
        history: HistoryRules,
        lease: float,
        shard: Shard = WHOLE,
        tell_others: Callable[[ControlMessage, bool], object] = lambda *_: None,
    ) -> None:
        self.loop = loop
        self._store = store
        self._keys = store.keys
        self._listener = listener
        self.breaker = CircuitBreaker(lease - 2 * heartbeat_interval(lease), shard.name)
        self._pipeline = Pipeline(client, loop, self._failed, self._replaced)
        self._heartbeat = Heartbeat(
            *(store, self._pipeline, self.breaker, listener, lease, self._restart, self._returned, self._failed),
            shard,
        )
        self._operations = store.channels(self.worker_id)
        self._subscriber = Subscriber(client, loop, self._hear, self._lost)
        self._channels = LocalChannels(
            *(store, lambda: self.worker_id, lambda: self._operations, self._pipeline, self._subscriber, listener),
            history=history,
            keep=lease / 2,
            writes_lost=self._writes_lost,
        )
        self.control = ControlReceiver(
            *(store, self._pipeline, self._subscriber, self._channels, listener, lambda: self.worker_id, lease),
            tell_others=tell_others,
        )
        self._inbox = self._keys.inbox(self.worker_id)
        self._checks_cluster = client.in_cluster and shard.records  # once, not for each shard
        self._master_watch = MasterWatch(client, loop, self._pipeline, self._subscriber)
        self._probe_after = lease / 2
        self._probed_at = 0.0
        self.ended = False

    @property
    def worker_id(self) -> str:
        return self._heartbeat.worker_id

    @property
    def data_since(self) -> int:
        """When the data in Redis began, in ms, as far as is known here."""
        return self._heartbeat.data_since

    def begin(self) -> None:
        """Start. The heartbeat comes first, because the pipeline keeps the order."""
        self._heartbeat.beat()
        self._pipeline.run(check_server(in_cluster=self._checks_cluster))
        self.control.begin()
        self._subscriber.subscribe(self._inbox)
        self._subscriber.begin()
        self.loop.add_source(self)

    def tick(self, now: float) -> None:
        """Do what is due at `now`, in seconds of the monotonic clock."""
        self._pipeline.tick(now)
        self._master_watch.tick(now)
        self._heartbeat.tick(now)
        self.control.tick(now)
        if self.breaker.is_up:
            self._channels.tick(now)
            self._probe(now)

    def end(self) -> Pending[None]:
        """Leave the service: this process has no connections any longer. Settled when Redis knows, or cannot be
        told."""
        ended: Pending[None] = Pending()
        leaving = [pending for local in self._channels for pending in local.leaving.values()]
        when_all(leaving, lambda: self._end().when(ended.settle))
        return ended

    def disconnect(self) -> None:
        """Close the connections to Redis."""
        self.ended = True
        self.loop.run(self._close)

    def forked(self) -> None:
        """Let go of the connections to Redis without using them: they belong to the process that this one was forked
        from."""
        self.ended = True
        self.loop.soon(self._close)  # before the loop looks for anything to read

    @property
    def is_behind(self) -> bool:
        """See `Source.is_behind`."""
        if not self._pipeline.idle or not self._subscriber.settled:
            return True
        return any(local.replica.awaited or local.health.healing for local in self._channels)

    def opened(self, client_id: str, user: User | None) -> None:
        self._heartbeat.opened(client_id, user)

    def closed(self, client_id: str) -> None:
        self._heartbeat.closed(client_id)

    def guest_opened(self, client_id: str, user: User | None) -> None:
        self._heartbeat.guest_opened(client_id, user)

    def guest_closed(self, client_id: str) -> None:
        self._heartbeat.guest_closed(client_id)

    @property
    def refusal(self) -> OtherLayout | None:
        """Why this process must not serve connections; `None` if it may, as far as is known."""
        return self._heartbeat.refusal

    @property
    def answered(self) -> Pending[None]:
        """Settled when Redis has answered the first heartbeat, or is down."""
        return self._heartbeat.answered

    def join(self, joiner: Joiner) -> Pending[Joined]:
        self.breaker.check()
        local = self._channels.open(joiner.channel)
        operations = lambda: self._operations  # noqa: E731

        def begin(_: None) -> Pending[Joined]:
            timed = joiner if joiner.owned is None else joiner._replace(owned=self._timed(joiner.owned))
            return Join(self._channels, self._pipeline, self._store, operations, local, timed).begin()

        return self._heartbeat.clock.known.map(begin)

    def leave(
        self, channel: ChannelName, client_id: str, reason: Reason, grace: float
    ) -> Pending[Change | None] | None:
        local = self._channels.get(channel)
        if local is None:
            return None
        if not local.has(client_id):
            return local.leaving.get(client_id)
        local.left(client_id)
        user = self._heartbeat.user_of(client_id) if channel.type == "presence" else None
        departure = Departure(user, grace, reason)
        if grace:
            self.control.grace_begins(None if user is None else user.id, client_id, channel)
        if not self.breaker.is_up:
            local.left_unconfirmed(client_id, departure)
            return None

        def left(outcome: Outcome[Change | None]) -> Change | None:
            del local.leaving[client_id]
            try:
                return outcome()
            except (NotFound, NotMember):
                return None  # Redis has lost the connection, which is the aim
            except BackendUnavailable:
                local.left_unconfirmed(client_id, departure)
                raise

        operation = self._operations.leave(channel, client_id, departure, local.replica.position)
        leaving: Pending[Change | None] = Pending()
        local.leaving[client_id] = leaving
        self._pipeline.run(operation, local.replica).map(local.replica.at_its_place).then(left).when(leaving.settle)
        return leaving

    def update(
        self,
        channel: ChannelName,
        client_id: str,
        info: Mapping[str, Any],
        now: datetime,
        owned: OwnedInfo | None,
    ) -> Pending[Updated]:
        self.breaker.check()
        local = self._channels.get(channel)
        is_member = local is not None and local.has(client_id) and channel.type == "presence"
        verdict = None if owned is None else self._timed(owned)

        def make() -> Operation[Placed[tuple[Entry, Change | None]]]:
            known = local.replica.position if local is not None else NOWHERE
            return self._operations.update(channel, client_id, info, now, known, owned=verdict, is_member=is_member)

        def shape(done: tuple[Entry, Change | None]) -> Updated:
            return Updated(done[0].member, done[1])

        if local is None or not is_member:
            return self._pipeline.run(make()).map(lambda placed: shape(placed.value))

        def reach(placed: Placed[tuple[Entry, Change | None]]) -> Pending[Updated]:
            return local.replica.at_its_place(placed).map(shape)

        return self._retry_lost(local, make, reach)

    def publish(self, channel: str, payload: bytes, exclude: str | None) -> Pending[int]:
        return self._publish(
            channel, lambda local: self._operations.publish(channel, payload, exclude, local.replica.position)
        )

    def publish_kept(self, channel: str, payload: bytes, exclude: str | None, key: str | None) -> Pending[Published]:
        def make(local: LocalChannel) -> Operation[Placed[Published]]:
            assert local.retention is not None, "the channel keeps messages"
            known = local.replica.position
            return self._store.history.publish(channel, payload, exclude, local.retention, key=key, known=known)

        return self._publish(channel, make)

    def _publish(self, channel: str, make: Callable[[LocalChannel], Operation[Placed[T]]]) -> Pending[T]:
        """Run an operation that publishes to a channel. Its event must arrive here too."""
        self.breaker.check()
        local = self._channels.get(channel)
        if local is None:
            raise BackendUnavailable("the channel has just been closed")

        def sent(placed: Placed[T]) -> T:
            local.replica.expect(placed.position)
            return placed.value

        return self._retry_lost(local, partial(make, local), sent, pause=False)

    def expect(self, channel: str, position: Position) -> None:
        """Note that something was published at `position` of a channel, which must arrive if the channel is here."""
        local = self._channels.get(channel)
        if local is not None:
            local.replica.expect(position)

    def check(self) -> None:
        """Raise `BackendUnavailable` if a join would fail, as far as is known here."""
        self.breaker.check()
        if self._subscriber.unsubscribed_for > SUBSCRIBE_TIMEOUT:
            raise Refused("Redis does not let us hear what is published")

    def profile(self, channel: ChannelName, client_id: str) -> Profile | None:
        """What is known of the user of a connection in a channel."""
        local = self._channels.get(channel)
        entry = local.entry_of(client_id) if local is not None else None
        return None if entry is None else entry.document.profile

    def record_counts(self) -> Pending[None]:
        """Record what has been counted here. Settled when others can read it."""
        return self._heartbeat.record()

    def _timed(self, owned: OwnedInfo) -> OwnedInfo:
        """A verdict with its times converted to Redis's clock, in ms, so that all workers can compare them."""
        clock = self._heartbeat.clock
        asked_at = clock.at(owned.asked_at) if owned.asked_at else 0
        return OwnedInfo(owned.info, asked_at, clock.at(owned.answered_at) + MAX_CLOCK_ERROR)

    def _retry_lost(
        self,
        local: LocalChannel,
        make: Callable[[], Operation[Placed[T]]],
        finish: Callable[[Placed[T]], U | Pending[U]],
        *,
        pause: bool = True,
    ) -> Pending[U]:
        """Run an operation, and `finish` with its outcome. If Redis has lost the channel or the connection, heal the
        channel and run the operation once more."""
        paused = local.replica if pause else None

        def after_first(outcome: Outcome[Placed[T]]) -> U | Pending[U]:
            try:
                placed = outcome()
            except Lost:
                again: Pending[Placed[T]] = self._channels.heal(local).map(lambda _: self._pipeline.run(make(), paused))
                return again.then(after_second)
            return finish(placed)

        def after_second(outcome: Outcome[Placed[T]]) -> U | Pending[U]:
            try:
                placed = outcome()
            except Lost:
                raise BackendUnavailable("Redis keeps losing its data") from None
            return finish(placed)

        return self._pipeline.run(make(), paused).then(after_first)

    def _hear(self, topic: str, data: bytes) -> None:
        if topic == self._keys.control:
            self.control.hear(data)
        elif topic != self._inbox:
            self._channels.hear(topic, data)
        elif data:
            user_id, payload = decode_user_message(data)
            self._listener.deliver_to_user(user_id, payload)

    def _lost(self) -> None:
        """Handle the loss of the subscription."""
        self._channels.lost()
        self._heartbeat.compare_soon()
        self.control.lost()

    def _failed(self, problem: BackendUnavailable) -> None:
        """Fail everything that waits, because Redis is down."""
        self.breaker.failed(problem)
        self._pipeline.fail_all(problem)
        self._subscriber.give_up(problem)
        self._channels.give_up(problem)

    def _replaced(self) -> None:
        """Handle that another run of Redis answers: another server, or one that has restarted."""
        self._channels.data_may_be_older()
        self._heartbeat.store_soon()

    def _returned(self) -> None:
        """Make up for what Redis missed while it was down."""
        self._subscriber.leave_old_master()
        self._channels.compare_soon()
        self._heartbeat.store_connections()
        self.control.send_again()

    def _writes_lost(self) -> None:
        """Make up for changes that Redis has lost, although it still knows this worker."""
        self.control.recheck_everywhere()

    def _restart(self) -> list[str]:
        """Start again: Redis no longer knows this worker, which may have a new id. Returns its channels."""
        self._operations = self._store.channels(self.worker_id)
        self._subscriber.unsubscribe(self._inbox)
        self._inbox = self._keys.inbox(self.worker_id)
        self._subscriber.subscribe(self._inbox)
        self._channels.heal_all()
        self.control.send_again()
        self._recheck_members()
        return [local.name for local in self._channels]

    def _recheck_members(self) -> None:
        """Recheck the members here: Redis is restored from the copies here, which may be older than what was lost, or
        than what other workers have stored."""
        for local in self._channels:
            if local.name.type == "presence":
                self._listener.recheck(None, local.name, ask_signers=False)

    def _probe(self, now: float) -> None:
        """Publish to this worker's own inbox if the subscription has been silent for a while. Replace the subscription
        if that is not heard. Silence alone proves nothing: this process may have been paused."""
        heard_at = self._subscriber.heard_at
        if not self._subscriber.connected:
            return
        if self._probed_at <= heard_at:
            if now - heard_at > self._probe_after:
                self._probed_at = now
                self._pipeline.run(_publish(self._inbox))
        elif now - self._probed_at > self._probe_after:
            self._subscriber.reset()

    def _end(self) -> Pending[None]:
        if self.breaker.is_up and all(local.is_empty and not local.health.in_doubt for local in self._channels):
            self._channels.close_all()
            return self._heartbeat.end()
        ended: Pending[None] = Pending()
        ended.settle(lambda: None)
        return ended

    def _close(self) -> None:
        self._subscriber.close()
        self._pipeline.close()


def _publish(topic: str) -> Operation[None]:
    yield Call("PUBLISH", (topic,), ("",))
