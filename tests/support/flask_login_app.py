"""An app that knows its users by Flask-Login's session."""

from __future__ import annotations

from flask import Flask, Response, jsonify, request
from flask_login import LoginManager, UserMixin, current_user, login_user

from flask_presence import Presence, User

counts = {"loads": 0, "teardowns": 0}


class Account(UserMixin):  # type: ignore[misc]
    def __init__(self, name: str) -> None:
        self.id = name


def create_app() -> Flask:
    app = Flask("presence-login")
    app.config.update(SECRET_KEY="a secret", SESSION_COOKIE_SECURE=False)
    app.config.from_prefixed_env()
    logins = LoginManager(app)
    logins.user_loader(Account)
    presence = Presence(app)

    @presence.user_loader
    def load() -> User | None:
        counts["loads"] += 1
        if request.args.get("break"):
            raise RuntimeError("the loader failed")
        if request.args.get("wrong"):
            return "ann"  # type: ignore[return-value]
        if not current_user.is_authenticated:
            return None
        return User(current_user.id, name=current_user.id.title())

    @app.get("/ready")
    def ready() -> str:
        return "yes"

    @app.get("/login/<name>")
    def login(name: str) -> str:
        login_user(Account(name))
        return "welcome"

    @app.teardown_request
    def count(_: BaseException | None) -> None:
        if request.path == "/presence/ws":
            counts["teardowns"] += 1

    @app.get("/teardowns")
    def teardowns() -> Response:
        return jsonify(missing=max(0, counts["loads"] - counts["teardowns"]))

    return app
