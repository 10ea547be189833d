"""A login that is no token, Flask-Login's here: it works in guards and handlers, is asked about again, and ends."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from ..support.client import Client, client
from ..support.server import Server, running, wait_until

APP = "tests.support.flask_login_app:create_app()"


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as one:
        yield one


def start(stack: ExitStack, **options: Any) -> Server:
    return stack.enter_context(running(app=APP, **options))


def enter(stack: ExitStack, server: Server, name: str | None, query: str = "", agent: str = "a browser") -> Client:
    """A socket as a browser opens it in which `name` has logged in."""
    headers = {"Origin": server.origin}
    if name is not None:
        headers["Cookie"] = server.get(f"/login/{name}", {"User-Agent": agent})[1]["Set-Cookie"].split(";")[0]
    return stack.enter_context(client(server, headers=headers, query=query, user_agent_header=agent))


def test_current_user(stack: ExitStack) -> None:
    """`current_user` is who it should be in guards, message guards and handlers; and the request is the upgrade's."""
    server = start(stack)
    ann, bob, visitor = (enter(stack, server, name, "?page=7") for name in ("ann", "bob", None))
    assert ann.join("presence-of-ann")["me"]["name"] == "Ann"
    assert bob.request("join", channel="presence-of-ann")["code"] == "FORBIDDEN"
    for one in (ann, bob, visitor):
        one.join("by-hand")
    assert ann.say("by-hand", 1)["delivered"] == 2
    assert visitor.request("channel:message", channel="by-hand", data=1)["code"] == "FORBIDDEN"
    expected = [[ann.id, "ann", "7"], [ann.id, "ann", "7"], [bob.id, "bob", "7"], [visitor.id, "nobody", "7"]]
    wait_until(lambda: sorted(server.json("/seen")) == sorted(expected))


@pytest.mark.parametrize("change", ["gone/ann", "rename/ann/eve"])
@pytest.mark.parametrize("how", ["recheck", "schedule"])
def test_login_that_ends(stack: ExitStack, change: str, how: str) -> None:
    """A user who is no more, or is somebody else now, is disconnected: at once by `recheck`, else by the schedule."""
    server = start(stack, PRESENCE_TOKEN_RECHECK=0.5 if how == "schedule" else 60)
    ann, bob, visitor = (enter(stack, server, name) for name in ("ann", "bob", None))
    ann.join("by-hand")
    server.get(f"/{change}")
    if how == "recheck":
        assert server.json("/recheck/ann") == 1
    assert ann.wait_closed() == (4401, "Login ended")
    assert bob.request("ping")["type"] == visitor.request("ping")["type"] == "pong"


def test_loader_that_fails_now_and_then(stack: ExitStack) -> None:
    """Two failures in a row throw nobody out; three do."""
    server = start(stack)
    ann = enter(stack, server, "ann")
    for _ in range(2):
        server.get("/fail/2")
        for left in (1, 0):
            assert server.json("/recheck/ann") == 1
            wait_until(lambda left=left: server.json("/failures") == left)  # type: ignore[misc]
        assert server.json("/recheck/ann") == 1
        assert ann.request("ping")["type"] == "pong"
        wait_until(lambda: server.json("/recheck/ann") == 1)
    server.get("/fail/3")
    for _ in range(3):
        server.json("/recheck/ann")
    assert ann.wait_closed() == (4401, "Login ended")
    assert "could not be checked again" in server.log()


def test_what_is_kept_is_small(stack: ExitStack) -> None:
    """Of an upgrade as browsers send it, less than a kilobyte is kept."""
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
