"""Who a request is from, for the requests that open a WebSocket and those that ask for a signature.

Rule: a page of another origin is refused unless the settings allow it, and a cookie alone identifies nobody if the
browser does not say which page sends it.
"""

from __future__ import annotations

import logging

from flask import Request

from ..app.auth import AuthenticationRequired, Visitor
from ..app.service import Service
from ..domain.errors import CredentialRejected
from ..domain.origins import is_allowed


class Refused(Exception):
    """The request is refused, with this HTTP status, error code and message."""

    def __init__(self, status: int, code: str, message: str) -> None:
        self.status = status
        self.code = code
        self.message = message
        super().__init__(message)


def unauthorized(message: str = "Authentication required") -> Refused:
    return Refused(401, "UNAUTHORIZED", message)


def check_origin(service: Service, request: Request, refused: str) -> None:
    """Raise `Refused` if the page that sends the request may not. The log line begins with `refused`."""
    origin = request.headers.get("Origin")
    if origin is None or is_allowed(origin, request.scheme, request.host, service.settings.allowed_origins):
        return
    service.log_throttle.log(
        f"{refused} {origin[:200]}",
        logging.WARNING,
        "%s %.200r; the request is for %.200r. If the page is yours, add its origin to "
        "PRESENCE_ALLOWED_ORIGINS. Behind a proxy, use ProxyFix, so that the app knows its public host and scheme",
        refused,
        origin,
        f"{request.scheme}://{request.host}",
    )
    raise Refused(403, "FORBIDDEN", "Origin not allowed")


def identify(service: Service, request: Request) -> Visitor:
    """Identify who sends the request. Raises `Refused`."""
    try:
        visitor = service.authenticator.identify_visitor(request)
    except AuthenticationRequired:
        raise unauthorized() from None
    except CredentialRejected:
        raise unauthorized("Invalid token") from None
    if visitor.by_cookie and "Origin" not in request.headers:
        raise Refused(403, "FORBIDDEN", "A cookie is not accepted as a credential without an Origin header")
    return visitor
