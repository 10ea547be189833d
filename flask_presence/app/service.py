"""Composes the parts that serve one app, and says whether they can serve.

Rule: an app may be created before a fork; a process that is forked later starts anew.
"""

from __future__ import annotations

import base64
import logging
import os
import weakref
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from flask import Flask, has_request_context

from ..backends import open_backend
from ..backends.base import Backend
from ..domain.channels import ChannelName
from ..domain.errors import BackendUnavailable, ConfigurationError
from ..domain.guards import GuardRegistry, Verdict
from ..domain.history import HistoryRules
from ..domain.pusher.signing import Signer
from ..domain.shards import ShardState
from ..hub.hub import Hub
from ..hub.ports import Policy, PusherPolicy
from ..hub.session import Session
from ..loops.base import Loop
from ..settings import Settings
from ..transport.codec import encode_frame
from ..transport.takeover import Environ, Takeover
from .application import FlaskApplication, HandlerRegistry
from .auth import Authenticator, UserLoader, Visitor
from .log_throttle import LogThrottle
from .preflight import Preflight
from .process import Process
from .shutdown import Shutdown
from .stall_watch import StallWatch
from .webhooks import Webhooks

SHUTTING_DOWN: Final = "This server is shutting down"

log = logging.getLogger("flask_presence")

_started: weakref.WeakSet[Service] = weakref.WeakSet()


def _after_fork() -> None:
    for service in list(_started):
        service.forked()
    _started.clear()


os.register_at_fork(after_in_child=_after_fork)


class Health(NamedTuple):
    """The state of a process, and a sentence that explains it.

    The state is `ok`, `disabled`, `draining`, `refusing`, `full` or `unavailable`. For `ok` and `disabled`, the
    sentence is empty. `shards` are those that have been checked.
    """

    status: str
    message: str
    shards: tuple[ShardState, ...] = ()


class Service:
    """The service of one app. `find_loader` returns the app's `user_loader`, if there is one."""

    def __init__(
        self,
        app: Flask,
        settings: Settings,
        guards: GuardRegistry,
        message_guards: GuardRegistry,
        handlers: HandlerRegistry,
        find_loader: Callable[[], UserLoader | None],
    ) -> None:
        self.settings = settings
        stall_watch = StallWatch(lambda: self.hub.current_loop)
        self.authenticator = Authenticator(app, settings, find_loader, stall_watch)
        history = HistoryRules(settings.history)
        policy = _policy(settings, history)
        webhooks = _webhooks(settings, policy, lambda: self.hub.current_loop)
        application = FlaskApplication(
            *(app, self.authenticator, guards, message_guards, handlers, stall_watch), webhooks=webhooks
        )
        self._application = application
        self.hub = Hub(_backend(settings, history), application, policy, encode_frame)
        self.guards, self.message_guards = guards, message_guards
        self.log_throttle = LogThrottle()
        self._preflight = Preflight(app, settings, find_loader)
        self.process = Process(self.hub, settings, webhooks)
        self._shutdown = Shutdown(self.process, settings.drain)
        problem = self._preflight.origin_problem()
        if problem:
            raise ConfigurationError(problem)

    @property
    def draining(self) -> bool:
        """Whether this process is shutting down and refuses new connections."""
        return self._shutdown.begun

    def drain(self) -> None:
        """See `Presence.drain`."""
        self._shutdown.drain(0)

    def warn_if_alone(self) -> None:
        """Log a warning if nothing that this process publishes can reach a client: on `memory://`, in a script, a task
        queue or a shell."""
        if self.settings.in_memory and self.hub.current_loop is None and not has_request_context():
            self.log_throttle.log(
                "alone",
                logging.WARNING,
                "this process has no WebSockets, and with PRESENCE_BACKEND = 'memory://' it does not know those of "
                "other processes: it sees no channels, and what it publishes reaches nobody. If another process serves "
                "the WebSockets, set PRESENCE_BACKEND to a Redis that both use",
            )

    def obstacle(self, takeover: Takeover) -> str | None:
        """Why this process refuses a WebSocket now, as a sentence that says what to change; or `None`."""
        return SHUTTING_DOWN if self._shutdown.begun else self._preflight.problem(takeover)

    def socket_obstacle(self, takeover: Takeover) -> str | None:
        """Why the server cannot give an app its sockets, as such a sentence; or `None`."""
        return self._preflight.socket_problem(takeover)

    def origin_problem(self) -> str | None:
        """Why the allowed origins are not safe, as such a sentence; or `None`."""
        return self._preflight.origin_problem()

    def backend_obstacle(self) -> str | None:
        """Why this process must not open connections to its backend, as such a sentence; or `None`. Called after
        `start`. May block for the state store."""
        problem = self.hub.directory.obstacle()
        if problem:
            self.log_throttle.log("layout", logging.ERROR, "every WebSocket is refused: %s", problem)
        return problem

    def health(self, takeover: Takeover) -> Health:
        """The state of this process. May block for the state store."""
        if self._shutdown.begun:
            return Health("draining", SHUTTING_DOWN)
        problem = self._preflight.problem(takeover)
        if takeover.served:
            problem = problem or self._preflight.socket_problem(takeover)
        problem = problem or self.hub.directory.obstacle()
        if problem:
            return Health("refusing", problem)
        if self.process.is_full:
            return Health("full", self.process.full_message)
        shards = self.hub.directory.shards()
        problems = [f"Shard {shard.label!r}: {shard.problem}" for shard in shards if shard.problem is not None]
        if problems:
            return Health("unavailable", "; ".join(problems), shards)
        try:
            if not shards:
                self.hub.directory.check()
        except BackendUnavailable as unavailable:
            return Health("unavailable", unavailable.public_message)
        return Health("ok" if self.settings.enabled else "disabled", "", shards)

    def authorize(self, visitor: Visitor, channel: ChannelName, user_info: Mapping[str, Any]) -> Verdict:
        """Ask the guard whether the visitor may join a channel. Raises `CredentialRejected` if the login has ended
        meanwhile. Not in the event loop, because guards may block."""
        verdict = self._application.authorize(visitor.login, visitor.user, channel, user_info)
        if verdict.seconds is not None:
            self.hub.meter.guards[verdict.outcome].observe(verdict.seconds)
        return verdict

    def takeover(self, environ: Environ) -> Takeover:
        """The socket of an upgrade request."""
        return Takeover(environ)

    def start(self, takeover: Takeover) -> None:
        """Start the event loop and the backend in this process, if that has not been done, so that other processes see
        it and its counts."""
        self.process.start(takeover)
        _started.add(self)

    def open(
        self, takeover: Takeover, session: Session, rechecks_begun: int, release: Callable[[], None]
    ) -> Callable[[], None]:
        """Open a connection for a new `session` on the request's socket, which greets the client.

        Returns a function that the view must call before it returns: it waits until the server may have the socket
        back. `rechecks_begun` is what the hub's `rechecks_begun` was before the visitor was identified. `release` gives
        the reservation back; it is called at the moment at which the connection begins to count.
        """
        self.start(takeover)
        self._shutdown.prepare()
        return self.process.open(takeover, session, rechecks_begun, release)

    def forked(self) -> None:
        """Start anew: this process is a fork of the one that has the connections."""
        self._shutdown = Shutdown(self.process, self.settings.drain)
        self.process.forked()


def _backend(settings: Settings, history: HistoryRules) -> Backend:
    return open_backend(
        settings.backend,
        max_info=settings.max_user_info,
        max_members=settings.max_members,
        prefix=settings.redis_prefix,
        lease=settings.lease,
        grace_abrupt=settings.grace_abrupt,
        history=history,
    )


def _policy(settings: Settings, history: HistoryRules) -> Policy:
    return Policy(
        enabled=settings.enabled,
        max_channels=settings.max_channels,
        max_user_info=settings.max_user_info,
        history=history,
        rate_limit=settings.rate_limit,
        token_recheck=settings.token_recheck,
        grace=settings.grace,
        grace_abrupt=settings.grace_abrupt,
        pusher=_pusher_policy(settings),
    )


def _webhooks(settings: Settings, policy: Policy, find_loop: Callable[[], Loop | None]) -> Webhooks | None:
    if policy.pusher is None or not settings.pusher_webhooks:
        return None
    return Webhooks(settings.pusher_webhooks, policy.pusher.signer, find_loop)


def _pusher_policy(settings: Settings) -> PusherPolicy | None:
    key, secret = settings.pusher_key, settings.pusher_secret
    if key is None or secret is None:
        return None
    encryption_key = settings.pusher_encryption_key
    return PusherPolicy(
        Signer(key, secret, base64.b64decode(encryption_key) if encryption_key is not None else None),
        activity_timeout=settings.pusher_activity_timeout,
        client_events=settings.pusher_client_events,
        user_required=settings.auth_required,
    )
