"""An app with webhooks, whose pauses and queues are as the config key `WEBHOOKS` says."""

from __future__ import annotations

import logging

from flask import Flask, Response, jsonify, request
from flask_jwt_extended import JWTManager, create_access_token

from flask_presence import Presence
from flask_presence.app import webhooks


def create_app() -> Flask:
    logging.basicConfig(level=logging.INFO)
    app = Flask("presence-webhooks")
    app.config.update(
        JWT_SECRET_KEY="a secret of thirty-two characters",
        PRESENCE_PUSHER_KEY="test-key",
        PRESENCE_PUSHER_SECRET="a secret of the tests",
    )
    app.config.from_prefixed_env()
    for name, value in app.config.get("WEBHOOKS", {}).items():
        setattr(webhooks, name, value)
    JWTManager(app)
    presence = Presence(app)
    presence.guard("*")(lambda: True)
    app.add_url_rule("/ready", "ready", lambda: "yes")
    app.add_url_rule("/online/<user>", "online", lambda user: jsonify(presence.is_online(user)))

    @app.get("/token")
    def token() -> Response:
        return jsonify(create_access_token(request.args["user"]))

    return app
