"""Presence in one app: the parts behind a `Presence`, composed, and whether they can serve.

Rule: an app may be created before a fork; a process that is forked later starts anew.
"""

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import Callable
from typing import Final

from flask import Flask, has_request_context

from ..backends import open_backend
from ..domain.errors import BackendUnavailable, ConfigurationError
from ..domain.guards import GuardRegistry
from ..hub.hub import Hub
from ..hub.ports import Policy
from ..settings import Settings
from ..transport.codec import encode_frame
from ..transport.takeover import Takeover
from .application import FlaskApplication, HandlerRegistry
from .auth import Authenticator, UserLoader, Visitor
from .log_throttle import Complaints
from .preflight import Preflight
from .process import Process
from .shutdown import Shutdown
from .stall_watch import StallWatch

SHUTTING_DOWN: Final = "This server is shutting down"

log = logging.getLogger("flask_presence")

_started: weakref.WeakSet[Service] = weakref.WeakSet()


def _after_fork() -> None:
    for service in list(_started):
        service.forked()
    _started.clear()


os.register_at_fork(after_in_child=_after_fork)


class Service:
    """Composes the parts of one app."""

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
        self.process = Process(self.hub, settings)
        self._shutdown = Shutdown(self.process, settings.drain)
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
        """Log a warning if what this process publishes can reach nobody: in a script, task queue or shell on `memory://`."""
        if self.settings.in_memory and self.hub.current_loop is None and not has_request_context():
            self.complaints.complain(
                "alone",
                logging.WARNING,
                "this process has no WebSockets, and with PRESENCE_BACKEND = 'memory://' it knows of no "
                "other's: what it publishes reaches nobody, and it sees no channels. Where another process serves "
                "them, set PRESENCE_BACKEND to a Redis that both use",
            )

    def obstacle(self, takeover: Takeover) -> str | None:
        """Why this process can open no WebSocket now, as a sentence that says what to change; or `None`."""
        return SHUTTING_DOWN if self._shutdown.begun else self._preflight.problem(takeover)

    def socket_obstacle(self, takeover: Takeover) -> str | None:
        """The same, if the reason is that the server does not give its socket away."""
        return self._preflight.socket_problem(takeover)

    def health(self, takeover: Takeover) -> tuple[str, str]:
        """How a client that connects now would fare: a word, and a sentence unless the word is `ok` or `disabled`. May
        wait for the state store."""
        if self._shutdown.begun:
            return "draining", SHUTTING_DOWN
        problem = self._preflight.problem(takeover)
        if takeover.served:
            problem = problem or self._preflight.socket_problem(takeover)
        if problem:
            return "refusing", problem
        if self.process.is_full:
            return "full", self.process.full_message
        try:
            self.hub.directory.check()
        except BackendUnavailable as away:
            return "unavailable", away.public_message
        return ("ok", "") if self.settings.enabled else ("disabled", "")

    def start(self, takeover: Takeover) -> None:
        """Start this process's part, if it has not started: other processes then see what it counts."""
        self.process.start(takeover)
        _started.add(self)

    def open(self, takeover: Takeover, visitor: Visitor, rechecks_begun: int) -> Callable[[], None]:
        """Greet `visitor` on the socket taken over. Returns what the view must call before it returns.

        `rechecks_begun` is the hub's number of rechecks at the time at which the visitor was identified.
        """
        self.start(takeover)
        self._shutdown.prepare()
        session = self.hub.session(visitor.user, visitor.credential, visitor.upgrade)
        return self.process.open(takeover, session, rechecks_begun)

    def forked(self) -> None:
        """Start anew: this process is a fork of the one that has the connections."""
        self._shutdown = Shutdown(self.process, self.settings.drain)
        self.process.forked()
