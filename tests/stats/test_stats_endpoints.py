"""The blueprint's pages: what they show, and to whom."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.parse
import urllib.request

import pytest

from ..conftest import Connect
from ..support.client import client
from ..support.server import DEADLINE, Server, running, wait_until


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
