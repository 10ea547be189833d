"""The routes under `PRESENCE_URL_PREFIX`: the socket, the browser client, and the pages; and the commands.

Law: routing alone; what a route does is elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from flask import Blueprint, Flask, Response, has_request_context, request
from flask_sock import Sock
from simple_websocket import ConnectionError as HandshakeFailed
from wsproto.utilities import RemoteProtocolError

from ..app.service import Service
from ..cli.commands import add_commands
from ..domain.errors import ConfigurationError
from ..settings import Settings
from ..stats.payloads import ServiceInfo
from .access import StatsGuard
from .assets import client_response
from .pages import add_pages
from .responses import error_response
from .upgrade import ENVIRON_KEY, Upgrade, current_upgrade, upgrade_required

NAME: Final = "presence"
HOST_VALUES: Final = "flask_presence.host"
"""Where a request keeps the variables of `PRESENCE_SUBDOMAIN` and `PRESENCE_HOST`."""
OWN_VALUES: Final = frozenset(("name", "rest"))


def check_place(app: Flask, settings: Settings) -> None:
    """Raise `ConfigurationError` where the routes could not be registered, or no request could match them."""
    if NAME in app.blueprints:
        raise ConfigurationError(
            f"the app has a blueprint called {NAME!r} already, which is the name of flask_presence's own: register "
            f"yours with another one, as in app.register_blueprint({NAME}, name='rooms')"
        )
    if settings.host is not None and not app.url_map.host_matching:
        raise ConfigurationError("PRESENCE_HOST needs an app with host_matching: Flask(..., host_matching=True)")
    if settings.host is None and app.url_map.host_matching:
        raise ConfigurationError(
            "the app has host_matching, so PRESENCE_HOST must say at which host the routes are: 'example.com', or "
            "'<host>' for any"
        )
    if settings.subdomain is not None and not app.subdomain_matching:
        raise ConfigurationError(
            "PRESENCE_SUBDOMAIN needs an app with subdomain_matching: Flask(..., subdomain_matching=True)"
        )


def register_blueprint(app: Flask, service: Service, stats_guard: Callable[[], StatsGuard | None]) -> None:
    """Give one app the routes and the commands. Raises `ConfigurationError` where it cannot have them there."""
    settings = service.settings
    blueprint = _Blueprint(
        NAME, __name__, template_folder="templates", static_folder=None, subdomain=settings.subdomain
    )
    blueprint.host = settings.host
    _add_host_values(blueprint, app)
    _add_socket(blueprint, service)
    _add_client(blueprint)
    service_info = ServiceInfo.from_settings(settings)
    add_pages(blueprint, app, service, service_info, stats_guard)
    add_commands(blueprint, service, service_info)
    try:
        app.register_blueprint(blueprint, url_prefix=settings.url_prefix)
    except (ValueError, LookupError, SyntaxError) as problem:  # Werkzeug compiles rules
        raise ConfigurationError(
            f"PRESENCE_URL_PREFIX, PRESENCE_SUBDOMAIN and PRESENCE_HOST make no routes: {problem}"
        ) from problem


class _Blueprint(Blueprint):
    """A blueprint of which all routes are at one `host`, as Flask has it for single routes only."""

    host: str | None = None

    def add_url_rule(self, rule: str, endpoint: str | None = None, view_func: Any = None, **options: Any) -> None:  # type: ignore[override]
        if self.host is not None:
            options["host"] = self.host
        super().add_url_rule(rule, endpoint, view_func, **options)


def _add_host_values(blueprint: Blueprint, app: Flask) -> None:
    """Keep the variables of the host from the views, which want none, and hand them on to the pages' own links."""

    @blueprint.url_value_preprocessor
    def take(_: str | None, values: dict[str, Any] | None) -> None:
        if values is not None:
            names = values.keys() - OWN_VALUES
            request.environ[HOST_VALUES] = {name: values.pop(name) for name in names}

    @blueprint.url_defaults
    def give(endpoint: str, values: dict[str, Any]) -> None:
        if has_request_context():
            here = request.environ.get(HOST_VALUES) or request.view_args or {}
            for name, value in here.items():
                if app.url_map.is_endpoint_expecting(endpoint, name):
                    values.setdefault(name, value)


def _add_socket(blueprint: Blueprint, service: Service) -> None:
    socket = Sock()

    def ws(_: object) -> None:
        current_upgrade().complete()

    socket.route("/ws", bp=blueprint)(ws)

    @blueprint.get("/ws", endpoint="not_a_socket")
    def not_a_socket() -> Response:
        return upgrade_required(service, request)

    @blueprint.url_value_preprocessor
    def begin(endpoint: str | None, _: dict[str, Any] | None) -> None:
        """Before any `before_request` function, which may read what pywsgi shows as the request's body."""
        if endpoint == f"{blueprint.name}.ws":
            request.environ[ENVIRON_KEY] = Upgrade(service, request)

    @blueprint.before_request
    def admit() -> Response | None:
        return current_upgrade().admit() if ENVIRON_KEY in request.environ else None

    @blueprint.after_request
    def replace(response: Response) -> Response:
        return current_upgrade().response(response) if ENVIRON_KEY in request.environ else response

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
        return client_response("script", request)

    @blueprint.get("/presence.mjs")
    def client_module() -> Response:
        return client_response("module", request)

    @blueprint.get("/presence.d.ts")
    @blueprint.get("/presence.d.mts")
    def client_types() -> Response:
        return client_response("types", request)
