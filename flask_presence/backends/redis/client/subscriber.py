"""The subscriptions of this process: it receives what Redis publishes.

Rule: there is one reader, and it waits for nothing but Redis. After a lost connection, messages count as missed until
Redis has acknowledged the subscriptions again.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeout

from ....domain.errors import BackendUnavailable
from ....loops.base import Loop
from ....loops.pending import Pending, raising
from .client import Client, Subscription

READ_TIMEOUT: Final = 5.0
"""Seconds for which the reader waits for a message before it checks whether it has been closed."""
CATCH_UP_TIMEOUT: Final = 1.0
"""Seconds for which `catch_up` waits for a message that must arrive."""
MAX_BURST: Final = 64
"""How many messages are handled before other greenlets get a turn."""
BACKOFF: Final = (0.05, 1.0)
"""Seconds before the next attempt to connect: the first time, and at most. Each is shortened at random."""

_LOST: Final = (RedisError, OSError, BackendUnavailable, ValueError, AttributeError, RuntimeError)
"""What a lost connection raises. redis-py raises the last three if another greenlet has closed it."""

log = logging.getLogger("flask_presence")


class Subscriber:
    """The subscriptions of this process. Its state belongs to the loop.

    In the loop, it calls `hear` with the topic and the payload of each message, in order, and `lost` when messages may
    have been missed. `is_behind` says whether messages are known to be on their way.
    """

    def __init__(
        self,
        client: Client,
        loop: Loop,
        hear: Callable[[str, bytes], object],
        lost: Callable[[], object],
        is_behind: Callable[[], bool],
    ) -> None:
        self._client = client
        self._loop = loop
        self._hear = hear
        self._lost = lost
        self._messages_are_due = is_behind
        self._topics: dict[str, Pending[None]] = {}
        self._to_subscribe: list[str] = []
        self._to_unsubscribe: list[str] = []
        self._writing = False
        self._subscription: Subscription | None = None
        self._unsubscribed_since: float | None = time.monotonic()
        self._failures = 0
        self._closed = False
        self.heard_at = time.monotonic()

    @property
    def connected(self) -> bool:
        """Whether the subscriptions have a connection, as far as is known."""
        return self._subscription is not None

    @property
    def unsubscribed_for(self) -> float:
        """For how many seconds Redis has not acknowledged any subscription; 0 if it has, on the current connection."""
        return 0 if self._unsubscribed_since is None else time.monotonic() - self._unsubscribed_since

    def subscribe(self, topic: str) -> Pending[None]:
        """Subscribe to a topic, if that has not been done. Settled when Redis has acknowledged the subscription on the
        current connection."""
        pending = self._topics.get(topic)
        if pending is None:
            pending = self._topics[topic] = Pending()
            self._to_subscribe.append(topic)
            self._ensure_writing()
        return pending

    def unsubscribe(self, topic: str) -> None:
        """End the subscription to a topic, if there is one."""
        if self._topics.pop(topic, None) is not None:
            self._to_unsubscribe.append(topic)
            self._ensure_writing()

    def give_up(self, problem: BackendUnavailable) -> None:
        """Fail whatever waits for an acknowledgement. The subscriber goes on trying."""
        for topic, pending in list(self._topics.items()):
            if not pending.settled:
                self._topics[topic] = Pending()
                pending.settle(raising(problem))

    def reset(self) -> None:
        """Replace the connection. Messages count as missed at once, not only when the reader notices."""
        if self._subscription is not None:
            self._lose(None, self._subscription)

    def close(self) -> None:
        """Close the connection, and end `listen`."""
        self._closed = True
        if self._subscription is not None:
            self._loop.spawn(self._disconnect, self._subscription)

    def forked(self) -> None:
        """Close this process's copy of the connection, which a fork inherited."""
        self._closed = True
        if self._subscription is not None:
            self._disconnect(self._subscription)

    def listen(self) -> None:
        """See `Source.listen`."""
        while not self._closed:
            subscription: Subscription | None = None
            try:
                subscription = self._connect()
                while not self._closed:
                    for _ in range(MAX_BURST):
                        if not self._receive(subscription):
                            break
                    self._loop.sleep(0)
            except Exception as problem:
                if self._closed:
                    break
                if not isinstance(problem, _LOST):
                    log.exception("a message from Redis could not be handled")
                self._loop.run(partial(self._lose, problem, subscription))
                self._loop.sleep(min(BACKOFF[0] * 2**self._failures, BACKOFF[1]) * random.uniform(0.5, 1))  # noqa: S311
        self._loop.run(lambda: self._lose(None, self._subscription))

    def catch_up(self, *, wait: bool) -> bool:
        """See `Source.catch_up`."""
        if self._closed:
            return False
        try:
            subscription = self._subscription or self._connect()
            received = self._receive_within(subscription, CATCH_UP_TIMEOUT if wait and self._is_behind else 0)
            while received and self._receive_within(subscription, 0):
                continue
        except (RedisError, OSError, BackendUnavailable) as problem:
            self._lose(problem, self._subscription)
            return False
        return received

    @property
    def _is_behind(self) -> bool:
        return self._messages_are_due() or not all(pending.settled for pending in self._topics.values())

    def _connect(self) -> Subscription:
        subscription = self._client.subscription(READ_TIMEOUT)
        topics = self._loop.run(self._all_topics)
        subscription.send("SUBSCRIBE", *topics)
        self._loop.run(lambda: self._connected(subscription))
        return subscription

    def _all_topics(self) -> list[str]:
        """The topics to subscribe to on a new connection."""
        self._to_subscribe.clear()
        self._to_unsubscribe.clear()
        return list(self._topics)

    def _connected(self, subscription: Subscription) -> None:
        self._subscription = subscription
        self.heard_at = time.monotonic()
        self._ensure_writing()

    def _receive(self, subscription: Subscription) -> bool:
        """Wait for a message, and handle it. Returns whether one arrived in time."""
        try:
            kind, topic, data = subscription.read()
        except RedisTimeout:
            return False
        self._loop.run(lambda: self._handle(subscription, kind, topic.decode(), data))
        return True

    def _receive_within(self, subscription: Subscription, timeout: float) -> bool:
        """The same, with a timeout in seconds."""
        return subscription.can_read(timeout) and self._receive(subscription)

    def _handle(self, subscription: Subscription, kind: bytes, topic: str, data: Any) -> None:
        if subscription is not self._subscription:
            return  # this connection was given up meanwhile, and its messages count as missed
        self.heard_at = time.monotonic()
        if kind == b"message":
            self._hear(topic, data)
        elif kind == b"subscribe":
            self._failures = 0
            self._unsubscribed_since = None
            pending = self._topics.get(topic)
            if pending is not None and not pending.settled:
                pending.settle(_nothing)

    def _lose(self, problem: Exception | None, subscription: Subscription | None) -> None:
        if subscription is not self._subscription:
            return  # this connection was given up before
        self._subscription = None
        if subscription is not None:
            self._loop.spawn(self._disconnect, subscription)
        if self._unsubscribed_since is None:
            self._unsubscribed_since = time.monotonic()
        if not self._failures and problem is not None:
            log.warning("the connection for subscriptions to Redis was lost and will be replaced: %s", problem)
        self._failures += 1
        for topic, pending in self._topics.items():
            if pending.settled:
                self._topics[topic] = Pending()
        self._lost()

    def _ensure_writing(self) -> None:
        if self._subscription is None or self._writing:
            return
        if self._to_subscribe or self._to_unsubscribe:
            self._writing = True
            self._loop.spawn(self._write)

    def _write(self) -> None:
        subscription, new, old = self._loop.run(self._next_topics)
        try:
            while subscription is not None and (new or old):
                if new:
                    subscription.send("SUBSCRIBE", *new)
                if old:
                    subscription.send("UNSUBSCRIBE", *old)
                subscription, new, old = self._loop.run(self._next_topics)
        except _LOST:
            log.debug("a subscription could not be sent; the connection is replaced", exc_info=True)
            self._loop.run(self._stop_writing)

    def _stop_writing(self) -> None:
        self._writing = False
        self.reset()

    def _next_topics(self) -> tuple[Subscription | None, list[str], list[str]]:
        """The connection, and the topics to subscribe to and to unsubscribe from."""
        new = [topic for topic in self._to_subscribe if topic in self._topics]
        old = [topic for topic in self._to_unsubscribe if topic not in self._topics]
        self._to_subscribe, self._to_unsubscribe = [], []
        self._writing = bool(self._subscription is not None and (new or old))
        return self._subscription, new, old

    def _disconnect(self, subscription: Subscription) -> None:
        try:
            subscription.close()
        except _LOST:
            log.debug("a connection could not be closed, because it was lost already", exc_info=True)


def _nothing() -> None:
    return None
