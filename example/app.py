"""Rooms with a chat, a list of who is online, typing indicators and live cursors: a complete app to read and copy.

    gunicorn -k gevent "example.app:create_app()"
    flask --app example.app run

Open the URL that the server prints in two windows, and log in as two users. Any setting can come from the
environment, with the prefix `FLASK_`: `FLASK_JWT_SECRET_KEY=...`, `FLASK_PRESENCE_STATS_PUBLIC=false`.
`/pusher` is a page for the same rooms that uses pusher-js, and `announce.py` a script that uses Pusher's SDK.
`test_app.py` has the tests.
"""

from __future__ import annotations

import secrets
from typing import Any

from flask import Flask, Response, abort, jsonify, render_template, request
from flask_jwt_extended import JWTManager, create_access_token, get_jwt, get_jwt_identity, verify_jwt_in_request

from flask_presence import MemberJoined, Presence, User, allow, deny

USERS: dict[str, dict[str, Any]] = {
    "ann": {"name": "Ann Archer", "staff": True},
    "bob": {"name": "Bob Berger"},
    "carol": {"name": "Carol Chen"},
    "dan": {"name": "Dan Duarte", "staff": True},
}
PUSHER_SECRET = "only for development, because everybody can read it"  # noqa: S105
ROOMS = ("general", "random", "announcements", "staff")
LOGGED_OUT: set[str] = set()
"""The ids of revoked tokens, in the memory of this process. A real app shares them between its workers."""

jwt = JWTManager()
presence = Presence()


def create_app() -> Flask:
    """The app, configured from the environment."""
    app = Flask(__name__)
    app.config.from_mapping(
        # This is enough for a demo with one worker: the page logs in again at every connection, so a restart may
        # change the key. Several workers must share one, from FLASK_JWT_SECRET_KEY.
        JWT_SECRET_KEY=secrets.token_hex(),
        # Everybody may see the statistics, to which the page links. By default only debug mode shows them.
        PRESENCE_STATS_PUBLIC=True,
        # Each room keeps its last fifty messages for a day. What is worth nothing a moment later, such as cursors and
        # who is typing, would push them out. So the page sends it to a second channel: `private-room-general` beside
        # `presence-room-general`. The guards' patterns match both.
        PRESENCE_HISTORY={"presence-room-*": {"messages": 50, "seconds": 86400}},
        # Clients of Pusher may come too. Anyone who knows the secret can sign for any user.
        PRESENCE_PUSHER_KEY="example",
        PRESENCE_PUSHER_SECRET=PUSHER_SECRET,
    )
    app.config.from_prefixed_env()
    jwt.init_app(app)
    presence.init_app(app)

    @app.get("/")
    def index() -> str:
        return render_template("room.html", users=USERS, rooms=ROOMS)

    @app.get("/pusher")
    def pusher() -> str:
        if app.config["PRESENCE_PUSHER_KEY"] is None:
            abort(404)
        return render_template("pusher.html", users=USERS, rooms=ROOMS, key=app.config["PRESENCE_PUSHER_KEY"])

    @app.post("/login")
    def login() -> Response:
        user_id = request.form.get("user", "")
        if user_id not in USERS:
            abort(401)
        # This is where your app checks a password.
        return jsonify(access_token=create_access_token(user_id, additional_claims=USERS[user_id]))

    @app.post("/logout")
    def logout() -> Response:
        verify_jwt_in_request()
        LOGGED_OUT.add(get_jwt()["jti"])
        presence.recheck(user_id=get_jwt_identity())  # closes the connections with this token at once
        return jsonify(logged_out=True)

    return app


@jwt.token_in_blocklist_loader
def is_logged_out(_header: dict[str, Any], token: dict[str, Any]) -> bool:
    return token["jti"] in LOGGED_OUT


@presence.guard("room-<room>")
def may_enter(user: User, room: str) -> dict[str, Any]:
    """Let every user in, but only staff into the staff room, and give staff a badge.

    The badge is owned info: as it is None for other users, they cannot give themselves one.
    """
    staff = user.claims.get("staff")
    if room not in ROOMS:
        return deny("There is no such room.")
    if room == "staff" and not staff:
        return deny("This room is for staff only.")
    return allow({"badge": "staff" if staff else None})


@presence.message_guard("room-announcements")
def may_announce(user: User | None) -> bool | dict[str, Any]:
    """Everybody may read announcements, and staff may write them."""
    return True if user is not None and user.claims.get("staff") else deny("Only staff write here.")


@presence.on("member.joined")
def greet(event: MemberJoined) -> None:
    """Greet each new member, so that everybody in the room sees it. A broadcast is not kept."""
    greeting = {"type": "greeting", "channel": event.channel, "text": f"Welcome, {event.member.name}!"}
    presence.broadcast_to_channel(event.channel, greeting)
