"""Apps as people have them: what reads bodies, wraps responses, keeps logins elsewhere, waits in C, forks."""

from __future__ import annotations

import json
import socket
from contextlib import ExitStack
from functools import partial
from typing import Any

import pytest

from ..support.client import client
from ..support.server import COMMANDS, Server, running, wait_until
from .test_authentication import UPGRADE, raw_upgrade, refusal

APP = "tests.support.variations:create_app()"


def variation(name: str, kind: str = "gunicorn-gevent", **options: Any) -> Any:
    return running(app=APP, kind=kind, VARIATION=name, **options)


def lines_of_trouble(server: Server) -> list[str]:
    return [line for line in server.log().splitlines() if "Traceback" in line or "Error" in line or "SENTRY" in line]


@pytest.mark.parametrize("kind", COMMANDS)
def test_body_reader(kind: str) -> None:
    """An app that reads the body of every request finds an empty one, on every server."""
    with variation("body_reader", kind) as server, client(server) as one:
        assert one.request("ping")["type"] == "pong"


def test_handshake_with_a_body() -> None:
    """A handshake has no body: bytes of one would be taken for frames."""
    with variation("with_tokens") as server:
        for extra in ({"Content-Length": "5"}, {"Transfer-Encoding": "chunked"}):
            status, body = raw_upgrade(server, UPGRADE | extra)
            assert (status, body["error"]["message"]) == (400, "A WebSocket handshake has no body")
        assert raw_upgrade(server, UPGRADE | {"Content-Length": "0"})[0] == 101


@pytest.mark.parametrize("wrapped", ["sentry", "generator", "other_response"])
@pytest.mark.parametrize("kind", COMMANDS)
def test_wrapped_response(kind: str, wrapped: str) -> None:
    """Whatever wraps the app, a connection is no error to it: nothing in the log, nothing for the error reporter."""
    with variation(wrapped, kind) as server:
        with ExitStack() as stack:
            ann, bob, _ = (stack.enter_context(client(server)) for _ in range(3))
            for one in (ann, bob):
                one.join("news")
            assert ann.say("news", "hello")["delivered"] == 1
        wait_until(lambda: server.json("/presence/stats")["connections"] == 0)
        assert server.get("/ready")[0] == 200
        server.stop()
        assert lines_of_trouble(server) == []


def test_login_in_g() -> None:
    """A user_loader that reads `g` is refused, and the log says what it should read."""
    with variation("login_in_g") as server:
        assert refusal(lambda: client(server).__enter__())[0] == 401
        assert "g.user" in server.log()
        assert "before_request" in server.log()


def test_cookie_of_somebody_else() -> None:
    """Without an `Origin`, a cookie is in the way only where it is what says who somebody is."""
    with variation("keys") as server:
        for cookies in ({}, {"Cookie": "AWSALB=abc"}, {"Cookie": "session=forged"}):
            assert raw_upgrade(server, UPGRADE | {"X-Api-Key": "ann"} | cookies)[0] == 101
        login = {"Cookie": server.get("/login")[1]["Set-Cookie"].split(";")[0]}
        assert raw_upgrade(server, UPGRADE | login)[0] == 403
        assert raw_upgrade(server, UPGRADE | login | {"Authorization": "Basic YTpi"})[0] == 403
        assert raw_upgrade(server, UPGRADE | login | {"X-Api-Key": "bob"})[0] == 101
        assert raw_upgrade(server, UPGRADE | login | {"Origin": server.origin})[0] == 101


def test_uuid() -> None:
    """A user's id may be a UUID."""
    with variation("uuids") as server, client(server) as one:
        assert one.connected["user"] == {"id": "00000000-0000-0000-0000-000000000005"}


def test_leeway() -> None:
    """The leeway that views give a token after its end is the socket's too."""
    with variation("leeway") as server:
        with client(server, token=server.json("/token/20")) as late:
            assert late.event()["type"] == "auth:expiring"
            assert late.request("ping")["type"] == "pong"
        assert refusal(lambda: client(server, token=server.json("/token/61")).__enter__()) == (401, "Invalid token")
        with client(server, token=server.json("/token/58")) as later:
            assert later.wait_closed() == (4401, "Token expired")


def test_async_guard() -> None:
    """What asgiref makes of an async function is an ordinary one, with the arguments of the inner one."""
    with variation("async_guard") as server, client(server, "ann") as ann:
        assert ann.join("presence-ann")["me"]["id"] == "ann"
        assert ann.request("join", channel="presence-bob")["code"] == "FORBIDDEN"


def test_async_guards_at_once() -> None:
    """Also where many are asked at the same time."""
    with variation("async_guard") as server, ExitStack() as stack:
        users = [f"user-{number}" for number in range(20)]
        clients = [stack.enter_context(client(server, user)) for user in users]
        for one, user in zip(clients, users, strict=True):
            one.send({"type": "join", "channel": f"presence-{user}-"})
        assert [one.event()["type"] for one in clients] == ["channel:joined"] * 20


def test_guard_that_waits_in_c() -> None:
    """A guard that stops gevent's loop is named in the log, with what to do; one that lets others go on is not."""
    with variation("slow_guards") as server, client(server, "ann") as ann, client(server, "bob") as bob:
        ann.join("private-patient-1")
        assert "blocked this worker's event loop" not in server.log()
        ann.send({"type": "join", "channel": "private-database-1"})
        bob.send({"type": "join", "channel": "private-patient-2"})
        assert ann.event()["type"] == bob.event()["type"] == "channel:joined"
        held_up = [line for line in server.log().splitlines() if "blocked this worker's event loop" in line]
        assert len(held_up) == 1
        assert "slow_guards.<locals>.ask" in held_up[0]
        assert "threadpool" in held_up[0]


@pytest.mark.parametrize("kind", ["gunicorn-gthread", "flask-run"])
def test_child_process(kind: str, request: pytest.FixtureRequest) -> None:
    """A child of a server with threads publishes like any other process, and leaves its parent's sockets alone. (A
    child of a gevent worker runs the greenlets of its parent, which is not for us to mend.)"""
    redis_server = request.getfixturevalue("redis_server")
    backend = {"PRESENCE_BACKEND": redis_server.url, "PRESENCE_REDIS_PREFIX": f"test-child-{kind}"}
    with variation("children", kind, **backend) as server, client(server) as one:
        one.join("news")
        for _ in range(3):
            assert server.json("/publish") is True
            assert one.event()["event"] == "from-a-child"
        assert one.request("ping")["type"] == "pong"
        assert lines_of_trouble(server) == []


def test_no_login_at_all() -> None:
    """A token where the app can read none: the log says, once, what it lacks."""
    with variation("plain") as server:
        for _ in range(3):
            assert refusal(lambda: client(server, token="a.b.c").__enter__()) == (401, "Invalid token")
        assert server.log().count("neither flask-jwt-extended's JWTManager nor a user_loader") == 1


def test_refused_token_is_explained() -> None:
    """The log says for what a token was refused, and not the token."""
    with (
        variation("with_tokens") as server,
        variation("with_tokens", JWT_SECRET_KEY="another, of 32 characters too") as other,
    ):
        token = other.json("/token?user=ann")
        assert refusal(lambda: client(server, token=token).__enter__())[0] == 401
        assert "InvalidSignatureError" in server.log()
        assert token not in server.log()


def test_proxy_that_drops_upgrade() -> None:
    """A handshake without its hop-by-hop headers names the proxy, for the client and in the log."""
    with variation("with_tokens") as server:
        headers = {name: value for name, value in UPGRADE.items() if name.startswith("Sec-")}
        status, answered, body = server.get("/presence/ws", headers)
        assert (status, answered["Upgrade"]) == (426, "websocket")
        assert "proxy" in json.loads(body)["error"]["message"]
        assert "proxy_set_header Upgrade" in server.log()
        assert "proxy" not in json.loads(server.get("/presence/ws")[2])["error"]["message"]


@pytest.mark.parametrize("kind", COMMANDS)
def test_bearer_subprotocol(kind: str) -> None:
    """A token behind the subprotocol `bearer` is a credential, `bearer` is selected, and no other ever is."""
    options = {"SOCK_SERVER_OPTIONS": {"subprotocols": ["chat"]}}
    with variation("with_tokens", kind, **options) as server:
        token = server.json("/token?user=ann")
        with client(server, subprotocols=["bearer", token]) as ann:
            assert ann.connected["user"] == {"id": "ann"}
            if "gevent-websocket" not in kind:
                assert ann.socket.subprotocol == "bearer"
        with client(server, subprotocols=["chat"]) as other:
            assert (other.connected["user"], other.socket.subprotocol) == (None, None)
        assert token not in server.log()


def test_bad_bearer_subprotocol() -> None:
    """A bad token there is as bad as elsewhere; the query and `Authorization` come first."""
    with variation("with_tokens") as server:
        token = server.json("/token?user=ann")
        for offered in (["bearer", "garbage"], ["bearer"]):
            assert refusal(partial(client(server, subprotocols=offered).__enter__))[0] == 401
        with client(server, token=token, subprotocols=["bearer", "garbage"]) as one:
            assert one.connected["user"] == {"id": "ann"}
        bearer = {"Authorization": f"Bearer {token}"}
        with client(server, headers=bearer, subprotocols=["bearer", "garbage"]) as one:
            assert one.connected["user"] == {"id": "ann"}


def test_many_requests_on_a_connection_that_is_refused() -> None:
    """A refusal ends the HTTP connection where the server lets the app say so."""
    with variation("with_tokens") as server, socket.create_connection(("127.0.0.1", server.port)) as raw:
        head = "".join(f"{name}: {value}\r\n" for name, value in UPGRADE.items())
        raw.sendall(f"GET /presence/ws?token=x HTTP/1.1\r\nHost: {server.host}\r\n{head}\r\n".encode())
        raw.settimeout(20)
        answer = b""
        while part := raw.recv(4096):
            answer += part
        assert answer.startswith(b"HTTP/1.1 401 ")
