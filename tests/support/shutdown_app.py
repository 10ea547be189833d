"""An app whose handlers write their events into a file, which outlives the worker."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from flask import Flask

from flask_presence import Presence


def create_app() -> Flask:
    app = Flask("presence-shutdown")
    app.config.from_prefixed_env()
    presence = Presence(app)
    app.add_url_rule("/ready", view_func=lambda: "yes")

    @presence.on("channel.left")
    @presence.on("client.disconnected")
    def write(event: Any) -> None:
        time.sleep(0.05)
        with Path(app.config["HEARD"]).open("a") as file:
            file.write(json.dumps([event.name, event.reason]) + "\n")

    return app
