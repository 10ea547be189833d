"""One channel with connections of both dialects: one member list, one order of messages, the same events."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ..conftest import Connect, Share
from ..support.client import Client, client
from ..support.pusher import SETTINGS, PusherClient, pusher_client
from ..support.server import Server, wait_until
from .conftest import ConnectPusher


def refused(one: PusherClient, event: str, data: Any, channel: str | None) -> tuple[int, str]:
    """The code and the message that answer an event."""
    one.send(event, data, channel)
    frame = one.frame()
    assert frame["event"] == "pusher:error"
    return frame["data"]["code"], frame["data"]["message"]


class Room:
    """A channel with `ann` natively and `bob` by Pusher, who have read all events so far."""

    def __init__(self, channel: str, ann: Client, bob: PusherClient) -> None:
        self.channel = channel
        self.ann = ann
        self.bob = bob
        ann.join(channel)
        bob.subscribe(channel, *(["bob"] if channel.startswith("presence-") else []))
        wait_until(lambda: ann.say(channel, "are you there?")["delivered"] == 1)
        bob.until(lambda frame: frame["data"] == "are you there?")
        bob.frames()
        ann.events()


@pytest.fixture(params=["presence", "private"])
def room(request: pytest.FixtureRequest, connect: Connect, connect_pusher: ConnectPusher, name: str) -> Room:
    return Room(f"{request.param}-{name}", connect("ann"), connect_pusher())


@pytest.fixture
def presence_room(connect: Connect, connect_pusher: ConnectPusher, name: str) -> Room:
    return Room(f"presence-{name}", connect("ann"), connect_pusher())


def test_client_events_go_both_ways(room: Room) -> None:
    """With exactly one `client-` added or taken off, and with the sender's user in presence channels only."""
    ann, bob, channel = room.ann, room.bob, room.channel
    is_presence = channel.startswith("presence-")
    for event in ("typing", "client-typing", "message", "pusher:x", "é"):
        bob.send(f"client-{event}", {"a": [1]}, channel)
        heard = ann.event()
        sender = {"clientId": bob.id} | ({"userId": "bob"} if is_presence else {})
        assert (heard["type"], heard["event"], heard["data"]) == ("channel:message", event, {"a": [1]})
        assert {key: heard["from"][key] for key in heard["from"] if key != "name"} == sender
        ann.say(channel, {"a": [1]}, event=event)
        expected = {"event": f"client-{event}", "channel": channel, "data": {"a": [1]}}
        assert bob.event() == (expected | {"user_id": "ann"} if is_presence else expected)
    ann.say(channel, 1)
    assert bob.event()["event"] == "client-message"
    assert bob.frames() == []


def test_the_senders_other_tabs_hear_an_event_and_the_sender_does_not(
    presence_room: Room, connect_pusher: ConnectPusher, connect: Connect
) -> None:
    other, native, channel = connect_pusher(), connect("bob"), presence_room.channel
    other.members(channel, "bob")
    native.join(channel)
    presence_room.bob.send("client-x", "text", channel)
    assert presence_room.ann.event()["data"] == "text"
    assert native.event()["from"]["clientId"] == presence_room.bob.id
    assert other.event() == {"event": "client-x", "channel": channel, "data": "text", "user_id": "bob"}
    assert presence_room.bob.frames() == []


def test_client_events_are_only_for_subscribers_of_some_channels(connect_pusher: ConnectPusher, name: str) -> None:
    one, other = connect_pusher(), connect_pusher()
    for channel in (name, f"private-encrypted-{name}", f"private-{name}"):
        other.subscribe(channel)
        assert refused(one, "client-x", {}, channel)[0] == 4301
    for channel in (name, f"private-encrypted-{name}"):
        one.subscribe(channel)
        assert refused(one, "client-x", {}, channel)[0] == 4301
    one.subscribe(f"private-{name}")
    assert refused(one, "x", {}, f"private-{name}")[0] == 4300
    assert refused(one, "client-x", {}, f"private-{name}-2")[0] == 4301
    assert one.frames() == other.frames() == []


def test_client_events_have_a_limit_of_their_own(shared: Share) -> None:
    """Beyond it they are refused, and the connection may do everything else."""
    server = shared(PRESENCE_PUSHER_CLIENT_EVENTS=(0.001, 3), **SETTINGS)
    with pusher_client(server) as one, pusher_client(server) as other:
        one.subscribe("private-a")
        other.subscribe("private-a")
        for number in range(5):
            one.send("client-x", number, "private-a")
        assert [one.error() for _ in range(2)] == [4301] * 2
        assert [other.event()["data"] for _ in range(3)] == [0, 1, 2]
        assert other.frames() == one.frames() == []
        other.send("client-x", 1, "private-a")
        assert one.event()["data"] == 1


def test_without_a_limit_of_their_own_client_events_have_the_general_one(shared: Share) -> None:
    server = shared(PRESENCE_PUSHER_CLIENT_EVENTS=None, **SETTINGS)
    with pusher_client(server) as one, client(server) as native:
        one.subscribe("private-a")
        for number in range(50):
            one.send("client-x", number, "private-a")
        assert one.frames() == []
        assert native.silent()


def test_message_guards_are_asked_about_the_event_without_its_prefix(
    connect_pusher: ConnectPusher, connect: Connect, name: str
) -> None:
    """The guard's reason is in the answer; without a user it is asked about `None`."""
    channel = f"presence-news-{name}"
    staff, visitor, nobody = connect_pusher(), connect_pusher(), connect_pusher()
    staff.members(channel, f"staff-{name}")
    visitor.members(channel, "visitor")
    staff.frames()
    assert refused(visitor, "client-x", {}, channel)[0] == 4301
    assert refused(staff, "client-x", "not this", channel)[0] == 4301
    assert refused(staff, "client-text", "", channel)[0] == 4301
    assert refused(staff, "client-break", "", channel)[0] == 4301
    staff.send("client-x", "this", channel)
    assert visitor.event()["data"] == "this"
    private = f"private-news-{name}"
    nobody.subscribe(private)
    assert refused(nobody, "client-x", {}, private) == (4301, "Log in to write")
    assert staff.frames() == visitor.frames() == []


def test_publishing_reaches_both_dialects(server: Server, room: Room) -> None:
    assert server.call("publish", name=room.channel, event="news", data={"a": 1}) == 2
    assert room.bob.event() == {"event": "news", "channel": room.channel, "data": {"a": 1}}
    heard = room.ann.event()
    assert (heard["event"], heard["data"], heard["from"]) == ("news", {"a": 1}, {"clientId": "server"})
    assert server.call("publish", name=room.channel, event="client-news", data=1) == 2
    assert room.bob.event()["event"] == "client-news"


def test_a_socket_id_is_excluded_like_a_client_id(server: Server, room: Room) -> None:
    assert server.call("publish", name=room.channel, event="a", data=1, exclude=room.bob.id) == 1
    assert room.ann.event()["event"] == "a"
    assert server.call("publish", name=room.channel, event="b", data=1, exclude=room.ann.id) == 1
    assert room.bob.event()["event"] == "b"
    assert room.bob.frames() == []


@pytest.mark.parametrize("event", ["pusher:x", "pusher_internal:member_added", "pusher:"])
def test_reserved_events_cannot_be_published(server: Server, event: str) -> None:
    answer = server.call("publish", name="lobby", event=event, data=1)
    assert answer["raised"] == "ValueError"


def test_without_the_dialect_every_event_can_be_published(shared: Share) -> None:
    assert shared().call("publish", name="lobby", event="pusher:x", data=1) == 0


@pytest.mark.parametrize(
    ("message", "event"),
    [
        ({"type": "alarm", "x": [1, "é"]}, "alarm"),
        ({"type": ""}, "broadcast"),
        ({"type": 7}, "broadcast"),
        ({"type": None}, "broadcast"),
        ({"type": "pusher:error"}, "broadcast"),
        ({"type": "pusher_internal:member_added", "user_id": "x"}, "broadcast"),
        ({"x": 1}, "broadcast"),
        ({}, "broadcast"),
        ({"type": "channel:message"}, "channel:message"),
        ({"type": "channel:message", "channel": 1, "event": {}, "data": 5, "from": []}, "channel:message"),
        ({"type": {"deep": [1]}}, "broadcast"),
    ],
)
def test_a_broadcast_is_an_event_of_its_type(server: Server, room: Room, message: dict[str, Any], event: str) -> None:
    """The data is the whole object. Native clients get the object itself."""
    assert server.call("broadcast_to_channel", name=room.channel, message=message) == 2
    assert room.ann.event() == message
    assert room.bob.event() == {"event": event, "channel": room.channel, "data": message}


def test_a_broadcast_may_nest_as_deep_as_json_of_python(server: Server, room: Room) -> None:
    deep: Any = 1
    for _ in range(150):
        deep = [deep]
    assert server.call("broadcast_to_channel", name=room.channel, message={"type": deep}) == 2
    assert room.bob.event()["data"] == {"type": deep}


def test_member_lists_have_members_of_both_dialects(
    server: Server, connect: Connect, connect_pusher: ConnectPusher, name: str
) -> None:
    """In order of joining, and each as its dialect shows it."""
    channel = f"presence-{name}"
    ann, bob, eve = connect("ann"), connect_pusher(), connect_pusher()
    ann.join(channel, name="Ann", avatar="a.png", mood="fine", gone=None)
    signed = {
        "id": 17,
        "name": "Bob",
        "avatar": "b.png",
        "clientId": "forged",
        "joinedAt": "forged",
        "updatedAt": 0,
        "__proto__": {"x": 1},
        "role": "admin",
        "nothing": None,
    }
    shown = {key: value for key, value in signed.items() if key != "nothing"}
    native = {"id": "ann", "name": "Ann", "avatar": "a.png", "mood": "fine"}
    assert bob.members(channel, "bob", signed) == {"ann": native, "bob": shown}
    assert eve.members(channel, "eve") == {"ann": native, "bob": shown, "eve": {}}
    joined = [ann.event(), ann.event()]
    assert [event["type"] for event in joined] == ["presence:member_joined"] * 2
    member = joined[0]["member"]
    assert member == {
        "id": "bob",
        "clientId": bob.id,
        "joinedAt": member["joinedAt"],
        "name": "Bob",
        "avatar": "b.png",
        "role": "admin",
    }
    assert member["joinedAt"] != "forged"
    assert joined[1]["member"]["name"] == "Anonymous"
    assert bob.event() == {
        "event": "pusher_internal:member_added",
        "channel": channel,
        "data": {"user_id": "eve", "user_info": {}},
    }
    assert server.json(f"/presence/channels/{channel}")["memberCount"] == 3
    members = server.call("get_channel_members", name=channel)
    assert [one["id"] for one in members] == ["ann", "bob", "eve"]
    assert members[1] == member
    assert ann.join(channel)["members"] == members


def test_a_signed_name_or_avatar_that_is_no_string_shows_only_to_pusher(
    connect: Connect, connect_pusher: ConnectPusher, name: str
) -> None:
    channel, ann = f"presence-{name}", connect("ann")
    ann.join(channel)
    info = {"name": {"first": "Bob"}, "avatar": 5}
    assert connect_pusher().members(channel, "bob", info)["bob"] == info
    member = ann.event()["member"]
    assert member["name"] == "Anonymous"
    assert "avatar" not in member


def test_a_user_comes_and_goes_once_in_whichever_dialect_the_tabs_are(
    server: Server, connect: Connect, connect_pusher: ConnectPusher, name: str
) -> None:
    channel = f"presence-{name}"
    ann, eve = connect("ann"), connect_pusher()
    ann.join(channel)
    eve.members(channel, "eve")
    ann.events()
    with client(server, "bob") as native:
        native.join(channel)
        with pusher_client(server) as first, pusher_client(server) as second:
            first.members(channel, "bob")
            second.members(channel, "bob")
            assert server.json(f"/presence/channels/{channel}")["memberCount"] == 3
    left = {"event": "pusher_internal:member_removed", "channel": channel, "data": {"user_id": "bob"}}
    added = eve.event()
    assert (added["event"], added["data"]["user_id"]) == ("pusher_internal:member_added", "bob")
    assert eve.event() == left
    assert eve.frames() == []
    assert [ann.event()["type"] for _ in range(2)] == ["presence:member_joined", "presence:member_left"]
    assert ann.silent()


def test_updates_are_merged_from_both_dialects(connect: Connect, connect_pusher: ConnectPusher, name: str) -> None:
    """Everybody hears them as the dialect of the user's first connection shows them."""
    channel = f"presence-{name}"
    native, signed, watcher = connect("ann"), connect_pusher(), connect_pusher()
    native.join(channel, name="Ann", a=1)
    watcher.members(channel, "eve")
    signed.members(channel, "ann", {"b": 2, "id": 9})
    native.update(channel, c=3)
    signed.members(channel, "ann", {"b": None})
    expected = [{"a": 1, "b": 2}, {"a": 1, "b": 2, "c": 3}, {"a": 1, "c": 3}]
    for info in expected:
        update = watcher.event()
        assert (update["event"], update["data"]["user_id"]) == ("presence:member_updated", "ann")
        assert update["data"]["user_info"] == {"id": "ann", "name": "Ann"} | info
    assert native.join(channel)["me"]["c"] == 3


def test_a_native_tab_updates_a_member_who_came_by_pusher(
    connect: Connect, connect_pusher: ConnectPusher, name: str
) -> None:
    """Its name and avatar too, because the login knows none."""
    channel = f"presence-{name}"
    signed, native = connect_pusher(), connect("bob")
    signed.members(channel, "bob", {"id": 5, "name": "Bob"})
    native.join(channel)
    native.update(channel, mood="fine", id="forged")
    update = signed.event()
    assert update["event"] == "presence:member_updated"
    assert update["data"] == {"user_id": "bob", "user_info": {"id": 5, "name": "Bob", "mood": "fine"}}


def test_what_a_guard_owns_beats_what_is_signed(
    server: Server, connect: Connect, connect_pusher: ConnectPusher, name: str
) -> None:
    channel = f"presence-owned-{name}"
    server.post(f"/own/{channel}", {"authorized": True, "userInfo": {"role": "reader", "name": "Ann"}})
    signed, native, watcher = connect_pusher(), connect("ann"), connect_pusher()
    watcher.members(channel, "eve")
    signed.members(channel, "ann", {"role": "admin", "name": "Root", "mood": "fine"})
    native.join(channel)
    assert watcher.event()["data"]["user_info"]["role"] == "admin"
    owned = watcher.event()["data"]["user_info"]
    assert owned == {"role": "reader", "name": "Ann", "mood": "fine"}
    signed.members(channel, "ann", {"role": "admin", "mood": "fine"})
    assert watcher.frames() == []
    assert signed.members(channel, "ann")["ann"] == owned


def test_counts_have_connections_of_both(server: Server, room: Room, connect_pusher: ConnectPusher) -> None:
    """`delivered`, and what the app's code and the pages say."""
    other = connect_pusher()
    other.subscribe(room.channel, *(["bob"] if room.channel.startswith("presence-") else []))
    assert room.ann.say(room.channel, 1)["delivered"] == 2
    assert server.call("publish", name=room.channel, event="x", data=1) == 3
    count = 2 if room.channel.startswith("presence-") else 3
    assert server.json(f"/presence/channels/{room.channel}")["memberCount"] == count
    assert server.json("/presence/stats")["connections"] >= 3


def test_handlers_hear_the_same_events_of_both_dialects(server: Server, connect: Connect, name: str) -> None:
    """`event` of a message has no prefix, and a signed user has the signed name."""
    channel = f"presence-{name}"
    native = connect("ann")
    native.join(channel)
    with pusher_client(server) as one:
        one.members(channel, "bob", {"name": "Bob"})
        one.send("client-typing", {"a": 1}, channel)
        one.members(channel, "bob", {"name": "Robert"})
        one.frames()
    expected = [
        *("client.connected", "channel.joined", "member.joined", "message", "member.updated", "channel.left"),
        *("member.left", "client.disconnected"),
    ]

    def heard() -> list[dict[str, Any]]:
        events: list[dict[str, Any]] = server.json(f"/heard/{one.id}")
        return events

    wait_until(lambda: len(heard()) == len(expected))
    events = heard()
    assert [event["name"] for event in events] == expected
    assert [event["user"] for event in events] == [None, *["bob"] * 7]
    message = events[3]
    assert (message["event"], message["data"], message["channel"]) == ("typing", {"a": 1}, channel)


def test_cached_events_come_after_the_subscription(
    server: Server, connect: Connect, connect_pusher: ConnectPusher, name: str
) -> None:
    """The newest message of the server's, where history keeps the channel; `pusher:cache_miss` otherwise."""
    for prefix in ("cache-", "private-cache-", "presence-cache-"):
        for kind in ("kept", "other"):
            channel = f"{prefix}{kind}-{name}"
            user = ["ann"] if prefix.startswith("presence-") else []
            first, second = connect_pusher(), connect_pusher()
            first.subscribe(channel, *user)
            assert first.frame() == {"event": "pusher:cache_miss", "channel": channel, "data": "{}"}
            server.call("publish", name=channel, event="old", data=1)
            server.call("publish", name=channel, event="new", data={"a": 2})
            assert [first.event()["event"] for _ in range(2)] == ["old", "new"]
            if prefix != "cache-":
                first.send("client-x", "not cached", channel)
            native = connect("eve")
            native.join(channel)
            native.say(channel, "not cached")
            second.subscribe(channel, *user)
            expected = {"event": "pusher:cache_miss", "channel": channel, "data": {}}
            if kind == "kept":
                expected = {"event": "new", "channel": channel, "data": {"a": 2}}
            assert second.event() == expected
            second.subscribe(channel, *user)
            assert second.event() == expected


def test_channels_that_only_keep_messages_have_no_cached_event(
    server: Server, connect_pusher: ConnectPusher, name: str
) -> None:
    one, channel = connect_pusher(), f"kept-{name}"
    server.call("publish", name=channel, event="x", data=1)
    one.subscribe(channel)
    assert one.frames() == []


def test_encrypted_events_pass_as_they_are(server: Server, connect_pusher: ConnectPusher, name: str) -> None:
    one, channel = connect_pusher(), f"private-encrypted-{name}"
    one.subscribe(channel)
    data = {"nonce": "bm9uY2U=", "ciphertext": "Y2lwaGVy"}
    server.call("publish", name=channel, event="secret", data=data)
    assert one.event() == {"event": "secret", "channel": channel, "data": data}


@pytest.mark.parametrize(
    "value",
    ["text", "", "7", '"quoted"', "null", "{", '{"a": 1}', 0, -0.5, None, True, [], {"a": "é\u2028\U0001f600"}, "\x00"],
)
def test_every_native_value_arrives_exactly(room: Room, server: Server, value: Any) -> None:
    """From native clients and the server to Pusher's, and back."""
    room.ann.say(room.channel, value)
    frame = room.bob.frame()
    read = frame["data"] if isinstance(value, str) and not is_json(value) else json.loads(frame["data"])
    assert (read, type(read)) == (value, type(value))
    room.bob.send("client-back", frame["data"], room.channel)
    back = room.ann.event()["data"]
    assert (back, type(back)) == (value, type(value))
    server.call("publish", name=room.channel, event="x", data=value)
    assert room.bob.event()["data"] == (json.loads(frame["data"]) if is_json(frame["data"]) else value)


def test_a_message_arrives_however_deep_it_nests(shared: Share) -> None:
    """If the server can read it at all."""
    server = shared(PRESENCE_RATE_LIMIT=None, **SETTINGS)
    with client(server, "ann") as ann, pusher_client(server) as bob:
        ann.join("private-deep")
        bob.subscribe("private-deep")
        for levels in range(900, 1000):
            ann.socket.send('{"type":"channel:message","channel":"private-deep","data":' + nested(levels) + "}")
            answer = ann.event()
            if answer["type"] == "error":
                assert answer["code"] == "INVALID_JSON"
                break
            assert bob.frame()["data"] == nested(levels)
        assert levels > 900
        assert bob.frames() == []


def nested(levels: int) -> str:
    return "[" * levels + "]" * levels


def is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
