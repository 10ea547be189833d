"""The subscriptions of this process: it receives what Redis publishes.

Rule: nothing blocks. After a lost connection, messages count as missed until Redis has acknowledged the subscriptions
again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from redis.exceptions import ConnectionError as ConnectionLost

from ....domain.errors import BackendUnavailable
from ....loops.base import Loop
from ....loops.pending import Pending, raising
from .backoff import Backoff
from .client import Client
from .loop_connection import LoopConnection

_NAMES: Final = ("SUBSCRIBE", "UNSUBSCRIBE")
_NAMES_IN_CLUSTER: Final = ("SSUBSCRIBE", "SUNSUBSCRIBE")
BACKOFF: Final = (0.05, 1.0)
"""Seconds before the next attempt to connect: the first time, and at most."""

log = logging.getLogger("flask_presence")


class Subscriber:
    """The subscriptions of this process. Everything is called in the loop.

    It calls `hear` with the topic and the payload of each message, in order, and `lost` when messages may have been
    missed.
    """

    def __init__(
        self, client: Client, loop: Loop, hear: Callable[[str, bytes], object], lost: Callable[[], object]
    ) -> None:
        self._client = client
        self._loop = loop
        self._hear = hear
        self._lost = lost
        self._topics: dict[str, Pending[None]] = {}
        self._to_subscribe: list[str] = []
        self._to_unsubscribe: list[str] = []
        self._writes_soon = False
        self._connection: LoopConnection | None = None
        self._unsubscribed_since: float | None = time.monotonic()
        self._backoff = Backoff(*BACKOFF)
        self._closed = False
        self.heard_at = time.monotonic()

    @property
    def connected(self) -> bool:
        """Whether the subscriptions have a connection, as far as is known."""
        return self._connection is not None

    @property
    def settled(self) -> bool:
        """Whether Redis has acknowledged all subscriptions."""
        return all(pending.settled for pending in self._topics.values())

    @property
    def unsubscribed_for(self) -> float:
        """For how many seconds Redis has not acknowledged any subscription; 0 if it has, on the current connection."""
        return 0 if self._unsubscribed_since is None else time.monotonic() - self._unsubscribed_since

    def begin(self) -> None:
        """Connect. From then on, a lost connection is replaced until `close`."""
        self._loop.spawn(self._connect)

    def subscribe(self, topic: str) -> Pending[None]:
        """Subscribe to a topic, if that has not been done. Settled when Redis has acknowledged the subscription on the
        current connection."""
        pending = self._topics.get(topic)
        if pending is None:
            pending = self._topics[topic] = Pending()
            self._to_subscribe.append(topic)
            self._write_soon()
        return pending

    def unsubscribe(self, topic: str) -> None:
        """End the subscription to a topic, if there is one."""
        if self._topics.pop(topic, None) is not None:
            self._to_unsubscribe.append(topic)
            self._write_soon()

    def give_up(self, problem: BackendUnavailable) -> None:
        """Fail whatever waits for an acknowledgement. The subscriber goes on trying."""
        for topic, pending in list(self._topics.items()):
            if not pending.settled:
                self._topics[topic] = Pending()
                pending.settle(raising(problem))

    def reset(self) -> None:
        """Replace the connection. Messages count as missed at once."""
        if self._connection is not None:
            self._connection.close()
            self._replace(None)

    def leave_old_master(self) -> None:
        """Replace the connection if it is to a server that is no longer the master."""
        if self._connection is not None and self._client.is_outdated(self._connection.raw):
            self.reset()

    def close(self) -> None:
        """Close the connection for good."""
        self._closed = True
        if self._connection is not None:
            self._connection.close()

    def _connect(self) -> None:
        """Off the loop: connecting blocks."""
        try:
            connection = self._client.connect(for_calls=False)
        except Exception as problem:
            if not isinstance(problem, BackendUnavailable):
                log.exception("no connection to Redis could be made")
            self._loop.run(partial(self._replace, problem))
        else:
            self._loop.run(partial(self._connected, connection))

    def _connected(self, connection: Any) -> None:
        self._connection = LoopConnection(connection, self._loop, self._received, self._replace)
        if self._closed:
            self._connection.close()
            return
        self.heard_at = time.monotonic()
        self._to_subscribe, self._to_unsubscribe = list(self._topics), []
        self._write()

    def _received(self, replies: list[Any]) -> None:
        self.heard_at = time.monotonic()
        connection = self._connection
        for reply in replies:
            if isinstance(reply, Exception):
                raise reply
            kind, topic, data = reply
            if kind in (b"message", b"smessage"):
                self._hear(topic.decode(), data)
            elif kind in (b"subscribe", b"ssubscribe"):
                self._acknowledged(topic.decode())
            elif kind == b"sunsubscribe":
                self._check_ended(topic.decode())
            if self._connection is not connection:
                return  # it was given up meanwhile, and the other messages count as missed

    def _acknowledged(self, topic: str) -> None:
        self._backoff.succeeded()
        self._unsubscribed_since = None
        pending = self._topics.get(topic)
        if pending is not None and not pending.settled:
            pending.settle(_nothing)

    def _check_ended(self, topic: str) -> None:
        """Raise `ConnectionError` if the server has ended a subscription by itself: another one has the slot now."""
        pending = self._topics.get(topic)
        if pending is not None and pending.settled:
            raise ConnectionLost("another server of the cluster has the topics now")

    def _replace(self, problem: Exception | None) -> None:
        """Connect again, in a while: the connection was lost because of `problem`, or could not be made."""
        self._connection = None
        if self._closed:
            return
        if self._unsubscribed_since is None:
            self._unsubscribed_since = time.monotonic()
        if not self._backoff.has_failed and problem is not None:
            log.warning("the connection for subscriptions to Redis was lost and will be replaced: %s", problem)
        self._loop.later(self._backoff.failed(), self._connect_again)
        for topic, pending in self._topics.items():
            if pending.settled:
                self._topics[topic] = Pending()
        self._lost()

    def _connect_again(self) -> None:
        if not self._closed:
            self._loop.spawn(self._connect)

    def _write_soon(self) -> None:
        if not self._writes_soon:
            self._writes_soon = True
            self._loop.soon(self._write)

    def _write(self) -> None:
        self._writes_soon = False
        if self._connection is None:
            return  # a new connection subscribes to all topics
        new = [topic for topic in self._to_subscribe if topic in self._topics]
        old = [topic for topic in self._to_unsubscribe if topic not in self._topics]
        self._to_subscribe, self._to_unsubscribe = [], []
        names = _NAMES_IN_CLUSTER if self._client.in_cluster else _NAMES
        commands = [(name, *topics) for name, topics in zip(names, (new, old), strict=True) if topics]
        if commands:
            self._connection.send(commands)


def _nothing() -> None:
    return None
