"""The main job, over a real server: join, talk, update, leave, see who is there."""

from __future__ import annotations

import re

import pytest

from ..conftest import Connect
from ..support.server import Server, wait_until

TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


def test_greeting(connect: Connect) -> None:
    """The first frame says who one is, with an id of at least 22 url-safe characters."""
    greeting = connect("ann").connected
    assert greeting.keys() == {"type", "clientId", "user", "timestamp"}
    assert greeting["type"] == "connected"
    assert greeting["user"] == {"id": "ann"}
    assert re.fullmatch(r"[A-Za-z0-9_-]{22,}", greeting["clientId"])
    assert TIMESTAMP.fullmatch(greeting["timestamp"])
    assert connect().connected["user"] is None


@pytest.mark.parametrize(("prefix", "kind"), [("public-", "public"), ("", "public"), ("private-", "private")])
def test_join_without_members(connect: Connect, name: str, prefix: str, kind: str) -> None:
    """A public or private join is answered without members."""
    answer = connect("ann").join(f"{prefix}{name}")
    assert answer == {"type": "channel:joined", "channel": f"{prefix}{name}", "channelType": kind}


def test_join_presence(connect: Connect, name: str) -> None:
    """A joiner gets the members in order of joining; the others hear of the joiner, once."""
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


def test_message(connect: Connect, name: str) -> None:
    """A message reaches everybody else, the sender's other tab too, and says how many."""
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


def test_anonymous_sender(connect: Connect, name: str) -> None:
    """An anonymous sender has no userId; the event is `message` by default; `null` is data."""
    one, other = connect(), connect()
    one.join(name)
    other.join(name)
    assert one.say(name, None)["delivered"] == 1
    event = other.event()
    assert (event["event"], event["data"], event["from"]) == ("message", None, {"clientId": one.id})


@pytest.mark.parametrize("data", ['{"b":1,  "a":[1.50, 1e999, 12345678901234567890123]}', '"\\u0041ä"', "-0", '""'])
def test_data_is_untouched(connect: Connect, name: str, data: str) -> None:
    """`data` comes out byte for byte as it went in."""
    one, other = connect(), connect()
    one.join(name)
    other.join(name)
    one.raw(f'{{"type":"channel:message","channel":"{name}","data":{data}}}')
    assert f'"data":{data},"from"' in str(other.socket.recv(timeout=10))


def test_update(connect: Connect, name: str) -> None:
    """An update merges; its sender gets the member in the answer, everybody else as an event."""
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


def test_leave(connect: Connect, name: str) -> None:
    """A leave is answered; the others hear of the member's last state; then the channel is closed to the leaver."""
    ann, bob = connect("ann"), connect("bob")
    ann.join(f"presence-{name}", status="here")
    bob.join(f"presence-{name}")
    last = ann.update(f"presence-{name}", status="going")["member"]
    assert ann.request("leave", channel=f"presence-{name}") == {"type": "channel:left", "channel": f"presence-{name}"}
    left = [event for event in bob.events() if event["type"] == "presence:member_left"]
    assert [event["member"] for event in left] == [last]
    assert ann.request("channel:message", channel=f"presence-{name}", data=1)["code"] == "NOT_IN_CHANNEL"


def test_first_in_last_out(connect: Connect, name: str) -> None:
    """Three tabs are one member: joined with the first, left with the last, known by the first all along."""
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


def test_further_tab_merges(connect: Connect, name: str) -> None:
    """A further tab's `userInfo` is merged and announced as an update; its token changes nothing."""
    first, channel = connect("ann", claims={"name": "Ann"}), f"presence-{name}"
    first.join(channel, status="here")
    answer = connect("ann", claims={"name": "Somebody else"}).join(channel, mood="fine")
    event = first.event()
    assert event["type"] == "presence:member_updated"
    assert event["member"] == answer["me"]
    assert (event["member"]["name"], event["member"]["status"], event["member"]["mood"]) == ("Ann", "here", "fine")


def test_join_again(connect: Connect, name: str) -> None:
    """Joining again is idempotent: a fresh snapshot, `userInfo` merged, nothing announced twice."""
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


def test_connection_end_leaves_everything(connect: Connect, server: Server, name: str) -> None:
    """A connection that ends leaves all its channels at once, and empty channels are gone."""
    ann, bob = connect("ann"), connect("bob")
    bob.join(f"presence-{name}")
    for prefix in ("presence-", "presence-b-", "private-", ""):
        ann.join(f"{prefix}{name}")
    bob.events()
    ann.socket.close()
    assert bob.event()["type"] == "presence:member_left"
    wait_until(lambda: server.get(f"/presence/channels/{name}")[0] == 404)
    assert server.json(f"/presence/channels/presence-{name}")["memberCount"] == 1


def test_order_in_one_segment(connect: Connect, name: str) -> None:
    """Join, message and leave sent at once, behind a guard that blocks, give three successes in order."""
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


def test_ping(connect: Connect) -> None:
    """`pong` has the time as a number of milliseconds."""
    timestamp = connect().request("ping")["timestamp"]
    assert isinstance(timestamp, int)
    assert timestamp > 1_700_000_000_000


@pytest.mark.parametrize("request_id", ['"abc"', "0", '""', "null", "[1, {}]", "1.50"])
def test_request_id_is_verbatim(connect: Connect, request_id: str) -> None:
    """The answer has the request's `requestId`, whatever it is; without one it has none."""
    one = connect()
    one.socket.send(f'{{"type":"ping","requestId":{request_id}}}')
    assert f'"requestId":{request_id},' in str(one.socket.recv(timeout=10))
    one.socket.send(f'{{"type":"nonsense","requestId":{request_id}}}')
    assert f'"requestId":{request_id},' in str(one.socket.recv(timeout=10))
    assert "requestId" not in one.raw('{"type":"ping"}')


def test_binary_frame(connect: Connect) -> None:
    """A binary frame with the same JSON is a request; with bad UTF-8 it is `INVALID_JSON`."""
    one = connect()
    assert one.raw(b'{"type":"ping"}')["type"] == "pong"
    assert one.raw(b'{"type":"ping","x":"\xff"}')["code"] == "INVALID_JSON"
