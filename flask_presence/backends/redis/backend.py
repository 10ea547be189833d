"""The state of many processes, in Redis.

Law: what the server's own code asks and says needs no sockets in this process; what connections do is the worker's,
which is there from the first of them.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, TypeVar

from redis.exceptions import RedisError

from ...domain.channels import Channel, ChannelName, ChannelType, count_channels
from ...domain.errors import BackendUnavailable
from ...domain.events import Event, Reason
from ...domain.members import NOTHING, Member, Profile, User
from ...domain.readings import Survey
from ...domain.roster import Change, Joined, Updated
from ...loops.base import Loop
from ...loops.pending import Outcome, Pending
from ..base import Listener
from .client.address import ANSWER_PATIENCE, Address
from .client.client import Client
from .client.watch import watch
from .store import control as orders
from .store.calls import Operation, Refused
from .store.channels import Operations
from .store.directory import Census
from .store.keys import Keys
from .store.server_check import probe
from .store.workers import Nodes
from .worker.heartbeat import sweep
from .worker.worker import Worker

T = TypeVar("T")
log = logging.getLogger("flask_presence")

REPORT_TIMEOUT: Final = 2.0
"""Seconds to wait for this worker, and for the others, to have done what they were told."""
CLOSE_TIMEOUT: Final = 10.0
"""Seconds to wait for the last leaves of a process."""
SWEEP_EVERY: Final = 1.0
"""Seconds between two looks of a process without sockets at who is dead."""


class RedisBackend:
    """See `Backend`. `lease` and `grace_abrupt` in seconds, `max_info` in bytes; `prefix` keeps services apart."""

    blocking = True
    outlives_process = True

    def __init__(self, address: Address, prefix: str, lease: float, max_info: int, grace_abrupt: float) -> None:
        self._keys = Keys(prefix, address.db)
        self._lease = lease
        self._max_info = max_info
        self._address = address
        self._client = Client(address)
        self._nodes = Nodes(self._keys, lease, grace_abrupt)
        self._census = Census(self._keys, self._nodes)
        self._operations = Operations(self._keys, "", max_info)
        self._listener: Listener
        self._loop: Loop | None = None
        self._worker: Worker | None = None
        self._swept_at = 0.0

    def bind(self, listener: Listener) -> None:
        self._listener = listener

    def start(self, loop: Loop) -> None:
        self._loop = loop
        own = Client(self._address)  # so that no crowd of questions keeps a change waiting for a connection
        self._worker = Worker(self._keys, own, self._nodes, loop, self._listener, self._lease, self._max_info)
        loop.run(self._worker.begin)

    def tick(self, now: float) -> None:  # noqa: ARG002 (time is that of Redis, or monotonic)
        if self._worker is not None:
            self._worker.tick(time.monotonic())

    def close(self) -> None:
        worker = self._worker
        if worker is not None:
            try:
                _wait(worker, worker.loop.run(worker.end), CLOSE_TIMEOUT)
            except BackendUnavailable as problem:
                log.warning("Redis is away, so others will have to notice that this process has ended: %s", problem)
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
            self._check_subscribing()
        self._client.run(probe(self._keys))

    def _check_subscribing(self) -> None:
        """A process without sockets has no subscription that would show whether one can be had."""
        try:
            subscription = self._client.subscription(ANSWER_PATIENCE)
            try:
                subscription.send("SUBSCRIBE", self._keys.probe)
                subscription.read()
            finally:
                subscription.close()
        except (RedisError, OSError) as problem:
            raise Refused(f"Redis does not let us subscribe: {problem}") from problem

    def opened(self, client_id: str, user: User | None) -> None:
        self._begun.opened(client_id, user)

    def closed(self, client_id: str) -> None:
        if self._worker is not None:
            self._worker.closed(client_id)

    def join(
        self,
        channel: ChannelName,
        client_id: str,
        user: User | None,
        info: Mapping[str, Any] | None,
        now: datetime,
        owned: Mapping[str, Any] = NOTHING,
    ) -> Pending[Joined]:
        return self._begun.join(channel, client_id, user, info, now, owned)

    def leave(
        self,
        channel: ChannelName,
        client_id: str,
        now: datetime,  # noqa: ARG002 (time is that of Redis)
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
        owned: Mapping[str, Any] | None = None,
    ) -> Pending[Updated]:
        return self._begun.update(channel, client_id, info, now, owned)

    def publish(self, channel: str, payload: bytes, exclude: str | None) -> Pending[int]:
        return self._begun.publish(channel, payload, exclude)

    def broadcast(self, channel: str, payload: bytes, exclude: str | None) -> int:
        placed = self._ask(self._operations.publish(channel, payload, exclude))
        worker = self._worker
        if worker is not None:
            worker.loop.run(lambda: worker.expect(channel, placed.position))
        return placed.value

    def disconnect(self, user_id: str | None, client_id: str | None, text: str) -> int:
        closed = self._order(text, user=user_id, client=client_id)
        self._notice(self._ask(self._nodes.graces.end_matching(user_id, client_id)))
        return closed

    def remove(self, channel: str, user_id: str, text: str) -> int:
        removed = self._order(text, kind="remove", user=user_id, channel=channel)
        self._notice(self._ask(self._nodes.graces.end_matching(user_id, None, channel)))
        return removed

    def recheck(self, user_id: str | None, channel: str | None) -> int:
        return self._order(kind="recheck", user=user_id, channel=channel)

    def send_to_user(self, user_id: str, payload: bytes) -> int:
        return self._ask(self._nodes.send_to_user(user_id, payload))

    def is_online(self, user_id: str) -> bool:
        return self._ask(self._nodes.is_online(user_id))

    def profile(self, channel: ChannelName, client_id: str) -> Profile | None:
        return self._worker.profile(channel, client_id) if self._worker is not None else None

    def _order(self, text: str = "", **what: Any) -> int:
        """Have all processes do something with connections; of how many they say so in time."""
        worker = self._worker
        order = orders.new_order(worker.node if worker else "", text, **what)
        others = self._ask(orders.give(self._keys, order))
        closed = 0
        if worker is not None:
            others -= worker.listens
            closed = _wait(worker, worker.loop.run(lambda: worker.obey_here(order)), REPORT_TIMEOUT) or 0
        return closed + _gather(self._client, self._keys, order, others)

    def get(self, name: str) -> Channel | None:
        return self._ask(self._operations.snapshot(name)).value.channel(name)

    def channels(self, kind: ChannelType | None = None, prefix: str | None = None) -> list[Channel]:
        return self._ask(self._census.channels(kind, prefix))

    def members(self, name: str) -> Sequence[Member]:
        return self._ask(self._operations.snapshot(name)).value.members

    def counts(self) -> tuple[int, dict[str, int]]:
        return count_channels(self.channels())

    def connections(self) -> int:
        return self._ask(self._nodes.connections())

    def connections_of(self, name: str) -> Mapping[str, int]:
        return self._ask(self._operations.connections_of(name))

    def survey(self) -> Survey:
        worker = self._worker
        if worker is not None:
            # All processes read the same numbers in Redis, so that whichever is asked, none goes back.
            _wait(worker, worker.loop.run(worker.post), REPORT_TIMEOUT)
        return self._ask(self._nodes.readings.survey(worker.birth if worker is not None else 0))

    def watch(self, name: str | None = None) -> Iterator[tuple[ChannelName, Change] | None]:
        return watch(self._client, self._keys, name)

    @property
    def _begun(self) -> Worker:
        if self._worker is None:
            assert self._loop is not None, "there is no loop yet"
            self.start(self._loop)
        assert self._worker is not None
        return self._worker

    def _ask(self, operation: Operation[T]) -> T:
        """Drive an operation at once; first see to the dead, where this process does not do so all the time."""
        if self._worker is None and time.monotonic() - self._swept_at >= SWEEP_EVERY:
            self._swept_at = time.monotonic()
            self._notice(self._client.run(self._sweep()))
        return self._client.run(operation)

    def _sweep(self) -> Operation[list[Event]]:
        now = yield from self._nodes.time()
        return (yield from sweep(self._nodes, now, after=self._lease))

    def _notice(self, events: Sequence[Event]) -> None:
        for event in events:
            if self._worker is None:
                self._listener.notify(event)
            else:
                self._worker.loop.run(lambda event=event: self._listener.notify(event))  # type: ignore[misc]


def _wait(worker: Worker, pending: Pending[T], patience: float) -> T | None:
    """What comes of `pending`, beside the loop; `None` where it takes longer than `patience` seconds."""
    deadline = time.monotonic() + patience
    while not pending.settled and time.monotonic() < deadline:
        worker.loop.sleep(0.002)
    outcomes: list[Outcome[T]] = []
    worker.loop.run(lambda: pending.when(outcomes.append) if pending.settled else None)
    return outcomes[0]() if outcomes else None


def _gather(client: Client, keys: Keys, order: orders.Order, count: int) -> int:
    """The sum of `count` reports, as far as they come in time. Waits."""
    total, end = 0, time.monotonic() + REPORT_TIMEOUT
    while count > 0 and (patience := end - time.monotonic()) > 0:
        try:
            reply = client.ask("BLPOP", keys.replies(order.id), f"{min(patience, 0.8):.2f}")
        except BackendUnavailable:
            break
        if reply:
            total += int(reply[1])
            count -= 1
    return total
