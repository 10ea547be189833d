"""An app whose login is the session of Flask-Login."""

from __future__ import annotations

from typing import Any

from flask import Flask, Response, jsonify, request
from flask_login import LoginManager, UserMixin, current_user, login_user

from flask_presence import ChannelName, Presence, User

counts = {"loads": 0, "teardowns": 0, "failures": 0}
gone: set[str] = set()
renamed: dict[str, str] = {}
seen: list[list[str]] = []


class Account(UserMixin):  # type: ignore[misc]
    def __init__(self, name: str) -> None:
        self.id = name


def create_app() -> Flask:
    app = Flask("presence-login")
    app.config.update(SECRET_KEY="a secret", SESSION_COOKIE_SECURE=False)
    app.config.from_prefixed_env()
    logins = LoginManager(app)
    logins.user_loader(lambda name: None if name in gone else Account(renamed.get(str(name), str(name))))
    presence = Presence(app)

    @presence.user_loader
    def load() -> User | None:
        counts["loads"] += 1
        if counts["failures"]:
            counts["failures"] -= 1
            raise RuntimeError("the database is unavailable")
        if request.args.get("break"):
            raise RuntimeError("the loader failed")
        if request.args.get("wrong"):
            return "ann"  # type: ignore[return-value]
        if not current_user.is_authenticated:
            return None
        return User(current_user.id, name=current_user.id.title())

    @presence.guard("of-*")
    def may_join(user: User, channel: ChannelName) -> bool:
        return bool(current_user.id == user.id == channel.topic.removeprefix("of-"))

    @presence.message_guard("by-*")
    def may_send(user: User | None, channel: ChannelName) -> bool:
        return bool(current_user.is_authenticated and user and request.headers["User-Agent"] == "a browser")

    @presence.on("channel.joined")
    def remember(event: Any) -> None:
        seen.append([event.client_id, current_user.get_id() or "nobody", request.args.get("page", "")])

    app.add_url_rule("/seen", "seen", lambda: jsonify(seen))
    app.add_url_rule("/rename/<name>/<other>", "rename", lambda name, other: jsonify(renamed.update({name: other})))
    app.add_url_rule("/fail/<int:times>", "fail", lambda times: jsonify(counts.update(failures=times)))
    app.add_url_rule("/failures", "failures", lambda: jsonify(counts["failures"]))
    app.add_url_rule("/recheck/<name>", "recheck", lambda name: jsonify(presence.recheck(user_id=name)))

    @app.get("/ready")
    def ready() -> str:
        return "yes"

    @app.get("/gone/<name>")
    def forget(name: str) -> str:
        gone.add(name)
        return "gone"

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
