"""The pages of the blueprint that show what is going on.

Law: what shows channels, members or counts is closed unless the app has opened it; everything can be asked for again
at the cost of an ETag.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, Final

from flask import Blueprint, Flask, Response, make_response, render_template, request

from ..assets import asset
from ..domain.channels import ChannelName
from ..domain.errors import BackendUnavailable
from ..responses import error_response, harden, json_response
from ..service import Service
from .admission import Admission, StatsGuard
from .metrics import metrics_text
from .query import read_channel_query, read_member_query
from .shapes import Facts, activity_shape, change_shapes, channel_list_shape, channel_shape, stats_shape
from .view import HELPERS, View, read_view

CLOSED_PAGES: Final = ("index", "stats", "activity", "channels", "channel", "metrics", "watch")
MAX_WATCHERS: Final = 20
"""Streams of a process at a time, each of which holds a request."""
GLANCE: Final = 0.2
"""Seconds between two looks for changes, where nothing wakes up who waits for them."""
PAGE_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)


def add_pages(
    blueprint: Blueprint, app: Flask, service: Service, facts: Facts, stats_guard: Callable[[], StatsGuard | None]
) -> None:
    """Register the pages, who may see them, and what is answered where the state store is away."""
    admission = Admission(app, service, stats_guard)
    closed = {f"{blueprint.name}.{name}" for name in CLOSED_PAGES}

    @blueprint.before_request
    def check_leave() -> Response | None:
        refusal = admission.refusal() if request.endpoint in closed else None
        return error_response(403, "FORBIDDEN", refusal) if refusal else None

    @blueprint.errorhandler(BackendUnavailable)
    def unavailable(_: BackendUnavailable) -> Response:
        response = error_response(503, "SERVICE_UNAVAILABLE", "The state store is away")
        response.headers["Retry-After"] = "1"
        return response

    _add_page(blueprint, app, service, facts)
    _add_api(blueprint, service, facts)
    _add_for_machines(blueprint, service)


def _add_page(blueprint: Blueprint, app: Flask, service: Service, facts: Facts) -> None:
    @blueprint.get("/")
    def index() -> Response:
        hub = service.hub
        try:
            view = read_view(request.args)
        except ValueError as problem:
            return error_response(400, "INVALID_REQUEST", str(problem))
        try:
            activity: dict[str, Any] | None = activity_shape(hub, facts)
            listed = channel_list_shape(hub, view.channels)
            shown = channel_shape(hub, view.channel, view.members) if view.channel else None
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


def _add_api(blueprint: Blueprint, service: Service, facts: Facts) -> None:
    hub = service.hub

    @blueprint.get("/stats")
    def stats() -> Response:
        return json_response(stats_shape(hub), request=request)

    @blueprint.get("/activity")
    def activity() -> Response:
        return json_response(activity_shape(hub, facts), request=request)

    @blueprint.get("/channels")
    def channels() -> Response:
        try:
            query = read_channel_query(request.args)
        except ValueError as problem:
            return error_response(400, "INVALID_REQUEST", str(problem))
        return json_response(channel_list_shape(hub, query), request=request)

    @blueprint.get("/channels/<path:name>", merge_slashes=False)
    def channel(name: str) -> Response:
        try:
            query = read_member_query(request.args)
        except ValueError as problem:
            return error_response(400, "INVALID_REQUEST", str(problem))
        found = channel_shape(hub, name, query)
        if found is None:
            return error_response(404, "NOT_FOUND", "Channel not found")
        return json_response(found, request=request)


def _add_for_machines(blueprint: Blueprint, service: Service) -> None:
    hub = service.hub
    watchers: list[object] = []

    @blueprint.get("/metrics")
    def metrics() -> Response:
        text, content_type = metrics_text(hub, request.headers.get("Accept", ""))
        return harden(Response(text, content_type=content_type))

    @blueprint.get("/watch")
    def watch() -> Response:
        name = request.args.get("channel")
        if name is not None and ChannelName(name).type != "presence":
            return error_response(400, "INVALID_REQUEST", "Only presence channels tell who comes and goes")
        if len(watchers) >= MAX_WATCHERS:
            return error_response(503, "SERVICE_UNAVAILABLE", f"{MAX_WATCHERS} are watching already")
        if service.draining:
            return error_response(503, "SERVICE_UNAVAILABLE", "This server is shutting down")
        service.prepare_to_drain()
        changes = change_shapes(hub.backend.watch(name))
        next(changes)  # raises here where the state store is away

        def lines() -> Iterator[str]:
            watchers.append(changes)
            try:
                yield "\n"
                yield from _as_lines(changes, service)
            finally:
                watchers.remove(changes)

        response = Response(lines(), mimetype="application/x-ndjson")
        response.headers["X-Accel-Buffering"] = "no"  # a proxy that collects lines shows nothing for minutes
        return harden(response)

    @blueprint.get("/health")
    def health() -> Response:
        if service.draining:
            return json_response({"status": "draining"}, 503)
        try:
            hub.check()
        except BackendUnavailable:
            return json_response({"status": "unavailable"}, 503)
        return json_response({"status": "ok"})


def _as_lines(changes: Iterator[dict[str, Any] | None], service: Service) -> Iterator[str]:
    """A line of JSON for every change, and an empty one now and then, so that who has gone is noticed."""
    quiet = 0
    try:
        for change in changes:
            if service.draining:
                return
            if change is not None:
                quiet = 0
                yield json.dumps(change) + "\n"
                continue
            quiet += 1
            if quiet % 5 == 0:
                yield "\n"
            if not service.hub.backend.blocking:
                service.wait(GLANCE)
    except BackendUnavailable:
        yield json.dumps({"error": {"code": "SERVICE_UNAVAILABLE", "message": "The state store is away"}}) + "\n"
