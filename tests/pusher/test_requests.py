"""Every request of the Pusher dialect and its answer: subscriptions, signatures, sign-in, and what is refused."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from ..conftest import Connect, Share
from ..support.client import client
from ..support.pusher import SETTINGS, PusherClient, pusher_client, sign
from ..support.server import Server, wait_until
from .conftest import ConnectPusher


def status_of(one: PusherClient, channel: str, **fields: Any) -> tuple[str, int]:
    """The type and the status of the error that answers a subscription."""
    answer = one.ask(channel, **fields)
    assert answer["event"] == "pusher:subscription_error", answer
    assert set(answer["data"]) == {"type", "error", "status"}
    assert answer["data"]["error"]
    return answer["data"]["type"], answer["data"]["status"]


def test_a_public_channel_needs_no_signature(connect_pusher: ConnectPusher, name: str) -> None:
    one = connect_pusher()
    one.send("pusher:subscribe", {"channel": name})
    assert one.frame() == {"event": "pusher_internal:subscription_succeeded", "channel": name, "data": "{}"}
    assert one.ask(name, auth="nonsense", channel_data="nonsense")["data"] == {}


def test_data_may_be_an_object_or_the_json_of_one(connect_pusher: ConnectPusher, name: str) -> None:
    one = connect_pusher()
    for data in ({"channel": name}, json.dumps({"channel": name})):
        one.send("pusher:subscribe", data)
        assert one.frame()["event"] == "pusher_internal:subscription_succeeded"
    one.send("pusher:unsubscribe", json.dumps({"channel": name}))
    user_data = json.dumps({"id": "ann"})
    one.send("pusher:signin", json.dumps({"auth": sign(f"{one.id}::user::{user_data}"), "user_data": user_data}))
    assert [frame["event"] for frame in one.frames()] == ["pusher:signin_success"]


def test_a_private_channel_needs_a_signature(connect_pusher: ConnectPusher, name: str) -> None:
    one, channel = connect_pusher(), f"private-{name}"
    assert one.subscribe(channel) == {}
    assert status_of(one, channel) == ("AuthError", 401)


def test_any_channel_type_may_have_signed_data(connect_pusher: ConnectPusher, name: str) -> None:
    one = connect_pusher()
    for channel in (f"private-{name}", f"private-encrypted-{name}"):
        assert one.ask(channel, **one.auth(channel, "any text: {"))["data"] == {}
        assert status_of(one, channel, **one.auth(channel), channel_data="added") == ("AuthError", 401)
    assert one.frames() == []


def test_only_a_signature_of_exactly_this_counts(connect_pusher: ConnectPusher, name: str) -> None:
    one, other, channel = connect_pusher(), connect_pusher(), f"presence-{name}"
    data = json.dumps({"user_id": "ann"})
    good = one.auth(channel, data)["auth"]
    key, _, signature = good.partition(":")
    wrong = [
        None,
        "",
        ":",
        key,
        f"{key}:",
        signature,
        f"{key}:{signature[:-1]}",
        f"{key}:{signature}0",
        f"{key}:{signature.upper()}",
        f"{key} :{signature}",
        f"another-key:{signature}",
        f":{signature}",
        f"{key}:é\u2028",
        other.auth(channel, data)["auth"],
        one.auth(f"{channel}x", data)["auth"],
        one.auth(channel, f"{data} ")["auth"],
        one.auth(channel)["auth"],
        sign(f"{one.id}::user::{data}"),
    ]
    for auth in wrong:
        assert status_of(one, channel, auth=auth, channel_data=data) == ("AuthError", 401), auth
    assert status_of(one, channel, auth=good, channel_data=f"{data} ") == ("AuthError", 401)
    assert status_of(one, channel, auth=good) == ("AuthError", 401)
    assert one.frames() == []
    assert one.ask(channel, auth=good, channel_data=data)["data"]["presence"]["ids"] == ["ann"]


@pytest.mark.parametrize(
    "data",
    [
        *("", "text", "null", "[]", "1", "{}", "{", '{"user_id": null}', '{"user_id": ""}', '{"user_id": true}'),
        *('{"user_id": 1.5}', '{"user_id": []}', '{"id": "ann"}', '{"user_id": "ann", "user_info": "Ann"}'),
        *('{"user_id": "ann", "user_info": []}', '{"user_id": "ann", "user_info": 0}', '{"user_id": "\\ud800"}'),
        '{"user_id": "ann", "user_info": ' + "[" * 3000 + "]" * 3000 + "}",
        '{"user_id": ' + "9" * 5000 + "}",
    ],
)
def test_well_signed_data_of_the_wrong_shape_is_refused(connect_pusher: ConnectPusher, name: str, data: str) -> None:
    one, channel = connect_pusher(), f"presence-{name}"
    assert status_of(one, channel, **one.auth(channel, data)) == ("AuthError", 400)
    assert one.frames() == []


def test_a_presence_channel_needs_a_user(connect_pusher: ConnectPusher, name: str) -> None:
    one, channel = connect_pusher(), f"presence-{name}"
    assert status_of(one, channel, **one.auth(channel)) == ("AuthError", 400)
    assert one.sign_in("ann", {"name": "Ann"})["event"] == "pusher:signin_success"
    assert one.subscribe(channel)["presence"] == {"ids": ["ann"], "hash": {"ann": {"name": "Ann"}}, "count": 1}


@pytest.mark.parametrize(
    ("user_id", "info", "as_sent"),
    [
        ("ann", None, {}),
        (17, {"name": "Ann"}, {"name": "Ann"}),
        (10**25, {"a": [1, {"b": None}], "c": None}, {"a": [1, {"b": None}]}),
        (-1, {}, {}),
        ("é\u2028:{}", {"id": 5, "clientId": "x", "joinedAt": [], "__proto__": {}}, None),
    ],
)
def test_the_answer_has_all_members_as_they_were_signed(
    connect_pusher: ConnectPusher, name: str, user_id: Any, info: Any, as_sent: Any
) -> None:
    channel = f"presence-{name}"
    before = connect_pusher().members(channel, "zoe", {"id": 1})
    assert before == {"zoe": {"id": 1}}
    expected = {"zoe": {"id": 1}, str(user_id): info if as_sent is None else as_sent}
    assert list(connect_pusher().members(channel, user_id, info).items()) == list(expected.items())


@pytest.mark.parametrize(
    "wrong", ["", "a b", "a" * 201, "a/b", "é", "a:b", "#a", "a\n", "presence-x:{}", ":user::{}", "a%41", "a*"]
)
def test_a_name_outside_the_alphabet_is_refused(connect_pusher: ConnectPusher, wrong: str) -> None:
    one = connect_pusher()
    assert status_of(one, wrong, **one.auth(wrong)) == ("InvalidChannel", 400)
    one.send("pusher:unsubscribe", {"channel": wrong})
    assert one.frames() == []


def test_every_name_of_the_alphabet_is_taken(connect_pusher: ConnectPusher, name: str) -> None:
    one = connect_pusher()
    for channel in (f"A-z0_=@,.;{name}", name.ljust(200, "x"), f"private-{name}".ljust(200, "@"), f"{name}-private-"):
        assert one.subscribe(channel) == {}


def test_one_connection_has_one_user(connect_pusher: ConnectPusher, name: str) -> None:
    one, channel = connect_pusher(), f"presence-{name}"
    one.members(channel, "ann")
    assert status_of(one, f"{channel}-2", **one.auth(f"{channel}-2", '{"user_id": "bob"}')) == ("AuthError", 409)
    assert status_of(one, channel, **one.auth(channel, '{"user_id": "bob"}')) == ("AuthError", 409)
    assert one.members(f"{channel}-2", "ann") == {"ann": {}}
    assert one.sign_in("ann")["event"] == "pusher:signin_success"
    assert one.sign_in("bob")["data"]["code"] == 4009
    assert one.wait_closed() == 4009


def test_a_user_of_a_sign_in_stays_the_connections(connect_pusher: ConnectPusher, name: str) -> None:
    one, channel = connect_pusher(), f"presence-{name}"
    one.sign_in("7", {"name": "Ann"})
    assert status_of(one, channel, **one.auth(channel, '{"user_id": 8}')) == ("AuthError", 409)
    assert one.members(channel, 7, {"name": "Other"}) == {"7": {"name": "Other"}}


def test_a_sign_in_answers_with_the_data_as_sent(connect_pusher: ConnectPusher) -> None:
    one = connect_pusher()
    data = '{ "user_info":null, "watchlist": ["bob"], "id" : "é" }'
    one.send("pusher:signin", {"auth": sign(f"{one.id}::user::{data}"), "user_data": data})
    assert one.event() == {"event": "pusher:signin_success", "data": {"user_data": data}}


@pytest.mark.parametrize("data", ["", "{}", '{"id": ""}', '{"id": 7}', '{"id": null}', '{"user_id": "ann"}', "[]"])
def test_a_sign_in_without_an_id_ends_the_connection(connect_pusher: ConnectPusher, data: str) -> None:
    one = connect_pusher()
    one.send("pusher:signin", {"auth": sign(f"{one.id}::user::{data}"), "user_data": data})
    assert one.last_words() == (4009, 4009)


@pytest.mark.parametrize("text", ["{id}:user::{data}", "1.2::user::{data}", "{id}::user::{data} ", "{id}:{data}"])
def test_a_sign_in_with_a_bad_signature_ends_the_connection(connect_pusher: ConnectPusher, text: str) -> None:
    one, data = connect_pusher(), '{"id": "ann"}'
    signed = text.replace("{id}", one.id).replace("{data}", data)
    one.send("pusher:signin", {"auth": sign(signed), "user_data": data})
    assert one.last_words() == (4009, 4009)


def test_messages_to_a_user_reach_those_who_have_signed_in_and_subscribed(
    server: Server, connect_pusher: ConnectPusher, connect: Connect, name: str
) -> None:
    """Connections of both dialects count as delivered."""
    address = f"#server-to-user-{name}"
    one, native = connect_pusher(), connect(name)
    assert status_of(one, address) == ("AuthError", 403)
    assert status_of(one, address, **one.auth(address)) == ("AuthError", 403)
    one.sign_in(name)
    assert status_of(one, f"{address}x") == ("AuthError", 403)
    assert one.subscribe(address) == {}
    numbers = iter(range(1000))
    wait_until(lambda: server.call("send_to_user", user_id=name, event="note", data={"a": next(numbers)}) == 2)
    last = {"a": next(numbers) - 1}
    assert one.until(lambda frame: json.loads(frame["data"]) == last)["channel"] == address
    wait_until(lambda: native.event()["data"] == last)
    one.send("client-note", {}, address)
    assert one.until(lambda frame: frame["event"] == "pusher:error")["data"]["code"] == 4301


def test_whoever_does_not_subscribe_hears_no_messages_to_the_user(
    server: Server, connect_pusher: ConnectPusher, connect: Connect, name: str
) -> None:
    """Neither does a connection that has the user from a presence channel, or has unsubscribed."""
    address = f"#server-to-user-{name}"
    silent, bystander, gone, native = connect_pusher(), connect_pusher(), connect_pusher(), connect(name)
    silent.sign_in(name)
    bystander.members(f"presence-{name}", name)
    assert status_of(bystander, address) == ("AuthError", 403)
    gone.sign_in(name)
    gone.subscribe(address)
    gone.send("pusher:unsubscribe", {"channel": address})
    assert silent.frames() == bystander.frames() == gone.frames() == []
    wait_until(lambda: server.call("send_to_user", user_id=name, event="note", data=1))
    assert native.event()["data"] == 1
    assert silent.frames() == bystander.frames() == gone.frames() == []


def test_an_address_of_a_user_is_no_channel(
    server: Server, connect_pusher: ConnectPusher, connect: Connect, name: str
) -> None:
    """A native channel that is called so has nothing to do with it."""
    address = f"#server-to-user-{name}"
    one, native = connect_pusher(), connect("eve")
    one.sign_in(name)
    one.subscribe(address)
    assert server.get(f"/presence/channels/%23server-to-user-{name}")[0] == 404
    native.join(address)
    assert native.say(address, "spoofed")["delivered"] == 0
    server.call("publish", name=address, event="x", data=1)
    assert native.event()["data"] == 1
    assert one.frames() == []
    one.send("pusher:unsubscribe", {"channel": address})
    assert one.frames() == []


def test_a_repeated_subscription_answers_with_a_fresh_list(
    connect_pusher: ConnectPusher, connect: Connect, name: str
) -> None:
    """The `user_info` is merged, and the others hear an update if that changes anything."""
    one, other, native, channel = connect_pusher(), connect_pusher(), connect("eve"), f"presence-{name}"
    one.members(channel, "ann", {"name": "Ann", "mood": "fine"})
    other.members(channel, "bob")
    native.join(channel)
    one.frames()
    other.frames()
    listed = list(one.members(channel, "ann", {"mood": "fine"}).items())
    assert listed[:2] == [("ann", {"name": "Ann", "mood": "fine"}), ("bob", {})]
    one.members(channel, "ann", {"mood": None, "role": "x"})
    expected = {"user_id": "ann", "user_info": {"name": "Ann", "role": "x"}}
    updated = {"event": "presence:member_updated", "channel": channel, "data": expected}
    assert other.event() == updated
    assert native.event()["member"]["role"] == "x"
    assert native.silent()
    assert other.frames() == []
    assert [frame for frame in one.frames() if frame["event"] != "presence:member_updated"] == []


def test_unsubscribing_has_no_answer(connect_pusher: ConnectPusher, connect: Connect, name: str) -> None:
    one, native, channel = connect_pusher(), connect("eve"), f"presence-{name}"
    native.join(channel)
    one.members(channel, "ann")
    one.send("pusher:unsubscribe", {"channel": channel})
    one.send("pusher:unsubscribe", {"channel": channel})
    one.send("pusher:unsubscribe", {"channel": "never-subscribed"})
    assert one.frames() == []
    assert [native.event()["type"] for _ in range(2)] == ["presence:member_joined", "presence:member_left"]
    assert native.say(channel, 1)["delivered"] == 0
    assert list(one.members(channel, "ann")) == ["eve", "ann"]


@pytest.mark.parametrize(
    "frame",
    [
        *("", "x", "null", "[]", "1", '"text"', "{}", '{"event": null}', '{"event": 1}', '{"data": {}}', "{" * 2000),
        *('{"event": "pusher:subscribe"}', '{"event": "pusher:subscribe", "data": null}'),
        *('{"event": "pusher:subscribe", "data": []}', '{"event": "pusher:subscribe", "data": "text"}'),
        *('{"event": "pusher:subscribe", "data": {}}', '{"event": "pusher:subscribe", "data": {"channel": 1}}'),
        '{"event": "pusher:subscribe", "data": {"channel": "private-x", "auth": 1}}',
        '{"event": "pusher:subscribe", "data": {"channel": "private-x", "auth": "k:s", "channel_data": {}}}',
        *('{"event": "pusher:unsubscribe", "data": {}}', '{"event": "pusher:signin", "data": {"auth": "a:b"}}'),
        *('{"event": "pusher:signin", "data": "{}"}', '{"event": "pusher:unknown", "data": {}}'),
        *('{"event": "typing", "channel": "private-x", "data": {}}', '{"event": "Client-x", "data": 1}'),
        *('{"event": "pusher_internal:member_added", "channel": "x", "data": "{}"}', '{"event": "", "data": {}}'),
        *('{"event": "client-x", "data": {}}', '{"event": "client-x", "channel": "private-x"}'),
        *('{"event": "client-x", "channel": 1, "data": {}}', '{"event": "\\ud800", "data": {}}'),
        '{"event": "pusher:subscribe", "data": ' + "[" * 3000 + "]" * 3000 + "}",
    ],
)
def test_a_frame_that_is_not_understood_gets_4300(connect_pusher: ConnectPusher, frame: str) -> None:
    one = connect_pusher()
    assert one.refusal(frame) == 4300
    assert one.refusal(frame.encode()) == 4300
    assert one.frames() == []


def test_requests_are_handled_in_order(connect_pusher: ConnectPusher, name: str) -> None:
    one, channel = connect_pusher(), f"private-{name}"
    for _ in range(8):  # as many client events as may come at once
        one.send("pusher:subscribe", {"channel": channel, **one.auth(channel)})
        one.send("client-x", {}, channel)
        one.send("pusher:unsubscribe", {"channel": channel})
        one.send("client-x", {}, channel)
    events = [frame["event"] for frame in one.frames()]
    assert events == ["pusher_internal:subscription_succeeded", "pusher:error"] * 8


def test_limits_are_those_of_the_settings(shared: Share) -> None:
    """For the number of channels, and the size and the depth of a `user_info`."""
    server = shared(PRESENCE_MAX_CHANNELS=2, PRESENCE_MAX_USER_INFO=100, **SETTINGS)
    with pusher_client(server) as one:
        channel = "presence-limits"
        for info in ({"a": "x" * 100}, {"id": "x" * 100}):
            data = json.dumps({"user_id": "ann", "user_info": info})
            assert status_of(one, channel, **one.auth(channel, data)) == ("LimitReached", 422)
        assert one.members(channel, "bob", {"a": "x" * 92}) == {"bob": {"a": "x" * 92}}
        one.subscribe("a")
        assert status_of(one, "b") == ("LimitReached", 422)
        one.subscribe("a")
        one.members(channel, "bob")
        one.send("pusher:unsubscribe", {"channel": "a"})
        one.subscribe("b")
        one.sign_in("bob")
        one.subscribe("#server-to-user-bob")


def test_a_user_info_may_nest_as_deep_as_a_native_one(connect_pusher: ConnectPusher, name: str) -> None:
    one, channel = connect_pusher(), f"presence-{name}"
    deep: Any = {}
    for _ in range(64):
        deep = {"a": deep}
    data = json.dumps({"user_id": "ann", "user_info": deep})
    assert status_of(one, channel, **one.auth(channel, data)) == ("LimitReached", 422)
    assert one.members(channel, "ann", deep["a"]) == {"ann": deep["a"]}


def test_where_a_user_is_required_public_channels_need_one_too(shared: Share) -> None:
    server = shared(PRESENCE_AUTH_REQUIRED=True, **SETTINGS)
    with pusher_client(server) as one:
        assert status_of(one, "lobby") == ("AuthError", 401)
        assert one.subscribe("private-a") == {}
        assert status_of(one, "lobby") == ("AuthError", 401)
        one.members("presence-a", "ann")
        assert one.subscribe("lobby") == {}
    with pusher_client(server) as one:
        one.sign_in("ann")
        assert one.subscribe("lobby") == {}


def test_who_sends_too_much_is_refused_and_then_closed(shared: Share) -> None:
    server = shared(PRESENCE_RATE_LIMIT=(1, 10), **SETTINGS)
    with pusher_client(server) as one, pusher_client(server) as other:
        for _ in range(11):
            one.send("pusher:ping")
        assert [one.frame()["event"] for _ in range(10)] == ["pusher:pong"] * 10
        assert one.error() == 4301
        with suppress(ConnectionClosed):
            for _ in range(300):
                one.send("pusher:ping")
        assert one.last_words() == (4100, 4100)
        assert other.frames() == []


def test_every_refusal_counts_as_a_native_error(shared: Share) -> None:
    server = shared(PRESENCE_MAX_CHANNELS=3, **SETTINGS)
    with pusher_client(server) as one:
        one.ask("private-x")
        one.ask("a b")
        one.refusal("x")

    def counted() -> bool:
        text = server.get("/presence/metrics")[2]
        return 'code="UNAUTHORIZED"' in text and 'code="INVALID_REQUEST"' in text

    wait_until(counted)


def test_a_message_larger_than_the_limit_ends_the_connection(shared: Share) -> None:
    server = shared(PRESENCE_MAX_MESSAGE_SIZE=1000, **SETTINGS)
    with pusher_client(server) as one, client(server):
        one.socket.send("x" * 1001)
        assert one.wait_closed() == 1009
