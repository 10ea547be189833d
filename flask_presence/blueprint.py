"""The routes under `PRESENCE_URL_PREFIX`: the socket, the browser client, and the pages; and the commands.

Law: routing alone; what a route does is elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable

from flask import Blueprint, Flask, Response, request
from flask_sock import Sock
from simple_websocket import ConnectionError as HandshakeFailed
from wsproto.utilities import RemoteProtocolError

from .assets import asks_for_module, client_response
from .responses import error_response
from .service import Service
from .stats.admission import StatsGuard
from .stats.cli import add_commands
from .stats.pages import add_pages
from .stats.shapes import facts_of
from .upgrade import ENVIRON_KEY, Upgrade, current_upgrade


def make_blueprint(app: Flask, service: Service, stats_guard: Callable[[], StatsGuard | None]) -> Blueprint:
    """The blueprint `presence` for one app."""
    blueprint = Blueprint("presence", __name__, template_folder="templates", static_folder=None)
    _add_socket(blueprint, service)
    _add_client(blueprint)
    facts = facts_of(service.settings)
    add_pages(blueprint, app, service, facts, stats_guard)
    add_commands(blueprint, service, facts)
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
