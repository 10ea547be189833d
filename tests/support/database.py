"""An app whose guard asks a real database through a pool of one connection."""

from __future__ import annotations

import tempfile
from typing import Any

from flask import Flask, Response, jsonify
from flask_jwt_extended import JWTManager
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import text

from flask_presence import Presence, User

from .apps import add_routes

counts = {"guards": 0, "teardowns": 0}


def create_app() -> Flask:
    app = Flask("presence-database")
    app.config.update(
        JWT_SECRET_KEY="a secret of thirty-two characters",
        SQLALCHEMY_DATABASE_URI=f"sqlite:///{tempfile.mkdtemp()}/presence.db",
        SQLALCHEMY_ENGINE_OPTIONS={
            "pool_size": 1,
            "max_overflow": 0,
            "pool_timeout": 10,
        },
    )
    JWTManager(app)
    database = SQLAlchemy(app)
    presence = Presence(app)
    add_routes(app, presence)

    @presence.guard("db-*")
    def known(user: User) -> bool:
        counts["guards"] += 1
        return bool(database.session.execute(text("select :id"), {"id": user.id}).scalar() == user.id)

    @app.teardown_appcontext
    def count(_: BaseException | None) -> None:
        counts["teardowns"] += 1

    @app.get("/pool")
    def pool() -> Response:
        checked_out: Any = database.engine.pool.checkedout()  # type: ignore[attr-defined]
        return jsonify(checked_out=checked_out, teardowns_missing=max(0, counts["guards"] - counts["teardowns"]))

    return app
