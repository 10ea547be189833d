"""Our server, full stack: tokens, a guard and the roster in place. `gunicorn -k gevent benchmarks.server:app`."""

from __future__ import annotations

from flask import Flask, request
from flask_jwt_extended import JWTManager, create_access_token

from flask_presence import Presence, User

app = Flask(__name__)
app.config.update(
    JWT_SECRET_KEY="a secret for benchmarks, thirty-two or more",
    JWT_ACCESS_TOKEN_EXPIRES=False,
    PRESENCE_RATE_LIMIT=None,
    PRESENCE_MAX_CONNECTIONS=30000,
)
JWTManager(app)
presence = Presence(app)


@presence.guard("room-*")
def may_join(user: User) -> bool:
    return user.id.startswith("user-")


@app.get("/tokens")
def tokens() -> str:
    """As many tokens as `?count=` says, one a line."""
    count = min(20000, int(request.args["count"]))
    return "\n".join(create_access_token(f"user-{number}") for number in range(count))
