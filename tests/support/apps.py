"""The app that most tests talk to."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import defaultdict
from datetime import date
from typing import Any

import gevent
from flask import Flask, Response, abort, jsonify, request, url_for
from flask_jwt_extended import (
    JWTManager,
    create_access_token,
    create_refresh_token,
    current_user,
    get_jwt,
    get_jwt_identity,
)

from flask_presence import BackendUnavailable, ChannelName, Presence, User, allow, deny
from flask_presence.domain.events import EVENT_NAMES

REVOKED: set[str] = set()
CLOSED: set[str] = set()
HEARD: list[dict[str, Any]] = []
OWNED: dict[str, Any] = {}
GATES: defaultdict[str, threading.Event] = defaultdict(threading.Event)


def create_app() -> Flask:
    """An app with tokens for anybody at `/token`, guards of every kind, and the events of its handlers at `/heard`."""
    logging.basicConfig(level=logging.DEBUG)
    logging.getLogger("redis").setLevel(logging.INFO)
    app = Flask("presence-tests")
    app.config.update(JWT_SECRET_KEY="a secret of thirty-two characters", PRESENCE_STATS_PUBLIC=True)
    app.config.from_prefixed_env()
    jwt = JWTManager(app)
    presence = Presence(app)

    @jwt.token_in_blocklist_loader
    def is_revoked(_header: dict[str, Any], payload: dict[str, Any]) -> bool:
        if payload.get("fragile") and payload["sub"] in CLOSED:
            raise RuntimeError("the blocklist is unavailable")
        return payload["sub"] in REVOKED

    @jwt.user_lookup_loader
    def find_user(_header: dict[str, Any], payload: dict[str, Any]) -> dict[str, str]:
        return {"found": payload["sub"]}

    add_guards(presence)
    add_handlers(presence)
    add_routes(app, presence)
    return app


def add_guards(presence: Presence) -> None:
    @presence.guard("team-*")
    def team(user: User, channel: ChannelName) -> bool:
        return channel.topic.removeprefix("team-") in user.claims.get("teams", [])

    @presence.guard("denied-*")
    def denied(_user: User) -> bool:
        return False

    @presence.guard("reason-*")
    def reason() -> dict[str, Any]:
        return deny("Not on Mondays")

    @presence.guard("truthy-*")
    def truthy(_user: User) -> Any:
        return "yes"

    @presence.guard("none-*")
    def nothing(_user: User) -> None:
        return None

    @presence.guard("broken-*")
    def broken(_user: User) -> bool:
        raise RuntimeError("secret of the guard")

    @presence.guard("coroutine-*")
    def coroutine(_user: User) -> Any:
        async def answer() -> bool:
            return True

        return answer()

    @presence.guard("slow-*")
    def slow(_user: User, _channel: ChannelName, user_info: dict[str, Any]) -> bool:
        time.sleep(user_info.get("seconds", 1))
        return True

    @presence.guard("gated-*")
    def gated(_user: User, channel: ChannelName) -> bool:
        return GATES[channel].wait(60)

    @presence.guard("context-*")
    def context(user: User, channel: ChannelName, user_info: dict[str, Any]) -> bool:
        seen = (get_jwt_identity(), get_jwt()["sub"], current_user["found"], user.id, user_info.get("name"))
        user_info["name"] = "changed by the guard"
        return seen == (user.id, user.id, user.id, user.id, "Ann") and channel.type == "presence"

    @presence.guard("timeout-*")
    def timeout(_user: User) -> bool:
        with gevent.Timeout(0.05):
            gevent.sleep(5)
        return True

    @presence.guard("exit-*")
    def leave_the_process(_user: User) -> bool:
        raise SystemExit(3)

    @presence.guard("surrogate-*")
    def surrogate(_user: User) -> dict[str, Any]:
        return deny("\ud800")

    @presence.guard("owned-*")
    def owned(_user: User, channel: ChannelName) -> Any:
        """Return what was posted to `/own/CHANNEL` last."""
        return OWNED.get(channel, allow())

    @presence.guard("number-<int:number>")
    def numbered(_user: User, number: int) -> Any:
        return allow({"seen": number, "when": date(2026, 1, number)}) if number < 30 else abort(403, "Too large")

    @presence.guard("abort-*")
    def aborting(_user: User, channel: ChannelName) -> Any:
        code = int(channel.topic.rpartition("-")[2])
        abort(code)

    @presence.message_guard("news-*")
    def may_publish(user: User | None, channel: ChannelName, event: str, data: Any) -> Any:
        if event == "wait":
            return GATES[channel].wait(60)
        if event == "break":
            raise RuntimeError("secret of the guard")
        if event == "text":
            return "yes"
        if user is None:
            return deny("Log in to write")
        return user.id.startswith("staff") and data != "not this"

    @presence.guard("closing-*")
    def closing(_user: User, channel: ChannelName) -> Any:
        return deny("It is closed") if channel in CLOSED else True

    @presence.guard("waiting-*")
    def waiting(_user: User, channel: ChannelName) -> Any:
        """Decide at once, and answer after a request to `/open/CHANNEL`."""
        verdict = channel not in CLOSED
        GATES[channel].wait(60)
        return verdict


def add_handlers(presence: Presence) -> None:
    def remember(event: Any) -> None:
        shape: dict[str, Any] = {
            key: str(value) for key, value in vars(event).items() if key not in ("user", "member", "raw")
        }
        shape["user"] = event.user.id if event.user else None
        shape["teams"] = event.user.claims.get("teams") if event.user else None
        shape["jwt"] = get_jwt().get("sub")
        if hasattr(event, "raw"):
            shape["data"] = event.data
        HEARD.append({"name": event.name, **shape})

    on: Any = presence.on
    for name in EVENT_NAMES:
        on(name)(remember)

    @presence.on("message")
    def fail(event: Any) -> None:
        if event.event == "break":
            raise RuntimeError("a handler failed")


def add_routes(app: Flask, presence: Presence) -> None:
    @app.get("/ready")
    def ready() -> str:
        return "yes"

    @app.get("/page")
    def page() -> str:
        return f'<!doctype html><title>Page</title><script src="{url_for("presence.client")}"></script>'

    @app.get("/token")
    def token() -> Response:
        claims = json.loads(request.args.get("claims", "{}"))
        options: dict[str, Any] = {key: claims.pop(key) for key in ("expires_delta",) if key in claims}
        make = create_refresh_token if claims.pop("refresh", False) else create_access_token
        return jsonify(make(request.args["user"], additional_claims=claims, **options))

    @app.get("/revoke/<user>")
    def revoke(user: str) -> str:
        REVOKED.add(user)
        return "revoked"

    @app.get("/close/<channel>")
    def close(channel: str) -> str:
        CLOSED.add(channel)
        return "closed"

    @app.post("/own/<channel>")
    def own(channel: str) -> str:
        OWNED[channel] = request.json
        return "owned"

    @app.get("/open/<channel>")
    def open_gate(channel: str) -> str:
        GATES[channel].set()
        return "opened"

    @app.get("/heard/<client_id>")
    def heard(client_id: str) -> Response:
        return jsonify([event for event in HEARD if event["client_id"] == client_id])

    @app.post("/call/<method>")
    @app.get("/call/<method>")
    def call(method: str) -> Any:
        arguments = json.loads(request.args.get("arguments", "{}"))
        try:
            answer = in_place(app, request.args.get("place", "view"), lambda: getattr(presence, method)(**arguments))
        except (TypeError, ValueError, BackendUnavailable) as problem:
            return jsonify({"raised": type(problem).__name__, "text": str(problem)})
        return jsonify(shape_of(answer))


def in_place(app: Flask, place: str, function: Any) -> Any:
    """Call `function` in the view, in a greenlet, or in a real thread."""
    if place == "view":
        return function()

    def in_context() -> Any:
        with app.app_context():
            return function()

    if place == "greenlet":
        return gevent.spawn(in_context).get()
    assert place == "thread"
    return gevent.get_hub().threadpool.apply(in_context)


def shape_of(answer: Any) -> Any:
    if isinstance(answer, list):
        return [shape_of(item) for item in answer]
    return answer.to_dict() if hasattr(answer, "to_dict") else answer
