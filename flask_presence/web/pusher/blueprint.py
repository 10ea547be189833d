"""The routes of the Pusher dialect: the socket and the HTTP API, which are outside `PRESENCE_URL_PREFIX`, and the app's
own signer, which is under it.

Rule: this module only routes requests. Other modules answer them.
"""

from __future__ import annotations

from functools import partial
from typing import Final

from flask import Flask

from ...app.service import Service
from ..routing import HostBlueprint, add_websocket, handle_host_variables
from .api import add_api
from .auth import add_signer
from .upgrade import PusherUpgrade

PUSHER_NAME: Final = "presence_pusher"
SIGNER_NAME: Final = "presence_signer"


def pusher_blueprint(app: Flask, service: Service) -> HostBlueprint:
    """The blueprint of the socket and the HTTP API."""
    blueprint = _blueprint(PUSHER_NAME, app, service)
    add_websocket(blueprint, service, "/app/<pusher_key>", partial(PusherUpgrade, service))
    add_api(blueprint, service)
    return blueprint


def signer_blueprint(app: Flask, service: Service) -> HostBlueprint:
    """The blueprint of the app's own signer."""
    blueprint = _blueprint(SIGNER_NAME, app, service)
    add_signer(blueprint, service)
    return blueprint


def _blueprint(name: str, app: Flask, service: Service) -> HostBlueprint:
    settings = service.settings
    blueprint = HostBlueprint(name, __name__, static_folder=None, subdomain=settings.subdomain)
    blueprint.host = settings.host
    handle_host_variables(blueprint, app)
    return blueprint
