"""An app that says how much memory Python has allocated since the first request for it."""

from __future__ import annotations

import gc
import tracemalloc

from flask import Flask, Response, jsonify, request
from flask_jwt_extended import JWTManager, create_access_token

from flask_presence import Presence


def create_app() -> Flask:
    app = Flask("presence-memory")
    app.config.update(JWT_SECRET_KEY="a secret of thirty-two characters")
    app.config.from_prefixed_env()
    JWTManager(app)
    Presence(app).guard("*")(lambda: True)
    app.add_url_rule("/ready", view_func=lambda: "yes")

    @app.get("/token")
    def token() -> Response:
        user = request.args["user"]
        return jsonify(create_access_token(user, additional_claims={"name": f"User {user}"}))

    @app.get("/memory")
    def memory() -> Response:
        """In bytes."""
        if not tracemalloc.is_tracing():
            tracemalloc.start(1)
        gc.collect()
        return jsonify(tracemalloc.get_traced_memory()[0])

    return app
