"""An app with nothing but presence, whose pages are open to who knows the word."""

from __future__ import annotations

from flask import Flask, request

from flask_presence import Presence


def create_app() -> Flask:
    app = Flask("presence-plain")
    app.config.from_prefixed_env()
    presence = Presence(app)
    presence.stats_guard(lambda: request.headers.get("X-Key") == "let me in")
    app.add_url_rule("/ready", view_func=lambda: "yes")
    return app
