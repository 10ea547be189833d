"""An app with nothing but the extension, whose pages are open to everybody who knows the password."""

from __future__ import annotations

from flask import Flask, abort, redirect, request
from werkzeug.datastructures import WWWAuthenticate

from flask_presence import Presence


def may_see() -> bool:
    """Whether a header, the query string, basic authentication or a cookie has the password. A wrong cookie leads to
    another page, as a login does."""
    password = request.authorization.password if request.authorization else None
    words = (
        request.headers.get("X-Key"),
        request.args.get("key"),
        password,
        request.cookies.get("key", "").replace("-", " "),
    )
    if "open sesame" in words:
        return True
    if "ask" in request.args:
        abort(401, www_authenticate=WWWAuthenticate("basic", {"realm": "operators"}))
    if "key" in request.cookies:
        abort(redirect("/ready"))
    return False


def create_app() -> Flask:
    app = Flask("presence-plain")
    app.config.from_prefixed_env()
    presence = Presence(app)
    presence.stats_guard(may_see)
    app.add_url_rule("/ready", view_func=lambda: "yes")
    return app
