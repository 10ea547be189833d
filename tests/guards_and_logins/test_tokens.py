"""Tokens: where they may be, which are refused, and what happens when they expire or are revoked."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from flask_jwt_extended import JWTManager, create_access_token
from websockets.exceptions import InvalidStatus

from flask_presence import User

from ..conftest import Connect
from ..support.client import client
from ..support.flask_app import make_app, make_presence_app
from ..support.handshake import refusal
from ..support.server import COMMANDS, Server, running
from ..support.variations import variation


@pytest.fixture(scope="module")
def plain() -> Iterator[Server]:
    """A server in memory, for tests whose outcome does not depend on the backend."""
    with variation("with_tokens") as server:
        yield server


def test_a_token_may_be_in_the_query_or_in_authorization(connect: Connect, server: Server) -> None:
    """The scheme is case-insensitive, and the query wins."""
    token = server.token("ann")
    assert connect(token=token).connected["user"] == {"id": "ann"}
    for scheme in ("Bearer", "bearer", "BEARER"):
        assert connect(headers={"Authorization": f"{scheme} {token}"}).connected["user"] == {"id": "ann"}
    other = {"Authorization": f"Bearer {server.token('bob')}"}
    assert connect(token=token, headers=other).connected["user"] == {"id": "ann"}


def test_a_connection_without_a_token_is_anonymous(connect: Connect) -> None:
    """An empty token and `Basic` are not credentials."""
    assert connect().connected["user"] is None
    assert connect(query="?token=").connected["user"] is None
    assert connect(headers={"Authorization": "Basic YTpi"}).connected["user"] is None


@pytest.mark.parametrize("bad", ["garbage", "a.b.c", "ey.ey.ey", "%00", "x" * 2000, "a b", "ä"])
def test_a_malformed_token_is_refused_with_401(server: Server, bad: str) -> None:
    query = f"?token={bad.replace(' ', '%20').replace('ä', '%C3%A4')}"
    assert refusal(server, query=query) == (401, "Invalid token")


def test_a_malformed_authorization_header_is_refused_with_401(server: Server) -> None:
    """`Bearer` without a token is malformed too."""
    for value in ("Bearer garbage", "Bearer", "Bearer a b"):
        assert refusal(server, headers={"Authorization": value}) == (401, "Invalid token")


def test_refresh_expired_revoked_and_tampered_tokens_are_refused(server: Server, name: str) -> None:
    refresh = server.token("ann", refresh=True)
    expired = server.token("ann", exp=int(time.time()) - 5)
    revoked = server.token(f"revoked-{name}")
    assert server.get(f"/revoke/revoked-{name}")[0] == 200
    tampered = server.token("ann")[:-4] + "AAAA"
    for token in (refresh, expired, revoked, tampered):
        assert refusal(server, token=token) == (401, "Invalid token")


def test_an_identity_that_cannot_be_sent_is_refused(server: Server) -> None:
    """In UTF-8, it would become the id of somebody else."""
    _, app = make_presence_app()  # it has the same key
    with app.app_context():
        tokens = [create_access_token(identity) for identity in ("ann", "ann\ud800", "\udfff")]
    with client(server, token=tokens[0]) as ann:
        assert ann.connected["user"] == {"id": "ann"}
    for token in tokens[1:]:
        assert refusal(server, token=token) == (401, "Invalid token")
    with pytest.raises(TypeError, match="surrogates"):
        User("ann\ud800")
    assert User("ann", name="Ann\ud800").name == "Ann?"


def test_an_anonymous_connection_is_refused_if_authentication_is_required() -> None:
    with running(PRESENCE_AUTH_REQUIRED=True) as server:
        assert refusal(server) == (401, "Authentication required")
        with client(server, "ann") as one:
            assert one.connected["user"] == {"id": "ann"}


def test_a_token_in_the_query_is_ignored_if_the_setting_is_off() -> None:
    """This holds for valid and invalid tokens."""
    with running(PRESENCE_TOKEN_IN_QUERY=False) as server:
        for token in (server.token("ann"), "garbage"):
            with client(server, token=token) as one:
                assert one.connected["user"] is None


def test_an_app_without_a_jwt_manager_refuses_every_token() -> None:
    """Without a token, every connection is anonymous."""
    with running(app="tests.support.plain:create_app()") as server:
        with client(server) as one:
            assert one.connected["user"] is None
            one.join("anything")
            assert one.request("join", channel="private-x")["code"] == "FORBIDDEN"
            assert one.request("auth", token="x")["code"] == "UNAUTHORIZED"
        for options in ({"token": "garbage"}, {"headers": {"Authorization": "Bearer x"}}):
            assert refusal(server, **options)[0] == 401


def test_an_expired_token_closes_the_connection_with_4401(connect: Connect, server: Server, name: str) -> None:
    """The server announces it before, and a new token keeps the connection open."""
    short = server.token("ann", exp=int(time.time()) + 2)
    one, renewed = connect(token=short), connect(token=short)
    one.join(f"presence-{name}")
    expiring = one.event()
    while expiring["type"] != "auth:expiring":
        expiring = one.event()
    assert expiring.keys() == {"type", "expiresAt"}
    answer = renewed.request("auth", token=server.token("ann"))
    assert (answer["type"], answer["user"]) == ("auth:ok", {"id": "ann"})
    assert "expiresAt" in answer
    assert one.wait_closed()[0] == 4401
    assert renewed.request("ping")["type"] == "pong"


def test_an_anonymous_connection_becomes_a_user_by_auth(connect: Connect, server: Server, name: str) -> None:
    """Nobody can become a different user."""
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


def test_a_revoked_token_closes_the_connection_at_the_next_check() -> None:
    with running(PRESENCE_TOKEN_RECHECK=0.5) as server, client(server, "ann") as one:
        assert server.get("/revoke/ann")[0] == 200
        assert one.wait_closed()[0] == 4401


def test_no_log_line_has_a_token(connect: Connect, server: Server) -> None:
    """This holds at the level DEBUG."""
    token = server.token("ann")
    connect(token=token).request("ping")
    with pytest.raises(InvalidStatus):
        connect(token=token + "x")
    assert token not in server.log()


def test_a_token_with_an_odd_expiry_disturbs_no_other_token(connect: Connect, server: Server) -> None:
    """Its `exp` is a string, or lies far beyond the calendar."""
    soon = int(time.time()) + 2
    connect("odd", claims={"exp": str(soon + 1000)})
    connect("far", claims={"exp": 10**15})
    assert connect("ann", claims={"exp": soon}).wait_closed()[0] == 4401
    answer = connect().request("auth", token=server.token("far", exp=10**13))
    assert (answer["type"], answer["expiresAt"][:4]) == ("auth:ok", "9999")


def test_the_leeway_of_views_counts_for_connections_too() -> None:
    with variation("leeway") as server:
        with client(server, token=server.json("/token/20")) as late:
            assert late.event()["type"] == "auth:expiring"
            assert late.request("ping")["type"] == "pong"
        assert refusal(server, token=server.json("/token/61")) == (401, "Invalid token")
        with client(server, token=server.json("/token/58")) as later:
            assert later.wait_closed() == (4401, "Token expired")


def test_the_log_says_once_that_the_app_can_read_no_token() -> None:
    with variation("plain") as server:
        for _ in range(3):
            assert refusal(server, token="a.b.c") == (401, "Invalid token")
        assert server.log().count("neither flask-jwt-extended's JWTManager nor a user_loader") == 1


def test_the_log_says_why_a_token_was_refused(plain: Server) -> None:
    """It does not contain the token."""
    app = make_app()
    app.config["JWT_SECRET_KEY"] = "another secret of thirty-two characters"
    JWTManager(app)
    with app.app_context():
        token = create_access_token("ann")
    assert refusal(plain, token=token)[0] == 401
    assert "InvalidSignatureError" in plain.log()
    assert token not in plain.log()


@pytest.mark.parametrize("kind", COMMANDS)
def test_a_token_behind_the_subprotocol_bearer_is_a_credential(kind: str) -> None:
    """The server selects `bearer`, and never another protocol."""
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


def test_an_invalid_token_in_the_subprotocol_is_refused(plain: Server) -> None:
    """A token in the query or in `Authorization` comes first."""
    token = plain.json("/token?user=ann")
    for offered in (["bearer", "garbage"], ["bearer"]):
        assert refusal(plain, subprotocols=offered)[0] == 401
    with client(plain, token=token, subprotocols=["bearer", "garbage"]) as one:
        assert one.connected["user"] == {"id": "ann"}
    bearer = {"Authorization": f"Bearer {token}"}
    with client(plain, headers=bearer, subprotocols=["bearer", "garbage"]) as one:
        assert one.connected["user"] == {"id": "ann"}
