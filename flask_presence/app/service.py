"""Presence in one app: its settings, its hub, and the process's part in it.

Law: nothing is started before somebody wants a socket of a process, so an app may be made before a fork.
"""

from __future__ import annotations

import logging
import os
import random
import threading
import time
import weakref
from collections.abc import Callable
from functools import partial
from typing import Final

from flask import Flask, has_request_context

from ..backends import open_backend
from ..domain.errors import BackendUnavailable, ConfigurationError
from ..domain.guards import GuardRegistry
from ..hub.hub import Hub
from ..hub.ports import Policy
from ..loops.gevent_loop import sleep_beside
from ..settings import Settings
from ..transport.codec import encode_frame
from ..transport.group import Endpoint, Limits
from ..transport.takeover import Takeover
from .application import FlaskApplication, HandlerRegistry
from .auth import Authenticator, UserLoader, Visitor
from .gunicorn import find_worker, threads_of
from .log_throttle import Complaints
from .preflight import Preflight
from .shutdown import Shutdown
from .stall_watch import StallWatch

TICK: Final = 0.25
SHUTTING_DOWN: Final = "This server is shutting down"

log = logging.getLogger("flask_presence")

_with_sockets: weakref.WeakSet[Service] = weakref.WeakSet()


def _after_fork() -> None:
    for service in list(_with_sockets):
        service.forked()
    _with_sockets.clear()


os.register_at_fork(after_in_child=_after_fork)


class Service:
    """The parts of one app, put together. Owner of the process's places for connections."""

    def __init__(
        self,
        app: Flask,
        settings: Settings,
        guards: GuardRegistry,
        message_guards: GuardRegistry,
        handlers: HandlerRegistry,
        loader: Callable[[], UserLoader | None],
    ) -> None:
        self.settings = settings
        stalls = StallWatch(lambda: self.hub.current_loop)
        self.authenticator = Authenticator(app, settings, loader, stalls)
        self.hub = Hub(
            open_backend(
                settings.backend,
                max_info=settings.max_user_info,
                prefix=settings.redis_prefix,
                lease=settings.lease,
                grace_abrupt=settings.grace_abrupt,
            ),
            FlaskApplication(app, self.authenticator, guards, message_guards, handlers, stalls),
            Policy(
                enabled=settings.enabled,
                max_channels=settings.max_channels,
                max_user_info=settings.max_user_info,
                rate_limit=settings.rate_limit,
                token_recheck=settings.token_recheck,
                grace=settings.grace,
                grace_abrupt=settings.grace_abrupt,
            ),
            encode_frame,
        )
        self.guards, self.message_guards = guards, message_guards
        self.complaints = Complaints()
        self._preflight = Preflight(app, settings, loader)
        self._lock = threading.Lock()
        self._upgrading = 0
        self._endpoint: Endpoint | None = None
        self._shutdown = Shutdown(self)
        self._ticked_at = 0.0
        problem = self._preflight.origin_problem()
        if problem:
            raise ConfigurationError(problem)

    @property
    def draining(self) -> bool:
        return self._shutdown.begun

    def drain(self) -> None:
        """See `Presence.drain`."""
        self._shutdown.drain(0)

    def warn_if_alone(self) -> None:
        """Say so if what this process asks and says can reach nobody: a script, a task queue, a shell with `memory://`."""
        if self.settings.in_memory and self.hub.current_loop is None and not has_request_context():
            self.complaints.complain(
                "alone",
                logging.WARNING,
                "this process has no WebSockets, and with PRESENCE_BACKEND = 'memory://' it knows of no "
                "other's: what it publishes reaches nobody, and it sees no channels. Where another process serves "
                "them, set PRESENCE_BACKEND to a Redis that both use",
            )

    def beside(self, function: Callable[[], object]) -> None:
        """Call `function`, which may block, beside the event loop; there must be one."""
        self.hub.loop.spawn(function)

    def sleep(self, seconds: float) -> None:
        """Wait, without holding up the event loop."""
        if self._endpoint is not None:
            self._endpoint.loop.sleep(seconds)

    def wait(self, seconds: float) -> None:
        """As `sleep`, also where there has been no socket yet."""
        if self._endpoint is not None:
            self._endpoint.loop.sleep(seconds)
        else:
            sleep_beside(seconds)

    def goodbye(self, spread: float, patience: float) -> None:
        """Close every connection within `spread` seconds; wait `patience` seconds for the peers and for the
        handlers, then cut what is left."""
        endpoint = self._endpoint
        if endpoint is None:
            return
        sleep = endpoint.loop.sleep
        clients = endpoint.loop.run(lambda: list(self.hub.sessions))
        random.shuffle(clients)
        for client_id in clients:
            self.hub.say_goodbye(client_id)
            sleep(spread / len(clients))
        deadline = time.monotonic() + patience
        while (endpoint.connections or self.hub.handlers_running) and time.monotonic() < deadline:
            sleep(0.02)
        endpoint.loop.run(endpoint.reset_all)
        self.hub.backend.close()

    def obstacle(self, takeover: Takeover) -> str | None:
        """Why no socket can be opened in this process now, as a sentence that says what to change."""
        return SHUTTING_DOWN if self._shutdown.begun else self._preflight.problem(takeover)

    def socket_obstacle(self, takeover: Takeover) -> str | None:
        """The same where this server has no socket to give."""
        return self._preflight.socket_problem(takeover)

    def health(self, takeover: Takeover) -> tuple[str, str]:
        """How a client would fare that came now, in a word and, unless that is `ok`, a sentence. May wait for the
        state store."""
        if self._shutdown.begun:
            return "draining", SHUTTING_DOWN
        problem = self._preflight.problem(takeover)
        if takeover.served:
            problem = problem or self._preflight.socket_problem(takeover)
        if problem:
            return "refusing", problem
        if self._taken() >= self._places():
            return "full", self.full
        try:
            self.hub.check()
        except BackendUnavailable as away:
            return "unavailable", away.sentence
        return ("ok", "") if self.settings.enabled else ("disabled", "")

    def take_place(self) -> bool:
        """One of this process's places, for a connection to come; `False` where all are taken."""
        with self._lock:
            if self._taken() >= self._places():
                return False
            self._upgrading += 1
            return True

    @property
    def full(self) -> str:
        """What is said where all places are taken."""
        if self._places() < self.settings.max_connections:
            return (
                "All threads of this worker but one hold a connection; give gunicorn more --threads, "
                "or run it with -k gevent"
            )
        return "This server has as many connections as it may have"

    def _taken(self) -> int:
        return len(self.hub.sessions) + self._upgrading

    def _places(self) -> int:
        """`PRESENCE_MAX_CONNECTIONS`; where each holds one of a few threads, one fewer than these, as somebody must
        answer other requests."""
        threads = threads_of(find_worker())
        return min(self.settings.max_connections, threads - 1) if threads else self.settings.max_connections

    def release_place(self) -> None:
        with self._lock:
            self._upgrading -= 1

    def begin(self, takeover: Takeover) -> None:
        """Come to life in this process, if it has not: who was refused is to be seen by others too."""
        self._endpoint_for(takeover)

    def open(self, takeover: Takeover, visitor: Visitor) -> Callable[[], None]:
        """Greet `visitor` on the socket taken over; gives what the view must call before it returns."""
        endpoint = self._endpoint_for(takeover)
        self._shutdown.prepare()
        session = self.hub.session(visitor.user, visitor.credential, visitor.upgrade)
        connection, wait = takeover.open(endpoint, session)

        def begin() -> None:
            self.hub.connected(session, connection)
            connection.start()

        endpoint.loop.run(begin)
        return wait

    def forked(self) -> None:
        """This process is a child of the one that has the sockets; it has none, and leaves its parent's alone."""
        self._lock = threading.Lock()
        self._upgrading = 0
        self._shutdown = Shutdown(self)
        endpoint, self._endpoint = self._endpoint, None
        self.hub.forked()
        if endpoint is not None:
            endpoint.forked()

    def _endpoint_for(self, takeover: Takeover) -> Endpoint:
        with self._lock:
            if self._endpoint is None:
                settings = self.settings
                limits = Limits(
                    max_message_size=settings.max_message_size,
                    max_outbox=settings.max_outbox,
                    ping_interval=settings.ping_interval,
                    ping_timeout=settings.ping_timeout,
                )
                loop = takeover.new_loop()
                endpoint = loop.run(lambda: Endpoint(loop, limits, self.hub.meter))
                self._ticked_at = time.monotonic()
                loop.run(lambda: loop.every(TICK, partial(self._tick, endpoint)))
                self.hub.run_on(loop, endpoint)
                self._endpoint = endpoint
                _with_sockets.add(self)
            return self._endpoint

    def _tick(self, endpoint: Endpoint) -> None:
        if endpoint is not self._endpoint:
            return  # that was before a fork
        moment, now = time.monotonic(), time.time()
        self.hub.instruments.lagged(now, max(0.0, moment - self._ticked_at - TICK))
        self._ticked_at = moment
        self.hub.tick(now)
