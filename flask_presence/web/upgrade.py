"""A WebSocket upgrade, from the request to the open connection.

Rule: a request is refused before the handshake, with an HTTP status and a message. Behind gevent-websocket, which sends
101 before the app is asked, a close frame refuses it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final, Protocol

from flask import Request, Response, current_app, request

from ..app.auth import Visitor
from ..app.service import Service
from ..app.tokens import BEARER
from ..hub.session import Session
from ..transport.codec import encode_close
from ..transport.takeover import (
    VERSION,
    BadHandshake,
    Environ,
    HandshakeSent,
    Takeover,
    allows_hop_by_hop,
    check_handshake,
    offered_protocols,
)
from .responses import error_response
from .visitors import Refused, check_origin, identify

ENVIRON_KEY: Final = "flask_presence.upgrade"
OPENER_KEY: Final = "flask_presence.opener"
"""The environ key of the `Opener` of a test client."""
RETRY_AFTER: Final = 5
"""Seconds, for the header of a 503."""

PROXY_DROPS_UPGRADE: Final = (
    "This WebSocket request has no Upgrade and Connection headers: a proxy in front of this server removed them. In "
    "nginx, the location needs 'proxy_http_version 1.1', 'proxy_set_header Upgrade $http_upgrade' and "
    "'proxy_set_header Connection \"upgrade\"'"
)

_CLOSE_CODES: Final = {401: 4401, 403: 1008, 503: 1013}
"""The close codes that replace these HTTP statuses behind gevent-websocket."""


class Opener(Protocol):
    """What opens the connection: the `Service`, on the request's socket, or a test client, without a socket. See
    `Service` for the methods."""

    def takeover(self, environ: Environ) -> Takeover: ...
    def start(self, takeover: Takeover) -> None: ...
    def open(
        self, takeover: Takeover, session: Session, rechecks_begun: int, release: Callable[[], None]
    ) -> Callable[[], None]: ...


class Upgrade:
    """One upgrade request. It counts towards the limit of connections until the connection is open or refused."""

    def __init__(self, service: Service, http_request: Request) -> None:
        self._service = service
        self._request = http_request
        self._opener: Opener = http_request.environ.get(OPENER_KEY, service)
        self._takeover = self._opener.takeover(http_request.environ)
        self._takeover.empty_body()
        self._visitor = Visitor(None)
        self._is_reserved = False

    def refuse_or_prepare(self) -> Response | None:
        """The refusal, or `None` if flask-sock should send the handshake.

        Otherwise, for instance behind gevent-websocket, which has sent it already, this opens the connection and
        returns the 101.
        """
        try:
            self._check()
        except Refused as refusal:
            return self._refuse(refusal)
        if not self._takeover.needs_handshake:
            self.complete()
            return switching_protocols()
        self._takeover.prepare_handshake(self._protocol())
        return None

    def run(self, view: Callable[[], Response]) -> Response:
        """Let flask-sock's view send the handshake, and open the connection. Returns the 101, like `complete` after the
        connection has ended, if the socket stays the server's."""
        with self._takeover.only_handshake_headers():
            try:
                return view()
            except HandshakeSent:
                pass  # the connection must not last as long as the exception, which has the stack
        self.complete()
        return switching_protocols()

    def complete(self) -> None:
        """Open the connection, after the handshake. Returns at once or, if the socket stays the server's, after the
        connection has ended."""
        wait = self._opener.open(self._takeover, self._session(), self._rechecks_begun, self.release)
        wait()

    def response(self, response: Response) -> Response:
        """The response that `after_request` functions and middleware get instead of flask-sock's, which would end the
        request with an exception. The server cannot send it if the socket has been taken over."""
        return switching_protocols() if self._takeover.opened and response.status_code != 101 else response

    def release(self) -> None:
        """Release the reservation, unless that has been done."""
        if self._is_reserved:
            self._is_reserved = False
            self._service.process.release()

    def _session(self) -> Session:
        """The session of the new connection."""
        visitor = self._visitor
        return self._service.hub.session(visitor.user, visitor.credential, visitor.upgrade)

    def _protocol(self) -> str | None:
        """The subprotocol to select. Native clients may offer a token after it."""
        return BEARER if BEARER in offered_protocols(self._request.environ) else None

    def _check(self) -> None:
        """Raise `Refused` if the connection may not be opened."""
        self._check_service()
        self._check_handshake()
        self._reserve()
        self._check_origin()
        self._start()
        self._check_backend()
        self._authenticate()
        self._check_sockets()

    def _check_service(self) -> None:
        obstacle = self._service.obstacle(self._takeover)
        if obstacle:
            raise Refused(503, "SERVICE_UNAVAILABLE", obstacle)

    def _check_backend(self) -> None:
        obstacle = self._service.backend_obstacle()
        if obstacle:
            raise Refused(503, "SERVICE_UNAVAILABLE", obstacle)

    def _check_handshake(self) -> None:
        if self._takeover.already_open:
            return
        try:
            check_handshake(self._request.environ)
        except BadHandshake as problem:
            code = "UPGRADE_REQUIRED" if problem.status == 426 else "BAD_REQUEST"
            raise Refused(problem.status, code, problem.message) from None

    def _reserve(self) -> None:
        if not self._service.process.reserve():
            raise Refused(503, "SERVICE_UNAVAILABLE", self._service.process.full_message)
        self._is_reserved = True

    def _start(self) -> None:
        """Start the service's event loop, so that it hears of permissions that change from now on."""
        if self._takeover.possible:
            self._opener.start(self._takeover)
        self._rechecks_begun = self._service.hub.rechecks_begun

    def _check_sockets(self) -> None:
        obstacle = self._service.socket_obstacle(self._takeover)
        if obstacle:
            raise Refused(503, "SERVICE_UNAVAILABLE", obstacle)

    def _check_origin(self) -> None:
        check_origin(self._service, self._request, "refused a WebSocket from the origin")

    def _authenticate(self) -> None:
        self._visitor = identify(self._service, self._request)

    def _count(self, refusal: Refused) -> None:
        self._service.hub.meter.count_refusal(refusal.status)
        if refusal.status != 503:  # this process can serve connections: share its counts with the others
            self._opener.start(self._takeover)

    def _refuse(self, refusal: Refused) -> Response | None:
        """The response for a refusal, or `None` if it follows the handshake."""
        self._count(refusal)
        if self._takeover.already_open:
            code = _CLOSE_CODES.get(refusal.status, 1008)
            self._takeover.refuse(encode_close(code, refusal.message))
            return switching_protocols()
        response = _refusal_response(refusal, self._request.environ)
        if self._takeover.answers_as_http_1_0:
            headers = "".join(f"\r\n{name}: {value}" for name, value in response.headers)
            self._takeover.send_response(response.status + headers, response.get_data())
        return response


def switching_protocols() -> Response:
    """A 101, for which the bytes are on the wire already."""
    return Response(status=101)


def _refusal_response(refusal: Refused, environ: dict[str, Any]) -> Response:
    response = error_response(refusal.status, refusal.code, refusal.message)
    if refusal.status == 503:
        response.headers["Retry-After"] = str(RETRY_AFTER)
    if refusal.status == 426:
        response.headers["Sec-WebSocket-Version"] = VERSION
    if refusal.status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    if allows_hop_by_hop(environ):
        response.headers["Connection"] = "close"  # what follows on this connection is not HTTP
    return response


def upgrade_required(service: Service, http_request: Request) -> Response:
    """426, for a request without an upgrade. If a proxy has removed the upgrade's headers, the message says so."""
    message = "This URL is a WebSocket: open it with a WebSocket client"
    if "Sec-WebSocket-Key" in http_request.headers:
        message = PROXY_DROPS_UPGRADE
        service.log_throttle.log("upgrade", logging.WARNING, "refused a WebSocket: %s", message)
    response = error_response(426, "UPGRADE_REQUIRED", message)
    if allows_hop_by_hop(http_request.environ):
        response.headers["Upgrade"] = "websocket"
    return response


def current_upgrade() -> Upgrade:
    """The upgrade of the current request."""
    upgrade = request.environ[ENVIRON_KEY]
    assert isinstance(upgrade, Upgrade), current_app.name
    return upgrade
