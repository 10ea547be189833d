"""The HTTP API, which the server SDKs of Pusher call: sends events, shows channels, and closes connections of users.

Rule: a request counts only if its signature is right, and nothing is sent before all of it has been checked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from flask import Blueprint, Response, request
from werkzeug.exceptions import RequestEntityTooLarge

from ...app.service import Service
from ...domain import wire
from ...domain.channels import ChannelName
from ...domain.errors import BackendUnavailable
from ...domain.pusher.api_requests import (
    MAX_EVENTS,
    PRESENCE_EXPECTED,
    SUBSCRIPTION_COUNT,
    USER_COUNT,
    DataTooLarge,
    InvalidBody,
    Publication,
    channel_name,
    check_object,
    max_body,
    read_attributes,
    read_batch,
    read_event,
)
from ...domain.pusher.api_signature import BadSignature, SignedRequest, read_request
from ...domain.pusher.names import is_channel_name
from ..bodies import read_body
from ..responses import error_response, json_response, unavailable_response

TERMINATED: Final = "Connections terminated"

_BODY_TOO_LARGE: Final = "The body is larger than this request needs"


def add_api(blueprint: Blueprint, service: Service) -> None:
    """Add the routes, and the handlers of their errors."""
    api = HttpApi(service)
    app, user = "/apps/<pusher_app>", "/users/<path:pusher_user>/terminate_connections"
    routes: tuple[tuple[str, str, str, Callable[..., dict[str, Any]]], ...] = (
        ("POST", f"{app}/events", "events", api.events),
        ("POST", f"{app}/batch_events", "batch_events", api.batch_events),
        ("GET", f"{app}/channels", "channels", api.channels),
        ("GET", f"{app}/channels/<pusher_channel>", "channel", api.channel),
        ("GET", f"{app}/channels/<pusher_channel>/users", "users", api.users),
        ("POST", f"{app}{user}", "terminate_connections", api.terminate),
        ("POST", user, "terminate_connections_of_user", api.terminate),
    )
    for method, rule, endpoint, answer in routes:
        blueprint.add_url_rule(rule, endpoint, api.view(answer), methods=[method], merge_slashes=False)
    _add_errors(blueprint)


class HttpApi:
    """The API of one app. Its answers get the request, as it was signed, its body, and the variables of its path."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._settings = service.settings
        self._directory = service.hub.directory
        pusher = service.hub.policy.pusher
        assert pusher is not None, "the routes exist only if there is a key"
        self._signer = pusher.signer

    def view(self, answer: Callable[..., dict[str, Any]]) -> Callable[..., Response]:
        """A view that checks the signature, and responds with the `answer` as JSON."""

        def run(pusher_app: str | None = None, **variables: str) -> Response:
            if pusher_app not in (None, self._settings.pusher_app_id):
                return error_response(404, "NOT_FOUND", f"There is no app {str(pusher_app)[:100]!r} here")
            path = request.root_path.rstrip("/") + request.path
            signed = read_request(request.method, path, request.query_string.decode("latin-1"))
            signed.check(self._signer, self._service.hub.clock.epoch())
            body = read_body(request, max_body(MAX_EVENTS, self._settings.max_message_size))
            signed.check_body(body)
            return json_response(answer(signed, body, **variables))

        return run

    def events(self, _: SignedRequest, body: bytes) -> dict[str, Any]:
        publications = read_event(body, self._settings.max_message_size)
        self._send(publications)
        if publications[0].attributes is None:
            return {}
        return {"channels": {one.channel: self._attributes(one) for one in publications}}

    def batch_events(self, _: SignedRequest, body: bytes) -> dict[str, Any]:
        publications = read_batch(body, self._settings.max_message_size)
        self._send(publications)
        if all(one.attributes is None for one in publications):
            return {}
        return {"batch": [self._attributes(one) for one in publications]}

    def channels(self, signed: SignedRequest, _: bytes) -> dict[str, Any]:
        prefix = signed.parameters.get("filter_by_prefix", "")
        attributes = read_attributes(signed.parameters.get("info", ""), prefix)
        known = self._directory.channels(None, prefix)
        found = (one for one in known if is_channel_name(one.name))
        answer: dict[str, Any] = {
            "channels": {
                str(one.name): {USER_COUNT: one.member_count} if USER_COUNT in attributes else {} for one in found
            }
        }
        return answer | ({"unavailable": list(known.unavailable)} if known.unavailable else {})

    def channel(self, signed: SignedRequest, _: bytes, pusher_channel: str) -> dict[str, Any]:
        name = channel_name(pusher_channel)
        attributes = read_attributes(signed.parameters.get("info", ""), name)
        occupied = self._directory.channel(name) is not None
        return {"occupied": occupied, **self._counts(name, attributes)}

    def users(self, _signed: SignedRequest, _: bytes, pusher_channel: str) -> dict[str, Any]:
        name = channel_name(pusher_channel)
        if name.type != "presence":
            raise InvalidBody(PRESENCE_EXPECTED)
        return {"users": [{"id": member.id} for member in self._directory.members(name)]}

    def terminate(self, _: SignedRequest, body: bytes, pusher_user: str) -> dict[str, Any]:
        check_object(body)
        self._directory.disconnect(pusher_user, None, TERMINATED)
        return {}

    def _send(self, publications: list[Publication]) -> None:
        for one in publications:
            now = self._service.hub.clock.utc_now()
            if one.user_id is not None:
                self._directory.send_to_user(one.user_id, wire.user_message(one.event, one.data, now))
            else:
                message = wire.server_message(one.channel, one.event, one.data, now)
                self._directory.publish(one.channel, message, one.exclude, keep=True)

    def _attributes(self, sent: Publication) -> dict[str, int]:
        if not sent.attributes or sent.user_id is not None:
            return {}
        return self._counts(ChannelName(sent.channel), sent.attributes)

    def _counts(self, name: ChannelName, attributes: frozenset[str]) -> dict[str, int]:
        counts: dict[str, int] = {}
        if USER_COUNT in attributes:
            counts[USER_COUNT] = self._member_count(name)
        if SUBSCRIPTION_COUNT in attributes:
            if name.type == "presence":
                counts[SUBSCRIPTION_COUNT] = sum(self._directory.connections_of(name).values())
            else:
                counts[SUBSCRIPTION_COUNT] = self._member_count(name)
        return counts

    def _member_count(self, name: ChannelName) -> int:
        channel = self._directory.channel(name)
        return channel.member_count if channel is not None else 0


def _add_errors(blueprint: Blueprint) -> None:
    @blueprint.errorhandler(BadSignature)
    def unauthorized(problem: BadSignature) -> Response:
        return error_response(401, "UNAUTHORIZED", str(problem))

    @blueprint.errorhandler(InvalidBody)
    def invalid(problem: InvalidBody) -> Response:
        return error_response(400, "INVALID_REQUEST", str(problem))

    @blueprint.errorhandler(DataTooLarge)
    def data_too_large(problem: DataTooLarge) -> Response:
        return error_response(413, "TOO_LARGE", str(problem))

    @blueprint.errorhandler(RequestEntityTooLarge)
    def body_too_large(_: RequestEntityTooLarge) -> Response:
        return error_response(413, "TOO_LARGE", _BODY_TOO_LARGE)

    @blueprint.errorhandler(BackendUnavailable)
    def state_store_unreachable(_: BackendUnavailable) -> Response:
        return unavailable_response()
