"""The blueprint's HTTP responses.

Rule: errors are `{"error": {"code", "message"}}`. Nothing is cached unless a route says so, and no page can be framed.
"""

from __future__ import annotations

from typing import Any, Final

from flask import Request, Response, jsonify

STORE_UNREACHABLE: Final = "The state store is unreachable"


def json_response(payload: dict[str, Any], status: int = 200, request: Request | None = None) -> Response:
    """`payload` as JSON that no cache keeps. With a `request`, it has an ETag, and may be a 304."""
    response = jsonify(payload)
    response.status_code = status
    if request is not None:
        response.add_etag()
        response.make_conditional(request)
    return harden(response)


def error_payload(code: str, message: str) -> dict[str, Any]:
    return {"error": {"code": code, "message": message}}


def error_response(status: int, code: str, message: str) -> Response:
    return json_response(error_payload(code, message), status)


def unavailable_response() -> Response:
    """503, because the state store does not answer."""
    response = error_response(503, "SERVICE_UNAVAILABLE", STORE_UNREACHABLE)
    response.headers["Retry-After"] = "1"
    return response


def harden(response: Response) -> Response:
    """Add the security headers that every response of the blueprint has."""
    headers = response.headers
    headers.setdefault("Cache-Control", "no-store")
    headers.setdefault("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'; base-uri 'none'")
    headers.setdefault("X-Content-Type-Options", "nosniff")
    headers.setdefault("X-Frame-Options", "DENY")
    headers.setdefault("Referrer-Policy", "no-referrer")
    return response
