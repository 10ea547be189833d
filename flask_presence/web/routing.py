"""Blueprints on the host or subdomain of the settings, and WebSocket routes in them.

Rule: flask-sock sends the handshake inside the request, and everything before and after it is an `Upgrade`'s.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from flask import Blueprint, Flask, Request, Response, has_request_context, request
from flask_sock import Sock
from simple_websocket import ConnectionError as HandshakeFailed
from wsproto.utilities import RemoteProtocolError

from ..app.service import Service
from .responses import error_response
from .upgrade import ENVIRON_KEY, Upgrade, current_upgrade, upgrade_required

HOST_VARIABLES: Final = "flask_presence.host"
"""The environ key of the values of the variables in `PRESENCE_SUBDOMAIN` and `PRESENCE_HOST`."""
PATH_VARIABLES: Final = frozenset(
    ("name", "pusher_app", "pusher_channel", "pusher_key", "pusher_user", "rest", "version")
)
"""The variables in the paths of the blueprints' routes."""


class HostBlueprint(Blueprint):
    """A blueprint with one `host` for all its routes. Flask's own has a `host` for single routes only."""

    host: str | None = None

    def add_url_rule(self, rule: str, endpoint: str | None = None, view_func: Any = None, **options: Any) -> None:  # type: ignore[override]
        if self.host is not None:
            options["host"] = self.host
        super().add_url_rule(rule, endpoint, view_func, **options)


class _HandshakeRoute:
    """What flask-sock gets for the blueprint: its view runs inside `Upgrade.run`."""

    def __init__(self, blueprint: Blueprint) -> None:
        self._blueprint = blueprint

    def route(self, rule: str, **options: Any) -> Callable[[Callable[[], Response]], None]:
        def register(view: Callable[[], Response]) -> None:
            def ws(**_: object) -> Response:
                return current_upgrade().run(view)

            self._blueprint.add_url_rule(rule, "ws", ws, **options)

        return register


def handle_host_variables(blueprint: Blueprint, app: Flask) -> None:
    """Hide the host's variables from the views, which do not take them, and put them into the links of the pages."""

    @blueprint.url_value_preprocessor
    def remove_host_variables(_: str | None, values: dict[str, Any] | None) -> None:
        if values is not None:
            names = values.keys() - PATH_VARIABLES
            request.environ[HOST_VARIABLES] = {name: values.pop(name) for name in names}

    @blueprint.url_defaults
    def add_host_variables(endpoint: str, values: dict[str, Any]) -> None:
        if has_request_context():
            host_variables = request.environ.get(HOST_VARIABLES) or request.view_args or {}
            for name, value in host_variables.items():
                if app.url_map.is_endpoint_expecting(endpoint, name):
                    values.setdefault(name, value)


def add_websocket(blueprint: Blueprint, service: Service, rule: str, new_upgrade: Callable[[Request], Upgrade]) -> None:
    """Add a route for WebSockets, whose requests `new_upgrade` takes."""
    sock = Sock()

    def ws(_: object) -> None:
        current_upgrade().complete()

    sock.route(rule, bp=_HandshakeRoute(blueprint))(ws)

    @blueprint.get(rule)
    def ws_without_upgrade(**_: object) -> Response:
        return upgrade_required(service, request)

    @blueprint.url_value_preprocessor
    def begin_upgrade(endpoint: str | None, _: dict[str, Any] | None) -> None:
        """Runs before all `before_request` functions, which might read what pywsgi takes for the request's body."""
        if endpoint == f"{blueprint.name}.ws":
            request.environ[ENVIRON_KEY] = new_upgrade(request)

    @blueprint.before_request
    def check_upgrade() -> Response | None:
        return current_upgrade().refuse_or_prepare() if ENVIRON_KEY in request.environ else None

    @blueprint.after_request
    def replace_response(response: Response) -> Response:
        return current_upgrade().response(response) if ENVIRON_KEY in request.environ else response

    @blueprint.teardown_request
    def release_reservation(_: BaseException | None) -> None:
        upgrade = request.environ.get(ENVIRON_KEY)
        if upgrade is not None:
            upgrade.release()

    @blueprint.errorhandler(RemoteProtocolError)
    @blueprint.errorhandler(HandshakeFailed)
    def invalid_handshake(_: Exception) -> Response:
        return error_response(400, "BAD_REQUEST", "This is not a valid WebSocket handshake")
