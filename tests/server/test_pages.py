"""The blueprint's pages: what they show, and to whom."""

from __future__ import annotations

import json

from ..conftest import Connect
from ..support.server import Server, running

PAGES = ("/", "/stats", "/channels", "/channels/x")


def test_channels(connect: Connect, server: Server, name: str) -> None:
    """The list can be narrowed by type and prefix; a channel comes with its members."""
    me = connect("ann").join(f"presence-{name}", name="Ann")["me"]
    connect().join(name)
    listed = server.json(f"/presence/channels?type=presence&prefix=presence-{name}")["channels"]
    assert [(channel["name"], channel["type"], channel["memberCount"]) for channel in listed] == [
        (f"presence-{name}", "presence", 1)
    ]
    assert listed[0].keys() == {"name", "type", "memberCount", "createdAt"}
    assert server.json(f"/presence/channels/presence-{name}")["members"] == [me]
    status, _, body = server.get("/presence/channels/nobody")
    assert (status, json.loads(body)["error"]["code"]) == (404, "NOT_FOUND")
    status, _, body = server.get("/presence/channels?type=secret")
    assert (status, json.loads(body)["error"]["code"]) == (400, "INVALID_REQUEST")


def test_closed_by_default() -> None:
    """Without leave the pages are 403, with a sentence that says how to open them; health is open."""
    with running(PRESENCE_STATS_PUBLIC=False) as server:
        for page in PAGES:
            status, headers, body = server.get(f"/presence{page}")
            assert status == 403
            assert "stats_guard" in json.loads(body)["error"]["message"]
            assert headers["Cache-Control"] == "no-store"
        assert server.json("/presence/health") == {"status": "ok"}


def test_stats_page(connect: Connect, server: Server, name: str) -> None:
    """The page shows names as text, and allows nothing from outside."""
    hostile = f"<script>alert('{name}')</script>"
    connect().join(hostile)
    connect().join(f'"><img/onerror={name}>')
    status, headers, body = server.get("/presence/")
    assert status == 200
    assert "<script" not in body
    assert "<img" not in body
    assert f"&lt;script&gt;alert(&#39;{name}&#39;)" in body
    assert headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert headers["X-Frame-Options"] == "DENY"


def test_no_slash(server: Server) -> None:
    """Without its slash the page redirects, also for who may not see it."""
    assert server.get("/presence")[0] == 200
