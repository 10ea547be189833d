"""Who gets a socket, and as whom: tokens in every place, origins, loaders, and refusals before the handshake."""

from __future__ import annotations

import time

import pytest
from websockets.exceptions import InvalidStatus

from ..conftest import Connect
from ..support.client import client
from ..support.handshake import refusal
from ..support.server import COMMANDS, Server, running
from ..support.variations import variation


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
def test_malformed_token(server: Server, bad: str) -> None:
    """Garbage in place of a token is a 401, not an anonymous connection."""
    query = f"?token={bad.replace(' ', '%20').replace('ä', '%C3%A4')}"
    assert refusal(server, query=query) == (401, "Invalid token")


def test_bad_bearer(server: Server) -> None:
    """So it is in the header, where `Bearer` alone is bad too."""
    for value in ("Bearer garbage", "Bearer", "Bearer a b"):
        assert refusal(server, headers={"Authorization": value}) == (401, "Invalid token")


def test_refused_tokens(server: Server, name: str) -> None:
    """Refresh, expired, revoked and foreign tokens are refused."""
    refresh = server.token("ann", refresh=True)
    expired = server.token("ann", exp=int(time.time()) - 5)
    revoked = server.token(f"revoked-{name}")
    assert server.get(f"/revoke/revoked-{name}")[0] == 200
    tampered = server.token("ann")[:-4] + "AAAA"
    for token in (refresh, expired, revoked, tampered):
        assert refusal(server, token=token) == (401, "Invalid token")


def test_authentication_required() -> None:
    """Where it is required, none is a 401 of its own."""
    with running(PRESENCE_AUTH_REQUIRED=True) as server:
        assert refusal(server) == (401, "Authentication required")
        with client(server, "ann") as one:
            assert one.connected["user"] == {"id": "ann"}


def test_token_in_query_switched_off() -> None:
    """`PRESENCE_TOKEN_IN_QUERY = False` ignores `?token=`, good or bad."""
    with running(PRESENCE_TOKEN_IN_QUERY=False) as server:
        for token in (server.token("ann"), "garbage"):
            with client(server, token=token) as one:
                assert one.connected["user"] is None


def test_app_without_tokens() -> None:
    """An app without a `JWTManager` works, all anonymous; a token there is a 401."""
    with running(app="tests.support.plain:create_app()") as server:
        with client(server) as one:
            assert one.connected["user"] is None
            one.join("anything")
            assert one.request("join", channel="private-x")["code"] == "FORBIDDEN"
            assert one.request("auth", token="x")["code"] == "UNAUTHORIZED"
        for options in ({"token": "garbage"}, {"headers": {"Authorization": "Bearer x"}}):
            assert refusal(server, **options)[0] == 401


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


def test_odd_expiry() -> None:
    """A token whose `exp` is a string, or far beyond the calendar, disturbs no other token's end."""
    with running() as server:
        soon = int(time.time()) + 2
        with client(server, "odd", claims={"exp": str(soon + 1000)}), client(server, "far", claims={"exp": 10**15}):
            with client(server, "ann", claims={"exp": soon}) as ann:
                assert ann.wait_closed()[0] == 4401
        with client(server) as one:
            answer = one.request("auth", token=server.token("far", exp=10**13))
            assert (answer["type"], answer["expiresAt"][:4]) == ("auth:ok", "9999")


def test_leeway() -> None:
    """The leeway that views give a token after its end is the socket's too."""
    with variation("leeway") as server:
        with client(server, token=server.json("/token/20")) as late:
            assert late.event()["type"] == "auth:expiring"
            assert late.request("ping")["type"] == "pong"
        assert refusal(server, token=server.json("/token/61")) == (401, "Invalid token")
        with client(server, token=server.json("/token/58")) as later:
            assert later.wait_closed() == (4401, "Token expired")


def test_no_login_at_all() -> None:
    """A token where the app can read none: the log says, once, what it lacks."""
    with variation("plain") as server:
        for _ in range(3):
            assert refusal(server, token="a.b.c") == (401, "Invalid token")
        assert server.log().count("neither flask-jwt-extended's JWTManager nor a user_loader") == 1


def test_refused_token_is_explained() -> None:
    """The log says for what a token was refused, and not the token."""
    with (
        variation("with_tokens") as server,
        variation("with_tokens", JWT_SECRET_KEY="another, of 32 characters too") as other,
    ):
        token = other.json("/token?user=ann")
        assert refusal(server, token=token)[0] == 401
        assert "InvalidSignatureError" in server.log()
        assert token not in server.log()


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
            assert refusal(server, subprotocols=offered)[0] == 401
        with client(server, token=token, subprotocols=["bearer", "garbage"]) as one:
            assert one.connected["user"] == {"id": "ann"}
        bearer = {"Authorization": f"Bearer {token}"}
        with client(server, headers=bearer, subprotocols=["bearer", "garbage"]) as one:
            assert one.connected["user"] == {"id": "ann"}
