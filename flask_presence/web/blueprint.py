"""The routes under `PRESENCE_URL_PREFIX` (the WebSocket, the browser client, the pages), and the commands.

Rule: this module only routes requests. Other modules answer them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from flask import Blueprint, Flask

from ..app.service import Service
from ..cli.commands import add_commands
from ..domain.errors import ConfigurationError
from ..settings import Settings
from ..stats.payloads import ServiceInfo
from .access import StatsGuard
from .assets import add_asset
from .npm_package import package_files
from .pages import add_pages
from .pusher.blueprint import PUSHER_NAME, SIGNER_NAME, pusher_blueprint, signer_blueprint
from .routing import HostBlueprint, add_websocket, handle_host_variables
from .upgrade import Upgrade

NAME: Final = "presence"


def check_routing(app: Flask, settings: Settings) -> None:
    """Raise `ConfigurationError` if the routes cannot be registered, or if no request can match them."""
    for name in (NAME, PUSHER_NAME, SIGNER_NAME) if settings.pusher_key is not None else (NAME,):
        if name in app.blueprints:
            raise ConfigurationError(
                f"the app already has a blueprint called {name!r}, and flask_presence uses that name for its own: "
                f"register yours with another name, as in app.register_blueprint({name}, name='rooms')"
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
    blueprint = HostBlueprint(
        NAME, __name__, template_folder="templates", static_folder=None, subdomain=settings.subdomain
    )
    blueprint.host = settings.host
    handle_host_variables(blueprint, app)
    add_websocket(blueprint, service, "/ws", partial(Upgrade, service))
    _add_client(blueprint)
    service_info = ServiceInfo.from_settings(settings)
    add_pages(blueprint, app, service, service_info, stats_guard)
    add_commands(blueprint, service, service_info, package_files)
    try:
        app.register_blueprint(blueprint, url_prefix=settings.url_prefix)
        if settings.pusher_key is not None:
            app.register_blueprint(pusher_blueprint(app, service), url_prefix=settings.pusher_path or None)
            app.register_blueprint(signer_blueprint(app, service), url_prefix=settings.url_prefix)
    except (ValueError, LookupError, SyntaxError) as problem:  # Werkzeug could not compile a rule
        raise ConfigurationError(
            f"PRESENCE_URL_PREFIX, PRESENCE_SUBDOMAIN and PRESENCE_HOST do not make valid routes: {problem}"
        ) from problem


def _add_client(blueprint: Blueprint) -> None:
    add_asset(blueprint, "client", "presence.js", any_origin=True)
    add_asset(blueprint, "client_module", "presence.mjs", any_origin=True)
    add_asset(blueprint, "client_types", "presence.d.ts", any_origin=True, versioned=False)
    add_asset(blueprint, "client_module_types", "presence.d.mts", any_origin=True, versioned=False)
