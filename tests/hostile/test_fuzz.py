"""Random bytes: each message gets one documented answer or close, nothing causes a traceback, and other users notice
nothing."""

from __future__ import annotations

import json
import random
import socket
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flask_presence.domain.text import is_utf8
from flask_presence.transport.codec import BINARY, CLOSE, NO_STATUS, TEXT, Decoder, parse_close

from ..support.client import Client, client
from ..support.effort import at_effort
from ..support.raw import masked, split_frames, upgraded
from ..support.server import Server, running, wait_until

ANSWERS = {"channel:joined", "channel:left", "channel:sent", "channel:updated", "pong", "auth:ok", "error"}
CODES = {
    *("INVALID_REQUEST", "INVALID_JSON", "UNKNOWN_MESSAGE_TYPE", "FORBIDDEN", "UNAUTHORIZED", "NOT_IN_CHANNEL"),
    *("NOT_FOUND", "NOT_MEMBER", "JOIN_FAILED", "UPDATE_FAILED"),
}
"""Error codes. SEND_FAILED, LEAVE_FAILED and INTERNAL_ERROR would be a fault of the server."""
MUTATIONS = at_effort(25_000)
BATCH = 250

FRAMES: list[dict[str, Any]] = [
    {"type": "join", "channel": "presence-fuzz", "userInfo": {"name": "Mallory", "x": [1, {"y": None}]}},
    {"type": "join", "channel": "lobby", "requestId": 1},
    {"type": "join", "channel": "private-denied-x", "requestId": "a"},
    {"type": "leave", "channel": "presence-fuzz", "requestId": {"a": "b"}},
    {"type": "leave", "channel": "lobby"},
    {"type": "channel:message", "channel": "lobby", "data": "é\u2028\U0001f600", "event": "wave"},
    {"type": "channel:message", "channel": "presence-fuzz", "data": {"a": [1.5e300, -0.0, True]}},
    {"type": "channel:update", "channel": "presence-fuzz", "userInfo": {"x": 1, "id": "ann", "__proto__": {}}},
    {"type": "auth", "token": "a.b.c", "requestId": None},
    {"type": "ping", "requestId": 12345678901234567890},
]
TEXTS = [json.dumps(frame, ensure_ascii=False).encode() for frame in FRAMES]
SPLICES = [
    *(b'"', b"{", b"}", b"[", b"]", b":", b",", b"\\", b"\\u", b"\\ud800", b"\x00", b"\xff", b"\xed\xa0\x80", b"null"),
    *(
        b"1e999",
        b"NaN",
        b"-",
        b"presence-",
        b"private-",
        b"requestId",
        b'"type":',
        b"[" * 500,
        b"9" * 400,
        b"\r\n",
        b"*",
    ),
]


@pytest.fixture(scope="module")
def fuzzed() -> Iterator[tuple[Server, Client]]:
    """A server without a rate limit, and a client in a channel that must not change."""
    with running(PRESENCE_RATE_LIMIT=None) as server, client(server, "ann") as watcher:
        watcher.join("presence-watched", name="Ann")
        yield server, watcher


def is_documented(frame: dict[str, Any]) -> bool:
    return frame["type"] in ANSWERS and (frame["type"] != "error" or frame["code"] in CODES)


def converse(raw: socket.socket, data: bytes) -> None:
    """Send any bytes. Each message in them must get one answer, each error must be documented, and an invalid frame
    must end the connection with the code that the decoder names."""
    last = json.dumps({"type": "ping", "requestId": "the end"}).encode()
    decoder = Decoder(65536)
    messages = decoder.feed(data + masked(last))
    wanted = sum(opcode in (TEXT, BINARY) for opcode, _ in messages)
    try:
        raw.sendall(data + masked(last))
    except OSError:
        assert decoder.failure is not None
    ends = decoder.failure is not None
    if not ends and (TEXT, last) not in messages:
        raw.shutdown(socket.SHUT_WR)  # the last ping has become part of a longer frame, which never ends
        ends = True
    answers, code = read_answers(raw, None if ends else wanted)
    assert all(map(is_documented, answers)), answers
    if decoder.failure is None:
        assert code is None
        assert ends or (
            len(answers) == wanted and answers[-1] == {**answers[-1], "type": "pong", "requestId": "the end"}
        )
    else:
        assert code == (parse_close(messages[-1][1])[0] if decoder.failure.code == NO_STATUS else decoder.failure.code)
    assert len(answers) <= wanted


def read_answers(raw: socket.socket, count: int | None) -> tuple[list[dict[str, Any]], int | None]:
    """Read `count` answers, or all up to the end; return them and the code of a close frame, if there was one."""
    answers: list[dict[str, Any]] = []
    code, received = None, b""
    while count is None or len(answers) < count:
        try:
            part = raw.recv(65536)
        except ConnectionResetError:
            break
        if not part:
            break
        frames, received = split_frames(received + part)
        answers += [json.loads(payload) for opcode, payload in frames if opcode == TEXT]
        for payload in (payload for opcode, payload in frames if opcode == CLOSE):
            code = parse_close(payload)[0]
    return answers, code


RAW = st.one_of(
    st.binary(max_size=200),
    st.builds(
        masked,
        st.sampled_from(TEXTS) | st.binary(max_size=150),
        st.integers(0, 15),
        final=st.booleans(),
        mask=st.binary(min_size=4, max_size=4),
    ),
    st.builds(masked, st.sampled_from(TEXTS)),
    st.builds(lambda seed: masked(mutated(random.Random(seed))), st.integers(0, 10**6)),
)


@settings(max_examples=at_effort(100))
@given(pieces=st.lists(RAW, max_size=6))
def test_any_bytes_after_the_handshake_are_handled(fuzzed: tuple[Server, Client], pieces: list[bytes]) -> None:
    server, watcher = fuzzed
    with upgraded(server.port, server.token("mallory")) as raw:
        converse(raw, b"".join(pieces))
    assert_untouched(server, watcher)


def mutated(rng: random.Random) -> bytes:
    """A request with random mutations, which usually make it invalid."""
    text = bytearray(rng.choice(TEXTS))
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        at = rng.randrange(len(text) + 1)
        kind = rng.randrange(5)
        if kind == 0:
            text[at:at] = rng.choice(SPLICES)
        elif kind == 1:
            del text[at : at + rng.choice((1, 1, 2, 10))]
        elif kind == 2 and at < len(text):
            text[at] ^= 1 << rng.randrange(8)
        elif kind == 3:
            other = rng.choice(TEXTS)
            text[at:] = other[rng.randrange(len(other)) :]
        else:
            text[at:at] = text[rng.randrange(len(text) + 1) :][:20]
    return bytes(text)


def framed(payload: bytes) -> bytes:
    """A text frame if the payload is UTF-8, else a binary one: invalid text would close the connection."""
    return masked(payload, TEXT if is_utf8(payload) else BINARY)


def test_mutated_requests_get_documented_answers(fuzzed: tuple[Server, Client]) -> None:
    """Each request gets one answer."""
    server, watcher = fuzzed
    rng, token = random.Random(0), server.token("mallory")
    answered: Counter[str] = Counter()
    for _ in range(MUTATIONS // BATCH):
        with upgraded(server.port, token) as raw:
            raw.sendall(b"".join(framed(mutated(rng)) for _ in range(BATCH)))
            answers, code = read_answers(raw, BATCH)
            assert code is None
            assert len(answers) == BATCH
            assert all(map(is_documented, answers)), [answer for answer in answers if not is_documented(answer)]
            answered.update(answer.get("code", answer["type"]) for answer in answers)
    assert {"channel:joined", "channel:sent", "INVALID_JSON", "UNKNOWN_MESSAGE_TYPE", "FORBIDDEN"} <= set(answered)
    assert_untouched(server, watcher)


def test_frames_with_flipped_bits_are_handled(fuzzed: tuple[Server, Client]) -> None:
    """The bits of heads and masks are flipped too."""
    server, watcher = fuzzed
    rng, token = random.Random(5), server.token("mallory")
    for _ in range(at_effort(170)):
        data = bytearray(b"".join(masked(rng.choice(TEXTS), mask=rng.randbytes(4)) for _ in range(10)))
        for _ in range(rng.randrange(1, 5)):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        with upgraded(server.port, token) as raw:
            converse(raw, bytes(data))
    assert_untouched(server, watcher)


def assert_untouched(server: Server, watcher: Client) -> None:
    """Check that the watched channel has not changed, and that nothing of the attacker is left."""
    wait_until(lambda: server.json("/presence/stats")["connections"] == 1)
    assert [channel["name"] for channel in server.json("/presence/channels")["channels"]] == ["presence-watched"]
    assert [member["name"] for member in watcher.join("presence-watched")["members"]] == ["Ann"]
    assert watcher.silent()
    assert "Traceback" not in server.log()
