"""An upgrade request, from the first look to the open connection.

Law: every refusal comes before the handshake where the server allows it, each with its status and a
sentence; behind gevent-websocket, which has answered 101 already, it is a close frame.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from flask import Request, Response, current_app, request

from ..app.auth import AuthenticationRequired, Visitor
from ..domain.errors import CredentialRejected
from ..domain.origins import is_allowed
from ..transport.codec import encode_close
from ..transport.takeover import VERSION, BadHandshake, Takeover, allows_hop_by_hop, check_handshake
from .responses import error_response

if TYPE_CHECKING:
    from ..app.service import Service

ENVIRON_KEY: Final = "flask_presence.upgrade"
RETRY_AFTER: Final = 5

PROXY_DROPS_UPGRADE: Final = (
    "This request wants to be a WebSocket, but its headers Upgrade and Connection are missing: a proxy in front of "
    "this server has dropped them. In nginx, the location needs 'proxy_http_version 1.1', 'proxy_set_header Upgrade "
    "$http_upgrade' and 'proxy_set_header Connection \"upgrade\"'"
)

_CLOSE_CODES: Final = {401: 4401, 403: 1008, 503: 1013}


class Refused(Exception):
    """The upgrade is refused: status, error code and message of the answer."""

    def __init__(self, status: int, code: str, message: str) -> None:
        self.status = status
        self.code = code
        self.message = message
        super().__init__(message)


class Upgrade:
    """One upgrade request. Holds one of the process's places from `admit` until the connection has it."""

    def __init__(self, service: Service, http: Request) -> None:
        self._service = service
        self._request = http
        self._takeover = Takeover(http.environ)
        self._takeover.empty_body()
        self._visitor = Visitor(None)
        self._placed = False

    def admit(self) -> Response | None:
        """The refusal, or `None` where flask-sock should go on with the handshake.

        Behind gevent-websocket there is nothing to go on with: then the connection is open afterwards.
        """
        try:
            self._check()
        except Refused as refusal:
            return self._refuse(refusal)
        if self._takeover.already_open:
            self.complete()
            return _switched()
        self._takeover.prepare_handshake()
        return None

    def complete(self) -> None:
        """After the handshake: hand the socket over. Returns at once, or where the socket is only lent,
        when it is done with."""
        wait = self._service.open(self._takeover, self._visitor, self._rechecks_begun)
        self.release()
        wait()

    def response(self, response: Response) -> Response:
        """What middleware and `after_request` functions should see in place of flask-sock's `response`, which would end
        the request by an exception. Where the socket has been taken over, servers find that it cannot be sent."""
        return _switched() if self._takeover.opened else response

    def release(self) -> None:
        """Give the place back, if it is still held."""
        if self._placed:
            self._placed = False
            self._service.process.release_place()

    def _check(self) -> None:
        obstacle = self._service.obstacle(self._takeover)
        if obstacle:
            raise Refused(503, "SERVICE_UNAVAILABLE", obstacle)
        if not self._takeover.already_open:
            try:
                check_handshake(self._request.environ)
            except BadHandshake as problem:
                code = "UPGRADE_REQUIRED" if problem.status == 426 else "BAD_REQUEST"
                raise Refused(problem.status, code, problem.message) from None
        if not self._service.process.take_place():
            raise Refused(503, "SERVICE_UNAVAILABLE", self._service.process.full_message)
        self._placed = True
        self._check_origin()
        if self._takeover.possible:
            self._service.start(self._takeover)  # so that it hears of permissions that change during the next step
        self._authenticate()
        obstacle = self._service.socket_obstacle(self._takeover)
        if obstacle:
            raise Refused(503, "SERVICE_UNAVAILABLE", obstacle)

    def _check_origin(self) -> None:
        origin = self._request.headers.get("Origin")
        if origin is None:
            return
        allowed = self._service.settings.allowed_origins
        if not is_allowed(origin, self._request.scheme, self._request.host, allowed):
            self._service.log_throttle.log(
                f"origin {origin[:200]}",
                logging.WARNING,
                "refused a WebSocket from the origin %.200r; the request is for %.200r. If that page is yours, add its "
                "origin to PRESENCE_ALLOWED_ORIGINS (or, behind a proxy, see that ProxyFix tells the app its "
                "own host and scheme)",
                origin,
                f"{self._request.scheme}://{self._request.host}",
            )
            raise Refused(403, "FORBIDDEN", "Origin not allowed")

    def _authenticate(self) -> None:
        self._rechecks_begun = self._service.hub.rechecks_begun
        try:
            self._visitor = self._service.authenticator.identify_visitor(self._request)
        except AuthenticationRequired:
            raise Refused(401, "UNAUTHORIZED", "Authentication required") from None
        except CredentialRejected:
            raise Refused(401, "UNAUTHORIZED", "Invalid token") from None
        if self._visitor.by_cookie and "Origin" not in self._request.headers:
            raise Refused(403, "FORBIDDEN", "A cookie is no credential without an Origin header")

    def _refuse(self, refusal: Refused) -> Response:
        self._service.hub.meter.count_refusal(refusal.status)
        if refusal.status != 503:  # then nothing stands in the way of the process itself
            self._service.start(self._takeover)
        if self._takeover.already_open:
            code = _CLOSE_CODES.get(refusal.status, 1008)
            self._takeover.refuse(encode_close(code, refusal.message))
            return _switched()
        response = _refusal(refusal, self._request.environ)
        if self._takeover.answers_as_http_1_0:
            headers = "".join(f"\r\n{name}: {value}" for name, value in response.headers)
            self._takeover.send_response(response.status + headers, response.get_data())
        return response


def _switched() -> Response:
    """101, as it has been sent by somebody else."""
    return Response(status=101)


def _refusal(refusal: Refused, environ: dict[str, Any]) -> Response:
    response = error_response(refusal.status, refusal.code, refusal.message)
    if refusal.status == 503:
        response.headers["Retry-After"] = str(RETRY_AFTER)
    if refusal.status == 426:
        response.headers["Sec-WebSocket-Version"] = VERSION
    if refusal.status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    if allows_hop_by_hop(environ):
        response.headers["Connection"] = "close"  # what follows on this connection would be no HTTP
    return response


def upgrade_required(service: Service, http: Request) -> Response:
    """426, for who asks for the socket without an upgrade; where a WebSocket was meant, with what became of it."""
    message = "This is a WebSocket; open it with one"
    if "Sec-WebSocket-Key" in http.headers:
        message = PROXY_DROPS_UPGRADE
        service.log_throttle.log("upgrade", logging.WARNING, "refused a WebSocket: %s", message)
    response = error_response(426, "UPGRADE_REQUIRED", message)
    if allows_hop_by_hop(http.environ):
        response.headers["Upgrade"] = "websocket"
    return response


def current_upgrade() -> Upgrade:
    """The upgrade that the current request is."""
    upgrade = request.environ[ENVIRON_KEY]
    assert isinstance(upgrade, Upgrade), current_app.name
    return upgrade
