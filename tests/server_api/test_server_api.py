"""What the app's own code can call from a view, a greenlet and a thread, and the events that it gets."""

from __future__ import annotations

from typing import Any

import pytest

from ..conftest import Connect
from ..support.client import client
from ..support.server import Server, running, wait_until

PLACES = pytest.mark.parametrize("place", ["view", "greenlet", "thread"])


@PLACES
def test_publish_sends_a_channel_message_from_the_server(
    connect: Connect, server: Server, name: str, place: str
) -> None:
    one, other = connect(), connect("ann")
    one.join(name)
    other.join(name)
    assert server.call("publish", place, name=name, event="news", data={"a": [1]}) == 2
    for receiver in (one, other):
        event = receiver.event()
        assert event.pop("timestamp")
        assert event == {
            "type": "channel:message",
            "channel": name,
            "event": "news",
            "data": {"a": [1]},
            "from": {"clientId": "server"},
        }


@PLACES
def test_broadcast_sends_the_object_itself_to_everybody_but_one(
    connect: Connect, server: Server, name: str, place: str
) -> None:
    one, other = connect(), connect()
    one.join(name)
    other.join(name)
    message = {"type": "anything", "list": [None, "ü"]}
    assert server.call("broadcast_to_channel", place, name=name, message=message, exclude=one.id) == 1
    assert other.event() == message
    assert one.silent()
    assert server.call("broadcast_to_channel", place, name=f"nobody-{name}", message={}) == 0


def test_a_message_that_cannot_be_sent_raises_first(server: Server, name: str) -> None:
    nan: dict[str, Any] = {"name": name, "message": {"x": float("nan")}}
    assert server.call("broadcast_to_channel", **nan)["raised"] == "TypeError"
    assert server.call("broadcast_to_channel", name=name, message=[1])["raised"] == "TypeError"
    assert server.call("publish", name=name, event=5, data=1)["raised"] == "TypeError"
    assert server.call("publish", name="no name", event="x", data=1)["raised"] == "ValueError"


@PLACES
def test_channels_members_and_counts_are_returned_as_they_are(
    connect: Connect, server: Server, name: str, place: str
) -> None:
    ann, anonymous = connect("ann"), connect()
    me = ann.join(f"presence-{name}", name="Ann", cursor={"x": 1})["me"]
    anonymous.join(f"public-{name}")
    connect().join(f"public-{name}")
    found = server.call("get_channel", place, name=f"presence-{name}")
    assert found.pop("createdAt")
    assert found == {"name": f"presence-{name}", "type": "presence", "memberCount": 1, "members": [me]}
    assert server.call("get_channel", place, name=f"nobody-{name}") is None
    assert server.call("get_channel_members", place, name=f"presence-{name}") == [me]
    assert server.call("get_channel_members", place, name=f"public-{name}") == []
    listed = server.call("list_channels", place, prefix=f"public-{name}")
    assert [(channel["name"], channel["memberCount"]) for channel in listed] == [(f"public-{name}", 2)]
    assert "members" not in listed[0]
    kinds = {channel["type"] for channel in server.call("list_channels", place, type="presence")}
    assert kinds == {"presence"}
    assert server.call("list_channels", place, type="secret")["raised"] == "ValueError"


@PLACES
def test_disconnect_closes_with_4403_and_the_reason(connect: Connect, server: Server, name: str, place: str) -> None:
    """When it returns, the members have left."""
    user = f"user-{name}"
    tabs, watcher = [connect(user), connect(user)], connect("watcher")
    watcher.join(f"presence-{name}")
    for tab in tabs:
        tab.join(f"presence-{name}")
    assert server.call("disconnect", place, client_id=tabs[0].id, reason="enough") == 1
    assert tabs[0].wait_closed() == (4403, "enough")
    assert server.call("disconnect", place, user_id=user, reason="ü" * 100) == 1
    assert [member["id"] for member in server.call("get_channel_members", name=f"presence-{name}")] == ["watcher"]
    assert tabs[1].wait_closed() == (4403, "ü" * 61)
    assert [event["type"] for event in watcher.events()] == ["presence:member_joined", "presence:member_left"]
    assert server.call("disconnect", place, user_id=user) == 0
    assert server.call("disconnect", place)["raised"] == "ValueError"
    assert server.call("disconnect", place, user_id=[])["raised"] == "TypeError"
    assert server.call("disconnect", place, client_id=watcher.id, reason="a \ud800 b") == 1
    assert watcher.wait_closed() == (4403, "a ? b")


def test_stats_count_all_channels_and_connections() -> None:
    with running() as server:
        assert server.call("get_channel_stats")["connections"] == 0
        with client(server, "ann") as one, client(server, "ann") as two, client(server):
            one.join("presence-a")
            two.join("presence-a")
            one.join("private-a")
            two.join("private-a")
            expected = {
                "channels": 2,
                "totalMembers": 3,
                "byType": {"public": 0, "private": 1, "presence": 1},
                "connections": 3,
            }
            assert server.call("get_channel_stats") == expected
            assert server.json("/presence/stats") == expected


def test_handlers_get_the_events_of_a_connection_once_and_in_order(connect: Connect, server: Server, name: str) -> None:
    ann, channel = connect("ann"), f"presence-{name}"
    ann.join(channel)
    ann.say(channel, {"x": 1}, event="hello")
    ann.update(channel, a=1)
    ann.update(channel, a=1)
    ann.join(name)
    ann.request("leave", channel=name)
    ann.socket.close()

    def heard() -> list[dict[str, Any]]:
        events: list[dict[str, Any]] = server.json(f"/heard/{ann.id}")
        return events

    wait_until(lambda: heard()[-1]["name"] == "client.disconnected")
    assert [event["name"] for event in heard()] == [
        "client.connected",
        "channel.joined",
        "member.joined",
        "message",
        "member.updated",
        "channel.joined",
        "channel.left",
        "channel.left",
        "member.left",
        "client.disconnected",
    ]
    by_name = {event["name"]: event for event in heard()}
    assert {event["user"] for event in heard()} == {"ann"}
    assert {event["jwt"] for event in heard()} == {"ann"}
    assert (by_name["message"]["event"], by_name["message"]["data"]) == ("hello", {"x": 1})
    reasons = [event["reason"] for event in heard() if event["name"] == "channel.left"]
    assert reasons == ["left", "closed"]
    assert (by_name["client.disconnected"]["code"], by_name["client.disconnected"]["reason"]) == ("1000", "closed")


def test_a_handler_that_raises_is_logged_and_stops_nothing(connect: Connect, server: Server, name: str) -> None:
    one = connect()
    one.join(name)
    one.say(name, 1, event="break")
    one.say(name, 2)
    wait_until(lambda: len([e for e in server.json(f"/heard/{one.id}") if e["name"] == "message"]) == 2)
    assert "a handler failed" in server.log()


def test_a_connection_that_ends_without_a_close_is_lost(connect: Connect, server: Server, name: str) -> None:
    """Its code is 1006."""
    one = connect("ann")
    one.join(f"presence-{name}")
    one.cut()
    wait_until(lambda: server.json(f"/heard/{one.id}")[-1]["name"] == "client.disconnected")
    last = server.json(f"/heard/{one.id}")[-1]
    assert (last["code"], last["reason"]) == ("1006", "lost")


def test_events_are_balanced_if_a_connection_ends_while_it_joins_again(
    connect: Connect, server: Server, name: str
) -> None:
    """Every join that handlers hear of is followed by a leave."""
    channel = f"presence-room-{name}"
    for turn in range(10):
        one = connect(f"{name}-{turn}")
        one.join(channel)
        for number in range(4):
            one.send({"type": "join", "channel": channel, "userInfo": {"number": number}})
        if turn % 2:
            server.call("disconnect", client_id=one.id)
        else:
            one.cut()
        wait_until(lambda one=one: server.json(f"/heard/{one.id}")[-1]["name"] == "client.disconnected")  # type: ignore[misc]
        names = [event["name"] for event in server.json(f"/heard/{one.id}")]
        for what in ("channel", "member"):
            assert names.count(f"{what}.joined") == names.count(f"{what}.left") == 1, names
