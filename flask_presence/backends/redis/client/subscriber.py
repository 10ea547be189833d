"""What Redis publishes, heard by this process.

Law: one reader, which never waits for anybody; a lost connection is never silent: whatever was subscribed to counts
as missed until it has been acknowledged again.
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

QUIET: Final = 5.0
"""Seconds after which the reader looks up, when nothing comes."""
CATCH_UP_TIMEOUT: Final = 1.0
"""Seconds that a loop without a reader waits for what must come."""
TURN: Final = 64
"""Messages that are heard before everybody else gets a turn."""
BACKOFF: Final = (0.05, 1.0)
"""Seconds before the next attempt to connect, at first and at the most; each a little different."""

_EXPECTED: Final = (RedisError, OSError, BackendUnavailable, ValueError, AttributeError, RuntimeError)
"""How a lost connection shows. redis-py raises the last three when another greenlet has closed it."""

log = logging.getLogger("flask_presence")


class Subscriber:
    """The subscriptions of this process. Its state belongs to the loop.

    `hear` is called with the topic and the message, in the loop and in order; `lost` when messages may have been
    missed. `catching_up`: whether somebody waits for what is still to come.
    """

    def __init__(
        self,
        client: Client,
        loop: Loop,
        hear: Callable[[str, bytes], object],
        lost: Callable[[], object],
        catching_up: Callable[[], bool],
    ) -> None:
        self._client = client
        self._loop = loop
        self._hear = hear
        self._lost = lost
        self._catching_up = catching_up
        self._topics: dict[str, Pending[None]] = {}
        self._new: list[str] = []
        self._old: list[str] = []
        self._writing = False
        self._subscription: Subscription | None = None
        self._unsubscribed_since: float | None = time.monotonic()
        self._failures = 0
        self._closed = False
        self.heard_at = time.monotonic()

    @property
    def connected(self) -> bool:
        return self._subscription is not None

    @property
    def unsubscribed_for(self) -> float:
        """Seconds since when nothing that is subscribed to has been acknowledged; 0 where that is not so."""
        return 0 if self._unsubscribed_since is None else time.monotonic() - self._unsubscribed_since

    def want(self, topic: str) -> Pending[None]:
        """Hear of `topic` from now on; settled when Redis has acknowledged that."""
        pending = self._topics.get(topic)
        if pending is None:
            pending = self._topics[topic] = Pending()
            self._new.append(topic)
            self._go_on_writing()
        return pending

    def drop(self, topic: str) -> None:
        """Hear of `topic` no more."""
        if self._topics.pop(topic, None) is not None:
            self._old.append(topic)
            self._go_on_writing()

    def give_up(self, problem: BackendUnavailable) -> None:
        """Nobody need wait any longer for an acknowledgement; it is gone on with all the same."""
        for topic, pending in list(self._topics.items()):
            if not pending.settled:
                self._topics[topic] = Pending()
                pending.settle(raising(problem))

    def reset(self) -> None:
        """Connect anew. From now on, and not only when the reader notices, everything counts as missed."""
        if self._subscription is not None:
            self._lose(None, self._subscription)

    def close(self) -> None:
        self._closed = True
        if self._subscription is not None:
            self._loop.spawn(self._disconnect, self._subscription)

    def forked(self) -> None:
        """See `Worker.forked`."""
        self._closed = True
        if self._subscription is not None:
            self._disconnect(self._subscription)

    def listen(self) -> None:
        while not self._closed:
            subscription: Subscription | None = None
            try:
                subscription = self._connect()
                while not self._closed:
                    for _ in range(TURN):
                        if not self._take(subscription):
                            break
                    self._loop.sleep(0)
            except Exception as problem:
                if self._closed:
                    break
                if not isinstance(problem, _EXPECTED):
                    log.exception("what Redis published could not be dealt with")
                self._loop.run(partial(self._lose, problem, subscription))
                self._loop.sleep(min(BACKOFF[0] * 2**self._failures, BACKOFF[1]) * random.uniform(0.5, 1))  # noqa: S311
        self._loop.run(lambda: self._lose(None, self._subscription))

    def catch_up(self, *, wait: bool) -> bool:
        """As in `Source`."""
        if self._closed:
            return False
        try:
            subscription = self._subscription or self._connect()
            heard = self._take_one(subscription, CATCH_UP_TIMEOUT if wait and self._is_behind else 0)
            while heard and self._take_one(subscription, 0):
                continue
        except (RedisError, OSError, BackendUnavailable) as problem:
            self._lose(problem, self._subscription)
            return False
        return heard

    @property
    def _is_behind(self) -> bool:
        return self._catching_up() or not all(pending.settled for pending in self._topics.values())

    def _connect(self) -> Subscription:
        subscription = self._client.subscription(QUIET)
        topics = self._loop.run(self._begin)
        subscription.send("SUBSCRIBE", *topics)
        self._loop.run(lambda: self._connected(subscription))
        return subscription

    def _begin(self) -> list[str]:
        self._new.clear()
        self._old.clear()
        return list(self._topics)

    def _connected(self, subscription: Subscription) -> None:
        self._subscription = subscription
        self.heard_at = time.monotonic()
        self._go_on_writing()

    def _take(self, subscription: Subscription) -> bool:
        """Hear one message, if one comes soon."""
        try:
            kind, topic, data = subscription.read()
        except RedisTimeout:
            return False
        self._loop.run(lambda: self._dispatch(subscription, kind, topic.decode(), data))
        return True

    def _take_one(self, subscription: Subscription, timeout: float) -> bool:
        """Hear one message, if one comes in that many seconds."""
        return subscription.can_read(timeout) and self._take(subscription)

    def _dispatch(self, subscription: Subscription, kind: bytes, topic: str, data: Any) -> None:
        if subscription is not self._subscription:
            return  # it was given up meanwhile, and what it still brings counts as missed
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
            return  # as was noticed before
        self._subscription = None
        if subscription is not None:
            self._loop.spawn(self._disconnect, subscription)
        if self._unsubscribed_since is None:
            self._unsubscribed_since = time.monotonic()
        if not self._failures and problem is not None:
            log.warning("the subscriptions to Redis were lost and will be made anew: %s", problem)
        self._failures += 1
        for topic, pending in self._topics.items():
            if pending.settled:
                self._topics[topic] = Pending()
        self._lost()

    def _go_on_writing(self) -> None:
        if self._subscription is not None and (self._new or self._old) and not self._writing:
            self._writing = True
            self._loop.spawn(self._write)

    def _write(self) -> None:
        subscription, new, old = self._loop.run(self._next)
        try:
            while subscription is not None and (new or old):
                if new:
                    subscription.send("SUBSCRIBE", *new)
                if old:
                    subscription.send("UNSUBSCRIBE", *old)
                subscription, new, old = self._loop.run(self._next)
        except _EXPECTED:
            log.debug("a subscription could not be sent; the reader notices, and makes all of them anew", exc_info=True)
            self._loop.run(self._stop_writing)

    def _stop_writing(self) -> None:
        self._writing = False
        self.reset()

    def _next(self) -> tuple[Subscription | None, list[str], list[str]]:
        new = [topic for topic in self._new if topic in self._topics]
        old = [topic for topic in self._old if topic not in self._topics]
        self._new, self._old = [], []
        self._writing = bool(self._subscription is not None and (new or old))
        return self._subscription, new, old

    def _disconnect(self, subscription: Subscription) -> None:
        try:
            subscription.close()
        except _EXPECTED:
            log.debug("the connection was gone before it was closed", exc_info=True)


def _nothing() -> None:
    return None
