"""This process's share of serving an app: its event loop, its connections, and how many it accepts.

Rule: nothing starts before the first WebSocket of the process, so an app may be created before a fork.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Final

from ..hub.hub import Hub
from ..hub.session import Session
from ..loops.base import Loop
from ..loops.gevent_loop import sleep_off_loop
from ..settings import Settings
from ..transport.group import ConnectionGroup
from ..transport.outbox import Limits
from ..transport.takeover import Takeover
from .gunicorn import worker_threads
from .webhooks import Webhooks

TICK: Final = 0.25
"""Seconds between two calls of `Hub.tick`."""


class Process:
    """Owns the process's connection group, and bounds the number of connections."""

    def __init__(self, hub: Hub, settings: Settings, webhooks: Webhooks | None = None) -> None:
        self._hub = hub
        self._settings = settings
        self._webhooks = webhooks
        self._group: ConnectionGroup | None = None
        self._lock = threading.Lock()
        self._reservation_lock = threading.RLock()
        self._upgrading = 0
        self._ticked_at = 0.0

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._hub.sessions)

    def start(self, takeover: Takeover) -> None:
        """Create the event loop and the connection group for this request's server, if there are none yet."""
        self._group_for(takeover)

    def open(
        self, takeover: Takeover, session: Session, rechecks_begun: int, release: Callable[[], None]
    ) -> Callable[[], None]:
        """Connect a session to the request's socket. See `Service.open`."""
        group = self._group_for(takeover)
        connection, wait = takeover.open(group, session)

        def connect() -> None:
            with self._reservation_lock:
                self._hub.connected(session, connection)
                release()
            connection.start()
            self._hub.recheck_if_stale(session, rechecks_begun)

        group.loop.run(connect)
        return wait

    def forked(self) -> None:
        """Start anew: this process is a fork of the one that has the connections."""
        self._lock = threading.Lock()
        self._reservation_lock = threading.RLock()
        self._upgrading = 0
        group, self._group = self._group, None
        self._hub.forked()
        if self._webhooks is not None:
            self._webhooks.forked()
        if group is not None:
            group.forked()

    def reserve(self) -> bool:
        """Reserve room for a connection. Returns `False` if the process is full."""
        with self._reservation_lock:
            if self.is_full:
                return False
            self._upgrading += 1
            return True

    def release(self) -> None:
        """Give back what `reserve` has reserved, because the connection is open and counts itself, or will not open."""
        with self._reservation_lock:
            self._upgrading -= 1

    @property
    def is_full(self) -> bool:
        """Whether the process accepts no more connections."""
        return self.connections + self._upgrading >= self._capacity()

    @property
    def full_message(self) -> str:
        """What to tell a client that is refused because the process is full."""
        if self._capacity() < self._settings.max_connections:
            return (
                "All threads of this worker but one hold a connection; give gunicorn more --threads, "
                "or run it with -k gevent"
            )
        return "This server has as many connections as its settings allow"

    def spawn(self, function: Callable[[], object]) -> None:
        """Run `function`, which may block, off the event loop."""
        self._hub.loop.spawn(function)

    def sleep(self, seconds: float) -> None:
        """Wait off the event loop, whether there is one or not."""
        if self._group is not None:
            self._group.loop.sleep(seconds)
        else:
            sleep_off_loop(seconds)

    def goodbye(self, spread: float, timeout: float) -> None:
        """Close all connections with 1001, in random order over `spread` seconds, and leave the service.

        Peers, handlers and webhooks have `timeout` seconds to finish. Then the connections that are left are ended, and
        the webhooks that are left are dropped. Blocks.
        """
        group = self._group
        if group is None:
            return
        sleep = group.loop.sleep
        clients = group.loop.run(lambda: list(self._hub.sessions))
        random.shuffle(clients)
        for client_id in clients:
            self._hub.say_goodbye(client_id)
            sleep(spread / len(clients))
        deadline = time.monotonic() + timeout
        while (group.connections or self._hub.handlers_running) and time.monotonic() < deadline:
            sleep(0.02)
        group.loop.run(group.end_all)
        self._hub.backend.close()
        if self._webhooks is not None:
            self._webhooks.finish(deadline, sleep)

    def _capacity(self) -> int:
        """How many connections this process accepts: `PRESENCE_MAX_CONNECTIONS`. If each connection occupies a thread,
        at most one fewer than there are threads, so that other requests are still answered."""
        threads = worker_threads()
        return min(self._settings.max_connections, threads - 1) if threads else self._settings.max_connections

    def _group_for(self, takeover: Takeover) -> ConnectionGroup:
        with self._lock:
            if self._group is None:
                loop = takeover.new_loop()
                group = loop.run(lambda: ConnectionGroup(loop, self._limits(), self._hub.meter))
                self._start_ticking(loop, group)
                self._hub.run_on(loop, group)
                self._group = group
            return self._group

    def _limits(self) -> Limits:
        settings = self._settings
        return Limits(
            max_message_size=settings.max_message_size,
            max_outbox=settings.max_outbox,
            ping_interval=settings.ping_interval,
            ping_timeout=settings.ping_timeout,
        )

    def _start_ticking(self, loop: Loop, group: ConnectionGroup) -> None:
        self._ticked_at = time.monotonic()
        loop.run(lambda: loop.every(TICK, partial(self._tick, group)))

    def _tick(self, group: ConnectionGroup) -> None:
        if group is not self._group:
            return  # this timer belongs to the parent process
        moment = time.monotonic()
        self._hub.instruments.lagged(time.time(), max(0.0, moment - self._ticked_at - TICK))
        self._ticked_at = moment
        self._hub.tick()
