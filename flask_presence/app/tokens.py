"""Finds the token in an upgrade request.

Rule: a bad explicit token is refused, because a client sends it on purpose. A bad cookie is ignored, because a browser
sends cookies by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from flask import Request

from ..transport.takeover import offered_protocols

BEARER: Final = "bearer"
"""The subprotocol after which a client may offer its token."""


def explicit_token(request: Request, config: Mapping[str, Any], *, in_query: bool) -> str | None:
    """The token that the client itself put into the request. `""` if it is there but empty, and `None` if it is absent.

    `config` has flask-jwt-extended's settings. `in_query` says whether to look in the URL.
    """
    if in_query and request.args.get("token"):
        return request.args["token"]
    header_type = str(config.get("JWT_HEADER_TYPE", "Bearer")).lower()
    kind, _, token = request.headers.get("Authorization", "").strip().partition(" ")
    if kind and kind.lower() in ("bearer", header_type):
        return token.strip()
    offered = offered_protocols(request.environ)
    if BEARER in offered:
        return next(iter(offered[offered.index(BEARER) + 1 :]), "")
    locations = _locations(config)
    header = str(request.headers.get(config.get("JWT_HEADER_NAME", "Authorization"), "")).strip()
    if "headers" in locations and header:
        kind, _, token = header.rpartition(" ")
        if kind.lower() == header_type:
            return token
    if "query_string" in locations and in_query:
        value = request.args.get(config.get("JWT_QUERY_STRING_NAME", "jwt"))
        if value:
            return value.removeprefix(config.get("JWT_QUERY_STRING_VALUE_PREFIX", ""))
    return None


def cookie_token(request: Request, config: Mapping[str, Any]) -> str | None:
    """The token in a cookie, if flask-jwt-extended looks for tokens there."""
    if not takes_cookies(config):
        return None
    name: str = config.get("JWT_ACCESS_COOKIE_NAME", "access_token_cookie")
    return request.cookies.get(name)


def takes_cookies(config: Mapping[str, Any]) -> bool:
    """Whether flask-jwt-extended looks for tokens in cookies."""
    return "cookies" in _locations(config)


def _locations(config: Mapping[str, Any]) -> list[str]:
    locations = config.get("JWT_TOKEN_LOCATION", "headers")
    return [locations] if isinstance(locations, str) else list(locations)
