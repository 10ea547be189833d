"""The routes under `PRESENCE_URL_PREFIX`: the socket, and pages that show who is there.

Law: what shows channels or members is closed unless the app has opened it.
"""

from __future__ import annotations

from collections.abc import Callable

from flask import Blueprint, Flask, Response, make_response, render_template, request
from flask_sock import Sock
from simple_websocket import ConnectionError as HandshakeFailed
from wsproto.utilities import RemoteProtocolError

from .assets import asks_for_module, client_response
from .domain.channels import ChannelType, channel_type
from .domain.errors import BackendUnavailable
from .responses import error_response, harden, json_response
from .service import Service
from .upgrade import ENVIRON_KEY, Upgrade, current_upgrade

StatsGuard = Callable[[], object]

HOW_TO_OPEN = (
    "This page is closed. To open it, register a function with @presence.stats_guard that returns True for those "
    "who may see it, or set PRESENCE_STATS_PUBLIC = True; in debug mode it is open"
)


def make_blueprint(app: Flask, service: Service, stats_guard: Callable[[], StatsGuard | None]) -> Blueprint:
    """The blueprint `presence` for one app."""
    blueprint = Blueprint("presence", __name__, template_folder="templates", static_folder=None)
    _add_socket(blueprint, service)
    _add_client(blueprint)
    _add_pages(blueprint, app, service, stats_guard)
    return blueprint


def _add_socket(blueprint: Blueprint, service: Service) -> None:
    socket = Sock()

    def ws(_: object) -> None:
        current_upgrade().complete()

    socket.route("/ws", bp=blueprint)(ws)

    @blueprint.get("/ws", endpoint="not_a_socket")
    def not_a_socket() -> Response:
        response = error_response(426, "UPGRADE_REQUIRED", "This is a WebSocket; open it with one")
        response.headers["Upgrade"] = "websocket"
        return response

    @blueprint.before_request
    def admit() -> Response | None:
        if request.endpoint != f"{blueprint.name}.ws":
            return None
        upgrade = Upgrade(service, request)
        request.environ[ENVIRON_KEY] = upgrade
        return upgrade.admit()

    @blueprint.teardown_request
    def release(_: BaseException | None) -> None:
        upgrade = request.environ.get(ENVIRON_KEY)
        if upgrade is not None:
            upgrade.release()

    @blueprint.errorhandler(RemoteProtocolError)
    @blueprint.errorhandler(HandshakeFailed)
    def not_a_handshake(_: Exception) -> Response:
        return error_response(400, "BAD_REQUEST", "This is no valid WebSocket handshake")


def _add_client(blueprint: Blueprint) -> None:
    @blueprint.get("/presence.js")
    def client() -> Response:
        return client_response("module" if asks_for_module(request) else "script", request)

    @blueprint.get("/presence.mjs")
    def client_module() -> Response:
        return client_response("module", request)

    @blueprint.get("/presence.d.ts")
    @blueprint.get("/presence.d.mts")
    def client_types() -> Response:
        return client_response("types", request)


def _add_pages(
    blueprint: Blueprint, app: Flask, service: Service, stats_guard: Callable[[], StatsGuard | None]
) -> None:
    hub = service.hub
    closed_pages = {f"{blueprint.name}.{name}" for name in ("index", "stats", "channels", "channel")}

    @blueprint.before_request
    def check_leave() -> Response | None:
        if request.endpoint not in closed_pages or service.settings.stats_public or app.debug:
            return None
        guard = stats_guard()
        if guard is not None and guard() is True:
            return None
        return error_response(403, "FORBIDDEN", HOW_TO_OPEN)

    @blueprint.get("/")
    def index() -> Response:
        page = render_template("presence/stats.html", stats=hub.stats(), channels=hub.channels())
        response = make_response(page)
        response.headers["Content-Security-Policy"] = (
            "default-src 'none'; style-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
        )
        return harden(response)

    @blueprint.get("/stats.css")
    def stylesheet() -> Response:
        return harden(Response(render_template("presence/stats.css"), mimetype="text/css"))

    @blueprint.get("/stats")
    def stats() -> Response:
        return json_response(hub.stats().to_dict())

    @blueprint.get("/channels")
    def channels() -> Response:
        kind: ChannelType | None = None
        if request.args.get("type"):
            try:
                kind = channel_type(request.args["type"])
            except ValueError as problem:
                return error_response(400, "INVALID_REQUEST", str(problem))
        listed = hub.channels(kind, request.args.get("prefix"))
        return json_response({"channels": [channel.to_dict() for channel in listed]})

    @blueprint.get("/channels/<path:name>")
    def channel(name: str) -> Response:
        found = hub.channel(name)
        if found is None:
            return error_response(404, "NOT_FOUND", "Channel not found")
        return json_response(found.to_dict())

    @blueprint.errorhandler(BackendUnavailable)
    def unavailable(_: BackendUnavailable) -> Response:
        response = error_response(503, "SERVICE_UNAVAILABLE", "The state store is away")
        response.headers["Retry-After"] = "1"
        return response

    @blueprint.get("/health")
    def health() -> Response:
        if service.draining:
            return json_response({"status": "draining"}, 503)
        try:
            hub.check()
        except BackendUnavailable:
            return json_response({"status": "unavailable"}, 503)
        return json_response({"status": "ok"})
