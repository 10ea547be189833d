"""An app with nothing but presence."""

from __future__ import annotations

from flask import Flask

from flask_presence import Presence


def create_app() -> Flask:
    app = Flask("presence-plain")
    app.config.from_prefixed_env()
    Presence(app)
    app.add_url_rule("/ready", view_func=lambda: "yes")
    return app
