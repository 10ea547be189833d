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
def test_a_request_without_a_channel_is_invalid(
    connect: Connect, request_type: str, message: str, empty: dict[str, Any]
) -> None:
    """An absent, null or empty channel is missing."""
    answer = connect().request(request_type, data=1, userInfo={}, **empty)
    assert answer == error("INVALID_REQUEST", message)


def test_a_request_without_another_required_field_is_invalid(connect: Connect) -> None:
    one = connect()
    assert one.request("channel:message", channel="x") == error("INVALID_REQUEST", "Channel and data are required")
    for empty in ({}, {"userInfo": None}, {"userInfo": ""}):
        answer = one.request("channel:update", channel="x", **empty)
        assert answer == error("INVALID_REQUEST", "Channel and userInfo are required")
    assert one.request("auth") == error("INVALID_REQUEST", "Token is required")


@pytest.mark.parametrize("wrong", [5, 1.5, True, [], {}])
@pytest.mark.parametrize("request_type", ["join", "leave", "channel:message", "channel:update"])
def test_a_channel_that_is_not_a_string_is_invalid(connect: Connect, request_type: str, wrong: Any) -> None:
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
def test_the_answer_names_a_field_of_the_wrong_type(
    connect: Connect, request_type: str, fields: dict[str, Any], field: str
) -> None:
    answer = connect("ann").request(request_type, channel="presence-x", **fields)
    assert answer["code"] == "INVALID_REQUEST"
    assert answer["message"].startswith(f"{field} must be")


@pytest.mark.parametrize("bad", ["a b", "a\tb", "a\n", "\x00", "a\x7f", "a\u00a0b", "\u2028", "a\x85", "x" * 201])
@pytest.mark.parametrize("request_type", ["join", "leave", "channel:message", "channel:update"])
def test_a_name_with_white_space_control_characters_or_201_characters_is_invalid(
    connect: Connect, request_type: str, bad: str
) -> None:
    answer = connect("ann").request(request_type, channel=bad, data=1, userInfo={})
    assert answer["code"] == "INVALID_REQUEST"
    assert answer["message"].startswith("channel must be")


@pytest.mark.parametrize("good", ["x" * 200, "ü", "日本", "a/b?c#d%e", "<script>", "presence", "private"])
def test_any_other_name_without_a_prefix_is_a_public_channel(connect: Connect, good: str) -> None:
    assert connect().join(good)["channelType"] == "public"


@pytest.mark.parametrize("channel", ["Presence-x", "PRIVATE-x", "xprivate-x", "private_x"])
def test_only_the_exact_prefixes_make_a_private_or_presence_channel(connect: Connect, channel: str) -> None:
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
def test_any_text_gets_one_documented_answer(connect: Connect, frame: str, code: str, message: str | None) -> None:
    """The connection stays open."""
    one = connect("ann")
    answer = one.raw(frame)
    assert answer["code"] == code
    assert message in (None, answer["message"])
    assert one.raw('{"type":"ping"}')["type"] == "pong"


def test_no_text_of_a_client_causes_a_traceback() -> None:
    with running() as server, client(server, "ann") as one:
        for frame, code, _ in NASTY:
            assert one.raw(frame)["code"] == code
        assert "Traceback" not in server.log()


def test_an_anonymous_connection_cannot_join_a_private_or_presence_channel(connect: Connect) -> None:
    for channel in ("private-x", "presence-x"):
        assert connect().request("join", channel=channel) == error("FORBIDDEN", "Authentication required")


def test_only_a_connection_in_a_channel_can_send_to_it(connect: Connect, name: str) -> None:
    one, other = connect(), connect()
    for _ in range(2):
        answer = one.request("channel:message", channel=name, data=1)
        assert answer == error("NOT_IN_CHANNEL", "You must join the channel first")
        other.join(name)
    assert other.silent()


def test_leaving_distinguishes_a_missing_channel_from_a_missing_membership(connect: Connect, name: str) -> None:
    one, other = connect(), connect()
    assert one.request("leave", channel=name) == error("NOT_FOUND", "Channel not found")
    other.join(name)
    assert one.request("leave", channel=name) == error("NOT_MEMBER", "Not a member of this channel")


def test_a_failed_update_says_why(connect: Connect, name: str) -> None:
    ann, bob = connect("ann"), connect("bob")

    def update(channel: str) -> dict[str, Any]:
        return ann.request("channel:update", channel=channel, userInfo={"a": 1})

    assert update(f"presence-{name}") == error("UPDATE_FAILED", "Channel not found")
    bob.join(f"presence-{name}")
    assert update(f"presence-{name}") == error("UPDATE_FAILED", "Not a member of this channel")
    ann.join(name)
    assert update(name) == error("UPDATE_FAILED", "Not a presence channel")


def test_disabled_channels_answer_every_channel_request_with_the_same_error() -> None:
    """Other requests still work."""
    with running(PRESENCE_ENABLED=False) as server, client(server, "ann") as one:
        for request_type in ("join", "leave", "channel:message", "channel:update"):
            for fields in ({}, {"channel": 5}, {"channel": "x", "data": 1, "userInfo": {}}):
                answer = one.request(request_type, **fields)
                assert answer == error("CHANNELS_DISABLED", "Channels feature is disabled")
        assert one.request("ping")["type"] == "pong"


def test_a_client_cannot_set_reserved_keys(connect: Connect, name: str) -> None:
    ann, bob = connect("ann"), connect("bob")
    bob.join(f"presence-{name}")
    evil = {"id": "bob", "clientId": bob.id, "joinedAt": "1970", "updatedAt": "1970", "__proto__": {"x": 1}}
    me = ann.join(f"presence-{name}", **evil, name="Ann")["me"]
    assert list(me) == ["id", "clientId", "joinedAt", "name"]
    assert (me["id"], me["clientId"], me["name"]) == ("ann", ann.id, "Ann")
    assert ann.update(f"presence-{name}", **evil)["member"] == me
    assert [event["type"] for event in bob.events()] == ["presence:member_joined"]


def test_a_name_or_avatar_that_is_not_a_string_is_ignored(connect: Connect, name: str) -> None:
    """`null` removes a name or an avatar."""
    ann = connect("ann", claims={"email": "ann@example.com"})
    me = ann.join(f"presence-{name}", name=5, avatar=["x"])["me"]
    assert (me["name"], "avatar" in me) == ("Anonymous", False)
    me = ann.update(f"presence-{name}", name="Ann", avatar="b.png")["member"]
    assert (me["name"], me["avatar"]) == ("Ann", "b.png")
    me = ann.update(f"presence-{name}", name=None, avatar=None)["member"]
    assert (me["name"], "avatar" in me) == ("Anonymous", False)
    assert connect("bob").join(f"presence-{name}")["me"]["name"] == "Anonymous"


def test_user_info_may_have_4096_bytes(connect: Connect, name: str) -> None:
    """This limit also counts for the merged result."""
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


def test_a_connection_may_join_a_hundred_channels(connect: Connect, name: str) -> None:
    """After it leaves one, it may join another."""
    one = connect()
    for number in range(100):
        one.join(f"{name}-{number}")
    full = one.request("join", channel=f"{name}-more")
    assert full["code"] == "JOIN_FAILED"
    assert "100" in full["message"]
    one.join(f"{name}-0")
    one.request("leave", channel=f"{name}-0")
    one.join(f"{name}-more")
