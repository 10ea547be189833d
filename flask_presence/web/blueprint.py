"""The routes under `PRESENCE_URL_PREFIX` (the WebSocket, the browser client, the pages), and the commands.

Rule: this module only routes requests. Other modules answer them.
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
from .assets import add_asset
from .npm_package import package_files
from .pages import add_pages
from .responses import error_response
from .upgrade import ENVIRON_KEY, Upgrade, current_upgrade, upgrade_required

NAME: Final = "presence"
HOST_VARIABLES: Final = "flask_presence.host"
"""The environ key of the values of the variables in `PRESENCE_SUBDOMAIN` and `PRESENCE_HOST`."""
PATH_VARIABLES: Final = frozenset(("name", "rest", "version"))
"""The variables in the paths of the blueprint's routes."""


def check_routing(app: Flask, settings: Settings) -> None:
    """Raise `ConfigurationError` if the routes cannot be registered, or if no request can match them."""
    if NAME in app.blueprints:
        raise ConfigurationError(
            f"the app already has a blueprint called {NAME!r}, and flask_presence uses that name for its own: register "
            f"yours with another name, as in app.register_blueprint({NAME}, name='rooms')"
        )
    if settings.host is not None and not app.url_map.host_matching:
        raise ConfigurationError("PRESENCE_HOST needs an app with host_matching: Flask(..., host_matching=True)")
    if settings.host is None and app.url_map.host_matching:
        raise ConfigurationError(
            "the app has host_matching, so PRESENCE_HOST must name the host of the routes: 'example.com', or '<host>' "
            "for any host"
        )
    if settings.subdomain is not None and not app.subdomain_matching:
        raise ConfigurationError(
            "PRESENCE_SUBDOMAIN needs an app with subdomain_matching: Flask(..., subdomain_matching=True)"
        )


def register_blueprint(app: Flask, service: Service, stats_guard: Callable[[], StatsGuard | None]) -> None:
    """Register the routes and the commands on one app. Raises `ConfigurationError` if a route is invalid."""
    settings = service.settings
    blueprint = _Blueprint(
        NAME, __name__, template_folder="templates", static_folder=None, subdomain=settings.subdomain
    )
    blueprint.host = settings.host
    _handle_host_variables(blueprint, app)
    _add_websocket(blueprint, service)
    _add_client(blueprint)
    service_info = ServiceInfo.from_settings(settings)
    add_pages(blueprint, app, service, service_info, stats_guard)
    add_commands(blueprint, service, service_info, package_files)
    try:
        app.register_blueprint(blueprint, url_prefix=settings.url_prefix)
    except (ValueError, LookupError, SyntaxError) as problem:  # Werkzeug could not compile a rule
        raise ConfigurationError(
            f"PRESENCE_URL_PREFIX, PRESENCE_SUBDOMAIN and PRESENCE_HOST do not make valid routes: {problem}"
        ) from problem


class _Blueprint(Blueprint):
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
            def ws() -> Response:
                return current_upgrade().run(view)

            self._blueprint.add_url_rule(rule, "ws", ws, **options)

        return register


def _handle_host_variables(blueprint: Blueprint, app: Flask) -> None:
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


def _add_websocket(blueprint: Blueprint, service: Service) -> None:
    sock = Sock()

    def ws(_: object) -> None:
        current_upgrade().complete()

    sock.route("/ws", bp=_HandshakeRoute(blueprint))(ws)

    @blueprint.get("/ws")
    def ws_without_upgrade() -> Response:
        return upgrade_required(service, request)

    @blueprint.url_value_preprocessor
    def begin_upgrade(endpoint: str | None, _: dict[str, Any] | None) -> None:
        """Runs before all `before_request` functions, which might read what pywsgi takes for the request's body."""
        if endpoint == f"{blueprint.name}.ws":
            request.environ[ENVIRON_KEY] = Upgrade(service, request)

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


def _add_client(blueprint: Blueprint) -> None:
    add_asset(blueprint, "client", "presence.js", any_origin=True)
    add_asset(blueprint, "client_module", "presence.mjs", any_origin=True)
    add_asset(blueprint, "client_types", "presence.d.ts", any_origin=True, versioned=False)
    add_asset(blueprint, "client_module_types", "presence.d.mts", any_origin=True, versioned=False)
