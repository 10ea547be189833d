"""The backend for several workers: the state is in Redis.

Rule: calls from the application's own code need no connections in this process. What connections do goes through the
`Worker`, which is created for the first of them.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, TypeVar

from redis.exceptions import RedisError

from ...domain.channels import Channel, ChannelCounts, ChannelList, ChannelName, ChannelType, count_channels
from ...domain.errors import BackendUnavailable
from ...domain.events import Event, Reason
from ...domain.history import NO_RULES, HistoryRules, HistorySize, Page, Position, Published, page
from ...domain.members import Member, OwnedInfo, Profile, User
from ...domain.readings import Survey
from ...domain.roster import Change, Joined, Joiner, Updated
from ...domain.shards import ShardState
from ...loops.base import Loop
from ...loops.gevent_loop import sleep_off_loop
from ...loops.pending import Outcome, Pending
from ..base import Listener
from .client.address import SOCKET_TIMEOUT, Address
from .client.client import Client
from .client.watch import watch
from .store import control
from .store.calls import Operation, Refused
from .store.channels import SLICE, Snapshot
from .store.keys import Keys, prefix_in
from .store.layout import WHOLE, Shard
from .store.server_check import try_writing
from .store.store import Store
from .worker.heartbeat import remove_dead
from .worker.worker import Worker
from .worker.worker_id import gone_among

T = TypeVar("T")
log = logging.getLogger("flask_presence")

REPLY_TIMEOUT: Final = 2.0
"""Seconds to wait for workers to carry out a control message."""
CLOSE_TIMEOUT: Final = 10.0
"""Seconds to wait for the last leaves of a process."""
REMOVE_DEAD_EVERY: Final = 1.0
"""Seconds after which a process without connections removes dead workers again before it asks something."""


class RedisBackend:
    """See `Backend`. `prefix` keeps services apart. `lease` and `grace_abrupt` in seconds, `max_info` in bytes of
    JSON, `max_members` per presence channel. `check_others` does `finds_layout` in the other shards."""

    blocking = True
    outlives_process = True

    def __init__(
        self,
        address: Address,
        prefix: str,
        lease: float,
        max_info: int,
        max_members: int | None,
        grace_abrupt: float,
        history: HistoryRules = NO_RULES,
        shard: Shard = WHOLE,
        tell_others: Callable[[control.ControlMessage, bool], object] = lambda *_: None,
        check_others: Callable[[], object] = lambda: None,
    ) -> None:
        self._shard = shard
        self._check_others = check_others
        self._tell_others = tell_others
        self._keys = Keys(prefix_in(prefix, address.hash_tag), address.db)
        self._lease = lease
        self._history = history
        self._address = address
        self._client = Client(address)
        limits: dict[str, Any] = {"max_info": max_info, "max_members": max_members}
        self._store = Store(self._keys, lease=lease, grace=grace_abrupt, layout=shard.layout, **limits)
        self._operations = self._store.channels()
        self._listener: Listener
        self._loop: Loop | None = None
        self._worker: Worker | None = None
        self._removed_dead_at = 0.0

    def bind(self, listener: Listener) -> None:
        self._listener = listener

    def start(self, loop: Loop) -> None:
        self._loop = loop
        own = Client(self._address)  # so that many queries do not keep changes waiting for a connection
        self._worker = Worker(
            *(self._store, own, loop, self._listener, self._history, self._lease, self._shard, self._tell_others)
        )
        loop.run(self._worker.begin)

    def tick(self, now: float) -> None:  # noqa: ARG002 (Redis's clock or the monotonic clock decides)
        if self._worker is not None:
            self._worker.tick(time.monotonic())

    def close(self) -> None:
        worker = self._worker
        if worker is not None:
            try:
                _wait(worker, worker.loop.run(worker.end), CLOSE_TIMEOUT)
            except BackendUnavailable as problem:
                log.warning("Redis is down, so other workers have to find out that this one has ended: %s", problem)
            self._worker = None
            worker.disconnect()
            self._client.close()

    def forked(self) -> None:
        worker, self._worker, self._loop = self._worker, None, None
        if worker is not None:
            worker.forked()

    def check(self) -> None:
        if self._worker is not None:
            self._worker.check()
        else:
            self._check_layout()
            self._check_subscribing()
        self._client.run(try_writing(self._keys))

    def obstacle(self) -> str | None:
        refusal = self._worker.refusal if self._worker is not None else None
        return None if refusal is None else str(refusal)

    def shards(self, *, with_counts: bool = False) -> tuple[ShardState, ...]:  # noqa: ARG002 (there are none)
        return ()

    @property
    def has_worker(self) -> bool:
        """Whether this process has, or had, connections, so that it knows by itself whether Redis is down."""
        return self._worker is not None

    def check_known(self) -> None:
        """Raise `BackendUnavailable` if this process's worker knows that Redis is down. Does not block."""
        if self._worker is not None:
            self._worker.check()

    def check_up(self) -> None:
        """The same, unless all that is known is that this worker is late, or hears nothing. Does not block."""
        if self._worker is not None and not self._worker.breaker.is_up:
            self._worker.check()

    @property
    def awaits_heartbeat(self) -> bool:
        """Whether the answer to the first heartbeat is still to come."""
        return self._worker is not None and not self._worker.answered.settled

    def await_heartbeat(self) -> None:
        """Wait off the loop until Redis has answered the first heartbeat, or is down."""
        worker = self._worker
        if worker is not None:
            _wait(worker, worker.answered, REPLY_TIMEOUT)

    def finds_layout(self) -> bool:
        """Whether workers are alive here, whose layout is that of this process. Raises `OtherLayout` if it is not."""
        living = self._client.run(self._store.workers.living_layout())
        if living not in (None, self._shard.layout):
            raise self._shard.conflict(living)
        return living is not None

    def _check_layout(self) -> None:
        """Raise `OtherLayout` if workers that are alive have other shards. A worker's heartbeat does this by itself. If
        there are none in this shard, it may be because theirs are others."""
        if not self.finds_layout():
            self._check_others()

    def _check_subscribing(self) -> None:
        """Subscribe to the probe. A process without connections has no other subscription that would show whether
        Redis allows it."""
        try:
            subscription = self._client.subscription(SOCKET_TIMEOUT)
            try:
                subscription.subscribe(self._keys.probe)
                subscription.read()
            finally:
                subscription.close()
        except (RedisError, OSError) as problem:
            raise Refused(f"Redis does not let us subscribe: {problem}") from problem

    def opened(self, client_id: str, user: User | None) -> None:
        self._running_worker.opened(client_id, user)

    def closed(self, client_id: str) -> None:
        if self._worker is not None:
            self._worker.closed(client_id)

    def guest_opened(self, client_id: str, user: User | None) -> None:
        """Note that a connection with its home in another shard is about to join a channel of this one, or has another
        user now."""
        self._running_worker.guest_opened(client_id, user)

    def guest_closed(self, client_id: str) -> None:
        """Note that such a connection is gone."""
        if self._worker is not None:
            self._worker.guest_closed(client_id)

    def join(self, joiner: Joiner) -> Pending[Joined]:
        return self._running_worker.join(joiner)

    def leave(
        self,
        channel: ChannelName,
        client_id: str,
        now: datetime,  # noqa: ARG002 (Redis's clock decides)
        reason: Reason,
        *,
        grace: float = 0,
    ) -> Pending[Change | None] | None:
        return self._worker.leave(channel, client_id, reason, grace) if self._worker is not None else None

    def update(
        self,
        channel: ChannelName,
        client_id: str,
        info: Mapping[str, Any],
        now: datetime,
        owned: OwnedInfo | None = None,
    ) -> Pending[Updated]:
        return self._running_worker.update(channel, client_id, info, now, owned)

    def publish(self, channel: str, payload: bytes, exclude: str | None) -> Pending[int]:
        return self._running_worker.publish(channel, payload, exclude)

    def publish_kept(self, channel: str, payload: bytes, exclude: str | None, key: str | None) -> Pending[Published]:
        return self._running_worker.publish_kept(channel, payload, exclude, key)

    def broadcast(self, channel: str, payload: bytes, exclude: str | None, *, keep: bool = False) -> int:
        retention = self._history.find(channel) if keep else None
        if retention is not None:
            kept = self._ask(self._store.history.publish(channel, payload, exclude, retention))
            position, count = kept.position, kept.value.delivered
        else:
            placed = self._ask(self._operations.publish(channel, payload, exclude))
            position, count = placed.position, placed.value
        worker = self._worker
        if worker is not None:
            worker.loop.run(lambda: worker.expect(channel, position))
        return count

    def history(self, channel: str, limit: int, before: Position | None) -> Page:
        if self._history.find(channel) is None:
            return Page((), more=False)
        return page(self._ask(self._store.history.extract(channel, before=before, limit=limit)), limit)

    def clear_history(self, channel: str) -> int:
        return self._ask(self._store.history.clear(channel))

    def history_size(self, channel: str | None) -> HistorySize | None:
        if channel is None:
            return self._ask(self._store.history.total_size())
        return None if self._history.find(channel) is None else self._ask(self._store.history.size(channel))

    def disconnect(self, user_id: str | None, client_id: str | None, text: str) -> int:
        closed = self.send_control(self.new_control(text, user=user_id, client=client_id))
        self.end_graces(user_id, client_id, None)
        return closed

    def remove(self, channel: str, user_id: str, text: str) -> int:
        removed = self.send_control(self.new_control(text, kind="remove", user=user_id, channel=channel))
        self.end_graces(user_id, None, channel)
        return removed

    def recheck(self, user_id: str | None, channel: str | None) -> int:
        count = self.send_control(self.new_control(kind="recheck", user=user_id, channel=channel))
        if user_id is not None:  # nobody can be asked about a user without a connection
            self.end_graces(user_id, None, channel)
        return count

    def send_to_user(self, user_id: str, payload: bytes) -> int:
        return self._ask(self._store.workers.send_to_user(user_id, payload))

    def is_online(self, user_id: str) -> bool:
        return self._ask(self._store.workers.is_online(user_id))

    def profile(self, channel: ChannelName, client_id: str) -> Profile | None:
        return self._worker.profile(channel, client_id) if self._worker is not None else None

    def new_control(self, text: str = "", **what: Any) -> control.ControlMessage:
        """A new control message of this process. See `ControlMessage` for what it may have."""
        return control.new_message(self._worker.worker_id if self._worker else "", text, **what)

    def send_control(self, message: control.ControlMessage) -> int:
        """Send a control message to all workers. Returns how many connections it concerned, on those workers that
        reply in time."""
        worker = self._worker
        others = self._ask(control.send(self._keys, message))
        count = 0
        if worker is not None:
            others -= worker.control.is_heard
            count = _wait(worker, worker.loop.run(lambda: worker.control.carry_out(message)), REPLY_TIMEOUT) or 0
        return count + self._collect_replies(message, others)

    def _collect_replies(self, message: control.ControlMessage, workers: int) -> int:
        """The sum of the replies of so many workers, as far as they come in time."""
        total, end = 0, time.monotonic() + REPLY_TIMEOUT
        while workers > 0 and (left := end - time.monotonic()) > 0:
            try:
                reply = self._client.ask("BLPOP", self._keys.replies(message.id), f"{min(left, 0.8):.2f}")
            except BackendUnavailable:
                break
            if reply:
                total += int(reply[1])
                workers -= 1
        return total

    def send_copy(self, message: control.ControlMessage) -> None:
        """Let all workers note, and those that remove dead workers find, a control message of another shard."""
        self._ask(control.send(self._keys, control.copy_of(message)))

    def note_copy(self, message: control.ControlMessage, late: bool) -> None:
        """Let this process's worker note a control message that it has carried out for another shard. In the loop."""
        if self._worker is not None:
            self._worker.control.note_copy(message, late)

    def end_graces(self, user_id: str | None, client_id: str | None, channel: str | None) -> None:
        """End the grace periods that match, including those of workers on this host that have just died."""
        if self._worker is not None:  # else `_ask` does this
            self._notify(self._client.run(self._remove_dead(after=None)))
        self._notify(self._ask(self._store.graces.end_matching(user_id, client_id, channel)))

    def get(self, name: str) -> Channel | None:
        snapshot = self._ask(self._operations.snapshot(name)).value
        return snapshot.channel(name, _members(snapshot))

    def channels(self, kind: ChannelType | None = None, prefix: str | None = None) -> ChannelList:
        return ChannelList(self._ask(self._store.directory.channels(kind, prefix)))

    def members(self, name: str) -> Sequence[Member]:
        return _members(self._ask(self._operations.snapshot(name)).value)

    def workers(self) -> int:
        """How many workers are alive."""
        return self._ask(self._store.workers.count_alive())

    def counts(self) -> ChannelCounts:
        return ChannelCounts(*count_channels(self.channels()))

    def connections(self) -> int:
        return self._ask(self._store.workers.count_connections())

    def connections_of(self, name: str) -> Mapping[str, int]:
        return self._ask(self._operations.connections_of(name))

    def survey(self) -> Survey:
        worker = self._worker
        if worker is not None:
            # Read the counts of this process from Redis too, so that no count is lower when another process answers.
            _wait(worker, worker.loop.run(worker.record_counts), REPLY_TIMEOUT)
        return self._ask(self._store.counts.read(worker.data_since if worker is not None else 0))

    def watch(self, name: str | None = None) -> Iterator[tuple[ChannelName, Change] | None]:
        return watch(self._client, self._keys, name)

    @property
    def _running_worker(self) -> Worker:
        """The worker, which is started if there is none: a test client may have closed it."""
        if self._worker is None:
            assert self._loop is not None, "there is no loop yet"
            self.start(self._loop)
        assert self._worker is not None
        return self._worker

    def _ask(self, operation: Operation[T]) -> T:
        """Drive an operation. A process without connections first removes dead workers, because it has no heartbeat."""
        if self._worker is None and time.monotonic() - self._removed_dead_at >= REMOVE_DEAD_EVERY:
            self._check_layout()
            self._removed_dead_at = time.monotonic()
            self._notify(self._client.run(self._remove_dead(after=self._lease)))
        return self._client.run(operation)

    def _remove_dead(self, *, after: float | None) -> Operation[list[Event]]:
        now = yield from self._store.workers.time()
        gone = gone_among((yield from self._store.workers.all()))
        return (yield from remove_dead(self._store, now, gone, after=after))

    def _notify(self, events: Sequence[Event]) -> None:
        for event in events:
            if self._worker is None:
                self._listener.notify(event)
            else:
                self._worker.loop.run(lambda event=event: self._listener.notify(event))  # type: ignore[misc]


def _members(snapshot: Snapshot) -> list[Member]:
    """The members, in order of joining. If there are many, others get their turn meanwhile."""
    members: list[Member] = []
    for member in snapshot.members():
        members.append(member)
        if len(members) % SLICE == 0:
            sleep_off_loop(0)
    return members


def _wait(worker: Worker, pending: Pending[T], timeout: float) -> T | None:
    """Wait off the loop for `pending`, and return its value; `None` if it takes longer than `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not pending.settled and time.monotonic() < deadline:
        worker.loop.sleep(0.002)
    outcomes: list[Outcome[T]] = []
    worker.loop.run(lambda: pending.when(outcomes.append) if pending.settled else None)
    return outcomes[0]() if outcomes else None
