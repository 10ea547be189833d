"""The app of the benchmarks: channels with tokens, a guard and a roster, as an application has them.

    gunicorn -k gevent -b 127.0.0.1:5000 "benchmarks.server:create_app()"

Only its limits are higher, because one client of a benchmark sends more than a person does.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from flask import Flask, Response, request
from flask_jwt_extended import JWTManager, create_access_token

from flask_presence import ChannelName, Presence, User

from . import SECRET

MAX_TOKENS: Final = 20000


def create_app() -> Flask:
    """Tokens are at `/tokens?count=100`; `FLASK_MESSAGE_GUARDS` adds that many message guards of other channels."""
    app = Flask("benchmarks")
    app.config.update(
        JWT_SECRET_KEY=SECRET,
        JWT_ACCESS_TOKEN_EXPIRES=timedelta(hours=12),
        PRESENCE_RATE_LIMIT=None,
        PRESENCE_MAX_CONNECTIONS=20000,
    )
    app.config.from_prefixed_env()
    JWTManager(app)
    presence = Presence(app)

    @presence.guard("room*")
    def is_member(user: User, channel: ChannelName) -> bool:
        return channel.topic in user.claims.get("rooms", []) or bool(user.claims.get("everywhere"))

    for number in range(app.config.get("MESSAGE_GUARDS", 0)):
        presence.message_guard(f"guarded-{number}-*")(may_send)

    @app.get("/ready")
    def ready() -> str:
        return "yes"

    @app.get("/tokens")
    def tokens() -> Response:
        count = min(int(request.args["count"]), MAX_TOKENS)
        lines = [create_access_token(f"user-{number}", additional_claims=_claims(number)) for number in range(count)]
        return Response("\n".join(lines), mimetype="text/plain")

    return app


def may_send(user: User | None) -> bool:
    """A message guard for channels that no benchmark uses."""
    return user is not None


def _claims(number: int) -> dict[str, object]:
    return {"name": f"User {number}", "everywhere": True}
