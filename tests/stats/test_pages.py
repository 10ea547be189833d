"""The blueprint's pages: what they show, and to whom."""

from __future__ import annotations

import http.client
import json
import re
import signal
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest
from flask import Flask, abort, request
from flask_jwt_extended import JWTManager
from werkzeug.datastructures import WWWAuthenticate

from flask_presence import Presence, deny

from ..conftest import Connect, on_redis
from ..support.client import client
from ..support.redis_server import RedisServer
from ..support.server import DEADLINE, Server, running, wait_until

PAGES = ("/", "/stats", "/activity", "/channels", "/channels/x", "/members", "/metrics", "/watch")


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
    assert body.count("<script") == 1  # its own
    assert "<img" not in body
    assert f"&lt;script&gt;alert(&#39;{name}&#39;)" in body
    assert headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert headers["X-Frame-Options"] == "DENY"


def test_no_slash(server: Server) -> None:
    """Without its slash the page redirects, also for who may not see it."""
    assert server.get("/presence")[0] == 200


@pytest.mark.parametrize("odd", ["a//b", "/a", "//", "..", ".", "?x=1#y", "%2F", "a/../b", "ä"])
def test_odd_names(connect: Connect, server: Server, name: str, odd: str) -> None:
    """A channel is found under its name, whatever that is."""
    channel = odd if odd in ("..", ".", "//") else f"{odd}{name}"
    connect("ann").join(channel)
    assert server.json(f"/presence/channels/{urllib.parse.quote(channel, safe='')}")["name"] == channel
    assert server.json(f"/presence/members?{urllib.parse.urlencode({'channel': channel})}")["memberCount"] == 1


def test_errors_are_json(server: Server) -> None:
    """What is not there, and what is asked in another way than by GET, is answered in JSON as well."""
    status, _, body = server.get("/presence/nothing/here")
    assert (status, json.loads(body)["error"]["code"]) == (404, "NOT_FOUND")
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{server.origin}/presence/stats", data=b"{}", timeout=DEADLINE)
    with refused.value as answer:
        assert (answer.code, json.load(answer)["error"]["code"]) == (405, "METHOD_NOT_ALLOWED")
    for query in ("channel=a%20b", "channel=public", "channel=presence-" + "x" * 200):
        status, _, body = server.get(f"/presence/watch?{query}")
        assert (status, json.loads(body)["error"]["code"]) == (400, "INVALID_REQUEST")


def test_paging(connect: Connect, server: Server, name: str) -> None:
    """Channels can be searched, sorted and paged; the pages together are the whole, and the next one is named."""
    ann, bob = connect("ann"), connect("bob")
    for number in range(7):
        ann.join(f"presence-{name}-{number}")
    bob.join(f"presence-{name}-3")
    where = f"/presence/channels?search={name.upper()}-&limit=3"
    offset, seen = 0, list[str]()
    while offset is not None:
        page = server.json(f"{where}&sort=-name&offset={offset}")
        assert page["total"] == 7
        seen += [channel["name"] for channel in page["channels"]]
        offset = page["next"]
    assert seen == [f"presence-{name}-{number}" for number in reversed(range(7))]
    first = server.json(f"{where}&sort=-memberCount")["channels"][0]
    assert (first["name"], first["memberCount"]) == (f"presence-{name}-3", 2)
    assert server.json(f"{where}&offset=99") == {"channels": [], "total": 7, "next": None}


def test_members_in_pages(connect: Connect, server: Server, name: str) -> None:
    """Members can be paged, in order of joining, with how many connections each has."""
    channel = f"presence-{name}"
    for number in range(5):
        connect(f"user-{number}").join(channel)
    connect("user-3").join(channel)
    page = server.json(f"/presence/channels/{channel}?limit=2&offset=2&include=connections")
    assert [member["id"] for member in page["members"]] == ["user-2", "user-3"]
    assert (page["memberCount"], page["total"], page["next"]) == (5, 5, 4)
    assert page["connections"] == {"user-2": 1, "user-3": 2}
    assert "connections" not in server.json(f"/presence/channels/{channel}")


def test_rates(connect: Connect, server: Server, name: str) -> None:
    """The channel in which much is said is the busiest, and its rate goes back to nothing."""
    ann = connect("ann")
    ann.join(f"loud-{name}")
    ann.join(f"soft-{name}")

    def rates() -> dict[str, float]:
        listed = server.json(f"/presence/channels?search={name}&sort=-rate&include=rate")["channels"]
        return {channel["name"]: channel["rate"] for channel in listed}

    def is_busy() -> bool:
        ann.say(f"loud-{name}", "hello")
        return rates()[f"loud-{name}"] > 0

    wait_until(is_busy)
    assert next(iter(rates())) == f"loud-{name}"
    assert rates()[f"soft-{name}"] == 0

    def is_among_the_busiest() -> bool:
        """On a server on which others have just been busy."""
        for number in range(20):
            ann.say(f"loud-{name}", number)
        return f"loud-{name}" in {channel["name"] for channel in server.json("/presence/activity")["busiest"]}

    wait_until(is_among_the_busiest)


@pytest.mark.parametrize(
    "query",
    ["type=secret", "sort=size", "limit=0", "limit=1001", "limit=x", "offset=-1", "offset=1e3", "include=members"],
)
def test_bad_queries(server: Server, query: str) -> None:
    """What cannot be meant is answered with 400, and with what can be."""
    status, _, body = server.get(f"/presence/channels?{query}")
    error = json.loads(body)["error"]
    assert (status, error["code"]) == (400, "INVALID_REQUEST")
    assert query.partition("=")[0].removesuffix("s") in error["message"]
    assert server.get(f"/presence/?{query}")[0] == 400


def test_etags(name: str) -> None:
    """While nothing happens an ETag spares the body; when something has, the body is a new one."""
    with running(PRESENCE_BACKEND="memory://") as quiet, client(quiet, "ann") as ann:
        for path in ("stats", "activity", "channels?limit=9&include=rate", f"channels/presence-{name}"):
            ann.join(f"presence-{name}")
            wait_until(lambda path=path: _is_unchanged(quiet, f"/presence/{path}"))  # type: ignore[misc]
            _, headers, _ = quiet.get(f"/presence/{path}")
            assert headers["Cache-Control"] == "no-store"
            with client(quiet, "bob") as bob:
                bob.join(f"presence-{name}")
                status, others, body = quiet.get(f"/presence/{path}", {"If-None-Match": headers["ETag"]})
                assert status == 200
                assert others["ETag"] != headers["ETag"]
                assert json.loads(body)


def _is_unchanged(server: Server, path: str) -> bool:
    _, headers, _ = server.get(path)
    status, _, body = server.get(path, {"If-None-Match": headers["ETag"]})
    assert status in (200, 304)
    return status == 304 and body == ""


def make_app(guard: Callable[[], object] | None = None, **config: Any) -> Flask:
    app = Flask("pages")
    app.config.update(JWT_SECRET_KEY="a secret of thirty-two characters", **config)
    JWTManager(app)
    presence = Presence(app)
    if guard is not None:
        presence.stats_guard(guard)
    return app


def fail() -> bool:
    raise RuntimeError("secret of the guard")


def coroutine() -> Any:
    async def answer() -> bool:
        return True

    return answer()


@pytest.mark.parametrize(
    ("guard", "told"),
    [
        (lambda: False, "stats_guard"),
        (lambda: None, "stats_guard"),
        (lambda: "yes", "stats_guard"),
        (lambda: 1, "stats_guard"),
        (lambda: deny("For operators only"), "For operators only"),
        (fail, "stats_guard"),
        (coroutine, "stats_guard"),
    ],
)
def test_stats_guard_says_no(guard: Callable[[], object], told: str) -> None:
    """Whatever is not a plain yes keeps every page closed, and nothing of a failure is told."""
    visitor = make_app(guard).test_client()
    for page in PAGES:
        response = visitor.get(f"/presence{page}")
        assert response.status_code == 403
        assert told in json.loads(response.text)["error"]["message"]
        assert "secret" not in response.text


def test_stats_guard_says_yes() -> None:
    """The function runs in the page's request context, once for each request; True opens, as does a dictionary."""
    seen: list[str] = []

    def guard() -> bool:
        seen.append(request.path)
        return request.headers.get("X-Key") == "secret"

    visitor = make_app(guard).test_client()
    for page in PAGES:
        status = 404 if page == "/channels/x" else 200
        assert visitor.get(f"/presence{page}", headers={"X-Key": "secret"}).status_code == status
        assert visitor.get(f"/presence{page}", headers={"X-Key": "wrong"}).status_code == 403
    assert seen == [f"/presence{page}" for page in PAGES for _ in range(2)]
    assert make_app(lambda: {"authorized": True}).test_client().get("/presence/").status_code == 200


def test_stats_guard_asks_for_a_login() -> None:
    """A function that aborts decides itself what is answered."""

    def guard() -> bool:
        abort(401, www_authenticate=WWWAuthenticate("basic", {"realm": "operators"}))

    response = make_app(guard).test_client().get("/presence/")
    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"].startswith("Basic")


def test_page_without_script(connect: Connect, server: Server, name: str) -> None:
    """The page itself has the numbers, the channels that were asked for, and the members of the one that is open; what
    else stands in its query string stays in its links."""
    ann = connect("ann", claims={"name": "Ann"})
    ann.join(f"presence-{name}", mood=f"<b>{name}</b>")
    connect("ann").join(f"presence-{name}")
    connect().join(f"other-{name}")
    _, _, body = server.get(f"/presence/?search=presence-{name}&channel=presence-{name}&key=a%26b")
    assert f"&lt;b&gt;{name}" in body
    assert f"other-{name}" not in body.replace(f"presence-{name}", "")
    assert re.search(r'data-field="connections" class="number">2<', body)
    links = re.findall(r'href="([^"]*\?[^"]*)"', body)
    assert links
    assert all("key=a%26b" in link for link in links)
    assert '<input type="hidden" name="key" value="a&amp;b">' in body


@pytest.mark.parametrize(("kind", "most"), [("gunicorn-gevent", 20), ("gunicorn-gthread", 2)])
def test_watchers_are_few(redis_server: RedisServer, kind: str, most: int) -> None:
    """A process has so many streams at a time and no more, however fast they come; who goes makes room."""
    with running(kind=kind, **on_redis(redis_server)) as server, ExitStack() as stack, ThreadPoolExecutor(30) as crowd:

        def watch(_: int = 0) -> http.client.HTTPResponse:
            """A stream that ends its connection when it is closed; what is none is closed at once."""
            connection = http.client.HTTPConnection(server.host, timeout=DEADLINE)
            connection.request("GET", "/presence/watch", headers={"Connection": "close"})
            response = stack.enter_context(connection.getresponse())
            if response.status != 200:
                response.read()
            return response

        streams = list(crowd.map(watch, range(30)))
        open_streams = [stream for stream in streams if stream.status == 200]
        assert len(open_streams) == most
        assert {stream.status for stream in streams} == {200, 503}
        assert server.get("/ready")[0] == 200
        open_streams[0].close()
        wait_until(lambda: watch().status == 200)


def test_watch_while_the_server_stops() -> None:
    """A stream does not hold up a server that is told to stop, even one that never had a socket."""
    with running() as server:
        connection = http.client.HTTPConnection(server.host, timeout=DEADLINE)
        connection.request("GET", "/presence/watch")
        stream = connection.getresponse()
        assert stream.readline() == b"\n"
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(DEADLINE)  # gunicorn would wait for it for thirty seconds
        assert stream.read().strip() == b""
        connection.close()
