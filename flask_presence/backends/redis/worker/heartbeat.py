"""The life of this process as a node: heartbeats, what it has open, and the burial of others.

Law: every node looks after all that are dead, and after every hold that ends; none of them leads.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Final

from ....domain.errors import BackendUnavailable
from ....domain.events import Event
from ....domain.members import User
from ....domain.readings import Reading
from ....loops.pending import Outcome, Pending
from ...base import Listener
from ..client.pipeline import Pipeline
from ..store.calls import Operation
from ..store.workers import Beat, Nodes
from .breaker import Link
from .worker_id import is_gone, new_node

HEARTBEAT: Final = 1.0
"""Seconds between two heartbeats, at the most; a fifth of the lease, if that is less."""
COMPARE_EVERY: Final = 30.0
"""Seconds between two comparisons of the open connections with Redis."""


class Keeper:
    """This process's node. `reborn` is called in the loop when Redis has lost it: all must be told again, and the
    channels are given in which it may have had connections. `returned` is called when Redis had been away,
    `failed` when it is.

    `node` changes when others have taken it for dead, as they may still be at it.
    """

    def __init__(
        self,
        nodes: Nodes,
        pipeline: Pipeline,
        link: Link,
        listener: Listener,
        lease: float,
        reborn: Callable[[], list[str]],
        returned: Callable[[], object],
        failed: Callable[[BackendUnavailable], object],
    ) -> None:
        self.node = new_node()
        self._nodes = nodes
        self._pipeline = pipeline
        self._link = link
        self._listener = listener
        self._lease = lease
        self._reborn = reborn
        self._returned = returned
        self._failed = failed
        self._every = heartbeat(lease)
        self._clients: dict[str, User | None] = {}
        self._clients_dirty = False
        self._compare_at = time.monotonic() + COMPARE_EVERY
        self._birth = 0
        self._begins = True
        self._beating = False
        self._sweeping = False
        self._beat_due = 0.0
        self._trusted_at = time.monotonic() + lease
        self._now = 0
        self._now_at = 0.0
        self._posted = self._counted_before = Reading()

    def user_of(self, client_id: str) -> User | None:
        return self._clients.get(client_id)

    @property
    def is_deserted(self) -> bool:
        return not self._clients

    def time_at(self, moment: float) -> int:
        """What the time was in Redis, in ms, at a moment of the monotonic clock; 0 before the first heartbeat."""
        return int(self._now - (self._now_at - moment) * 1000) if self._now else 0

    def opened(self, client_id: str, user: User | None) -> None:
        self._clients[client_id] = user
        self._note(self._nodes.opened(self.node, {client_id: user}))

    def closed(self, client_id: str) -> None:
        user = self._clients.pop(client_id, None)
        self._note(self._nodes.closed(self.node, client_id, user))

    def beat(self) -> None:
        """Say that this process lives; then see who does not."""
        self._beating = True
        operation = self._nodes.beat(self.node, begins=self._begins)
        self._pipeline.run(operation).when(partial(self._beaten, time.monotonic()))

    def tick(self, now: float) -> None:
        """Do what is due at `now`, in seconds of the monotonic clock."""
        due = now >= self._beat_due if self._link.up else self._link.may_retry(now)
        if due and not self._beating:
            self.beat()

    def compare_soon(self) -> None:
        """Redis may not know all that is open here, but probably does."""
        self._compare_at = 0.0

    def tell_again(self) -> None:
        """Redis may not know all that is open here."""
        self._clients_dirty = False
        self._note(self._nodes.reopened(self.node, self._clients))

    def end(self) -> Pending[None]:
        """This node is no more. What Redis does for it later than it should have is left to the others."""
        self.post()
        return self._pipeline.run(self._nodes.reap(self.node)).map(lambda _: None)

    def post(self) -> Pending[None]:
        """Have the others know what has been counted here; settled when they do, or cannot be told."""
        if not self._link.up:
            told: Pending[None] = Pending()
            told.settle(lambda: None)
            return told
        reading, node = self._reading(), self.node

        def posted(outcome: Outcome[bool]) -> None:
            try:
                taken = outcome()
            except BackendUnavailable:
                return  # with the next heartbeat, then
            if taken and node == self.node:
                self._posted = reading

        return self._pipeline.run(self._nodes.readings.post(node, reading)).then(posted)

    @property
    def birth(self) -> int:
        """When the data in Redis began, in ms, at the last heartbeat; 0 before the first."""
        return self._birth

    def _reading(self) -> Reading:
        """What has been counted here since the node was given its name."""
        return self._listener.reading().since(self._counted_before)

    def _note(self, operation: Operation[None]) -> None:
        def check(outcome: Outcome[None]) -> None:
            try:
                outcome()
            except BackendUnavailable:
                self._clients_dirty = True

        if self._link.up:
            self._pipeline.run(operation).when(check)
        else:
            self._clients_dirty = True

    def _beaten(self, sent: float, outcome: Outcome[Beat]) -> None:
        self._beating = False
        try:
            beat = outcome()
        except BackendUnavailable as problem:
            if self._link.up:
                self._failed(problem)
            return
        begun, self._begins = self._begins, False
        data_lost = self._birth not in (0, beat.birth)
        self._birth, self._now, self._now_at = beat.birth, beat.now, sent
        if beat.verdict == "lost":
            self._begin_again(another=not data_lost)
            return
        if self._link.beaten(sent):
            self._returned()
        self._beat_due = sent + self._every
        if beat.verdict == "late" or begun:
            self._trusted_at = time.monotonic() + self._lease
        if self._clients_dirty:
            self.tell_again()
        elif time.monotonic() >= self._compare_at:
            self._compare_at = time.monotonic() + COMPARE_EVERY
            self._pipeline.run(self._nodes.open_connections(self.node)).when(partial(self._compare, len(self._clients)))
        self.post()
        if not self._sweeping:
            self._sweeping = True
            self._pipeline.run(self._sweep(beat.now)).when(self._swept)

    def _compare(self, asked_at: int, outcome: Outcome[int]) -> None:
        """Redis has another number of open connections than there were when it was asked, where late commands or old
        copies of its data came between."""
        try:
            self._clients_dirty |= outcome() != asked_at
        except BackendUnavailable:
            return  # there will be another comparison

    def _begin_again(self, *, another: bool) -> None:
        before = self.node
        if another:
            self.node = new_node()
            not_posted = self._reading().since(self._posted)
            self._counted_before = self._listener.reading().since(not_posted)
        self._posted = Reading()
        self._begins = True
        self.beat()
        self.tell_again()
        channels = self._reborn()
        if another:
            self._pipeline.run(self._nodes.abandon(before, channels))

    def _sweep(self, now: int) -> Operation[list[Event]]:
        """Bury the dead. Who has just come (back) itself leaves those alone whom only their lease condemns: they may
        be as late as itself, for the same reason."""
        after = 0 if time.monotonic() >= self._trusted_at else None
        return sweep(self._nodes, now, but=self.node, after=after)

    def _swept(self, outcome: Outcome[list[Event]]) -> None:
        self._sweeping = False
        try:
            events = outcome()
        except BackendUnavailable:
            return  # the next heartbeat sweeps again
        for event in events:
            self._listener.notify(event)


def sweep(nodes: Nodes, now: int, *, but: str = "", after: float | None) -> Operation[list[Event]]:
    """Reap the nodes that are dead, and end the holds that are over; what the application should hear of it."""
    known = yield from nodes.all()
    events: list[Event] = []
    dead = yield from nodes.claim([node for node in known if node != but and is_gone(node)], after=after)
    while dead is not None:
        events += yield from nodes.reap(dead)
        dead = yield from nodes.claim([node for node in known if node != but and is_gone(node)], after=after)
    events += yield from nodes.graces.end_due(now)
    return events


def heartbeat(lease: float) -> float:
    """Seconds between two heartbeats."""
    return min(HEARTBEAT, lease / 5)
