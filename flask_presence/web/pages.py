"""The routes that show the state: the stats page, the JSON API, metrics, the stream of changes, and health.

Rule: a route that shows channels, members or counts needs access, which the app grants. Its JSON has an ETag, so that
polling is cheap.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from flask import Blueprint, Flask, Response, make_response, render_template, request
from flask.blueprints import BlueprintSetupState
from werkzeug.routing import PathConverter

from ..app.service import SHUTTING_DOWN, Service
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
    history_payload,
    stats_payload,
)
from ..stats.query import InvalidQuery, MemberQuery, read_channel_query, read_history_query, read_member_query
from ..stats.shared import SharedAnswers
from ..transport.takeover import Takeover
from .access import PageAccess, StatsGuard
from .assets import add_asset
from .page_state import HELPERS, PageState, read_page_state
from .responses import error_response, harden, json_response, unavailable_response
from .streams import Streams, TooManyStreams

log = logging.getLogger("flask_presence")

PUBLIC_ENDPOINTS: Final = (
    "ws",
    "ws_without_upgrade",
    "client",
    "client_module",
    "client_types",
    "client_module_types",
    "stylesheet",
    "script",
    "health",
    "not_found",
)
"""Endpoints for everybody: they show no state, or check credentials themselves. All others need access."""
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
    """Register the routes, the access check, and the handlers of their errors."""
    access = PageAccess(app, service, stats_guard)
    public_endpoints = {f"{blueprint.name}.{name}" for name in PUBLIC_ENDPOINTS}

    @blueprint.before_request
    def check_access() -> Response | None:
        refusal = None if request.endpoint in public_endpoints else access.refusal()
        return error_response(403, "FORBIDDEN", refusal) if refusal else None

    blueprint.record_once(_add_converter)
    shared = SharedAnswers(service.hub.directory)
    _add_page(blueprint, app, shared, service_info)
    _add_api(blueprint, service.hub.directory, shared, service_info)
    _add_monitoring(blueprint, app, service)
    _add_errors(blueprint)


class ChannelNameConverter(PathConverter):
    """Matches any channel name in a path, even one that begins with a slash."""

    regex = ".+?"
    part_isolating = False


def _add_converter(state: BlueprintSetupState) -> None:
    state.app.url_map.converters["presence_channel"] = ChannelNameConverter


def _add_page(blueprint: Blueprint, app: Flask, shared: SharedAnswers, service_info: ServiceInfo) -> None:
    @blueprint.get("/")
    def index() -> Response:
        state = read_page_state(request.args)
        try:
            activity: dict[str, Any] | None = activity_payload(shared, service_info)
            channel_list = channel_list_payload(shared, state.channel_query)
            if not channel_list["channels"] and channel_list["total"]:
                state = state.on_last_page(channel_list["total"])
                channel_list = channel_list_payload(shared, state.channel_query)
            name = state.channel_name
            open_channel = _channel_if_known(shared, name, state.member_query) if name else None
        except BackendUnavailable:
            return _page(app, state, None, {"channels": [], "total": 0, "next": None}, None, 503)
        return _page(app, state, activity, channel_list, open_channel)

    add_asset(blueprint, "stylesheet", "stats.css")
    add_asset(blueprint, "script", "stats.js")


def _page(
    app: Flask,
    state: PageState,
    activity: dict[str, Any] | None,
    channel_list: dict[str, Any],
    open_channel: dict[str, Any] | None,
    status: int = 200,
) -> Response:
    html = render_template(
        "presence/stats.html",
        service=app.name,
        state=state,
        activity=activity,
        channel_list=channel_list,
        open_channel=open_channel,
        **HELPERS,
    )
    response = make_response(html, status)
    response.headers["Content-Security-Policy"] = PAGE_POLICY
    return harden(response)


def _channel_or_empty(shared: SharedAnswers, name: str, query: MemberQuery) -> dict[str, Any]:
    return channel_payload(shared, name, query) or empty_channel_payload(shared, name)


def _channel_if_known(shared: SharedAnswers, name: str, query: MemberQuery) -> dict[str, Any] | None:
    """The same; `None` if the channel's shard does not answer, although others do."""
    try:
        return _channel_or_empty(shared, name, query)
    except BackendUnavailable:
        if not shared.shards():
            raise
        return None


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
        reader = shared if query.needs_rates else directory
        return json_response(channel_list_payload(reader, query), request=request)

    @blueprint.get("/members")
    def members() -> Response:
        """Like `channel`, with the name in the query string, because a browser cannot put every name into a path."""
        name, query = request.args.get("channel", ""), read_member_query(request.args)
        return json_response(_channel_or_empty(shared, name, query), request=request)

    @blueprint.get("/history")
    def history() -> Response:
        return json_response(history_payload(directory, read_history_query(request.args)), request=request)

    @blueprint.get("/channels/<presence_channel:name>", merge_slashes=False)
    def channel(name: str) -> Response:
        query = read_member_query(request.args)
        payload = channel_payload(directory, name, query)
        if payload is None:
            return error_response(404, "NOT_FOUND", "Channel not found")
        return json_response(payload, request=request)


def _would_answer_again(app: Flask, environ: dict[str, Any]) -> bool:
    """Whether the app would still answer this request, by its `before_request` functions, the access check included."""
    environ.pop("werkzeug.request", None)
    with app.request_context(dict(environ)):
        try:
            return app.preprocess_request() is None
        except Exception as problem:
            log.info("a stream of changes ends, because access can no longer be checked: %s", problem)
            return False


def _add_monitoring(blueprint: Blueprint, app: Flask, service: Service) -> None:
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
            return error_response(400, "INVALID_REQUEST", "Only presence channels report who joins and leaves")
        if service.draining:
            return error_response(503, "SERVICE_UNAVAILABLE", SHUTTING_DOWN)
        try:
            return streams.stream(name, partial(_would_answer_again, app, dict(request.environ)))
        except TooManyStreams as problem:
            return error_response(503, "SERVICE_UNAVAILABLE", str(problem))

    @blueprint.get("/health")
    def health() -> Response:
        found = service.health(Takeover(request.environ))
        payload: dict[str, Any] = {"status": found.status}
        if found.message:
            payload["message"] = found.message
        if found.shards:
            payload["shards"] = {shard.label: shard.problem or "ok" for shard in found.shards}
        return json_response(payload, 503 if found.message else 200)


def _add_errors(blueprint: Blueprint) -> None:
    @blueprint.errorhandler(BackendUnavailable)
    def state_store_unreachable(_: BackendUnavailable) -> Response:
        return unavailable_response()

    @blueprint.errorhandler(InvalidQuery)
    def invalid_query(problem: InvalidQuery) -> Response:
        return error_response(400, "INVALID_REQUEST", str(problem))

    @blueprint.route("/<path:rest>", methods=["GET", "POST", "PUT", "PATCH", "DELETE"])
    def not_found(rest: str) -> Response:
        """A JSON error for every other path under the prefix. The app's own routes there take precedence."""
        if request.method not in ("GET", "HEAD"):
            response = error_response(405, "METHOD_NOT_ALLOWED", "Only GET is allowed here")
            response.headers["Allow"] = "GET, HEAD, OPTIONS"
            return response
        return error_response(404, "NOT_FOUND", f"There is no page {rest[:100]!r} here")
