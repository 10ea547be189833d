"""The values of the Pusher dialect: data strings, names, signatures, users, and the frames that carry them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from datetime import datetime, timezone
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec import Raw

from flask_presence.domain import wire as native
from flask_presence.domain.members import MAX_DEPTH, Member, OwnedInfo, Profile, User, depth
from flask_presence.domain.pusher import data, names, users, wire
from flask_presence.domain.pusher.signing import Signer

NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)
SIGNER = Signer("app-key", "a secret of sixteen", bytes(range(32)))
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS
    | TEXTS.map(json.dumps)
    | st.sampled_from(
        ["7", "null", "true", '"', '"a"', " 7 ", '{"a": 1}', "[", "1e400", "-", "NaN", "\ufeff7", '"\\ud800"']
    ),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)
WHITE_SPACE = st.text(" \t\r\n", max_size=3)
INFOS = st.dictionaries(
    st.sampled_from(["id", "name", "avatar", "role", "clientId", "joinedAt", "updatedAt", "__proto__"]) | TEXTS,
    JSON_VALUES,
    max_size=6,
)


def same(one: Any, other: Any) -> bool:
    """Whether two values are the same JSON: `1` is neither `true` nor `1.0`."""
    return repr(one) == repr(other)


def is_json(text: str) -> bool:
    try:
        msgspec.json.decode(text)
    except msgspec.DecodeError:
        return False
    return True


def through_frames(value: bytes, event: str = "news") -> dict[str, Any]:
    """The Pusher frame of a native message of the server with this data."""
    message = native.server_message("lobby", event, Raw(value), NOW)
    frame: dict[str, Any] = json.loads(wire.channel_frame("lobby", message))
    assert set(frame) == {"event", "channel", "data"}
    assert isinstance(frame["data"], str)
    return frame


@given(value=JSON_VALUES)
@example(value='"7"')
@example(value="")
def test_a_native_value_arrives_exactly(value: Any) -> None:
    """In a Pusher frame, and back as what the data string stands for."""
    encoded = json.dumps(value).encode()
    sent = through_frames(encoded)["data"]
    assert same(json.loads(bytes(data.value_of(sent))), value)
    assert same(json.loads(bytes(data.value_of_any(Raw(json.dumps(sent).encode())))), value)


@given(text=TEXTS | JSON_VALUES.map(json.dumps), before=WHITE_SPACE, after=WHITE_SPACE)
@example(text="", before="", after="")
@example(text='{"a":  1, "a": 2}', before="\n", after=" ")
@example(text="1.0", before="", after="")
@example(text="1e5", before=" ", after="")
def test_a_data_string_arrives_byte_for_byte(text: str, before: str, after: str) -> None:
    """Except a quoted JSON string, which may lose its quotes."""
    whole = before + text + after
    sent = through_frames(bytes(data.value_of(whole)))["data"]
    if is_json(whole) and whole.strip(" \t\r\n").startswith('"'):
        inner = msgspec.json.decode(whole)
        assert sent == (whole if is_json(inner) else inner)
    else:
        assert sent == whole


@given(value=JSON_VALUES.filter(lambda value: not isinstance(value, str)))
def test_data_of_client_events_that_is_no_string_is_itself(value: Any) -> None:
    encoded = Raw(json.dumps(value).encode())
    assert bytes(data.value_of_any(encoded)) == bytes(encoded)


def test_a_data_string_that_cannot_be_sent_raises() -> None:
    with pytest.raises(UnicodeEncodeError):
        data.value_of("\ud800")


@pytest.mark.parametrize("levels", [500, *range(850, 1000), 2000, 100_000])
def test_data_may_nest_as_deep_as_it_likes(levels: int) -> None:
    """Deeper than a decoder can follow, too. Then it is a string, which is sent as it is, or an object of the app."""
    text = "[" * levels + "]" * levels
    assert through_frames(bytes(data.value_of(text)))["data"] == text
    assert (
        read_raw(wire.channel_frame("lobby", native.server_message("lobby", "news", Raw(text.encode()), NOW))) == text
    )
    assert read_raw(wire.user_frame("ann", native.user_message("news", Raw(text.encode()), NOW))) == text
    broadcast = f'{{"type":"alarm","x":{text}}}'
    assert read_raw(wire.channel_frame("lobby", broadcast.encode())) == broadcast
    looks_alike = f'{{"type":"channel:message","data":{text},"from":1}}'
    assert read_raw(wire.channel_frame("lobby", looks_alike.encode())) == looks_alike


def read_raw(frame: bytes) -> str:
    """The data string of a frame."""
    return str(json.loads(frame)["data"])


@given(value=JSON_VALUES, before=WHITE_SPACE, after=WHITE_SPACE)
def test_data_for_a_user_arrives_exactly(value: Any, before: str, after: str) -> None:
    """Byte for byte, except a string."""
    text = before + json.dumps(value) + after
    frame = json.loads(wire.user_frame("ann", native.user_message("news", Raw(text.encode()), NOW)))
    assert (frame["event"], frame["channel"]) == ("news", "#server-to-user-ann")
    assert frame["data"] == text or isinstance(value, str)
    assert same(json.loads(bytes(data.value_of(frame["data"]))), value)


@given(
    texts=st.lists(
        TEXTS | st.sampled_from([',"data":', ',"from":{"clientId":"server"}', ',"timestamp":"', '"}']),
        min_size=4,
        max_size=4,
    ),
    value=JSON_VALUES,
)
def test_no_text_in_a_message_is_taken_for_its_structure(texts: list[str], value: Any) -> None:
    event, user, key, text = texts
    value = {key: value, ',"data":': text, "from": {"clientId": "server"}, "timestamp": text}
    message = native.channel_message("private-a", event, Raw(json.dumps(value).encode()), "1.2", User(user + "x"), NOW)
    frame = json.loads(wire.channel_frame("private-a", message))
    assert frame["event"] == f"client-{event}"
    assert same(json.loads(frame["data"]), value)


@given(event=TEXTS, user=st.none() | st.text(st.characters(exclude_categories=["Cs"]), min_size=1), value=JSON_VALUES)
def test_a_client_event_has_a_prefix_and_perhaps_a_user(event: str, user: str | None, value: Any) -> None:
    sender = None if user is None else User(user)
    for channel in ("private-a", "presence-a"):
        message = native.channel_message(channel, event, Raw(json.dumps(value).encode()), "1.2", sender, NOW)
        frame = json.loads(wire.channel_frame(channel, message))
        assert frame["event"] == f"client-{event}"
        assert frame.get("user_id") == (user if channel == "presence-a" else None)
        assert not wire.is_from_server(message)


@given(
    message=st.dictionaries(st.sampled_from(["type", "event", "data", "from", "x"]) | TEXTS, JSON_VALUES, max_size=5)
)
@example(message={"type": "channel:message", "channel": "a", "event": "b", "data": 1})
def test_any_broadcast_becomes_an_event(message: dict[str, Any]) -> None:
    frame = json.loads(wire.channel_frame("lobby", json.dumps(message).encode()))
    assert same(json.loads(frame["data"]), message)
    kind = message.get("type")
    is_event = isinstance(kind, str) and kind and not kind.startswith("pusher")
    assert frame["event"] == (kind if is_event else "broadcast")


@given(text=st.text() | st.from_regex(r"[A-Za-z0-9_\-=@,.;]{0,201}", fullmatch=True))
@example(text="a\n")
def test_a_channel_name_has_only_the_alphabet(text: str) -> None:
    alphabet = set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-=@,.;")
    assert names.is_channel_name(text) == (1 <= len(text) <= 200 and set(text) <= alphabet)


@given(text=TEXTS)
def test_an_address_names_its_user(text: str) -> None:
    assert names.addressed_user(names.user_address(text)) == text
    assert not names.is_channel_name(names.user_address(text))


def test_socket_ids_are_recognized() -> None:
    made = [names.new_socket_id() for _ in range(1000)]
    assert len(set(made)) == 1000
    assert all(names.is_socket_id(one) and names.came_by_pusher(one) for one in made)
    for wrong in (
        "",
        "1",
        "1.",
        ".1",
        "1.2.3",
        "1.a",
        "1.2\n",
        "\u0661.\u0662",
        f"{'1' * 19}.1",
        "-1.2",
        "1.2:presence-x",
    ):
        assert not names.is_socket_id(wrong)


@given(
    socket_id=st.from_regex(r"[0-9]{1,18}\.[0-9]{1,18}", fullmatch=True), channel=TEXTS, channel_data=st.none() | TEXTS
)
def test_a_signature_is_that_of_the_protocol(socket_id: str, channel: str, channel_data: str | None) -> None:
    text = f"{socket_id}:{channel}" if channel_data is None else f"{socket_id}:{channel}:{channel_data}"
    expected = hmac.new(b"a secret of sixteen", text.encode(), hashlib.sha256).hexdigest()
    auth = SIGNER.channel_auth(socket_id, channel, channel_data)
    assert auth == f"app-key:{expected}"
    assert SIGNER.allows_channel(auth, socket_id, channel, channel_data)
    assert not SIGNER.allows_channel(auth, socket_id + "0", channel, channel_data)
    assert not SIGNER.allows_user(auth, socket_id, channel)


@given(auth=st.text(), channel=st.text(st.characters(exclude_categories=["Cs"]), max_size=5))
@example(auth="app-key:\ud800", channel="a")
@example(auth="app-key:" + "0" * 64, channel="a")
def test_no_other_text_is_a_signature(auth: str, channel: str) -> None:
    assert not SIGNER.allows_channel(auth, "1.2", channel, None)
    assert not SIGNER.allows_user(auth, "1.2", channel)


def test_the_signatures_of_the_protocols_own_example() -> None:
    """From "Authenticating users" and "Authorizing users" of Pusher's documents."""
    signer = Signer("278d425bdf160c739803", "7ad3773142a6692b25b8")
    assert signer.channel_auth("1234.1234", "private-foobar") == (
        "278d425bdf160c739803:58df8b0c36d6982b82c3ecf6b4662e34fe8c25bba48f5369f135bf843651c3a4"
    )
    assert signer.channel_auth(
        "1234.1234", "presence-foobar", '{"user_id":10,"user_info":{"name":"Mr. Channels"}}'
    ) == ("278d425bdf160c739803:31935e7d86dba64c2a90aed31fdc61869f9b22ba9d8863bba239c03ca481bc80")


def test_a_shared_secret_is_the_hash_of_the_name_and_the_key() -> None:
    expected = hashlib.sha256(b"private-encrypted-a" + bytes(range(32))).digest()
    assert base64.b64decode(SIGNER.shared_secret("private-encrypted-a")) == expected


def test_secrets_are_in_no_repr() -> None:
    assert "secret" not in repr(SIGNER)
    assert "encryption" not in repr(SIGNER)


@given(text=TEXTS | JSON_VALUES.map(json.dumps) | INFOS.map(json.dumps))
def test_any_signed_text_is_read_or_refused(text: str) -> None:
    for read in (users.read_channel_data, users.read_user_data):
        signed = read(text)
        assert signed is None or (signed.id and isinstance(signed.id, str))


def shown(info: dict[str, Any], owned: dict[str, Any] | None = None, client_id: str = "1.2") -> Member:
    """The member for a signed info, as a member list makes it."""
    verdict = OwnedInfo(owned or {}, 1, 2)
    return Profile.of(User("ann"), info, verdict).member(client_id, NOW)


@given(info=INFOS)
def test_a_signed_info_shows_as_it_was_signed(info: dict[str, Any]) -> None:
    """To Pusher's clients; natively without the reserved keys, and without a name or an avatar that is no string."""
    member = shown(info)
    signed = {key: value for key, value in info.items() if value is not None}
    assert users.info_of(member) == signed
    natively = member.to_dict()
    reserved = {"id": "ann", "clientId": "1.2", "joinedAt": natively["joinedAt"]}
    assert {key: natively.pop(key) for key in reserved} == reserved
    for key in ("updatedAt", "__proto__"):
        assert key not in natively
    assert isinstance(natively["name"], str)
    assert isinstance(natively.get("avatar", ""), str)
    rest = {key: value for key, value in signed.items() if key not in {*reserved, "updatedAt", "__proto__"}}
    for key in ("name", "avatar"):
        if not isinstance(rest.get(key), str):
            rest.pop(key, None)
    rest.setdefault("name", "Anonymous")
    assert natively == rest


@given(info=INFOS, owned=st.dictionaries(st.sampled_from(["role", "name", "avatar"]), st.none() | TEXTS, max_size=3))
def test_what_a_guard_owns_beats_any_signed_info(info: dict[str, Any], owned: dict[str, Any]) -> None:
    seen = users.info_of(shown(info, owned))
    for key, value in owned.items():
        assert seen.get(key) == value
    assert {key: value for key, value in seen.items() if key not in owned} == {
        key: value for key, value in info.items() if value is not None and key not in owned
    }


@given(info=INFOS.map(lambda info: {key: value for key, value in info.items() if value is not None}))
def test_a_native_member_shows_with_id_and_name(info: dict[str, Any]) -> None:
    member = Member("ann", "native-id", NOW, "Ann", None, info)
    seen = users.info_of(member)
    assert (seen["id"], seen["name"]) == (info.get("id", "ann"), "Ann")


@given(info=INFOS)
def test_a_subscriptions_answer_has_every_member(info: dict[str, Any]) -> None:
    members = [shown(info), Member("bob", "native-id", NOW, "Bob", "b.png", {})]
    frame = json.loads(wire.subscription_succeeded("presence-a", members))
    presence = json.loads(frame["data"])["presence"]
    assert presence["ids"] == ["ann", "bob"]
    assert presence["hash"]["bob"] == {"id": "bob", "name": "Bob", "avatar": "b.png"}
    assert same(presence["hash"]["ann"], json.loads(json.dumps(users.info_of(members[0]))))


def test_an_info_is_checked_for_its_size_and_depth() -> None:
    deep: Any = {}
    while depth(deep) < MAX_DEPTH:
        deep = {"a": deep}
    assert users.SignedUser("ann", deep).check(10_000) is None
    assert users.SignedUser("ann", {"a": deep}).check(10_000) is not None
    assert users.SignedUser("ann", {"a": "é"}).check(len(b'{"a":""}') + 2) is None
    assert users.SignedUser("ann", {"a": "é"}).check(len(b'{"a":""}') + 1) is not None
