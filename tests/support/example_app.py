"""The example, with a route that makes a room forget its messages, for tests that share a server."""

from __future__ import annotations

from flask import Flask

from example import app as example


def create_app() -> Flask:
    app = example.create_app()

    @app.get("/forget/<room>")
    def forget(room: str) -> dict[str, int]:
        return {"forgotten": example.presence.clear_channel_history(f"presence-room-{room}")}

    return app
