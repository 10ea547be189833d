"""An app with its own flask-sock route and a count of the greenlets."""

from __future__ import annotations

import gc

import greenlet
from flask import Flask, Response, jsonify
from flask_sock import Sock

from flask_presence import Presence


def create_app() -> Flask:
    app = Flask("presence-own-sock")
    app.config.update(SOCK_SERVER_OPTIONS={"ping_interval": 5, "max_message_size": 1000}, PRESENCE_STATS_PUBLIC=True)
    app.config.from_prefixed_env()
    sock = Sock(app)
    Presence(app)

    @sock.route("/echo")  # type: ignore[untyped-decorator]
    def echo(ws) -> None:  # type: ignore[no-untyped-def]
        while True:
            ws.send(f"own: {ws.receive()}")

    @app.get("/ready")
    def ready() -> str:
        return "yes"

    @app.get("/greenlets")
    def greenlets() -> Response:
        gc.collect()
        return jsonify(sum(isinstance(thing, greenlet.greenlet) and not thing.dead for thing in gc.get_objects()))

    return app
