"""Every request of the protocol, if it succeeds: join, message, update, leave, ping."""

from __future__ import annotations

import re

import pytest

from ..conftest import Connect
from ..support.server import Server, wait_until

TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


def test_the_first_frame_names_the_client_and_the_user(connect: Connect) -> None:
    """The client id has at least 22 URL-safe characters."""
    greeting = connect("ann").connected
    assert greeting.keys() == {"type", "clientId", "user", "timestamp"}
    assert greeting["type"] == "connected"
    assert greeting["user"] == {"id": "ann"}
    assert re.fullmatch(r"[A-Za-z0-9_-]{22,}", greeting["clientId"])
    assert TIMESTAMP.fullmatch(greeting["timestamp"])
    assert connect().connected["user"] is None


@pytest.mark.parametrize(("prefix", "kind"), [("public-", "public"), ("", "public"), ("private-", "private")])
def test_joining_a_public_or_private_channel_returns_no_members(
    connect: Connect, name: str, prefix: str, kind: str
) -> None:
    answer = connect("ann").join(f"{prefix}{name}")
    assert answer == {"type": "channel:joined", "channel": f"{prefix}{name}", "channelType": kind}


def test_joining_a_presence_channel_returns_the_members(connect: Connect, name: str) -> None:
    """They are in order of joining. The others hear about the joiner, once."""
    ann, bob = connect("ann"), connect("bob", claims={"name": "Bob B.", "avatar": "b.png"})
    mine = ann.join(f"presence-{name}", name="Ann", status="here")
    assert mine["channelType"] == "presence"
    assert mine["members"] == [mine["me"]]
    assert list(mine["me"]) == ["id", "clientId", "joinedAt", "name", "status"]
    theirs = bob.join(f"presence-{name}")
    assert [member["id"] for member in theirs["members"]] == ["ann", "bob"]
    assert theirs["me"] == theirs["members"][1]
    assert theirs["me"]["name"] == "Bob B."
    assert theirs["me"]["avatar"] == "b.png"
    event = ann.event()
    assert TIMESTAMP.fullmatch(event.pop("timestamp"))
    assert event == {"type": "presence:member_joined", "channel": f"presence-{name}", "member": theirs["me"]}
    assert bob.silent()


def test_a_message_reaches_everybody_but_its_sender(connect: Connect, name: str) -> None:
    """The sender's other connection gets it too, and the answer says how many connections got it."""
    ann, tab, bob = connect("ann"), connect("ann"), connect("bob")
    for one in (ann, tab, bob):
        one.join(f"private-{name}")
    sent = ann.say(f"private-{name}", {"text": "Hello", "n": [1, None]}, event="chat")
    assert sent == {"type": "channel:sent", "channel": f"private-{name}", "delivered": 2}
    for one in (tab, bob):
        event = one.event()
        assert TIMESTAMP.fullmatch(event.pop("timestamp"))
        assert event == {
            "type": "channel:message",
            "channel": f"private-{name}",
            "event": "chat",
            "data": {"text": "Hello", "n": [1, None]},
            "from": {"clientId": ann.id, "userId": "ann"},
        }
    assert ann.silent()


def test_an_anonymous_sender_has_no_user_id(connect: Connect, name: str) -> None:
    """The event is `message` by default, and `null` is valid data."""
    one, other = connect(), connect()
    one.join(name)
    other.join(name)
    assert one.say(name, None)["delivered"] == 1
    event = other.event()
    assert (event["event"], event["data"], event["from"]) == ("message", None, {"clientId": one.id})


@pytest.mark.parametrize("data", ['{"b":1,  "a":[1.50, 1e999, 12345678901234567890123]}', '"\\u0041ä"', "-0", '""'])
def test_data_arrives_byte_for_byte(connect: Connect, name: str, data: str) -> None:
    one, other = connect(), connect()
    one.join(name)
    other.join(name)
    one.raw(f'{{"type":"channel:message","channel":"{name}","data":{data}}}')
    assert f'"data":{data},"from"' in str(other.socket.recv(timeout=10))


def test_an_update_is_merged_and_announced_to_everybody_else(connect: Connect, name: str) -> None:
    """The sender gets the member in the answer. An update that changes nothing is announced to nobody."""
    ann, tab, bob = connect("ann"), connect("ann"), connect("bob")
    ann.join(f"presence-{name}", name="Ann", status="here", mood="fine")
    tab.join(f"presence-{name}")
    bob.join(f"presence-{name}")
    ann.events(), tab.events()
    answer = ann.update(f"presence-{name}", status="away", mood=None)
    member = answer["member"]
    assert (member["name"], member["status"]) == ("Ann", "away")
    assert "mood" not in member
    assert TIMESTAMP.fullmatch(member["updatedAt"])
    for one in (tab, bob):
        event = one.event()
        assert TIMESTAMP.fullmatch(event.pop("timestamp"))
        assert event == {"type": "presence:member_updated", "channel": f"presence-{name}", "member": member}
    assert ann.update(f"presence-{name}", status="away")["member"] == member
    assert ann.silent()
    assert tab.silent()
    assert bob.silent()


def test_leaving_announces_the_last_state_of_the_member(connect: Connect, name: str) -> None:
    """Afterwards the connection cannot send to the channel."""
    ann, bob = connect("ann"), connect("bob")
    ann.join(f"presence-{name}", status="here")
    bob.join(f"presence-{name}")
    last = ann.update(f"presence-{name}", status="going")["member"]
    assert ann.request("leave", channel=f"presence-{name}") == {"type": "channel:left", "channel": f"presence-{name}"}
    left = [event for event in bob.events() if event["type"] == "presence:member_left"]
    assert [event["member"] for event in left] == [last]
    assert ann.request("channel:message", channel=f"presence-{name}", data=1)["code"] == "NOT_IN_CHANNEL"


def test_several_tabs_of_a_user_are_one_member(connect: Connect, name: str) -> None:
    """The member joins with the first tab, leaves with the last, and keeps the client id of the first."""
    watcher, channel = connect("watcher"), f"presence-{name}"
    watcher.join(channel)
    first, second, third = (connect("ann") for _ in range(3))
    me = first.join(channel, name="Ann")["me"]
    for tab in (second, third):
        assert tab.join(channel)["me"] == me
    first.socket.close()
    second.request("leave", channel=channel)
    assert [event["type"] for event in watcher.events()] == ["presence:member_joined"]
    third.socket.close()
    assert watcher.event()["member"] == me
    assert watcher.silent()


def test_the_user_info_of_a_second_tab_is_merged_and_announced(connect: Connect, name: str) -> None:
    """The claims of its token change nothing."""
    first, channel = connect("ann", claims={"name": "Ann"}), f"presence-{name}"
    first.join(channel, status="here")
    answer = connect("ann", claims={"name": "Somebody else"}).join(channel, mood="fine")
    event = first.event()
    assert event["type"] == "presence:member_updated"
    assert event["member"] == answer["me"]
    assert (event["member"]["name"], event["member"]["status"], event["member"]["mood"]) == ("Ann", "here", "fine")


def test_joining_again_returns_a_new_snapshot_and_announces_nobody(connect: Connect, name: str) -> None:
    """A changed `userInfo` is merged and announced as an update."""
    ann, bob, channel = connect("ann"), connect("bob"), f"presence-{name}"
    me = ann.join(channel, name="Ann")["me"]
    bob.join(channel)
    again = ann.join(channel)
    assert again["me"] == me
    assert [member["id"] for member in again["members"]] == ["ann", "bob"]
    assert bob.silent()
    changed = ann.join(channel, name="Anna")["me"]
    assert changed["joinedAt"] == me["joinedAt"]
    assert [event["member"] for event in bob.events()] == [changed]


def test_a_closed_connection_leaves_all_its_channels(connect: Connect, server: Server, name: str) -> None:
    """Empty channels no longer exist."""
    ann, bob = connect("ann"), connect("bob")
    bob.join(f"presence-{name}")
    for prefix in ("presence-", "presence-b-", "private-", ""):
        ann.join(f"{prefix}{name}")
    bob.events()
    ann.socket.close()
    assert bob.event()["type"] == "presence:member_left"
    wait_until(lambda: server.get(f"/presence/channels/{name}")[0] == 404)
    assert server.json(f"/presence/channels/presence-{name}")["memberCount"] == 1


def test_requests_are_answered_in_the_order_in_which_they_came(connect: Connect, name: str) -> None:
    """This holds behind a guard that blocks."""
    ann, channel = connect("ann"), f"private-slow-{name}"
    frames: list[dict[str, object]] = [
        {"type": "join", "channel": channel, "userInfo": {"seconds": 0.2}},
        {"type": "channel:message", "channel": channel, "data": 1},
        {"type": "ping"},
        {"type": "leave", "channel": channel},
    ]
    for frame in frames:
        ann.send(frame)
    assert [ann.event()["type"] for _ in frames] == ["channel:joined", "channel:sent", "pong", "channel:left"]


def test_a_pong_has_the_time_in_milliseconds(connect: Connect) -> None:
    timestamp = connect().request("ping")["timestamp"]
    assert isinstance(timestamp, int)
    assert timestamp > 1_700_000_000_000


@pytest.mark.parametrize("request_id", ['"abc"', "0", '""', "null", "[1, {}]", "1.50"])
def test_an_answer_repeats_the_request_id_unchanged(connect: Connect, request_id: str) -> None:
    """An answer to a request without one has none."""
    one = connect()
    one.socket.send(f'{{"type":"ping","requestId":{request_id}}}')
    assert f'"requestId":{request_id},' in str(one.socket.recv(timeout=10))
    one.socket.send(f'{{"type":"nonsense","requestId":{request_id}}}')
    assert f'"requestId":{request_id},' in str(one.socket.recv(timeout=10))
    assert "requestId" not in one.raw('{"type":"ping"}')


def test_a_binary_frame_with_json_is_a_request(connect: Connect) -> None:
    """If its text is not UTF-8, the answer is `INVALID_JSON`."""
    one = connect()
    assert one.raw(b'{"type":"ping"}')["type"] == "pong"
    assert one.raw(b'{"type":"ping","x":"\xff"}')["code"] == "INVALID_JSON"
