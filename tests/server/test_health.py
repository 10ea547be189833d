"""`/health` says how a client would fare that came now, and the refusals say the same."""

from __future__ import annotations

import json
import signal
from typing import Any

import pytest
import redis

from ..support.client import client
from ..support.proxy import running_proxy
from ..support.redis_server import RedisServer, running_redis
from ..support.server import Server, running, wait_until
from .test_authentication import UPGRADE, raw_upgrade, refusal

PLAIN: dict[str, Any] = {"app": "tests.support.variations:create_app()", "VARIATION": "with_tokens"}
SENTENCES = {
    "gunicorn-sync": "one request at a time",
    "gunicorn-one-thread": "one request at a time",
    "flask-run-without-threads": "one request at a time",
    "waitress": "does not give an app access to its sockets",
    "wsgiref": "does not give an app access to its sockets",
}


def health(server: Server) -> tuple[int, Any]:
    status, _, body = server.get("/presence/health")
    return status, json.loads(body)


@pytest.mark.parametrize("kind", SENTENCES)
def test_servers_that_cannot(kind: str) -> None:
    """A server that cannot carry a socket says so from the first, refuses with the same sentence, and serves on."""
    with running(kind=kind, **PLAIN) as server:
        status, body = health(server)
        assert (status, body["status"]) == (503, "refusing")
        assert SENTENCES[kind] in body["message"]
        assert "gunicorn -k gevent" in body["message"]
        assert raw_upgrade(server, UPGRADE) == (
            503,
            {"error": {"code": "SERVICE_UNAVAILABLE", "message": body["message"]}},
        )
        assert server.get("/ready")[0] == 200
        assert server.log().count(f"every WebSocket is refused: {body['message']}") == 1
        assert "Traceback" not in server.log()


@pytest.mark.parametrize("kind", ["waitress", "wsgiref"])
def test_refusals_arrive(kind: str) -> None:
    """Servers that keep `Connection` and `Upgrade` for themselves pass on every refusal all the same."""
    with running(kind=kind, **PLAIN) as server:
        assert raw_upgrade(server, UPGRADE, "/presence/ws?token=x")[0] == 401
        assert raw_upgrade(server, UPGRADE | {"Origin": "http://evil.example"})[0] == 403
        assert raw_upgrade(server, UPGRADE | {"Sec-WebSocket-Key": "short"})[0] == 400
        assert raw_upgrade(server, {})[0] == 426
        assert "Traceback" not in server.log()


def test_refusal_without_threads() -> None:
    """Werkzeug's server for one request at a time answers as HTTP/1.0, which no WebSocket client would read."""
    with running(kind="flask-run-without-threads", **PLAIN) as server:
        assert refusal(lambda: client(server).__enter__())[0] == 503


@pytest.mark.parametrize("backend", ["memory", "memory://", "MEMORY://"])
def test_several_workers_in_memory(backend: str) -> None:
    """However it is written."""
    with running(arguments=("-w", "2"), PRESENCE_BACKEND=backend, **PLAIN) as server:
        status, body = health(server)
        assert status == 503
        assert "PRESENCE_ISOLATED_WORKERS" in body["message"]
        assert refusal(lambda: client(server).__enter__()) == (503, body["message"])


def test_unpatched(redis_server: RedisServer) -> None:
    with running(kind="pywsgi-unpatched", PRESENCE_BACKEND=redis_server.url, **PLAIN) as server:
        status, body = health(server)
        assert status == 503
        assert "patch_all" in body["message"]


def test_full() -> None:
    """A server without a place says so, until somebody goes."""
    with running(PRESENCE_MAX_CONNECTIONS=1, **PLAIN) as server:
        assert health(server) == (200, {"status": "ok"})
        with client(server):
            status, body = health(server)
            assert (status, body["status"]) == (503, "full")
        wait_until(lambda: health(server)[0] == 200)


def test_threads_are_kept_for_others() -> None:
    """Where each connection holds a thread, one is left, and who comes too late hears what to do."""
    with running(kind="gunicorn-gthread", arguments=("--threads", "3"), **PLAIN) as server:
        with client(server) as ann, client(server):
            status, message = refusal(lambda: client(server).__enter__())
            assert status == 503
            assert "--threads" in message
            assert health(server)[1]["message"] == message
            assert ann.request("ping")["type"] == "pong"


def test_switched_off() -> None:
    """Channels that are switched off on purpose are no fault."""
    with running(PRESENCE_ENABLED=False, **PLAIN) as server:
        assert health(server) == (200, {"status": "disabled"})


REFUSING: dict[str, list[tuple[str, ...]]] = {
    "out of memory": [("CONFIG", "SET", "maxmemory", "1")],
    "a replica": [("REPLICAOF", "127.0.0.1", "1")],
    "no writing": [("ACL", "SETUSER", "default", "-set", "-hset", "-sadd", "-zadd")],
    "no publishing": [("ACL", "SETUSER", "default", "-publish")],
    "no subscribing": [("ACL", "SETUSER", "default", "-subscribe", "-psubscribe")],
    "other names": [("ACL", "SETUSER", "default", "resetkeys", "~other:*")],
    "a password": [("ACL", "SETUSER", "default", "resetpass", ">secret")],
}


@pytest.mark.parametrize("first", ["socket", "health"])
@pytest.mark.parametrize("why", REFUSING)
def test_redis_that_refuses(program: str, why: str, first: str) -> None:
    """It is never 200 while every join fails, whether or not there has been a socket, and no secret is told."""
    with running_redis(program) as store:
        with redis.Redis(port=store.port) as admin:
            for command in REFUSING[why]:
                admin.execute_command(*command)
        options = PLAIN | {"PRESENCE_BACKEND": store.url, "PRESENCE_LEASE": 2}
        with running(**options) as server:
            if first == "socket":
                with client(server, "ann") as ann:
                    assert ann.request("join", channel="presence-room")["code"] == "JOIN_FAILED"
                    wait_until(lambda: health(server)[0] == 503)
            status, body = health(server)
            assert status == 503
            assert body["message"]
            assert "127.0.0.1" not in body["message"]


def test_redis_away_and_back(program: str) -> None:
    """503 while it is away, for whatever reason, and 200 again."""
    with running_redis(program) as store, running_proxy(store.port) as proxy:
        options = PLAIN | {"PRESENCE_BACKEND": f"redis://127.0.0.1:{proxy.port}/0", "PRESENCE_LEASE": 2}
        with running(**options) as server, client(server, "ann") as ann:
            ann.join("presence-room")
            assert health(server) == (200, {"status": "ok"})
            store.process.send_signal(signal.SIGSTOP)
            wait_until(
                lambda: health(server) == (503, {"status": "unavailable", "message": "The state store is unreachable"})
            )
            store.process.send_signal(signal.SIGCONT)
            wait_until(lambda: health(server)[0] == 200)
            proxy.cut()
            wait_until(lambda: health(server)[0] == 503)
            proxy.mend()
            wait_until(lambda: health(server)[0] == 200)


def test_wrong_password(program: str) -> None:
    """A wrong password is called one, and no outage that will pass."""
    with running_redis(program) as store, redis.Redis(port=store.port) as admin:
        admin.config_set("requirepass", "the right one")
        url = f"redis://:wrong-s3cret@127.0.0.1:{store.port}/0"
        with running(PRESENCE_BACKEND=url, PRESENCE_LEASE=2, **PLAIN) as server, client(server, "ann") as ann:
            assert ann.request("join", channel="presence-room")["code"] == "JOIN_FAILED"
            assert health(server)[1]["message"] == "Redis refuses the password"
            wait_until(lambda: "Redis refuses the password" in server.log())
            assert "until it is back" not in server.log()
            assert "s3cret" not in server.log()
