"""The pages of the blueprint that show what is going on.

Law: what shows channels, members or counts is closed unless the app has opened it; everything can be asked for again
at the cost of an ETag.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from flask import Blueprint, Flask, Response, make_response, render_template, request
from flask.blueprints import BlueprintSetupState
from werkzeug.routing import PathConverter

from ..app.service import Service
from ..domain.channels import ChannelName
from ..domain.errors import BackendUnavailable, InvalidRequest
from ..hub.directory import Directory
from ..stats.metrics import metrics_text
from ..stats.payloads import (
    ServiceInfo,
    activity_payload,
    channel_list_payload,
    channel_payload,
    empty_channel_payload,
    stats_payload,
)
from ..stats.query import InvalidQuery, MemberQuery, read_channel_query, read_member_query
from ..stats.shared import SharedAnswers
from ..transport.takeover import Takeover
from .access import Admission, StatsGuard
from .assets import asset
from .page_state import HELPERS, View, read_view
from .responses import error_response, harden, json_response
from .streams import Streams, TooManyStreams

OPEN: Final = (
    "ws",
    "not_a_socket",
    "client",
    "client_module",
    "client_types",
    "stylesheet",
    "script",
    "health",
    "nothing",
)
"""What anybody may have, since it tells nothing, or asks by itself; everything else of the blueprint is closed."""
PAGE_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)


def add_pages(
    blueprint: Blueprint,
    app: Flask,
    service: Service,
    service_info: ServiceInfo,
    stats_guard: Callable[[], StatsGuard | None],
) -> None:
    """Register the pages, who may see them, and what is answered where the state store is away."""
    admission = Admission(app, service, stats_guard)
    open_to_all = {f"{blueprint.name}.{name}" for name in OPEN}

    @blueprint.before_request
    def check_leave() -> Response | None:
        refusal = None if request.endpoint in open_to_all else admission.refusal()
        return error_response(403, "FORBIDDEN", refusal) if refusal else None

    blueprint.record_once(_add_converter)
    shared = SharedAnswers(service.hub.directory)
    _add_page(blueprint, app, shared, service_info)
    _add_api(blueprint, service.hub.directory, shared, service_info)
    _add_for_machines(blueprint, service)
    _add_errors(blueprint)


class NameConverter(PathConverter):
    """Any channel's name in a path, also one that begins with a slash."""

    regex = ".+?"
    part_isolating = False


def _add_converter(state: BlueprintSetupState) -> None:
    state.app.url_map.converters["presence_channel"] = NameConverter


def _add_page(blueprint: Blueprint, app: Flask, shared: SharedAnswers, service_info: ServiceInfo) -> None:
    @blueprint.get("/")
    def index() -> Response:
        view = read_view(request.args)
        try:
            activity: dict[str, Any] | None = activity_payload(shared, service_info)
            listed = channel_list_payload(shared, view.channels)
            if not listed["channels"] and listed["total"]:
                view = view.at_end_of(listed["total"])
                listed = channel_list_payload(shared, view.channels)
            shown = _shown(shared, view.channel, view.members) if view.channel else None
        except BackendUnavailable:
            return _page(app, view, None, {"channels": [], "total": 0, "next": None}, None, 503)
        return _page(app, view, activity, listed, shown)

    @blueprint.get("/stats.css")
    def stylesheet() -> Response:
        return asset("stats.css", "text/css", request)

    @blueprint.get("/stats.js")
    def script() -> Response:
        return asset("stats.js", "text/javascript", request)


def _page(
    app: Flask,
    view: View,
    activity: dict[str, Any] | None,
    listed: dict[str, Any],
    shown: dict[str, Any] | None,
    status: int = 200,
) -> Response:
    text = render_template(
        "presence/stats.html", service=app.name, view=view, activity=activity, listed=listed, shown=shown, **HELPERS
    )
    response = make_response(text, status)
    response.headers["Content-Security-Policy"] = PAGE_POLICY
    return harden(response)


def _shown(shared: SharedAnswers, name: str, query: MemberQuery) -> dict[str, Any]:
    return channel_payload(shared, name, query) or empty_channel_payload(name)


def _add_api(blueprint: Blueprint, directory: Directory, shared: SharedAnswers, service_info: ServiceInfo) -> None:
    @blueprint.get("/stats")
    def stats() -> Response:
        return json_response(stats_payload(directory), request=request)

    @blueprint.get("/activity")
    def activity() -> Response:
        return json_response(activity_payload(shared, service_info), request=request)

    @blueprint.get("/channels")
    def channels() -> Response:
        query = read_channel_query(request.args)
        whose = shared if query.needs_rates else directory
        return json_response(channel_list_payload(whose, query), request=request)

    @blueprint.get("/members")
    def members() -> Response:
        """The channel that is named in the query string: not every name can stand in a path that a browser asks for."""
        name, query = request.args.get("channel", ""), read_member_query(request.args)
        return json_response(_shown(shared, name, query), request=request)

    @blueprint.get("/channels/<presence_channel:name>", merge_slashes=False)
    def channel(name: str) -> Response:
        query = read_member_query(request.args)
        found = channel_payload(directory, name, query)
        if found is None:
            return error_response(404, "NOT_FOUND", "Channel not found")
        return json_response(found, request=request)


def _add_for_machines(blueprint: Blueprint, service: Service) -> None:
    directory = service.hub.directory
    streams = Streams(service)

    @blueprint.get("/metrics")
    def metrics() -> Response:
        text, content_type = metrics_text(directory, request.headers.get("Accept", ""))
        return harden(Response(text, content_type=content_type))

    @blueprint.get("/watch")
    def watch() -> Response:
        try:
            name = ChannelName.parse(request.args["channel"]) if "channel" in request.args else None
        except InvalidRequest as problem:
            return error_response(400, problem.code, problem.message)
        if name is not None and name.type != "presence":
            return error_response(400, "INVALID_REQUEST", "Only presence channels tell who comes and goes")
        if service.draining:
            return error_response(503, "SERVICE_UNAVAILABLE", "This server is shutting down")
        try:
            return streams.stream(name)
        except TooManyStreams as problem:
            return error_response(503, "SERVICE_UNAVAILABLE", str(problem))

    @blueprint.get("/health")
    def health() -> Response:
        status, sentence = service.health(Takeover(request.environ))
        payload = {"status": status, "message": sentence} if sentence else {"status": status}
        return json_response(payload, 503 if sentence else 200)


def _add_errors(blueprint: Blueprint) -> None:
    @blueprint.errorhandler(BackendUnavailable)
    def unavailable(_: BackendUnavailable) -> Response:
        response = error_response(503, "SERVICE_UNAVAILABLE", "The state store is away")
        response.headers["Retry-After"] = "1"
        return response

    @blueprint.errorhandler(InvalidQuery)
    def invalid(problem: InvalidQuery) -> Response:
        return error_response(400, "INVALID_REQUEST", str(problem))

    @blueprint.route("/<path:rest>", methods=["GET", "POST", "PUT", "PATCH", "DELETE"])
    def nothing(rest: str) -> Response:
        """What the blueprint does not have, under its prefix; an app's own routes there go before."""
        if request.method not in ("GET", "HEAD"):
            response = error_response(405, "METHOD_NOT_ALLOWED", "Everything here is asked with GET")
            response.headers["Allow"] = "GET, HEAD, OPTIONS"
            return response
        return error_response(404, "NOT_FOUND", f"There is no {rest[:100]!r} here")
