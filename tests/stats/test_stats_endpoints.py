"""The JSON of the pages: channels, members, activity, and their queries."""

from __future__ import annotations

import http.client
import json
import re
import urllib.error
import urllib.parse
import urllib.request
from contextlib import closing

import pytest

from ..conftest import Connect
from ..support.client import client
from ..support.server import DEADLINE, Server, running, wait_until


def test_channels_can_be_filtered_by_type_and_prefix(connect: Connect, server: Server, name: str) -> None:
    """A single channel comes with its members."""
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


def test_the_page_shows_names_as_text(connect: Connect, server: Server, name: str) -> None:
    """It allows no content from another origin."""
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


def test_the_page_redirects_to_its_url_with_a_slash(server: Server) -> None:
    with closing(http.client.HTTPConnection(server.host, timeout=DEADLINE)) as connection:
        connection.request("GET", "/presence")
        response = connection.getresponse()
        assert (response.status, response.headers["Location"]) == (308, f"{server.origin}/presence/")


@pytest.mark.parametrize("odd", ["a//b", "/a", "//", "..", ".", "?x=1#y", "%2F", "a/../b", "ä"])
def test_a_channel_is_found_under_any_name(connect: Connect, server: Server, name: str, odd: str) -> None:
    channel = odd if odd in ("..", ".", "//") else f"{odd}{name}"
    connect("ann").join(channel)
    assert server.json(f"/presence/channels/{urllib.parse.quote(channel, safe='')}")["name"] == channel
    assert server.json(f"/presence/members?{urllib.parse.urlencode({'channel': channel})}")["memberCount"] == 1


def test_errors_are_json(server: Server) -> None:
    status, _, body = server.get("/presence/nothing/here")
    assert (status, json.loads(body)["error"]["code"]) == (404, "NOT_FOUND")
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{server.origin}/presence/stats", data=b"{}", timeout=DEADLINE)
    with refused.value as answer:
        assert (answer.code, json.load(answer)["error"]["code"]) == (405, "METHOD_NOT_ALLOWED")
    for query in ("channel=a%20b", "channel=public", "channel=presence-" + "x" * 200):
        status, _, body = server.get(f"/presence/watch?{query}")
        assert (status, json.loads(body)["error"]["code"]) == (400, "INVALID_REQUEST")


def test_channels_can_be_searched_sorted_and_paged(connect: Connect, server: Server, name: str) -> None:
    """All pages together are the whole list, and each names the next."""
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


def test_members_can_be_paged_in_order_of_joining(connect: Connect, server: Server, name: str) -> None:
    """On request each comes with its number of connections."""
    channel = f"presence-{name}"
    for number in range(5):
        connect(f"user-{number}").join(channel)
    connect("user-3").join(channel)
    page = server.json(f"/presence/channels/{channel}?limit=2&offset=2&include=connections")
    assert [member["id"] for member in page["members"]] == ["user-2", "user-3"]
    assert (page["memberCount"], page["total"], page["next"]) == (5, 5, 4)
    assert page["connections"] == {"user-2": 1, "user-3": 2}
    assert "connections" not in server.json(f"/presence/channels/{channel}")


def test_the_busiest_channel_has_the_highest_rate(connect: Connect, server: Server, name: str) -> None:
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
        """Other tests may have been busy on this server just before. What the server sends has no rate limit."""
        for number in range(20):
            assert server.call("publish", name=f"loud-{name}", event="loud", data=number) == 1
        return f"loud-{name}" in {channel["name"] for channel in server.json("/presence/activity")["busiest"]}

    wait_until(is_among_the_busiest)


@pytest.mark.parametrize(
    "query",
    ["type=secret", "sort=size", "limit=0", "limit=1001", "limit=x", "offset=-1", "offset=1e3", "include=members"],
)
def test_an_invalid_query_is_refused_with_400(server: Server, query: str) -> None:
    """The message says which values are valid."""
    status, _, body = server.get(f"/presence/channels?{query}")
    error = json.loads(body)["error"]
    assert (status, error["code"]) == (400, "INVALID_REQUEST")
    assert query.partition("=")[0].removesuffix("s") in error["message"]
    assert server.get(f"/presence/?{query}")[0] == 400


def test_an_etag_saves_the_body_while_nothing_changes(name: str) -> None:
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


def test_the_page_works_without_the_script(connect: Connect, server: Server, name: str) -> None:
    """It has the numbers, the requested channels and the members of the open channel. Its links keep the other
    parameters of the query."""
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
