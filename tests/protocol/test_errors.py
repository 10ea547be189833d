"""Every row of the protocol's error table, and everything else that a client can send."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ..conftest import Connect
from ..support.client import client
from ..support.server import running

WRONG_OBJECTS: list[Any] = [5, "x", True, [], ""]
WRONG_STRINGS: list[Any] = [5, None, True, [], {}]
JSON_OBJECT = "A JSON object was expected"


def error(code: str, message: str) -> dict[str, Any]:
    return {"type": "error", "code": code, "message": message}


@pytest.mark.parametrize("empty", [{}, {"channel": None}, {"channel": ""}])
@pytest.mark.parametrize(
    ("request_type", "message"),
    [
        ("join", "Channel name is required"),
        ("leave", "Channel name is required"),
        ("channel:message", "Channel and data are required"),
        ("channel:update", "Channel and userInfo are required"),
    ],
)
def test_missing_channel(connect: Connect, request_type: str, message: str, empty: dict[str, Any]) -> None:
    """Absent, null and empty are all missing."""
    answer = connect().request(request_type, data=1, userInfo={}, **empty)
    assert answer == error("INVALID_REQUEST", message)


def test_missing_rest(connect: Connect) -> None:
    """The other required fields are required."""
    one = connect()
    assert one.request("channel:message", channel="x") == error("INVALID_REQUEST", "Channel and data are required")
    for empty in ({}, {"userInfo": None}, {"userInfo": ""}):
        answer = one.request("channel:update", channel="x", **empty)
        assert answer == error("INVALID_REQUEST", "Channel and userInfo are required")
    assert one.request("auth") == error("INVALID_REQUEST", "Token is required")


@pytest.mark.parametrize("wrong", [5, 1.5, True, [], {}])
@pytest.mark.parametrize("request_type", ["join", "leave", "channel:message", "channel:update"])
def test_wrong_type_of_channel(connect: Connect, request_type: str, wrong: Any) -> None:
    """A channel that is no string is named in the answer."""
    answer = connect().request(request_type, channel=wrong, data=1, userInfo={})
    assert answer == error("INVALID_REQUEST", "channel must be a string")


@pytest.mark.parametrize(
    ("request_type", "fields", "field"),
    [
        *[("join", {"userInfo": wrong}, "userInfo") for wrong in WRONG_OBJECTS],
        *[("channel:update", {"userInfo": wrong}, "userInfo") for wrong in WRONG_OBJECTS if wrong != ""],
        *[("channel:message", {"data": 1, "event": wrong}, "event") for wrong in WRONG_STRINGS],
        *[("auth", {"token": wrong}, "token") for wrong in WRONG_STRINGS if wrong is not None],
    ],
)
def test_wrong_type(connect: Connect, request_type: str, fields: dict[str, Any], field: str) -> None:
    """A field of the wrong type is named in the answer."""
    answer = connect("ann").request(request_type, channel="presence-x", **fields)
    assert answer["code"] == "INVALID_REQUEST"
    assert answer["message"].startswith(f"{field} must be")


@pytest.mark.parametrize("bad", ["a b", "a\tb", "a\n", "\x00", "a\x7f", "a\u00a0b", "\u2028", "a\x85", "x" * 201])
@pytest.mark.parametrize("request_type", ["join", "leave", "channel:message", "channel:update"])
def test_bad_channel_name(connect: Connect, request_type: str, bad: str) -> None:
    """White space, control characters and 201 characters make no channel name."""
    answer = connect("ann").request(request_type, channel=bad, data=1, userInfo={})
    assert answer["code"] == "INVALID_REQUEST"
    assert answer["message"].startswith("channel must be")


@pytest.mark.parametrize("good", ["x" * 200, "ü", "日本", "a/b?c#d%e", "<script>", "presence", "private"])
def test_good_channel_name(connect: Connect, good: str) -> None:
    """Everything else does, and is public without a prefix."""
    assert connect().join(good)["channelType"] == "public"


@pytest.mark.parametrize("channel", ["Presence-x", "PRIVATE-x", "xprivate-x", "private_x"])
def test_prefix_is_exact(connect: Connect, channel: str) -> None:
    """Only the exact prefixes make a private or presence channel."""
    assert connect().join(channel)["channelType"] == "public"


NASTY: list[tuple[str, str, str | None]] = [
    ("null", "INVALID_REQUEST", JSON_OBJECT),
    ("[]", "INVALID_REQUEST", JSON_OBJECT),
    ('[{"type":"ping"}]', "INVALID_REQUEST", JSON_OBJECT),
    ("5", "INVALID_REQUEST", JSON_OBJECT),
    ('"ping"', "INVALID_REQUEST", JSON_OBJECT),
    ("true", "INVALID_REQUEST", JSON_OBJECT),
    ("", "INVALID_JSON", "Invalid JSON format"),
    ("{", "INVALID_JSON", "Invalid JSON format"),
    ("ping", "INVALID_JSON", "Invalid JSON format"),
    ('{"type":"ping"} {}', "INVALID_JSON", "Invalid JSON format"),
    ("{'type':'ping'}", "INVALID_JSON", "Invalid JSON format"),
    ('{"type":"channel:message","channel":"x","data":NaN}', "INVALID_JSON", "Invalid JSON format"),
    ('{"type":"channel:message","channel":"x","data":"\\ud800"}', "INVALID_JSON", "Invalid JSON format"),
    ('{"type":"channel:message","channel":"x","data":' + "[" * 20000 + "]" * 20000 + "}", "INVALID_JSON", None),
    ('{"type":"ping","requestId":' + "[" * 20000, "INVALID_JSON", None),
    ("[" * 60000, "INVALID_JSON", None),
    ("{}", "UNKNOWN_MESSAGE_TYPE", "Unknown message type: undefined"),
    ('{"type":null}', "UNKNOWN_MESSAGE_TYPE", "Unknown message type: null"),
    ('{"type":5}', "UNKNOWN_MESSAGE_TYPE", "Unknown message type: 5"),
    ('{"type":"subscribe"}', "UNKNOWN_MESSAGE_TYPE", "Unknown message type: subscribe"),
    ('{"type":"JOIN"}', "UNKNOWN_MESSAGE_TYPE", "Unknown message type: JOIN"),
    ('{"type":"channel:joined"}', "UNKNOWN_MESSAGE_TYPE", "Unknown message type: channel:joined"),
    ('{"type":"join","channel":"presence-x","userInfo":{"a":1e999}}', "INVALID_REQUEST", None),
    ('{"type":"join","channel":"presence-x","userInfo":{"a":' + "1" * 5000 + "}}", "INVALID_REQUEST", None),
    (
        '{"type":"join","channel":"presence-x","userInfo":' + '{"a":' * 500 + "1" + "}" * 501,
        "INVALID_REQUEST",
        None,
    ),
]


@pytest.mark.parametrize(("frame", "code", "message"), NASTY)
def test_one_documented_answer(connect: Connect, frame: str, code: str, message: str | None) -> None:
    """Whatever comes is answered once, with its code, and the connection goes on."""
    one = connect("ann")
    answer = one.raw(frame)
    assert answer["code"] == code
    assert message in (None, answer["message"])
    assert one.raw('{"type":"ping"}')["type"] == "pong"


def test_no_traceback() -> None:
    """The server's log has no traceback for anything that a client sent."""
    with running() as server, client(server, "ann") as one:
        for frame, code, _ in NASTY:
            assert one.raw(frame)["code"] == code
        assert "Traceback" not in server.log()


def test_anonymous_is_forbidden(connect: Connect) -> None:
    """Nobody joins a private or presence channel without saying who they are."""
    for channel in ("private-x", "presence-x"):
        assert connect().request("join", channel=channel) == error("FORBIDDEN", "Authentication required")


def test_not_in_channel(connect: Connect, name: str) -> None:
    """Only who is in a channel may send to it."""
    one, other = connect(), connect()
    for _ in range(2):
        answer = one.request("channel:message", channel=name, data=1)
        assert answer == error("NOT_IN_CHANNEL", "You must join the channel first")
        other.join(name)
    assert other.silent()


def test_leave_errors(connect: Connect, name: str) -> None:
    """A leave tells a channel that does not exist from one that one is not in."""
    one, other = connect(), connect()
    assert one.request("leave", channel=name) == error("NOT_FOUND", "Channel not found")
    other.join(name)
    assert one.request("leave", channel=name) == error("NOT_MEMBER", "Not a member of this channel")


def test_update_errors(connect: Connect, name: str) -> None:
    """An update says why it failed."""
    ann, bob = connect("ann"), connect("bob")

    def update(channel: str) -> dict[str, Any]:
        return ann.request("channel:update", channel=channel, userInfo={"a": 1})

    assert update(f"presence-{name}") == error("UPDATE_FAILED", "Channel not found")
    bob.join(f"presence-{name}")
    assert update(f"presence-{name}") == error("UPDATE_FAILED", "Not a member of this channel")
    ann.join(name)
    assert update(name) == error("UPDATE_FAILED", "Not a presence channel")


def test_channels_disabled() -> None:
    """Switched off, every channel request says so, before anything else; the rest works."""
    with running(PRESENCE_ENABLED=False) as server, client(server, "ann") as one:
        for request_type in ("join", "leave", "channel:message", "channel:update"):
            for fields in ({}, {"channel": 5}, {"channel": "x", "data": 1, "userInfo": {}}):
                answer = one.request(request_type, **fields)
                assert answer == error("CHANNELS_DISABLED", "Channels feature is disabled")
        assert one.request("ping")["type"] == "pong"


def test_reserved_keys(connect: Connect, name: str) -> None:
    """Nobody poses as somebody else."""
    ann, bob = connect("ann"), connect("bob")
    bob.join(f"presence-{name}")
    evil = {"id": "bob", "clientId": bob.id, "joinedAt": "1970", "updatedAt": "1970", "__proto__": {"x": 1}}
    me = ann.join(f"presence-{name}", **evil, name="Ann")["me"]
    assert list(me) == ["id", "clientId", "joinedAt", "name"]
    assert (me["id"], me["clientId"], me["name"]) == ("ann", ann.id, "Ann")
    assert ann.update(f"presence-{name}", **evil)["member"] == me
    assert [event["type"] for event in bob.events()] == ["presence:member_joined"]


def test_name_and_avatar_that_are_no_strings(connect: Connect, name: str) -> None:
    """What is no string does not count as a name or an avatar; `null` removes them again."""
    ann = connect("ann", claims={"email": "ann@example.com"})
    me = ann.join(f"presence-{name}", name=5, avatar=["x"])["me"]
    assert (me["name"], "avatar" in me) == ("Anonymous", False)
    me = ann.update(f"presence-{name}", name="Ann", avatar="b.png")["member"]
    assert (me["name"], me["avatar"]) == ("Ann", "b.png")
    me = ann.update(f"presence-{name}", name=None, avatar=None)["member"]
    assert (me["name"], "avatar" in me) == ("Anonymous", False)
    assert connect("bob").join(f"presence-{name}")["me"]["name"] == "Anonymous"


def test_user_info_size(connect: Connect, name: str) -> None:
    """A `userInfo` of 4096 bytes is taken, one more is not; nor is what would merge to more."""
    ann, channel = connect("ann"), f"presence-{name}"
    frame = len(json.dumps({"a": ""}, separators=(",", ":")))
    too_large = ann.request("join", channel=channel, userInfo={"a": "x" * (4097 - frame)})
    assert too_large["code"] == "INVALID_REQUEST"
    assert "4096" in too_large["message"]
    assert ann.request("leave", channel=channel)["code"] == "NOT_FOUND"
    ann.join(channel, a="x" * (4096 - frame))
    assert ann.request("channel:update", channel=channel, userInfo={"b": 1})["code"] == "UPDATE_FAILED"
    other = connect("ann")
    assert other.request("join", channel=channel, userInfo={"b": 1})["code"] == "JOIN_FAILED"
    assert other.request("channel:message", channel=channel, data=1)["code"] == "NOT_IN_CHANNEL"


def test_channels_per_connection(connect: Connect, name: str) -> None:
    """A hundred channels may be joined, not one more, until one is left."""
    one = connect()
    for number in range(100):
        one.join(f"{name}-{number}")
    full = one.request("join", channel=f"{name}-more")
    assert full["code"] == "JOIN_FAILED"
    assert "100" in full["message"]
    one.join(f"{name}-0")
    one.request("leave", channel=f"{name}-0")
    one.join(f"{name}-more")
