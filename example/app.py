"""Rooms with a chat, a list of who is online, typing indicators and live cursors: a whole app, to read and to copy.

    gunicorn -k gevent "example.app:create_app()"
    flask --app example.app run

Open the address that the server prints in two windows and log in as two people. Any setting can come from
the environment, with `FLASK_` in front: `FLASK_JWT_SECRET_KEY=...`, `FLASK_PRESENCE_STATS_PUBLIC=false`.
"""

from __future__ import annotations

import secrets
from typing import Any

from flask import Flask, Response, abort, jsonify, render_template, request
from flask_jwt_extended import JWTManager, create_access_token

from flask_presence import ChannelName, Presence, User, deny

USERS: dict[str, dict[str, Any]] = {
    "ann": {"name": "Ann Archer", "staff": True},
    "bob": {"name": "Bob Berger"},
    "carol": {"name": "Carol Chen"},
    "dan": {"name": "Dan Duarte", "staff": True},
}
ROOMS = ("general", "random", "staff")

jwt = JWTManager()
presence = Presence()


def create_app() -> Flask:
    """The app, configured from the environment."""
    app = Flask(__name__)
    app.config.from_mapping(
        # Good enough for a demo with one worker: the page logs in anew each time it connects, so nothing is
        # lost when a restart makes another key. Several workers must share one, from FLASK_JWT_SECRET_KEY.
        JWT_SECRET_KEY=secrets.token_hex(),
        # Everybody may see the page that the room links to. The default shows it in debug mode only.
        PRESENCE_STATS_PUBLIC=True,
    )
    app.config.from_prefixed_env()
    jwt.init_app(app)
    presence.init_app(app)

    @app.get("/")
    def index() -> str:
        return render_template("room.html", users=USERS, rooms=ROOMS)

    @app.post("/login")
    def login() -> Response:
        user_id = request.form.get("user", "")
        if user_id not in USERS:
            abort(401)
        # This is where your app checks a password.
        return jsonify(access_token=create_access_token(user_id, additional_claims=USERS[user_id]))

    return app


@presence.guard("room-*")
def may_enter(user: User, channel: ChannelName) -> bool | dict[str, Any]:
    """Everybody who is logged in may enter, but the staff room is for staff."""
    room = channel.topic.removeprefix("room-")
    if room not in ROOMS:
        return deny("There is no such room.")
    if room == "staff" and not user.claims.get("staff"):
        return deny("This room is for staff only.")
    return True


@presence.on("member.joined")
def greet(event: Any) -> None:
    """Say hello to whoever comes, so that all in the room see it."""
    presence.publish(event.channel, "greeting", {"text": f"Welcome, {event.member.name}!"})
