"""The routes of the Pusher dialect that are outside `PRESENCE_URL_PREFIX`: the socket and the HTTP API.

Rule: this module only routes requests. Other modules answer them.
"""

from __future__ import annotations

from functools import partial
from typing import Final

from flask import Flask

from ...app.service import Service
from ..routing import HostBlueprint, add_websocket, handle_host_variables
from .upgrade import PusherUpgrade

PUSHER_NAME: Final = "presence_pusher"


def pusher_blueprint(app: Flask, service: Service) -> HostBlueprint:
    """The blueprint of the dialect."""
    settings = service.settings
    blueprint = HostBlueprint(PUSHER_NAME, __name__, static_folder=None, subdomain=settings.subdomain)
    blueprint.host = settings.host
    handle_host_variables(blueprint, app)
    add_websocket(blueprint, service, "/app/<pusher_key>", partial(PusherUpgrade, service))
    return blueprint
