"""Logins other than tokens in the query: cookies, Flask-Login, and any other user loader."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from ..conftest import Share
from ..support.client import Client, client
from ..support.handshake import UPGRADE, raw_upgrade, refusal
from ..support.server import Server, running, wait_until
from ..support.variations import variation

APP = "tests.support.flask_login_app:create_app()"


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as one:
        yield one


def enter(stack: ExitStack, server: Server, name: str | None, query: str = "", agent: str = "a browser") -> Client:
    """A connection as a browser opens it after `name` has logged in."""
    headers = {"Origin": server.origin}
    if name is not None:
        headers["Cookie"] = server.get(f"/login/{name}", {"User-Agent": agent})[1]["Set-Cookie"].split(";")[0]
    return stack.enter_context(client(server, headers=headers, query=query, user_agent_header=agent))


def test_current_user_works_in_guards_and_handlers(stack: ExitStack) -> None:
    """The request in which they run has the query string of the upgrade."""
    server = stack.enter_context(running(app=APP))
    ann, bob, visitor = (enter(stack, server, name, "?page=7") for name in ("ann", "bob", None))
    assert ann.join("presence-of-ann")["me"]["name"] == "Ann"
    assert bob.request("join", channel="presence-of-ann")["code"] == "FORBIDDEN"
    for one in (ann, bob, visitor):
        one.join("by-hand")
    assert ann.say("by-hand", 1)["delivered"] == 2
    assert visitor.request("channel:message", channel="by-hand", data=1)["code"] == "FORBIDDEN"
    expected = [[ann.id, "ann", "7"], [ann.id, "ann", "7"], [bob.id, "bob", "7"], [visitor.id, "nobody", "7"]]
    wait_until(lambda: sorted(server.json("/seen")) == sorted(expected))


@pytest.mark.parametrize("change", ["gone/{name}", "rename/{name}/eve"])
@pytest.mark.parametrize("how", ["recheck", "schedule"])
def test_a_login_that_ended_or_changed_disconnects_the_user(
    stack: ExitStack, shared: Share, change: str, how: str, name: str
) -> None:
    """`recheck` does this at once, and the schedule later."""
    server = shared(app=APP, PRESENCE_TOKEN_RECHECK=0.5 if how == "schedule" else 60)
    ann, bob, visitor = (enter(stack, server, user) for user in (f"ann-{name}", "bob", None))
    ann.join("by-hand")
    server.get("/" + change.format(name=f"ann-{name}"))
    if how == "recheck":
        assert server.json(f"/recheck/ann-{name}") == 1
    assert ann.wait_closed() == (4401, "Login ended")
    assert bob.request("ping")["type"] == visitor.request("ping")["type"] == "pong"


def test_the_third_failure_of_a_loader_in_a_row_disconnects_the_user(stack: ExitStack, shared: Share) -> None:
    server = shared(app=APP, PRESENCE_TOKEN_RECHECK=60)
    ann = enter(stack, server, "ann")
    for _ in range(2):
        server.get("/fail/2")
        for left in (1, 0):
            assert server.json("/recheck/ann") == 1
            wait_until(lambda left=left: server.json("/failures") <= left)  # type: ignore[misc]
        assert server.json("/recheck/ann") == 1
        assert ann.request("ping")["type"] == "pong"
        wait_until(lambda: server.json("/recheck/ann") == 1)
    server.get("/fail/3")
    for _ in range(3):
        server.json("/recheck/ann")
    assert ann.wait_closed() == (4401, "Login ended")
    assert "could not be checked again" in server.log()


def test_less_than_a_kilobyte_of_an_upgrade_is_kept(stack: ExitStack) -> None:
    from flask_presence.app.upgrade_environ import decode_upgrade, encode_upgrade

    browser = {
        "HTTP_USER_AGENT": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0",
        "HTTP_COOKIE": "session=" + "eyJfdXNlcl9pZCI6IjEifQ.Zx" * 10,
        "HTTP_ACCEPT_LANGUAGE": "de-DE,de;q=0.9,en-US;q=0.8,en;q=0.7",
        "HTTP_ORIGIN": "https://app.example.com",
        "HTTP_SEC_WEBSOCKET_KEY": "dGhlIHNhbXBsZSBub25jZQ==",
        "HTTP_CONNECTION": "Upgrade",
        "PATH_INFO": "/presence/ws",
        "wsgi.input": object(),
    }
    kept = encode_upgrade(browser)
    assert len(kept) < 500
    assert decode_upgrade(kept).keys() == {key for key in browser if not re.search("WEBSOCKET|CONNECTION|input", key)}


def test_a_cookie_is_a_login_if_the_request_has_an_origin() -> None:
    """An invalid cookie makes the connection anonymous."""
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
        assert refusal(server, headers=good)[0] == 403
        assert refusal(server, headers=good | {"Origin": "http://evil.example"})[0] == 403
        bearer = {"Authorization": f"Bearer {server.token('bob')}"}
        assert user(good | bearer) == {"id": "bob"}
        assert refusal(server, headers=good | own | {"Authorization": "Bearer garbage"}) == (401, "Invalid token")


def test_a_user_loader_reads_the_session_of_flask_login() -> None:
    """If nobody is logged in, the connection is anonymous. If the loader fails, the answer is 401."""
    with running(app=APP) as server:
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
            assert refusal(server, query=path, headers=own)[0] == 401
        assert refusal(server, headers=session)[0] == 403
        assert server.json("/teardowns")["missing"] == 0


def test_a_loader_that_reads_g_is_refused_and_explained() -> None:
    """The log says what the loader should read."""
    with variation("login_in_g") as server:
        assert refusal(server)[0] == 401
        assert "g.user" in server.log()
        assert "before_request" in server.log()


def test_a_cookie_needs_an_origin_only_if_it_identifies_the_user() -> None:
    with variation("keys") as server:
        for cookies in ({}, {"Cookie": "AWSALB=abc"}, {"Cookie": "session=forged"}):
            assert raw_upgrade(server, UPGRADE | {"X-Api-Key": "ann"} | cookies)[0] == 101
        login = {"Cookie": server.get("/login")[1]["Set-Cookie"].split(";")[0]}
        assert raw_upgrade(server, UPGRADE | login)[0] == 403
        assert raw_upgrade(server, UPGRADE | login | {"Authorization": "Basic YTpi"})[0] == 403
        assert raw_upgrade(server, UPGRADE | login | {"X-Api-Key": "bob"})[0] == 101
        assert raw_upgrade(server, UPGRADE | login | {"Origin": server.origin})[0] == 101


def test_a_user_id_may_be_a_uuid() -> None:
    with variation("uuids") as server, client(server) as one:
        assert one.connected["user"] == {"id": "00000000-0000-0000-0000-000000000005"}
