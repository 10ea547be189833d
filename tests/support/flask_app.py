"""Apps in this process, without a server."""

from __future__ import annotations

from typing import Any

from flask import Flask
from flask_jwt_extended import JWTManager

from flask_presence import Presence


def make_app(**config: Any) -> Flask:
    app = Flask("presence-tests")
    app.config.update(JWT_SECRET_KEY="a secret of thirty-two characters", **config)
    return app


def make_presence_app(**config: Any) -> tuple[Presence, Flask]:
    """An app that takes tokens, and its extension."""
    app = make_app(**config)
    JWTManager(app)
    return Presence(app), app
