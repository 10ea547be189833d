"""The app's own signer: lets pages subscribe to channels and sign in, if the app's login and guards allow it.

Rule: who asks is found as at a native upgrade, and a page of another origin hears nothing unless the settings allow it.
Without a user there is no signature.
"""

from __future__ import annotations

import copy
import io
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec
from flask import Blueprint, Request, Response, current_app, request
from werkzeug.exceptions import InternalServerError, RequestEntityTooLarge

from ...app.auth import Visitor
from ...app.service import Service
from ...domain.channels import ChannelName
from ...domain.errors import BackendUnavailable, CredentialRejected, Forbidden, InvalidRequest
from ...domain.members import User, client_info
from ...domain.origins import is_allowed
from ...domain.pusher import names
from ...domain.pusher.users import SignedUser, info_to_sign
from ...domain.wire import encode
from ..bodies import read_body
from ..responses import error_response, json_response, unavailable_response
from ..visitors import Refused, check_origin, identify, unauthorized

PREFLIGHT_SECONDS: Final = 600
"""How long a browser may remember the answer to a preflight."""

_ESCAPED: Final = 12
"""How many bytes of a body a byte of `user_info` may need."""
_REST: Final = 16384
"""The bytes of a body that are not `user_info`."""
_HEADER_NAMES: Final = re.compile(r"[A-Za-z0-9_, -]+")
_decode: Final = msgspec.json.Decoder(dict[str, Any]).decode

Answer = dict[str, str]


def add_signer(blueprint: Blueprint, service: Service) -> None:
    """Add the routes, with the headers and the errors that pages of other origins may read."""
    signer = AppSigner(service)
    for rule, endpoint, answer in (
        ("/pusher/auth", "channel", signer.channel),
        ("/pusher/user-auth", "user", signer.user),
    ):
        blueprint.add_url_rule(rule, endpoint, signer.view(answer), methods=["POST", "OPTIONS"])
    blueprint.after_request(signer.share)

    @blueprint.errorhandler(Refused)
    def refused(refusal: Refused) -> Response:
        response = error_response(refusal.status, refusal.code, refusal.message)
        if refusal.status == 401:
            response.headers["WWW-Authenticate"] = "Bearer"
        return response

    @blueprint.errorhandler(RequestEntityTooLarge)
    def too_large(_: RequestEntityTooLarge) -> Response:
        return error_response(400, "INVALID_REQUEST", "The body is larger than this request needs")

    @blueprint.errorhandler(BackendUnavailable)
    def state_store_unreachable(_: BackendUnavailable) -> Response:
        return unavailable_response()

    @blueprint.errorhandler(InternalServerError)
    def fault(_: InternalServerError) -> Response:
        return error_response(500, "INTERNAL_ERROR", "Internal error")


class AppSigner:
    """Signs for the users of one app."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._settings = service.settings
        pusher = service.hub.policy.pusher
        assert pusher is not None, "the routes exist only if there is a key"
        self._signer = pusher.signer

    def view(self, answer: Callable[[Visitor, User, Mapping[str, Any]], Answer]) -> Callable[[], Response]:
        """A view that identifies the visitor, and responds with the `answer` as JSON."""

        def run() -> Response:
            problem = self._service.origin_problem()
            if problem:
                raise Refused(503, "SERVICE_UNAVAILABLE", problem)
            check_origin(self._service, request, "refused to sign for a page of the origin")
            if request.method == "OPTIONS":
                return _preflight()
            fields = _read_fields(request, _ESCAPED * self._settings.max_user_info + _REST)
            visitor = identify(self._service, _as_upgrade(request))
            if visitor.user is None:
                raise unauthorized()
            return json_response(answer(visitor, visitor.user, fields))

        return run

    def share(self, response: Response) -> Response:
        """Let pages of allowed origins read the response."""
        response.vary.add("Origin")
        origin = request.headers.get("Origin")
        allowed = self._settings.allowed_origins
        if origin is not None and is_allowed(origin, request.scheme, request.host, allowed):
            response.headers["Access-Control-Allow-Origin"] = origin
            response.headers["Access-Control-Allow-Credentials"] = "true"
        return response

    def channel(self, visitor: Visitor, user: User, fields: Mapping[str, Any]) -> Answer:
        """The signature for a channel, if its guard allows."""
        socket_id, channel = _socket_id(fields), self._channel(fields)
        info = self._page_info(fields, user)
        try:
            verdict = self._service.authorize(visitor, channel, copy.deepcopy(info))
        except CredentialRejected:
            raise unauthorized("Invalid token") from None
        if not verdict.allowed:
            raise Refused(403, "FORBIDDEN", verdict.reason or Forbidden.default)
        if channel.type == "presence":
            signed = self._signed(user, info, verdict.owned)
            data = encode({"user_id": signed.id, "user_info": signed.info}).decode()
            return {"auth": self._signer.channel_auth(socket_id, channel, data), "channel_data": data}
        answer = {"auth": self._signer.channel_auth(socket_id, channel)}
        if names.is_encrypted(channel):
            answer["shared_secret"] = self._signer.shared_secret(channel)
        return answer

    def user(self, _: Visitor, user: User, fields: Mapping[str, Any]) -> Answer:
        """The signature with which a connection signs in."""
        signed = self._signed(user, {}, {})
        data = encode({"id": signed.id, "user_info": signed.info}).decode()
        return {"auth": self._signer.user_auth(_socket_id(fields), data), "user_data": data}

    def _channel(self, fields: Mapping[str, Any]) -> ChannelName:
        name = fields.get("channel_name")
        if not isinstance(name, str) or not names.is_channel_name(name):
            raise _invalid("channel_name must have 1 to 200 letters, digits and characters of _-=@,.;")
        channel = ChannelName(name)
        if channel.type == "public":
            raise _invalid("Only channels whose names begin with private- or presence- need a signature")
        if names.is_encrypted(channel) and self._signer.encryption_key is None:
            raise _invalid("Encrypted channels need PRESENCE_PUSHER_ENCRYPTION_KEY")
        return channel

    def _page_info(self, fields: Mapping[str, Any], user: User) -> dict[str, Any]:
        """The part of the member that the page may decide."""
        given = fields.get("user_info")
        info = {} if given is None else _read_object(given) if isinstance(given, str) else given
        if not isinstance(info, dict):
            raise _invalid("user_info must be an object, or the JSON of one")
        try:
            return client_info(info, user, self._settings.max_user_info)
        except InvalidRequest as problem:
            raise _invalid(problem.message.replace("userInfo", "user_info")) from None

    def _signed(self, user: User, info: Mapping[str, Any], owned: Mapping[str, Any]) -> SignedUser:
        signed = SignedUser(user.id, info_to_sign(user, info, owned, self._service.hub.clock.utc_now()))
        too_large = signed.check(self._settings.max_user_info)
        if too_large:
            raise _invalid(f"{too_large}, with the name and what the guard owns")
        return signed


def _invalid(message: str) -> Refused:
    return Refused(400, "INVALID_REQUEST", message)


def _socket_id(fields: Mapping[str, Any]) -> str:
    socket_id = fields.get("socket_id")
    if not isinstance(socket_id, str) or not names.is_socket_id(socket_id):
        raise _invalid("socket_id must be two whole numbers with a dot between")
    return socket_id


def _read_object(text: str | bytes) -> dict[str, Any] | None:
    """The JSON object in `text`, if it is one."""
    try:
        return _decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None


def _read_fields(http_request: Request, limit: int) -> Mapping[str, Any]:
    """The fields of a form, or of a JSON object. Raises `Refused` if JSON was announced and there is something else."""
    body = read_body(http_request, limit)
    if http_request.mimetype == "application/json":
        fields = _read_object(body)
        if fields is None:
            raise _invalid("The body must be a JSON object")
        return fields
    if not body:
        return http_request.form
    environ = _without_body(http_request)
    environ |= {"wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body))}
    environ["CONTENT_TYPE"] = http_request.environ.get("CONTENT_TYPE", "")
    return current_app.request_class(environ).form


def _as_upgrade(http_request: Request) -> Request:
    """The request as a native upgrade would be: with a `GET`, and without a body. So a `user_loader` can read none, and
    no token in a cookie needs a CSRF header: the `Origin` says which page sends it."""
    environ = _without_body(http_request) | {"REQUEST_METHOD": "GET", "wsgi.input": io.BytesIO()}
    return current_app.request_class(environ)


def _without_body(http_request: Request) -> dict[str, Any]:
    own = ("CONTENT_LENGTH", "CONTENT_TYPE", "HTTP_TRANSFER_ENCODING", "wsgi.input_terminated", "werkzeug.request")
    return {key: value for key, value in http_request.environ.items() if key not in own}


def _preflight() -> Response:
    """The answer to a browser that asks whether a page of an allowed origin may send the request."""
    response = Response(status=204)
    response.headers["Access-Control-Allow-Methods"] = "POST"
    response.headers["Access-Control-Max-Age"] = str(PREFLIGHT_SECONDS)
    wanted = request.headers.get("Access-Control-Request-Headers", "")
    if _HEADER_NAMES.fullmatch(wanted):
        response.headers["Access-Control-Allow-Headers"] = wanted
    return response
