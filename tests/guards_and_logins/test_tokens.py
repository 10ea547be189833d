"""Who gets a socket, and as whom: tokens in every place, origins, loaders, and refusals before the handshake."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from ..conftest import Connect
from ..support.client import client
from ..support.server import Server, running

UPGRADE = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


def refusal(open_connection: Callable[[], Any]) -> tuple[int, str]:
    """Status and message with which an upgrade is refused."""
    with pytest.raises(InvalidStatus) as caught:
        open_connection()
    body = json.loads(caught.value.response.body or b"{}")
    return caught.value.response.status_code, body["error"]["message"]


def test_token_places(connect: Connect, server: Server) -> None:
    """A token is taken from `?token=` and from `Authorization`, in any case; the query wins."""
    token = server.token("ann")
    assert connect(token=token).connected["user"] == {"id": "ann"}
    for scheme in ("Bearer", "bearer", "BEARER"):
        assert connect(headers={"Authorization": f"{scheme} {token}"}).connected["user"] == {"id": "ann"}
    other = {"Authorization": f"Bearer {server.token('bob')}"}
    assert connect(token=token, headers=other).connected["user"] == {"id": "ann"}


def test_no_credential(connect: Connect) -> None:
    """No token, an empty one, and `Basic` are no credential: anonymous."""
    assert connect().connected["user"] is None
    assert connect(query="?token=").connected["user"] is None
    assert connect(headers={"Authorization": "Basic YTpi"}).connected["user"] is None


@pytest.mark.parametrize("bad", ["garbage", "a.b.c", "ey.ey.ey", "%00", "x" * 2000, "a b", "ä"])
def test_malformed_token(connect: Connect, bad: str) -> None:
    """Garbage in place of a token is a 401, not an anonymous connection."""
    assert refusal(lambda: connect(query=f"?token={bad.replace(' ', '%20').replace('ä', '%C3%A4')}")) == (
        401,
        "Invalid token",
    )


def test_bad_bearer(connect: Connect) -> None:
    """So it is in the header, where `Bearer` alone is bad too."""
    for value in ("Bearer garbage", "Bearer", "Bearer a b"):
        assert refusal(lambda value=value: connect(headers={"Authorization": value})) == (401, "Invalid token")  # type: ignore[misc]


def test_refused_tokens(connect: Connect, server: Server, name: str) -> None:
    """Refresh, expired, revoked and foreign tokens are refused."""
    refresh = server.token("ann", refresh=True)
    expired = server.token("ann", exp=int(time.time()) - 5)
    revoked = server.token(f"revoked-{name}")
    assert server.get(f"/revoke/revoked-{name}")[0] == 200
    tampered = server.token("ann")[:-4] + "AAAA"
    for token in (refresh, expired, revoked, tampered):
        assert refusal(lambda token=token: connect(token=token)) == (401, "Invalid token")  # type: ignore[misc]


def test_authentication_required() -> None:
    """Where it is required, none is a 401 of its own."""
    with running(PRESENCE_AUTH_REQUIRED=True) as server:
        with pytest.raises(InvalidStatus) as caught, client(server):
            pass
        assert caught.value.response.status_code == 401
        assert json.loads(caught.value.response.body or b"")["error"]["message"] == "Authentication required"
        with client(server, "ann") as one:
            assert one.connected["user"] == {"id": "ann"}


def test_token_in_query_switched_off() -> None:
    """`PRESENCE_TOKEN_IN_QUERY = False` ignores `?token=`, good or bad."""
    with running(PRESENCE_TOKEN_IN_QUERY=False) as server:
        for token in (server.token("ann"), "garbage"):
            with client(server, token=token) as one:
                assert one.connected["user"] is None


def test_cookies() -> None:
    """A cookie counts where the app says so, with an `Origin`; a stale one alone means anonymous."""
    with running(JWT_TOKEN_LOCATION=["cookies", "headers"], JWT_COOKIE_SECURE=False) as server:
        good = {"Cookie": f"access_token_cookie={server.token('ann')}"}
        stale = {"Cookie": "access_token_cookie=garbage"}
        own = {"Origin": server.origin}

        def user(headers: dict[str, str]) -> Any:
            with client(server, headers=headers) as one:
                return one.connected["user"]

        assert user(good | own) == {"id": "ann"}
        assert user(stale | own) is None
        assert user(stale) is None
        assert refusal(lambda: user(good))[0] == 403
        assert refusal(lambda: user(good | {"Origin": "http://evil.example"}))[0] == 403
        bearer = {"Authorization": f"Bearer {server.token('bob')}"}
        assert user(good | bearer) == {"id": "bob"}
        assert refusal(lambda: user(good | own | {"Authorization": "Bearer garbage"})) == (401, "Invalid token")


def test_user_loader_with_flask_login() -> None:
    """A `user_loader` takes Flask-Login's session; nobody logged in is anonymous; a fault is a 401."""
    with running(app="tests.support.flask_login_app:create_app()") as server:
        own = {"Origin": server.origin}
        _, headers, _ = server.get("/login/ann")
        session = {"Cookie": headers["Set-Cookie"].split(";")[0]}
        with client(server, headers=session | own) as one:
            assert one.connected["user"] == {"id": "ann"}
            assert one.join("presence-room")["me"]["name"] == "Ann"
            assert one.request("auth", token="x")["code"] == "UNAUTHORIZED"
        with client(server, headers=own) as one:
            assert one.connected["user"] is None
        for path in ("?break=1", "?wrong=1"):
            with pytest.raises(InvalidStatus) as caught, client(server, query=path, headers=own):
                pass
            assert caught.value.response.status_code == 401
        with ExitStack() as stack:
            assert refusal(lambda: stack.enter_context(client(server, headers=session)))[0] == 403
        assert server.json("/teardowns")["missing"] == 0


def test_app_without_tokens() -> None:
    """An app without a `JWTManager` works, all anonymous; a token there is a 401."""
    with running(app="tests.support.plain:create_app()") as server:
        with client(server) as one:
            assert one.connected["user"] is None
            one.join("anything")
            assert one.request("join", channel="private-x")["code"] == "FORBIDDEN"
            assert one.request("auth", token="x")["code"] == "UNAUTHORIZED"
        for options in ({"token": "garbage"}, {"headers": {"Authorization": "Bearer x"}}):
            with pytest.raises(InvalidStatus) as caught, client(server, **options):
                pass
            assert caught.value.response.status_code == 401


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "http://evil.example",
        "http://evil-127.0.0.1",
        "http://127.0.0.1.evil.example",
        "http://127.0.0.1:1",
        "http://127.0.0.1",
        "https://{host}",
        "http://{host}.evil.example",
        "http://{host}/path",
        "http://user@{host}",
        "http://{host},http://evil.example",
        "",
    ],
)
def test_foreign_origin(connect: Connect, server: Server, origin: str) -> None:
    """Only the very same origin may connect, unless others are allowed."""
    headers = {"Origin": origin.format(host=server.host)}
    assert refusal(lambda: connect(headers=headers)) == (403, "Origin not allowed")


def test_refused_origin_is_logged(connect: Connect, server: Server, name: str) -> None:
    """The log names the refused origin beside the setting that would allow it."""
    with pytest.raises(InvalidStatus):
        connect(headers={"Origin": f"http://{name}.example"})
    line = next(line for line in server.log().splitlines() if f"{name}.example" in line)
    assert "PRESENCE_ALLOWED_ORIGINS" in line


def test_allowed_origins(connect: Connect, server: Server) -> None:
    """The same origin, in any case, and those in the setting."""
    assert connect(headers={"Origin": server.origin.upper()}).connected["type"] == "connected"
    allowed = ["https://app.example.com", "https://*.example.org"]
    with running(PRESENCE_ALLOWED_ORIGINS=allowed) as own:
        for origin in ("https://app.example.com", "https://APP.example.com:443", "https://a.b.example.org"):
            with client(own, headers={"Origin": origin}):
                pass
        for origin in (
            "http://app.example.com",
            "https://example.org",
            "https://xexample.org",
            "https://a.example.com",
        ):
            with pytest.raises(InvalidStatus) as caught, client(own, headers={"Origin": origin}):
                pass
            assert caught.value.response.status_code == 403


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"Sec-WebSocket-Version": None}, 426),
        ({"Sec-WebSocket-Version": "8"}, 426),
        ({"Sec-WebSocket-Key": None}, 400),
        ({"Sec-WebSocket-Key": "short"}, 400),
        ({"Sec-WebSocket-Key": "!" * 24}, 400),
        ({"Connection": "keep-alive"}, 426),
        ({"Upgrade": None}, 426),
        ({"Upgrade": "h2c"}, 426),
    ],
)
def test_malformed_handshake(server: Server, changes: dict[str, str | None], status: int) -> None:
    """What is no handshake is a 400 or 426, never a 500."""
    headers = {key: value for key, value in {**UPGRADE, **changes}.items() if value is not None}
    assert raw_status(server, headers) == status


def raw_status(server: Server, headers: dict[str, str], path: str = "/presence/ws") -> int:
    return raw_upgrade(server, headers, path)[0]


def raw_upgrade(server: Server, headers: dict[str, str], path: str = "/presence/ws") -> tuple[int, Any]:
    """Status, and the JSON if the answer is any, of a GET with just these headers."""
    lines = "".join(f"{key}: {value}\r\n" for key, value in headers.items())
    host = "" if "Host" in headers else f"Host: {server.host}\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as raw:
        raw.sendall(f"GET {path} HTTP/1.1\r\n{host}{lines}\r\n".encode())
        with raw.makefile("rb") as answer:
            status = int(answer.readline().split()[1])
            head: dict[bytes, bytes] = {}
            while (line := answer.readline().strip()) and status != 101:
                name, _, value = line.partition(b":")
                head[name.lower()] = value.strip()
            if not head.get(b"content-type", b"").startswith(b"application/json"):
                return status, None
            return status, json.loads(answer.read(int(head[b"content-length"])))


def test_full() -> None:
    """A full server refuses with 503 and `Retry-After`, and has a place again when somebody goes."""
    with running(PRESENCE_MAX_CONNECTIONS=2) as server:
        with client(server), client(server) as second:
            with pytest.raises(InvalidStatus) as caught, client(server):
                pass
            assert caught.value.response.status_code == 503
            assert int(caught.value.response.headers["Retry-After"]) > 0
            assert server.get("/ready")[0] == 200
            second.socket.close()
            with client(server):
                pass


def test_several_workers_in_memory() -> None:
    """Two workers in memory would be two services: refused, and the log says what to change."""
    with running(arguments=("-w", "2")) as server:
        with pytest.raises(InvalidStatus) as caught, client(server):
            pass
        response = caught.value.response
        assert (response.status_code, "Retry-After" in response.headers) == (503, True)
        sentence = json.loads(response.body or b"")["error"]["message"]
        assert "PRESENCE_ISOLATED_WORKERS" in sentence
        assert sentence in server.log()
    with running(arguments=("-w", "2"), PRESENCE_ISOLATED_WORKERS=True) as server, client(server):
        pass


def test_expiry() -> None:
    """A token's end is announced, and is the end of the connection, unless a new one comes in time."""
    with running() as server:
        short = server.token("ann", exp=int(time.time()) + 2)
        with client(server, token=short) as one, client(server, token=short) as renewed:
            one.join("presence-room")
            expiring = one.event()
            while expiring["type"] != "auth:expiring":
                expiring = one.event()
            assert expiring.keys() == {"type", "expiresAt"}
            answer = renewed.request("auth", token=server.token("ann"))
            assert (answer["type"], answer["user"]) == ("auth:ok", {"id": "ann"})
            assert "expiresAt" in answer
            assert one.wait_closed()[0] == 4401
            assert renewed.request("ping")["type"] == "pong"


def test_auth_request(connect: Connect, server: Server, name: str) -> None:
    """An anonymous connection may say later who it is; nobody may become somebody else."""
    one = connect()
    one.join(f"public-{name}")
    assert one.request("join", channel=f"private-{name}")["code"] == "FORBIDDEN"
    for bad in ("garbage", server.token("ann", refresh=True)):
        answer = one.request("auth", token=bad)
        assert (answer["code"], answer["message"]) == ("UNAUTHORIZED", "Invalid token")
    assert one.request("auth", token=server.token("ann"))["user"] == {"id": "ann"}
    one.join(f"presence-{name}")
    other = one.request("auth", token=server.token("bob"))
    assert (other["code"], other["message"]) == ("UNAUTHORIZED", "Different user")
    assert one.say(f"public-{name}", 1)["delivered"] == 0


def test_revocation_is_noticed() -> None:
    """The app's blocklist is asked again on a schedule."""
    with running(PRESENCE_TOKEN_RECHECK=0.5) as server, client(server, "ann") as one:
        assert server.get("/revoke/ann")[0] == 200
        assert one.wait_closed()[0] == 4401


def test_token_is_not_logged(connect: Connect, server: Server) -> None:
    """A token in a query string is in none of our log lines, even at DEBUG."""
    token = server.token("ann")
    connect(token=token).request("ping")
    with pytest.raises(InvalidStatus):
        connect(token=token + "x")
    assert token not in server.log()
