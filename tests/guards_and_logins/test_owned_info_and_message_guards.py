"""Owned info and message guards: no client can set what the server knows, or send where it may not."""

from __future__ import annotations

import time
from typing import Any

import pytest

from ..conftest import Connect
from ..support.client import Client
from ..support.server import Server


def own(server: Server, channel: str, **info: Any) -> None:
    """The guard of `channel` gives this info from now on."""
    server.post(f"/own/{channel}", {"authorized": True, "userInfo": info})


def shown(member: dict[str, Any]) -> dict[str, Any]:
    """A member without the keys that every member has."""
    return {key: value for key, value in member.items() if key not in ("id", "clientId", "joinedAt", "updatedAt")}


def news(client: Client) -> list[tuple[str, dict[str, Any]]]:
    return [(event["type"].removeprefix("presence:member_"), shown(event["member"])) for event in client.events()]


def test_a_client_cannot_change_the_name_and_avatar_of_its_login(connect: Connect, name: str) -> None:
    """A member never has an e-mail address."""
    channel = f"presence-{name}"
    ann = connect("ann", claims={"name": "Ann", "avatar": "ann.png", "email": "ann@example.com"})
    bob = connect("bob")
    bob.join(channel)
    assert shown(ann.join(channel, name="Bob", avatar="bob.png")["me"]) == {"name": "Ann", "avatar": "ann.png"}
    for change in ({"name": "Bob"}, {"name": None, "avatar": None}, {"name": 5, "avatar": []}):
        assert shown(ann.update(channel, **change)["member"]) == {"name": "Ann", "avatar": "ann.png"}
    again = connect("ann", claims={"name": "Somebody else"})
    assert shown(again.join(channel, name="Bob")["me"]) == {"name": "Ann", "avatar": "ann.png"}
    assert news(bob) == [("joined", {"name": "Ann", "avatar": "ann.png"})]
    nameless = connect("eve")
    assert shown(nameless.join(channel, name="Eve")["me"]) == {"name": "Eve"}
    named = connect("eve", claims={"name": "Eve of the token"})
    assert shown(named.join(channel, name="Bob", x=1)["me"]) == {"name": "Eve", "x": 1}
    assert shown(named.update(channel, name="Bob")["member"]) == {"name": "Eve", "x": 1}


def test_no_client_can_change_owned_info(connect: Connect, server: Server, name: str) -> None:
    """The newest answer of the guard counts, for all of the user's connections."""
    channel = f"presence-owned-{name}"
    own(server, channel, role="guest", badge=None, name="Ann of the guard")
    watcher, ann = connect("watcher"), connect("ann", claims={"name": "Ann"})
    server.post(f"/own/{channel}", True)
    watcher.join(channel)
    own(server, channel, role="guest", badge=None, name="Ann of the guard")
    mine = {"name": "Ann of the guard", "role": "guest", "x": 1}
    assert shown(ann.join(channel, role="admin", badge="gold", name="Bob", x=1)["me"]) == mine
    assert shown(ann.update(channel, role="admin", badge="gold", name=None)["member"]) == mine
    assert shown(ann.update(channel, role=None)["member"]) == mine
    tab = connect("ann", claims={"name": "Ann"})
    assert shown(tab.join(channel, role="admin")["me"]) == mine
    assert shown(ann.join(channel, role="admin")["me"]) == mine
    assert news(watcher) == [("joined", mine)]

    own(server, channel, role="moderator")
    changed = {"name": "Ann", "role": "moderator", "x": 1}
    assert shown(tab.join(channel)["me"]) == changed
    assert news(watcher) == news(ann) == [("updated", changed)]
    assert shown(ann.update(channel, badge="gold")["member"]) == changed | {"badge": "gold"}

    server.post(f"/own/{channel}", True)
    assert shown(ann.join(channel)["me"]) == {"name": "Ann", "x": 1, "badge": "gold"}
    assert [kind for kind, _ in news(watcher)] == ["updated", "updated"]
    assert server.json(f"/presence/channels/{channel}")["members"][1]["badge"] == "gold"


def test_a_value_that_became_owned_does_not_come_back(connect: Connect, server: Server, name: str) -> None:
    """This holds even if nobody saw a change."""
    channel = f"presence-owned-{name}"
    server.post(f"/own/{channel}", True)
    watcher, ann = connect("watcher"), connect("ann")
    watcher.join(channel)
    assert shown(ann.join(channel, role="admin")["me"]) == {"name": "Anonymous", "role": "admin"}
    own(server, channel, role="admin")
    before = ann.join(channel)["me"]
    assert "updatedAt" not in before
    server.post(f"/own/{channel}", True)
    assert shown(ann.join(channel)["me"]) == {"name": "Anonymous"}
    assert news(watcher) == [("joined", {"name": "Anonymous", "role": "admin"}), ("updated", {"name": "Anonymous"})]


def test_owned_info_does_not_count_towards_the_size_limit(connect: Connect, server: Server, name: str) -> None:
    channel = f"presence-owned-{name}"
    own(server, channel, role="x" * 5000)
    ann = connect("ann")
    me = ann.join(channel, text="y" * 4000)["me"]
    assert (len(me["role"]), len(me["text"])) == (5000, 4000)
    assert ann.request("channel:update", channel=channel, userInfo={"more": "z" * 100})["code"] == "UPDATE_FAILED"


@pytest.mark.parametrize("given", [[], "text", 5, None, [["role", "x"]]])
def test_owned_info_that_is_not_a_dictionary_denies(connect: Connect, server: Server, name: str, given: Any) -> None:
    """The log names the mistake of the guard."""
    channel = f"presence-owned-{name}"
    server.post(f"/own/{channel}", {"authorized": True, "userInfo": given})
    answer = connect("ann").request("join", channel=channel)
    assert (answer["code"], answer["message"]) == ("FORBIDDEN", "Access denied")


def test_reserved_keys_in_owned_info_are_dropped(connect: Connect, server: Server, name: str) -> None:
    channel = f"presence-owned-{name}"
    own(server, channel, id="bob", clientId="x", joinedAt="1970", updatedAt="1970", name=5, avatar=["x"], role="r")
    me = connect("ann").join(channel, name="Ann")["me"]
    assert (me["id"], shown(me)) == ("ann", {"name": "Ann", "role": "r"})


def test_owned_info_means_nothing_in_a_private_channel(connect: Connect, server: Server, name: str) -> None:
    channel = f"private-owned-{name}"
    own(server, channel, role="r")
    assert "me" not in connect("ann").join(channel)


def test_converters_abort_and_flask_json_work_in_a_guard(connect: Connect) -> None:
    ann = connect("ann")
    me = ann.join("presence-number-7")["me"]
    assert (me["seen"], me["when"]) == (7, "Wed, 07 Jan 2026 00:00:00 GMT")
    denied = [
        ("presence-number-31", "Too large"),
        ("presence-number-07", "Access denied"),
        ("presence-number-x", "Access denied"),
        ("private-number-", "Access denied"),
        ("private-abort-403", "Access denied"),
        ("private-abort-500", "Access denied"),
        ("private-abort-404", "Access denied"),
    ]
    for channel, message in denied:
        answer = ann.request("join", channel=channel)
        assert (answer["code"], answer["message"]) == ("FORBIDDEN", message), channel


def test_a_message_guard_is_asked_about_every_message(connect: Connect, name: str) -> None:
    """This holds in public channels too. Every answer but a plain yes sends nothing."""
    channel = f"news-{name}"
    reader, staff, anonymous = connect("reader"), connect("staff-1"), connect()
    for one in (reader, staff, anonymous):
        one.join(channel)
    refused: list[tuple[Client, dict[str, Any], str]] = [
        (anonymous, {"data": "headline"}, "Log in to write"),
        (reader, {"data": "headline"}, "Access denied"),
        (staff, {"data": "not this"}, "Access denied"),
        (staff, {"data": 1, "event": "break"}, "Access denied"),
        (staff, {"data": 1, "event": "text"}, "Access denied"),
    ]
    for sender, message, told in refused:
        answer = sender.request("channel:message", channel=channel, **message)
        assert (answer["code"], answer["message"]) == ("FORBIDDEN", told), message
    assert staff.say(channel, "headline")["delivered"] == 2
    for one in (reader, anonymous):
        assert one.event()["data"] == "headline"
        assert one.silent()
    assert staff.silent()
    other = f"presence-news-{name}"
    reader.join(other)
    assert reader.request("channel:message", channel=other, data=1)["code"] == "FORBIDDEN"
    assert reader.request("channel:message", channel=f"news-{name}-elsewhere", data=1)["code"] == "NOT_IN_CHANNEL"
    free = f"chat-{name}"
    reader.join(free)
    assert reader.say(free, 1)["delivered"] == 0


def test_a_slow_message_guard_keeps_the_order(connect: Connect, server: Server, name: str) -> None:
    """Requests behind the message wait for it, and other connections do not."""
    channel, free = f"news-{name}", f"chat-{name}"
    staff, reader = connect("staff-1"), connect("reader")
    for one in (staff, reader):
        one.join(channel)
        one.join(free)
    send = {"type": "channel:message", "channel": channel}
    staff.send(send | {"event": "wait", "data": 1})
    staff.send(send | {"data": 2})
    staff.send(send | {"channel": free, "data": 3})
    staff.send({"type": "leave", "channel": channel})
    assert reader.say(free, "meanwhile")["delivered"] == 1
    assert reader.silent()
    server.get(f"/open/{channel}")
    heard = [reader.event() for _ in range(3)]  # in the order of each channel
    assert [event["data"] for event in heard if event["channel"] == channel] == [1, 2]
    assert [event["data"] for event in heard if event["channel"] == free] == [3]
    assert staff.event()["data"] == "meanwhile"
    kinds = [staff.event()["type"] for _ in range(4)]
    assert kinds == ["channel:sent", "channel:sent", "channel:sent", "channel:left"]


def test_member_left_says_how_the_last_connection_ended(connect: Connect, server: Server, name: str) -> None:
    channel = f"presence-closing-{name}"
    watcher = connect("watcher")
    watcher.join(channel)
    ways: dict[str, Any] = {
        "left": lambda one: one.request("leave", channel=channel),
        "closed": lambda one: one.socket.close(),
        "disconnected": lambda _: server.call("disconnect", user_id="ann"),
        "expired": lambda _: None,
    }
    for reason, way in ways.items():
        claims = {"exp": int(time.time()) + 2} if reason == "expired" else {}
        first, last = connect("ann"), connect("ann", claims=claims)
        first.join(channel)
        last.join(channel)
        assert watcher.event()["type"] == "presence:member_joined"
        first.request("leave", channel=channel)
        way(last)
        event = watcher.event()
        assert (event["type"], event["reason"]) == ("presence:member_left", reason)
    denied = connect("ann")
    denied.join(channel)
    server.get(f"/close/{channel}")
    assert denied.request("join", channel=channel)["code"] == "FORBIDDEN"
    assert [watcher.event().get("reason") for _ in range(2)] == [None, "denied"]
    left = [event for event in server.json(f"/heard/{denied.id}") if event["name"] == "member.left"]
    assert [event["reason"] for event in left] == ["denied"]


def test_publish_may_exclude_one_connection(connect: Connect, server: Server, name: str) -> None:
    ann, bob = connect("ann"), connect("bob")
    for one in (ann, bob):
        one.join(f"chat-{name}")
    assert server.call("publish", name=f"chat-{name}", event="e", data=1, exclude=ann.id) == 1
    assert bob.event()["from"] == {"clientId": "server"}
    assert ann.silent()
