"""`/health` says whether a client that comes now would be accepted, and a refusal says the same."""

from __future__ import annotations

import json
import signal
from typing import Any

import pytest
import redis
from websockets.exceptions import InvalidStatus

from flask_presence.settings import load_settings

from ..conftest import Share
from ..support.client import client
from ..support.handshake import UPGRADE, raw_upgrade, refusal
from ..support.proxy import running_proxy
from ..support.redis_server import RedisServer, running_redis
from ..support.server import Server, running, wait_until

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
def test_a_server_that_cannot_serve_websockets_says_so(shared: Share, kind: str) -> None:
    """`/health` and the refusal have the same sentence, and other routes work."""
    server = shared(kind=kind, **PLAIN)
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
def test_a_refusal_arrives_through_waitress_and_wsgiref(shared: Share, kind: str) -> None:
    """These servers do not pass on `Connection` and `Upgrade`."""
    server = shared(kind=kind, **PLAIN)
    assert raw_upgrade(server, UPGRADE, "/presence/ws?token=x")[0] == 401
    assert raw_upgrade(server, UPGRADE | {"Origin": "http://evil.example"})[0] == 403
    assert raw_upgrade(server, UPGRADE | {"Sec-WebSocket-Key": "short"})[0] == 400
    assert raw_upgrade(server, {})[0] == 426
    assert "Traceback" not in server.log()


def test_a_client_can_read_the_refusal_of_werkzeug_without_threads(shared: Share) -> None:
    """Werkzeug would answer with HTTP/1.0, which no WebSocket client reads."""
    assert refusal(shared(kind="flask-run-without-threads", **PLAIN))[0] == 503


def test_two_workers_in_memory_are_unhealthy() -> None:
    """This holds for every spelling of the backend."""
    for backend in ("memory", "memory://", "MEMORY://"):
        assert load_settings({"PRESENCE_BACKEND": backend}, {}).in_memory
    with running(kind="gunicorn-gevent", arguments=("-w", "2"), PRESENCE_BACKEND="MEMORY://", **PLAIN) as server:
        status, body = health(server)
        assert status == 503
        assert "PRESENCE_ISOLATED_WORKERS" in body["message"]
        assert refusal(server) == (503, body["message"])


def test_gevent_without_patches_is_unhealthy_with_redis(redis_server: RedisServer) -> None:
    with running(kind="pywsgi-unpatched", PRESENCE_BACKEND=redis_server.url, **PLAIN) as server:
        status, body = health(server)
        assert status == 503
        assert "patch_all" in body["message"]


def test_a_full_server_is_unhealthy_until_a_connection_closes() -> None:
    with running(PRESENCE_MAX_CONNECTIONS=1, **PLAIN) as server:
        assert health(server) == (200, {"status": "ok"})
        with client(server):
            status, body = health(server)
            assert (status, body["status"]) == (503, "full")
        wait_until(lambda: health(server)[0] == 200)


def test_one_thread_stays_free_for_other_requests() -> None:
    """If every connection occupies a thread, a client that comes too late is told what to change."""
    with running(kind="gunicorn-gthread", arguments=("--threads", "3"), **PLAIN) as server:
        with client(server) as ann, client(server):
            status, message = refusal(server)
            assert status == 503
            assert "--threads" in message
            assert health(server)[1]["message"] == message
            assert ann.request("ping")["type"] == "pong"


def test_disabled_channels_are_healthy() -> None:
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


@pytest.mark.parametrize("why", REFUSING)
def test_health_is_503_if_redis_refuses_what_a_join_needs(program: str, why: str) -> None:
    """This holds before and after the first connection, and the message contains no address."""
    with running_redis(program) as store:
        with redis.Redis(port=store.port) as admin:
            for command in REFUSING[why]:
                admin.execute_command(*command)
        options = PLAIN | {"PRESENCE_BACKEND": store.url, "PRESENCE_LEASE": 2}
        with running(**options) as server:

            def is_refused() -> bool:
                status, body = health(server)
                assert "127.0.0.1" not in str(body)
                return status == 503 and bool(body["message"])

            assert is_refused()
            with client(server, "ann") as ann:
                assert ann.request("join", channel="presence-room")["code"] == "JOIN_FAILED"
                wait_until(is_refused)


def test_health_is_503_while_redis_is_unreachable(program: str) -> None:
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


def test_a_wrong_password_is_not_called_an_outage(program: str) -> None:
    with running_redis(program) as store, redis.Redis(port=store.port) as admin:
        admin.config_set("requirepass", "the right one")
        url = f"redis://:wrong-s3cret@127.0.0.1:{store.port}/0"
        with running(PRESENCE_BACKEND=url, PRESENCE_LEASE=2, **PLAIN) as server, client(server, "ann") as ann:
            assert ann.request("join", channel="presence-room")["code"] == "JOIN_FAILED"
            assert health(server)[1]["message"] == "Redis refuses the password"
            wait_until(lambda: "Redis refuses the password" in server.log())
            assert "until it is back" not in server.log()
            assert "s3cret" not in server.log()


def test_two_workers_in_memory_refuse_connections_unless_isolated() -> None:
    """The log and the refusal name the setting to change."""
    with running(kind="gunicorn-gevent", arguments=("-w", "2")) as server:
        with pytest.raises(InvalidStatus) as caught, client(server):
            pass
        response = caught.value.response
        assert (response.status_code, "Retry-After" in response.headers) == (503, True)
        sentence = json.loads(response.body or b"")["error"]["message"]
        assert "PRESENCE_ISOLATED_WORKERS" in sentence
        assert sentence in server.log()
    with (
        running(kind="gunicorn-gevent", arguments=("-w", "2"), PRESENCE_ISOLATED_WORKERS=True) as server,
        client(server),
    ):
        pass
