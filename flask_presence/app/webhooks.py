"""Sends webhooks: tells back ends elsewhere what happens in channels, in the order in which it happens here.

Rule: sending never holds up a socket, and no URL holds up another. What waits is bounded. No log line has more of a URL
than its origin.
"""

from __future__ import annotations

import atexit
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final
from urllib.parse import urlsplit

from ..domain.events import Event
from ..domain.pusher.signing import Signer
from ..domain.pusher.webhooks import REPORTED, webhook_body, webhook_event
from ..loops.base import Loop
from ..loops.gevent_loop import call_off_hub, sleep_off_loop
from ..loops.thread_loop import ThreadLoop
from .http_post import post
from .log_throttle import LogThrottle

ATTEMPT_TIMEOUT: Final = 10.0
"""Seconds within which a receiver must answer."""
FIRST_DELAY: Final = 1.0
"""Seconds until the second attempt. Each further delay is twice as long, up to `MAX_DELAY`."""
MAX_DELAY: Final = 60.0
GIVE_UP_AFTER: Final = 300.0
"""Seconds after which an event is dropped that no attempt has delivered."""
MAX_BATCH: Final = 100
"""How many events are sent in one POST."""
MAX_BATCH_BYTES: Final = 262_144
MAX_QUEUE: Final = 10_000
"""How many events wait for one URL. Beyond that, and beyond `MAX_QUEUE_BYTES`, the oldest are dropped."""
MAX_QUEUE_BYTES: Final = 16_777_216
EXIT_TIMEOUT: Final = 2.0
"""Seconds for what is queued to be sent, when a process without WebSockets ends."""


log = logging.getLogger("flask_presence")


class Webhooks:
    """The webhooks of one app in this process. `find_loop` returns the event loop of its WebSockets, if there is one.

    Without it, as in scripts and task queues, a thread sends.
    """

    def __init__(self, urls: Sequence[str], signer: Signer, find_loop: Callable[[], Loop | None]) -> None:
        self._urls = urls
        self._signer = signer
        self._find_loop = find_loop
        self._outlets: list[_Outlet] = []
        self._loop: Loop | None = None
        self._without_loop: dict[int, list[_Outlet]] = {}  # by process id, because a fork inherits all of this

    def reports(self, event_name: str) -> bool:
        """Whether webhooks report such an event."""
        return event_name in REPORTED

    def add(self, event: Event) -> None:
        """Queue an event. Called in the event loop, if there is one. Does not block."""
        payload = webhook_event(event)
        if payload is None:
            return
        loop = self._find_loop()
        if loop is None:
            for outlet in self._own_outlets():
                outlet.loop.run(partial(outlet.add, payload))
            return
        if loop is not self._loop:
            self._loop = loop
            self._outlets = self._new_outlets(loop)
        for outlet in self._outlets:
            outlet.add(payload)

    def finish(self, deadline: float, sleep: Callable[[float], object]) -> None:
        """Send what is queued until `deadline`, in seconds of the monotonic clock, because the process is about to end.
        What is left then is dropped, with a line in the log. Blocks, off the loop, by `sleep`."""
        for outlet in self._all():
            outlet.loop.run(outlet.hurry)
        while any(outlet.unsent for outlet in self._all()) and time.monotonic() < deadline:
            sleep(0.02)
        for outlet in self._all():
            outlet.stop()

    def forked(self) -> None:
        """Start anew: what is queued is sent by the process that this one was forked from."""
        for outlet in self._outlets:
            outlet.abandoned = True
        self._outlets, self._loop = [], None

    def _all(self) -> list[_Outlet]:
        return [*self._outlets, *self._without_loop.get(os.getpid(), ())]

    def _new_outlets(self, loop: Loop) -> list[_Outlet]:
        return [_Outlet(number, url, self._signer, loop) for number, url in enumerate(self._urls, 1)]

    def _own_outlets(self) -> list[_Outlet]:
        own = self._without_loop.get(os.getpid())
        if own is None:
            new = self._new_outlets(ThreadLoop())
            own = self._without_loop.setdefault(os.getpid(), new)  # another thread may have been quicker
            if own is new:
                atexit.register(self._at_exit, os.getpid())
        return own

    def _at_exit(self, pid: int) -> None:
        if pid != os.getpid():
            return
        self.finish(time.monotonic() + EXIT_TIMEOUT, sleep_off_loop)


class _Waiting:
    """An event that waits, as JSON. `since` is in seconds of the monotonic clock."""

    __slots__ = ("payload", "since")

    def __init__(self, payload: bytes, since: float) -> None:
        self.payload = payload
        self.since = since


class _Outlet:
    """The queue of one URL, and its sender. Everything is touched in `loop` only, except where the name says so.

    `_batch` is what is being sent, or will be tried again. Nothing overtakes it.
    """

    def __init__(self, number: int, url: str, signer: Signer, loop: Loop) -> None:
        parts = urlsplit(url)
        self.loop = loop
        self.abandoned = False
        self._url = url
        self._name = f"{number} ({parts.scheme}://{parts.netloc})"
        self._signer = signer
        self._queue: deque[_Waiting] = deque()
        self._queue_bytes = 0
        self._batch: list[_Waiting] = []
        self._is_sending = False
        self._overflowed = 0
        self._failures = 0
        self._attempt = 0  # counts the attempts, so that a timer knows whether it is still wanted
        self._log_throttle = LogThrottle()

    @property
    def unsent(self) -> int:
        return len(self._queue) + len(self._batch)

    def add(self, payload: bytes) -> None:
        self._queue.append(_Waiting(payload, time.monotonic()))
        self._queue_bytes += len(payload)
        while len(self._queue) > MAX_QUEUE or self._queue_bytes > MAX_QUEUE_BYTES:
            self._queue_bytes -= len(self._queue.popleft().payload)
            self._overflowed += 1
        if not self._is_sending and not self._failures:
            self._start()

    def hurry(self) -> None:
        if self.unsent and not self._is_sending:
            try:
                self._start()
            except RuntimeError:  # an interpreter that ends may start no more threads
                self._is_sending = False

    def stop(self) -> None:
        """Drop everything. Off the loop."""
        dropped = self.loop.run(self._clear)
        if dropped:
            log.error("webhook %s: dropped %d event(s), because this process ends", self._name, dropped)

    def _clear(self) -> int:
        self.abandoned = True
        dropped = self.unsent + self._overflowed
        self._queue.clear()
        self._batch.clear()
        self._queue_bytes = 0
        return dropped

    def _start(self) -> None:
        self._is_sending = True
        self.loop.spawn(self._send)

    def _send(self) -> None:
        """Send batch after batch, until nothing is left or an attempt fails. Off the loop."""
        while True:
            batch, overflowed = self.loop.run(self._next_batch)
            if overflowed:
                text = "webhook %s: dropped %d event(s), because the receiver takes them more slowly than they happen"
                self._log_throttle.log("full", logging.ERROR, text, self._name, overflowed)
            if not batch:
                return
            problem = self._post(batch)
            dropped = self.loop.run(partial(self._attempted, failed=problem is not None))
            if problem is not None:
                self._log_failure(problem, dropped)
                return

    def _next_batch(self) -> tuple[list[bytes], int]:
        """What to send next, as JSON, and how many events were dropped before it because the queue was full."""
        size = sum(len(event.payload) for event in self._batch)
        while self._queue and len(self._batch) < MAX_BATCH:
            size += len(self._queue[0].payload)
            if self._batch and size > MAX_BATCH_BYTES:
                break
            event = self._queue.popleft()
            self._queue_bytes -= len(event.payload)
            self._batch.append(event)
        if self.abandoned or not self._batch:
            self._is_sending = False
            return [], 0
        overflowed, self._overflowed = self._overflowed, 0
        return [event.payload for event in self._batch], overflowed

    def _post(self, batch: Sequence[bytes]) -> str | None:
        """One attempt, off the loop. Returns what went wrong, or `None`."""
        body = webhook_body(batch, time.time())
        headers = {
            "Content-Type": "application/json",
            "X-Pusher-Key": self._signer.key,
            "X-Pusher-Signature": self._signer.sign(body),
            "User-Agent": "flask-presence",
        }
        try:
            status = call_off_hub(partial(post, self._url, body, headers, ATTEMPT_TIMEOUT))
        except Exception as problem:  # the text of some exceptions repeats the URL
            return type(problem).__name__
        return None if 200 <= status < 300 else f"status {status}"

    def _attempted(self, *, failed: bool) -> int:
        """Note how an attempt has ended, and plan the next one. Returns how many events are given up."""
        if not failed:
            self._failures = 0
            self._batch.clear()
            return 0
        self._is_sending = False
        if self.abandoned:
            return 0
        now, tried = time.monotonic(), len(self._batch)
        self._batch = [event for event in self._batch if now - event.since < GIVE_UP_AFTER]
        delay = min(FIRST_DELAY * 2**self._failures, MAX_DELAY)
        self._failures = min(self._failures + 1, 32)
        self._attempt += 1
        self.loop.later(delay, partial(self._retry, self._attempt))
        return tried - len(self._batch)

    def _retry(self, attempt: int) -> None:
        if attempt != self._attempt or self._is_sending or self.abandoned:
            return  # `hurry` has been quicker, or this process is a fork
        if self.unsent:
            self._start()
        else:
            self._failures = 0

    def _log_failure(self, problem: str, dropped: int) -> None:
        if dropped:
            text = "webhook %s: dropped %d event(s), because no attempt has succeeded for %d s: %s"
            log.error(text, self._name, dropped, GIVE_UP_AFTER, problem)
        else:
            text = "webhook %s failed, and is tried again: %s"
            self._log_throttle.log("failed", logging.WARNING, text, self._name, problem)
