"""Random frames of the Pusher protocol: each gets a documented answer or none, nothing causes a traceback, and other
users notice nothing."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed

from ..support.client import Client, client
from ..support.effort import at_effort
from ..support.pusher import KEY, SETTINGS, PusherClient, pusher_client, pusher_socket, sign
from ..support.server import DEADLINE, Server, running, wait_until
from .test_fuzz import SPLICES

CHANNELS = ["lobby", "private-fuzz", "presence-fuzz", "private-encrypted-fuzz", "cache-fuzz", "presence-cache-fuzz"]
EVENTS = {
    *("pusher_internal:subscription_succeeded", "pusher:subscription_error", "pusher:signin_success", "pusher:pong"),
    *("pusher:error", "pusher:cache_miss", "presence:member_updated"),
}
REQUESTS = ["pusher:subscribe", "pusher:unsubscribe", "pusher:ping", "pusher:pong", "client-x", "client-"]
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from([*CHANNELS, *REQUESTS]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["event", "data", "channel", "auth", "channel_data"]) | st.text(), inner, max_size=4
        )
    ),
    max_leaves=8,
)
FRAMES = JSON_VALUES | st.fixed_dictionaries(
    {"event": st.sampled_from(REQUESTS) | st.text()},
    optional={"data": JSON_VALUES | JSON_VALUES.map(json.dumps), "channel": st.sampled_from(CHANNELS) | JSON_VALUES},
)


@pytest.fixture(scope="module")
def fuzzed() -> Iterator[tuple[Server, Client]]:
    """A server without rate limits, and a native client in a channel that must not change."""
    options: dict[str, Any] = {"PRESENCE_RATE_LIMIT": None, "PRESENCE_PUSHER_CLIENT_EVENTS": None}
    with running(**options, **SETTINGS) as server, client(server, "ann") as watcher:
        watcher.join("presence-watched", name="Ann")
        yield server, watcher


def check(frames: list[dict[str, Any]]) -> None:
    for frame in frames:
        assert frame["event"] in EVENTS, frame
        assert frame["event"] != "pusher:error" or frame["data"]["code"] in (4300, 4301), frame
        assert "Internal error" not in str(frame["data"]), frame


@settings(max_examples=at_effort(150))
@given(values=st.lists(FRAMES, max_size=10))
def test_no_json_breaks_a_connection(fuzzed: tuple[Server, Client], values: list[Any]) -> None:
    server, watcher = fuzzed
    with pusher_client(server) as one:
        for value in values:
            one.socket.send(json.dumps(value))
        check(one.frames())
    assert_untouched(server, watcher)


def seeds(one: PusherClient) -> list[bytes]:
    """Requests of the connection that are all right."""
    ann = json.dumps({"user_id": "mallory", "user_info": {"id": 1, "a": [1, {"b": None}]}})
    requests = [{"event": "pusher:subscribe", "data": {"channel": name, **one.auth(name, ann)}} for name in CHANNELS]
    requests += [{"event": "pusher:subscribe", "data": json.dumps({"channel": "lobby"})}]
    requests += [{"event": "pusher:unsubscribe", "data": {"channel": name}} for name in CHANNELS[:2]]
    requests += [{"event": "client-x", "channel": name, "data": {"é": "\u2028"}} for name in CHANNELS[:4]]
    requests += [{"event": "pusher:ping", "data": {}}, {"event": "pusher:pong"}]
    return [json.dumps(request, ensure_ascii=False).encode() for request in requests]


def mutated(rng: random.Random, texts: list[bytes]) -> bytes:
    """A request, perhaps with random mutations, which usually make it invalid."""
    text = bytearray(rng.choice(texts))
    for _ in range(rng.choice((0, 1, 1, 1, 2, 5))):
        at, kind = rng.randrange(len(text) + 1), rng.randrange(4)
        if kind == 0:
            text[at:at] = rng.choice(SPLICES)
        elif kind == 1:
            del text[at : at + rng.choice((1, 1, 2, 10))]
        elif kind == 2 and at < len(text):
            text[at] ^= 1 << rng.randrange(8)
        else:
            text[at:] = rng.choice(texts)[at:]
        text = text or bytearray(b" ")
    return bytes(text)


def test_mutated_requests_get_documented_answers(fuzzed: tuple[Server, Client]) -> None:
    server, watcher = fuzzed
    rng = random.Random(0)
    answered: Counter[str] = Counter()
    for _ in range(at_effort(40)):
        with pusher_client(server) as one:
            texts = seeds(one)
            for _ in range(250):
                one.socket.send(mutated(rng, texts))
            frames = one.frames()
            check([frame for frame in frames if frame.get("user_id") != "mallory"])
            answered.update(frame["event"] for frame in frames)
    assert {"pusher_internal:subscription_succeeded", "pusher:subscription_error", "pusher:error"} <= set(answered)
    assert_untouched(server, watcher)


def test_mutated_sign_ins_end_the_connection_or_nothing(fuzzed: tuple[Server, Client]) -> None:
    server, watcher = fuzzed
    rng = random.Random(1)
    codes: Counter[int] = Counter()
    for _ in range(at_effort(150)):
        with pusher_client(server) as one:
            data = json.dumps({"id": "mallory"})
            fields = {"auth": sign(f"{one.id}::user::{data}"), "user_data": data}
            one.socket.send(mutated(rng, [json.dumps({"event": "pusher:signin", "data": fields}).encode()]))
            try:
                check(one.frames())
                codes[0] += 1
            except ConnectionClosed as closed:
                assert closed.rcvd is not None
                codes[closed.rcvd.code] += 1
    assert set(codes) == {0, 4009}
    assert_untouched(server, watcher)


@settings(max_examples=at_effort(50))
@given(query=st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="#"), max_size=30))
def test_any_query_is_greeted_or_refused(fuzzed: tuple[Server, Client], query: str) -> None:
    server, watcher = fuzzed
    with ExitStack() as stack:
        socket = stack.enter_context(pusher_socket(server, key=KEY, query=query))
        frame = json.loads(socket.recv(DEADLINE))
        assert frame["event"] == "pusher:connection_established" or frame["data"]["code"] in (4007, 4008)
    assert_untouched(server, watcher)


def assert_untouched(server: Server, watcher: Client) -> None:
    """Check that the watched channel has not changed, and that nothing of the attacker is left."""
    wait_until(lambda: server.json("/presence/stats")["connections"] == 1)
    assert [channel["name"] for channel in server.json("/presence/channels")["channels"]] == ["presence-watched"]
    assert [member["name"] for member in watcher.join("presence-watched")["members"]] == ["Ann"]
    assert watcher.silent()
    assert "Traceback" not in server.log()
