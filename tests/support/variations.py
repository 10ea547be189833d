"""Small apps, each with something that may conflict with the extension: `VARIATION` chooses one."""

from __future__ import annotations

import datetime as dt
import hashlib
import multiprocessing
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from typing import Any

from asgiref.sync import async_to_sync
from flask import Flask, Response, g, jsonify, make_response, request, session
from flask_jwt_extended import JWTManager, create_access_token, set_access_cookies

from flask_presence import ChannelName, Presence, User

from .server import running


def create_app() -> Flask:
    app = Flask("presence-variations")
    app.config.update(
        SECRET_KEY="a secret", JWT_SECRET_KEY="a secret of thirty-two characters", PRESENCE_STATS_PUBLIC=True
    )
    app.config.from_prefixed_env()
    app.add_url_rule("/ready", "ready", lambda: "yes")
    app.add_url_rule("/token", "token", lambda: jsonify(create_access_token(request.args["user"])))
    VARIATIONS[app.config["VARIATION"]](app)
    return app


def plain(app: Flask) -> None:
    Presence(app)


def with_tokens(app: Flask) -> None:
    JWTManager(app)
    Presence(app)


def wrapped(app: Flask) -> None:
    """Sentry, WSGI middleware that is a generator, and functions that read the body of every request, as for a log or a
    signature, and make every response anew."""
    import sentry_sdk

    def keep(event: Any, _: Any) -> None:
        print("SENTRY EVENT", event["exception"]["values"][-1]["type"], flush=True)

    sentry_sdk.init(dsn="http://key@127.0.0.1:9/1", before_send=keep)
    with_tokens(app)
    inner = app.wsgi_app

    def timed(environ: Any, start_response: Any) -> Iterable[bytes]:
        yield from inner(environ, start_response)

    app.wsgi_app = timed  # type: ignore[method-assign]

    @app.before_request
    def read() -> None:
        assert request.get_data() == b""
        hashlib.sha256(request.stream.read()).digest()

    @app.after_request
    def rewrap(response: Response) -> Response:
        return make_response(response.get_data(), response.status_code)


def guarded_pages(app: Flask) -> None:
    """Pages for those who had a key, until it is withdrawn, as a `before_request` function finds out."""
    presence = Presence(app)
    keys = {"open"}
    app.before_request(lambda: setattr(g, "may_see", request.args.get("key") in keys))
    presence.stats_guard(lambda: g.may_see)

    @app.get("/close")
    def close() -> str:
        keys.clear()
        return "closed"


def login_in_g(app: Flask) -> None:
    """The login of Flask's own tutorial."""
    presence = Presence(app)

    @app.before_request
    def load() -> None:
        g.user = session.get("user")

    @presence.user_loader
    def find() -> User | None:
        return User(g.user) if g.user else None


def keys(app: Flask) -> None:
    """A login by a header or by the session."""
    presence = Presence(app)

    @app.get("/login")
    def login() -> str:
        session["user"] = "ann"
        return "logged in"

    @presence.user_loader
    def find() -> User | None:
        user = request.headers.get("X-Api-Key") or session.get("user")
        return User(user) if user else None


def uuids(app: Flask) -> None:
    presence = Presence(app)

    @presence.user_loader
    def find() -> User:
        return User(uuid.UUID(int=5))


def leeway(app: Flask) -> None:
    app.config["JWT_DECODE_LEEWAY"] = 60
    with_tokens(app)

    @app.get("/token/<int:ago>")
    def ended_token(ago: int) -> Response:
        return jsonify(create_access_token("ann", expires_delta=dt.timedelta(seconds=-ago)))


def cookies(app: Flask) -> None:
    """A login by a cookie that other requests of the page renew."""
    app.config.update(JWT_TOKEN_LOCATION=["cookies"], JWT_ACCESS_TOKEN_EXPIRES=dt.timedelta(seconds=3))
    with_tokens(app)

    def with_login(response: Response) -> Response:
        set_access_cookies(response, create_access_token("ann"))
        return response

    @app.get("/page")
    def page() -> Response:
        return with_login(make_response("<!doctype html><script src=/presence/presence.js></script>"))

    @app.get("/renew")
    def renew() -> Response:
        return with_login(jsonify("renewed"))


def async_guard(app: Flask) -> None:
    JWTManager(app)
    presence = Presence(app)

    async def may_join(user: User, channel: ChannelName) -> bool:
        return user.id in channel.topic

    presence.guard("*")(async_to_sync(may_join))


def slow_guards(app: Flask) -> None:
    JWTManager(app)
    presence = Presence(app)

    @presence.guard("database-*")
    def ask(_user: User) -> bool:
        """Wait in C, for the time of a recursive query."""
        query = "with recursive n(i) as (select 1 union all select i + 1 from n where i < 3000000) select max(i) from n"
        return bool(sqlite3.connect(":memory:").execute(query).fetchone())

    @presence.guard("patient-*")
    def wait(_user: User) -> bool:
        time.sleep(0.6)
        return True


def children(app: Flask) -> None:
    """Publishes in a child process, as a task that a view starts."""
    presence = Presence(app)

    def publish() -> None:
        with app.app_context():
            presence.publish("news", "from-a-child", None)

    @app.get("/publish")
    def in_child() -> Response:
        child = multiprocessing.get_context("fork").Process(target=publish)
        child.start()
        child.join(20)
        ended = child.exitcode is not None
        child.kill()
        return jsonify(ended)


def observed_handshakes(app: Flask) -> None:
    """Prints which threads flask-sock starts, and which headers there are after a handshake."""
    with_tokens(app)

    class Thread(threading.Thread):
        def start(self) -> None:
            print("FLASK-SOCK STARTS A THREAD", flush=True)
            super().start()

    app.config["SOCK_SERVER_OPTIONS"] = {"thread_class": Thread}

    @app.after_request
    def show(response: Response) -> Response:
        if response.status_code == 101:
            print("OFFERED:", request.headers.get("Sec-WebSocket-Protocol"), request.user_agent.string, flush=True)
        return response


VARIATIONS: dict[str, Callable[[Flask], None]] = {
    function.__name__: function
    for function in (
        *(plain, with_tokens, wrapped, login_in_g, keys, uuids, leeway, cookies, async_guard),
        *(slow_guards, children, guarded_pages, observed_handshakes),
    )
}


def variation(name: str, kind: str | None = None, **options: Any) -> Any:
    """A server for a `with` block that serves one of these apps."""
    return running(app="tests.support.variations:create_app()", kind=kind, VARIATION=name, **options)
