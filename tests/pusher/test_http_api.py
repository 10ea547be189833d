"""The HTTP API on a real server, by the SDKs from PyPI and npm, and by hand."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from pusher.errors import PusherBadAuth, PusherBadRequest, PusherBadStatus  # type: ignore[import-untyped]

from flask_presence import Presence, User

from ..conftest import Share, missing, on_redis
from ..support.client import Client, client
from ..support.pusher_api import (
    API_KEY,
    API_SECRET,
    API_SETTINGS,
    MASTER_KEY,
    call,
    hmac_of,
    open_socket,
    sdk,
    send,
    signed_url,
)
from ..support.redis_server import running_redis
from ..support.server import Server, running

APP = "/apps/7"
SIZE = 2000


@pytest.fixture(scope="session", params=["memory", "redis"])
def api_server(request: pytest.FixtureRequest, shared_by_all: Share) -> Server:
    """A server with the dialect that tests share, once with each backend."""
    backend = request.getfixturevalue("shared_service") if request.param == "redis" else {}
    return shared_by_all(
        PRESENCE_MAX_MESSAGE_SIZE=SIZE, PRESENCE_HISTORY={"kept-*": (20, 60)}, **API_SETTINGS, **backend
    )


@pytest.fixture
def ann(api_server: Server, name: str) -> Iterator[Client]:
    """A native connection of a user whom no other test knows."""
    with client(api_server, f"ann-{name}") as one:
        yield one


def heard(one: Client) -> tuple[str, str, Any]:
    """The channel, or else the type, and the event and the data of the next message."""
    frame = one.event()
    return frame.get("channel", frame["type"]), frame["event"], frame["data"]


def test_an_event_of_the_sdk_reaches_every_channel(api_server: Server, ann: Client, name: str) -> None:
    channels = [f"{kind}{name}" for kind in ("", "private-", "presence-")]
    for channel in channels:
        ann.join(channel)
    assert sdk(api_server).trigger(channels, "news", {"text": "é", "n": [1, None]}) == {}
    assert [heard(ann) for _ in channels] == [(channel, "news", {"text": "é", "n": [1, None]}) for channel in channels]
    assert ann.silent()


def test_an_event_is_a_message_of_the_server(api_server: Server, ann: Client, name: str) -> None:
    ann.join(name)
    sdk(api_server).trigger(name, "news", "text")
    frame = ann.event()
    assert frame["type"] == "channel:message"
    assert frame["from"] == {"clientId": "server"}


def test_a_batch_arrives_in_order(api_server: Server, ann: Client, name: str) -> None:
    other = f"private-{name}"
    for channel in (name, other):
        ann.join(channel)
    batch = [{"channel": name if n % 2 else other, "name": f"e{n}", "data": n} for n in range(10)]
    expected = [(one["channel"], one["name"], one["data"]) for one in batch]
    assert sdk(api_server).trigger_batch(batch) == {}
    assert [heard(ann) for _ in batch] == expected


@pytest.mark.parametrize(
    "data", ['{ "a" :  1.50,\n"a":2}', "text", "", " [ ] ", "1e400", '{"é":"\\u00e9"}', "nul\x00", '"\\"quoted\\""']
)
def test_pushers_clients_hear_the_data_byte_for_byte(api_server: Server, name: str, data: str) -> None:
    with open_socket(api_server) as socket:
        socket.subscribe(name)
        body = {"name": "raw", "channel": name, "data": data}
        assert call(api_server, "POST", f"{APP}/events", body).json == {}
        assert socket.read() == {"event": "raw", "channel": name, "data": data}


def test_the_excluded_socket_hears_nothing(api_server: Server, ann: Client, name: str) -> None:
    ann.join(name)
    with open_socket(api_server) as socket, open_socket(api_server) as other:
        for one in (socket, other):
            one.subscribe(name)
        sdk(api_server).trigger(name, "news", 1, socket.id)
        assert other.read()["event"] == "news"
        assert heard(ann) == (name, "news", 1)
        assert socket.is_silent()


def test_an_event_is_kept_where_the_channel_keeps_messages(api_server: Server, name: str) -> None:
    sdk(api_server).trigger(f"kept-{name}", "news", {"n": 1})
    kept = api_server.call("get_channel_history", name=f"kept-{name}")
    assert [(one["event"], one["data"]) for one in kept] == [("news", {"n": 1})]


def test_an_event_for_a_user_reaches_both_dialects(api_server: Server, ann: Client, name: str) -> None:
    user = f"ann-{name}"
    address = f"#server-to-user-{user}"
    with open_socket(api_server) as socket, client(api_server, f"bob-{name}") as bob:
        user_data = json.dumps({"id": user})
        auth = f"{API_KEY}:{hmac_of(f'{socket.id}::user::{user_data}')}"
        assert socket.ask("pusher:signin", auth=auth, user_data=user_data)["event"] == "pusher:signin_success"
        socket.subscribe(address)
        assert sdk(api_server).trigger(address, "note", "hello") == {}
        assert socket.read() == {"event": "note", "channel": address, "data": "hello"}
        assert heard(ann) == ("user:message", "note", "hello")
        assert bob.silent()


def test_an_encrypted_event_is_passed_on_as_it_is(api_server: Server, name: str) -> None:
    channel = f"private-encrypted-{name}"
    with open_socket(api_server) as socket:
        socket.subscribe(channel, auth=f"{API_KEY}:{hmac_of(f'{socket.id}:{channel}')}")
        sdk(api_server, encryption_master_key_base64=MASTER_KEY).trigger(channel, "secret", "text")
        frame = socket.read()
        assert frame["event"] == "secret"
        assert set(json.loads(frame["data"])) == {"nonce", "ciphertext"}


def test_a_client_event_may_come_from_a_back_end(api_server: Server, ann: Client, name: str) -> None:
    ann.join(name)
    sdk(api_server).trigger(name, "client-typing", {})
    assert heard(ann) == (name, "client-typing", {})


def test_the_sdk_reads_channels_and_users(api_server: Server, ann: Client, name: str) -> None:
    """A user with two connections is one user with two subscriptions."""
    presence, private = f"presence-{name}", f"private-{name}"
    back_end = sdk(api_server)
    with client(api_server, f"ann-{name}") as tab, client(api_server, f"bob-{name}") as bob:
        for one in (ann, tab, bob):
            one.join(presence)
            one.join(private)
        attributes = ["user_count", "subscription_count"]
        counts = {"user_count": 2, "subscription_count": 3}
        assert back_end.channels_info(presence, ["user_count"]) == {"channels": {presence: {"user_count": 2}}}
        assert back_end.channels_info(private) == {"channels": {private: {}}}
        assert {presence, private} <= back_end.channels_info()["channels"].keys()
        assert back_end.channel_info(presence, attributes) == {"occupied": True, **counts}
        assert back_end.channel_info(private, ["subscription_count"]) == {"occupied": True, "subscription_count": 3}
        assert back_end.users_info(presence) == {"users": [{"id": f"ann-{name}"}, {"id": f"bob-{name}"}]}


def test_a_channel_that_nobody_is_in_is_not_occupied(api_server: Server, name: str) -> None:
    back_end, presence = sdk(api_server), f"presence-{name}"
    nobody = {"occupied": False, "user_count": 0, "subscription_count": 0}
    assert back_end.channel_info(presence, ["user_count", "subscription_count"]) == nobody
    assert back_end.channel_info(name) == {"occupied": False}
    assert back_end.users_info(presence) == {"users": []}
    assert back_end.channels_info(presence, ["user_count"]) == {"channels": {}}


def test_channels_that_pushers_clients_cannot_name_are_not_listed(api_server: Server, ann: Client, name: str) -> None:
    ann.join(f"{name}-é")
    ann.join(f"#server-to-user-{name}")
    assert sdk(api_server).channels_info(f"{name}-") == {"channels": {}}
    assert call(api_server, "GET", f"{APP}/channels", parameters={"filter_by_prefix": "#"}).json == {"channels": {}}


def test_info_tells_how_many_have_heard_an_event(api_server: Server, ann: Client, name: str) -> None:
    presence, private = f"presence-{name}", f"private-{name}"
    ann.join(presence)
    ann.join(private)
    body = {"name": "e", "data": "x", "channels": [presence], "info": "user_count,subscription_count,other"}
    counts = {"user_count": 1, "subscription_count": 1}
    assert call(api_server, "POST", f"{APP}/events", body).json == {"channels": {presence: counts}}
    body |= {"channels": [private, f"#server-to-user-{name}"], "info": "subscription_count"}
    expected = {private: {"subscription_count": 1}, f"#server-to-user-{name}": {}}
    assert call(api_server, "POST", f"{APP}/events", body).json == {"channels": expected}
    batch = [
        {"channel": presence, "name": "e", "data": "x", "info": "user_count"},
        {"channel": private, "name": "e", "data": "x"},
    ]
    answer = call(api_server, "POST", f"{APP}/batch_events", {"batch": batch})
    assert answer.json == {"batch": [{"user_count": 1}, {}]}


@pytest.mark.parametrize("prefix", ["", APP])
def test_a_user_is_disconnected_in_both_dialects(api_server: Server, ann: Client, name: str, prefix: str) -> None:
    """The SDK from PyPI leaves the app out of the path."""
    user, channel = f"ann-{name}", f"presence-{name}"
    with open_socket(api_server) as socket, client(api_server, f"bob-{name}") as bob:
        data = json.dumps({"user_id": user})
        auth = f"{API_KEY}:{hmac_of(f'{socket.id}:{channel}:{data}')}"
        socket.subscribe(channel, auth=auth, channel_data=data)
        answer = call(api_server, "POST", f"{prefix}/users/{user}/terminate_connections", {})
        assert (answer.status, answer.json) == (200, {})
        assert ann.wait_closed() == (4403, "Connections terminated")
        assert socket.read()["data"]["code"] == 4009
        assert bob.silent()


def test_the_sdk_terminates_connections(api_server: Server, ann: Client, name: str) -> None:
    assert sdk(api_server).terminate_user_connections(f"ann-{name}") == {}
    assert ann.wait_closed()[0] == 4403
    assert sdk(api_server).terminate_user_connections("nobody") == {}


@pytest.mark.parametrize("user", ["a/b", "ünï", "a b", "50%"])
def test_any_user_can_be_disconnected(api_server: Server, user: str) -> None:
    with client(api_server, user) as one:
        call(api_server, "POST", f"/users/{user}/terminate_connections", {})
        assert one.wait_closed()[0] == 4403


def test_the_exceptions_of_the_sdk_say_what_is_wrong(api_server: Server, name: str) -> None:
    with pytest.raises(PusherBadRequest, match="user_count"):
        sdk(api_server).channel_info(name, ["user_count"])
    with pytest.raises(PusherBadAuth, match="must be the HMAC"):
        sdk(api_server, secret="another secret").trigger(name, "e", "x")
    with pytest.raises(PusherBadStatus, match=r"404.*NOT_FOUND"):
        sdk(api_server, app_id="8").trigger(name, "e", "x")
    with pytest.raises(PusherBadStatus, match=r"413.*2000 bytes"):
        sdk(api_server).trigger(name, "e", "x" * (SIZE + 1))


EVENT: dict[str, Any] = {"name": "e", "channel": "CHANNEL", "data": "x"}
WITHOUT_CHANNEL = {"name": "e", "data": "x"}
NO_TEXTS: list[Any] = [None, 1, {}, ["x"]]
NO_LISTS: list[Any] = [[], ["CHANNEL"] * 101, "CHANNEL", [1], ["CHANNEL", "a b"], {}]
BAD_EVENTS: list[Any] = [
    *(b"[]", b"{", b'"text"', b"\xff", b"null", [EVENT], "text", b"[" * 100_000),
    *({key: value for key, value in EVENT.items() if key != name} for name in EVENT),
    *(EVENT | {"name": name} for name in ("", "x" * 201, 1, None, "pusher:x", "pusher_internal:x")),
    *(EVENT | {"data": data} for data in NO_TEXTS),
    *(EVENT | {"channel": name} for name in ("", "a b", "é", "x" * 201, "a/b", "#x", "#server-to-user-", 1, ["x"])),
    *(EVENT | {"socket_id": one} for one in ("", "1", "1.", "1.2.3", "a.b", "1.2 ", 1.2)),
    *(EVENT | {"info": info} for info in ("user_count", "subscription_count,user_count", 1, ["x"])),
    EVENT | {"channels": ["CHANNEL"]},
    *(WITHOUT_CHANNEL | {"channels": one} for one in NO_LISTS),
    WITHOUT_CHANNEL | {"channels": ["CHANNEL", "presence-x"], "info": "user_count"},
    b'{"name":"e","channel":"CHANNEL","data":"\\ud800"}',
    b'{"name":"\\udc00","channel":"CHANNEL","data":"x"}',
]


def in_channel(body: Any, name: str) -> bytes:
    payload = body if isinstance(body, bytes) else json.dumps(body).encode()
    return payload.replace(b"CHANNEL", name.encode())


@pytest.mark.parametrize("body", BAD_EVENTS, ids=[repr(body)[:60] for body in BAD_EVENTS])
def test_a_bad_event_is_refused_and_nothing_is_sent(api_server: Server, ann: Client, name: str, body: Any) -> None:
    ann.join(name)
    answer = call(api_server, "POST", f"{APP}/events", in_channel(body, name))
    assert answer.error == (400, "INVALID_REQUEST")
    assert ann.silent()


BAD_BATCHES: list[Any] = [
    *({}, {"batch": []}, {"batch": [EVENT] * 11}, {"batch": EVENT}, {"batch": None}, [EVENT]),
    *({"batch": [EVENT, bad]} for bad in BAD_EVENTS if isinstance(bad, dict) and "channels" not in bad),
    {"batch": [EVENT, WITHOUT_CHANNEL | {"channels": ["CHANNEL"]}]},
]


@pytest.mark.parametrize("body", BAD_BATCHES, ids=[repr(body)[:60] for body in BAD_BATCHES])
def test_a_batch_is_checked_as_a_whole(api_server: Server, ann: Client, name: str, body: Any) -> None:
    ann.join(name)
    answer = call(api_server, "POST", f"{APP}/batch_events", in_channel(body, name))
    assert answer.error == (400, "INVALID_REQUEST")
    assert ann.silent()


def test_unknown_attributes_are_ignored_and_null_is_absent(api_server: Server, ann: Client, name: str) -> None:
    ann.join(name)
    body = WITHOUT_CHANNEL | {"channels": [name], "channel": None, "socket_id": None, "info": None, "tags": {"a": 1}}
    assert call(api_server, "POST", f"{APP}/events", body).json == {}
    assert heard(ann) == (name, "e", "x")


@pytest.mark.parametrize(
    ("path", "parameters"),
    [
        ("/channels", {"info": "user_count"}),
        ("/channels", {"info": "user_count", "filter_by_prefix": "presence"}),
        ("/channels/x", {"info": "user_count"}),
        ("/channels/private-x", {"info": "subscription_count,user_count"}),
        ("/channels/a b", {}),
        ("/channels/é", {}),
        ("/channels/#server-to-user-x", {}),
        (f"/channels/{'x' * 201}", {}),
        ("/channels/private-x/users", {}),
        ("/channels/x/users", {}),
        ("/channels/presence-a b/users", {}),
    ],
)
def test_a_bad_question_is_refused(api_server: Server, path: str, parameters: dict[str, str]) -> None:
    answer = call(api_server, "GET", APP + path, parameters=parameters)
    assert answer.error == (400, "INVALID_REQUEST")


@pytest.mark.parametrize("body", [b"[]", b"x", b"1"])
def test_a_bad_body_terminates_nothing(api_server: Server, ann: Client, name: str, body: bytes) -> None:
    answer = call(api_server, "POST", f"{APP}/users/ann-{name}/terminate_connections", body)
    assert answer.error == (400, "INVALID_REQUEST")
    assert ann.silent()


WRONG_SIGNATURES: dict[str, dict[str, Any]] = {
    "no key": {"parameters": {"auth_key": None}},
    "another key": {"parameters": {"auth_key": "other"}},
    "a key in capitals": {"parameters": {"auth_key": API_KEY.upper()}},
    "no timestamp": {"parameters": {"auth_timestamp": None}},
    "an old timestamp": {"parameters": {"auth_timestamp": "1700000000"}},
    "a timestamp that is no number": {"parameters": {"auth_timestamp": "now"}},
    "no version": {"parameters": {"auth_version": None}},
    "another version": {"parameters": {"auth_version": "2.0"}},
    "no signature": {"parameters": {"auth_signature": None}},
    "an empty signature": {"parameters": {"auth_signature": ""}},
    "a wrong signature": {"parameters": {"auth_signature": "0" * 64}},
    "a signature that is not ASCII": {"parameters": {"auth_signature": "é" * 64}},
    "another secret": {"secret": "another secret"},
    "another path": {"signed_path": f"{APP}/batch_events"},
    "a prefix too many": {"signed_path": f"/x{APP}/events"},
    "no digest": {"parameters": {"body_md5": None}},
    "another digest": {"parameters": {"body_md5": "d41d8cd98f00b204e9800998ecf8427e"}},
    "a parameter that is there twice": {"parameters": {"x": "1", "X": "1"}},
}


@pytest.mark.parametrize("options", WRONG_SIGNATURES.values(), ids=WRONG_SIGNATURES)
def test_a_wrong_signature_is_refused_and_nothing_is_sent(
    api_server: Server, ann: Client, name: str, options: dict[str, Any]
) -> None:
    ann.join(name)
    answer = call(api_server, "POST", f"{APP}/events", EVENT | {"channel": name}, **options)
    assert answer.error == (401, "UNAUTHORIZED")
    assert API_SECRET not in answer.text
    assert ann.silent()


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", f"{APP}/events"),
        ("POST", f"{APP}/batch_events"),
        ("GET", f"{APP}/channels"),
        ("GET", f"{APP}/channels/x"),
        ("GET", f"{APP}/channels/presence-x/users"),
        ("POST", f"{APP}/users/x/terminate_connections"),
        ("POST", "/users/x/terminate_connections"),
    ],
)
def test_every_route_needs_a_signature(api_server: Server, method: str, path: str) -> None:
    assert send(api_server, method, path).error == (401, "UNAUTHORIZED")
    if path.startswith(APP):
        assert send(api_server, method, path.replace("/7/", "/8/")).error == (404, "NOT_FOUND")


def test_data_may_be_as_large_as_a_message(api_server: Server, ann: Client, name: str) -> None:
    ann.join(name)
    body: dict[str, Any] = EVENT | {"channel": name, "data": "é" * (SIZE // 2)}
    assert call(api_server, "POST", f"{APP}/events", body).json == {}
    assert heard(ann)[2] == "é" * (SIZE // 2)
    too_large = body | {"data": "é" * (SIZE // 2) + "x"}
    assert call(api_server, "POST", f"{APP}/events", too_large).error == (413, "TOO_LARGE")
    batch = {"batch": [EVENT | {"channel": name}, too_large]}
    assert call(api_server, "POST", f"{APP}/batch_events", batch).error == (413, "TOO_LARGE")
    assert ann.silent()


@pytest.mark.parametrize("chunked", [True, False])
def test_a_body_is_read_only_as_far_as_a_request_may_need(api_server: Server, chunked: bool) -> None:
    """Not even a signed one, and whether or not it says how long it is."""
    body = b" " * 1_000_000
    url = signed_url("POST", f"{APP}/events", body)
    answer = send(api_server, "POST", url, iter([body]) if chunked else body)
    assert answer.error == (413, "TOO_LARGE")


def test_a_body_in_chunks_is_taken(api_server: Server, ann: Client, name: str) -> None:
    ann.join(name)
    body = json.dumps(EVENT | {"channel": name}).encode()
    answer = send(api_server, "POST", signed_url("POST", f"{APP}/events", body), iter([body[:9], body[9:]]))
    assert (answer.status, answer.json) == (200, {})
    assert heard(ann) == (name, "e", "x")


def test_a_store_that_is_away_is_unavailable(program: str) -> None:
    with running_redis(program) as redis, running(**API_SETTINGS, **on_redis(redis)) as server:
        assert sdk(server).channels_info() == {"channels": {}}
        redis.stop()
        for method, path, body in (
            ("POST", f"{APP}/events", EVENT),
            ("POST", f"{APP}/batch_events", {"batch": [EVENT]}),
            ("GET", f"{APP}/channels", None),
            ("GET", f"{APP}/channels/x", None),
            ("GET", f"{APP}/channels/presence-x/users", None),
        ):
            assert call(server, method, path, body).error == (503, "SERVICE_UNAVAILABLE")
        with pytest.raises(PusherBadStatus, match="503"):
            sdk(server).trigger("x", "e", "x")


def test_the_path_of_the_settings_is_part_of_what_is_signed() -> None:
    with running(PRESENCE_PUSHER_PATH="/push/er", **API_SETTINGS) as server:
        assert call(server, "GET", f"/push/er{APP}/channels").json == {"channels": {}}
        assert call(server, "POST", "/push/er/users/x/terminate_connections", {}).json == {}
        assert call(server, "GET", f"/push/er{APP}/channels", signed_path=f"{APP}/channels").error[0] == 401
        assert send(server, "GET", f"{APP}/channels").status == 404
        with open_socket(server, "/push/er") as socket:
            assert socket.is_silent()


def test_the_path_at_which_the_app_is_mounted_is_part_of_what_is_signed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCRIPT_NAME", "/mounted")
    with running(kind="gunicorn-gthread", PRESENCE_ISOLATED_WORKERS=True, **API_SETTINGS) as server:
        assert call(server, "GET", f"/mounted{APP}/channels").json == {"channels": {}}
        assert call(server, "GET", f"/mounted{APP}/channels", signed_path=f"{APP}/channels").error[0] == 401


@pytest.mark.parametrize("event", ["pusher:error", "pusher_internal:member_added", "pusher:"])
def test_the_apps_own_code_cannot_send_events_of_the_protocol(
    api_server: Server, shared: Share, ann: Client, name: str, event: str
) -> None:
    """Without the dialect, it can."""
    ann.join(name)
    calls: dict[str, dict[str, Any]] = {"publish": {"name": name}, "send_to_user": {"user_id": f"ann-{name}"}}
    for method, target in calls.items():
        answer = api_server.call(method, event=event, data=1, **target)
        assert answer["raised"] == "ValueError"
        assert repr(event) in answer["text"]
        assert shared().call(method, event=event, data=1, **target) == 0
    assert ann.silent()


@pytest.mark.parametrize("kind", ["flask-run", "pywsgi", "gunicorn-gthread", "waitress"])
def test_every_server_can_serve_the_api(kind: str) -> None:
    """Even one that cannot serve WebSockets. A body in chunks is taken, or refused as one that is not signed."""
    with running(kind=kind, PRESENCE_ISOLATED_WORKERS=True, PRESENCE_MAX_MESSAGE_SIZE=SIZE, **API_SETTINGS) as server:
        assert sdk(server).trigger("x", "e", "x") == {}
        assert call(server, "POST", f"{APP}/events", b"x" * 500_000).error[0] == 413
        body = json.dumps(EVENT | {"channel": "x"}).encode()
        url = signed_url("POST", f"{APP}/events", body)
        assert send(server, "POST", url, iter([body[:9], body[9:]])).status in (200, 401)


def test_the_api_is_on_the_host_of_the_settings() -> None:
    app = Flask("hosts", subdomain_matching=True)
    app.config.update(API_SETTINGS, SERVER_NAME="example.com", PRESENCE_SUBDOMAIN="<tenant>")
    presence = Presence(app)
    presence.user_loader(lambda: User("ann"))
    url = signed_url("GET", f"{APP}/channels/x")
    http = app.test_client()
    assert http.get(url, base_url="http://red.example.com").json == {"occupied": False}
    assert http.get(url, base_url="http://example.com").status_code == 404
    fields = {"socket_id": "1.2", "channel_name": "private-x"}
    assert http.post("/presence/pusher/auth", base_url="http://red.example.com", data=fields).status_code == 200
    assert http.post("/presence/pusher/auth", base_url="http://example.com", data=fields).status_code == 404


def test_without_a_key_there_is_no_api(shared: Share) -> None:
    server = shared()
    for method, path in (("GET", f"{APP}/channels"), ("POST", f"{APP}/events"), ("POST", "/presence/pusher/auth")):
        assert send(server, method, path).status in (404, 405)


NODE = """
const Pusher = require("pusher")
const [port, name, key, secret, masterKey] = process.argv.slice(2)
const options = {appId: "7", key, secret, host: "127.0.0.1", port, useTLS: false, encryptionMasterKeyBase64: masterKey}
const pusher = new Pusher(options)
const counted = {filter_by_prefix: "presence-" + name, info: "user_count"}
const batch = [{channel: name, name: "b1", data: 1}, {channel: name, name: "b2", data: "t"}]
const params = {info: "user_count,subscription_count"}
const body = async (asked) => (await asked).json()
const status = (asked) => asked.then(() => 200, (problem) => [problem.name, problem.status, JSON.parse(problem.body)])
;(async () => console.log(JSON.stringify({
  trigger: await body(pusher.trigger([name, "presence-" + name], "news", {text: "é"})),
  info: await body(pusher.trigger("presence-" + name, "counted", "x", params)),
  batch: await body(pusher.triggerBatch(batch)),
  user: await body(pusher.sendToUser("ann-" + name, "note", {n: 1})),
  encrypted: await body(pusher.trigger("private-encrypted-" + name, "secret", "text")),
  channels: await body(pusher.get({path: "/channels", params: counted})),
  channel: await body(pusher.get({path: "/channels/presence-" + name, params})),
  users: await body(pusher.get({path: `/channels/presence-${name}/users`})),
  badRequest: await status(pusher.get({path: `/channels/${name}/users`})),
  badSecret: await status(new Pusher({...options, secret: "wrong"}).trigger(name, "e", "x")),
  badApp: await status(new Pusher({...options, appId: "8"}).trigger(name, "e", "x")),
  terminated: await body(pusher.terminateUserConnections("ann-" + name)),
})))()
"""


@pytest.fixture(scope="session")
def node_sdk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the SDK from npm, one for all workers of a run."""
    if shutil.which("npm") is None:
        missing("npm")
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "pusher-http-node"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "installed").exists():
            (folder / "package.json").write_text('{"private": true}')
            command = ["npm", "install", "--no-audit", "--no-fund", "--prefer-offline", "pusher@5.3.4"]
            try:
                subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=120)
            except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as problem:
                print((problem.stderr or b"").decode())
                missing("npm's registry")
            (folder / "script.cjs").write_text(NODE)
            (folder / "installed").touch()
    return folder


def test_the_sdk_from_npm_works_unchanged(api_server: Server, ann: Client, name: str, node_sdk: Path) -> None:
    presence = f"presence-{name}"
    ann.join(name)
    ann.join(presence)
    command = ["node", "script.cjs", str(api_server.port), name, API_KEY, API_SECRET, MASTER_KEY]
    done = subprocess.run(command, cwd=node_sdk, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    counts = {"user_count": 1, "subscription_count": 1}
    answers = json.loads(done.stdout)
    refusals = [answers.pop(key) for key in ("badRequest", "badSecret", "badApp")]
    assert answers == {
        "trigger": {},
        "info": {"channels": {presence: counts}},
        "batch": {},
        "user": {},
        "encrypted": {},
        "channels": {"channels": {presence: {"user_count": 1}}},
        "channel": {"occupied": True, **counts},
        "users": {"users": [{"id": f"ann-{name}"}]},
        "terminated": {},
    }
    seen = [(problem, status, body["error"]["code"]) for problem, status, body in refusals]
    assert seen == [
        ("PusherRequestError", 400, "INVALID_REQUEST"),
        ("PusherRequestError", 401, "UNAUTHORIZED"),
        ("PusherRequestError", 404, "NOT_FOUND"),
    ]
    assert [heard(ann) for _ in range(6)] == [
        (name, "news", {"text": "é"}),
        (presence, "news", {"text": "é"}),
        (presence, "counted", "x"),
        (name, "b1", 1),
        (name, "b2", "t"),
        ("user:message", "note", {"n": 1}),
    ]
    assert ann.wait_closed()[0] == 4403


def test_the_sdks_sign_for_a_socket(api_server: Server, name: str) -> None:
    """A back end that knows the secret needs no endpoint of the app's."""
    channel = f"presence-{name}"
    with open_socket(api_server) as socket:
        auth = sdk(api_server).authenticate(channel, socket.id, {"user_id": "ann", "user_info": {"name": "Ann"}})
        data = socket.subscribe(channel, **auth)
        assert data["presence"]["hash"] == {"ann": {"name": "Ann"}}
