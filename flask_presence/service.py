"""Presence in one app: its settings, its hub, and the process's part in it.

Law: nothing is started before somebody wants a socket of a process, so an app may be made before a fork.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from flask import Flask

from .application import FlaskApplication, HandlerRegistry
from .auth import Authenticator, UserLoader, Visitor, takes_cookies
from .backends import open_backend
from .complaints import Complaints
from .domain.errors import ConfigurationError
from .domain.guards import GuardRegistry
from .hub.hub import Hub
from .hub.ports import Policy
from .origins import ANY
from .settings import Settings
from .shutdown import Shutdown
from .transport.codec import encode_frame
from .transport.endpoint import Endpoint, Limits
from .transport.loops import sleep_beside
from .transport.takeover import Takeover

TICK: Final = 0.25

log = logging.getLogger("flask_presence")


class Service:
    """The parts of one app, put together. Owner of the process's places for connections."""

    def __init__(
        self,
        app: Flask,
        settings: Settings,
        guards: GuardRegistry,
        handlers: HandlerRegistry,
        loader: Callable[[], UserLoader | None],
    ) -> None:
        self.settings = settings
        self.authenticator = Authenticator(app, settings, loader)
        self.hub = Hub(
            open_backend(
                settings.backend,
                max_info=settings.max_user_info,
                prefix=settings.redis_prefix,
                lease=settings.lease,
                grace_abrupt=settings.grace_abrupt,
            ),
            FlaskApplication(app, self.authenticator, guards, handlers),
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
        self.complaints = Complaints()
        self._app = app
        self._loader = loader
        self._lock = threading.Lock()
        self._upgrading = 0
        self._endpoint: Endpoint | None = None
        self._shutdown = Shutdown(self)
        self._complained = False
        self._ticked_at = 0.0
        problem = self._origin_problem()
        if problem:
            raise ConfigurationError(problem)

    @property
    def draining(self) -> bool:
        return self._shutdown.begun

    def drain(self) -> None:
        """See `Presence.drain`."""
        self._shutdown.drain(0)

    def prepare_to_drain(self) -> None:
        """Have `draining` become true when this process is told to stop, also where there has been no socket yet."""
        self._shutdown.prepare()

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

    def obstacle(self, environ: Mapping[str, Any], *, gevent_socket: bool) -> str | None:
        """Why no socket can be opened in this process now, as a sentence that says what to change."""
        if self._shutdown.begun:
            return "This server is shutting down"
        problem = self._origin_problem() or self._backend_problem(environ)
        if gevent_socket and not problem:
            problem = self._patch_problem()
        if problem and not self._complained:
            self._complained = True
            log.error("every WebSocket is refused: %s", problem)
        return problem

    def take_place(self) -> bool:
        """One of `PRESENCE_MAX_CONNECTIONS`, for a connection to come; `False` where all are taken."""
        with self._lock:
            if len(self.hub.sessions) + self._upgrading >= self.settings.max_connections:
                return False
            self._upgrading += 1
            return True

    def release_place(self) -> None:
        with self._lock:
            self._upgrading -= 1

    def begin(self, takeover: Takeover) -> None:
        """Come to life in this process, if it has not: who was refused is to be seen by others too."""
        self._endpoint_for(takeover)

    def open(self, takeover: Takeover, visitor: Visitor) -> Callable[[], None]:
        """Greet `visitor` on the socket taken over; gives what the view must call before it returns."""
        self._shutdown.prepare()
        endpoint = self._endpoint_for(takeover)
        session = self.hub.session(visitor.user, visitor.credential)
        connection, wait = takeover.open(endpoint, session)

        def begin() -> None:
            self.hub.connected(session, connection)
            connection.start()

        endpoint.loop.run(begin)
        return wait

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
                loop.run(lambda: loop.every(TICK, self._tick))
                self.hub.run_on(loop, endpoint)
                self._endpoint = endpoint
            return self._endpoint

    def _tick(self) -> None:
        moment, now = time.monotonic(), time.time()
        self.hub.instruments.lagged(now, max(0.0, moment - self._ticked_at - TICK))
        self._ticked_at = moment
        self.hub.tick(now)

    def _origin_problem(self) -> str | None:
        if ANY not in self.settings.allowed_origins:
            return None
        if self._loader() is not None or takes_cookies(self._app):
            return (
                "PRESENCE_ALLOWED_ORIGINS has '*' while credentials may come from cookies, so any page could act as "
                "its visitors: list the origins, or take tokens from headers only (JWT_TOKEN_LOCATION) and have no "
                "user_loader"
            )
        return None

    def _patch_problem(self) -> str | None:
        if self.settings.in_memory:
            return None
        from gevent.monkey import is_module_patched

        if is_module_patched("socket"):
            return None
        return (
            "PRESENCE_BACKEND is not 'memory://', and gevent serves the sockets without having patched the standard "
            "library, so every question to the state store would hold up everybody: run gunicorn -k gevent, or call "
            "gevent.monkey.patch_all() before anything else is imported"
        )

    def _backend_problem(self, environ: Mapping[str, Any]) -> str | None:
        if self.settings.isolated_workers or not self.settings.in_memory:
            return None
        if environ.get("wsgi.multiprocess"):
            return (
                "PRESENCE_BACKEND is 'memory://' and there are several workers, which would not know of each other's "
                "members: run one worker, or set PRESENCE_ISOLATED_WORKERS = True if that is meant"
            )
        return None
