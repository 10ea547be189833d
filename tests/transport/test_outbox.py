"""The outbox of a connection, on real sockets and a real loop."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flask_presence.domain.readings import Backlog, Blocked
from flask_presence.loops.thread_loop import ThreadLoop
from flask_presence.transport.codec import CLOSE, TEXT, encode_close, encode_frame
from flask_presence.transport.connection import Connection
from flask_presence.transport.group import ConnectionGroup
from flask_presence.transport.outbox import Limits

from ..support.server import wait_until

T = TypeVar("T")
LIMIT = 100_000


class Recorder:
    """A frame receiver that records its frames and its end."""

    id = "a client"
    user_id = "ann"

    def __init__(self) -> None:
        self.endings: list[tuple[int, Any]] = []
        self.received: list[tuple[bytes, bool]] = []
        self.proceeded = 0

    def receive(self, payload: bytes, *, is_text: bool) -> None:
        self.received.append((payload, is_text))

    def proceed(self) -> None:
        self.proceeded += 1

    def admit(self) -> bool:
        return True

    def closed(self, code: int, reason: Any) -> None:
        self.endings.append((code, reason))


class Pair:
    """A connection, its frame receiver, and the socket of the peer."""

    def __init__(self, loop: ThreadLoop, group: ConnectionGroup | None = None) -> None:
        self.loop = loop
        ours, self.peer = socket.socketpair()
        for side in (ours, self.peer):
            side.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
        ours.setblocking(False)
        self.peer.settimeout(10)
        self.receiver = Recorder()
        self.group = group or loop.run(lambda: ConnectionGroup(loop, Limits(max_outbox=LIMIT)))
        self.connection = loop.run(lambda: Connection(self.group, ours, self.receiver))
        loop.run(self.connection.start)

    def run(self, function: Callable[[], T]) -> T:
        return self.loop.run(function)

    def read_all(self) -> bytes:
        data = b""
        while chunk := self.peer.recv(65536):
            data += chunk
        return data


def frames_of(data: bytes) -> list[tuple[int, bytes]]:
    """The frames in `data`, which must all be whole."""
    found = []
    while data:
        size, head = data[1], 2
        if size == 126:
            size, head = int.from_bytes(data[2:4], "big"), 4
        assert len(data) >= head + size, "a frame is cut"
        found.append((data[0] & 15, data[head : head + size]))
        data = data[head + size :]
    return found


@pytest.fixture
def pair() -> Iterator[Pair]:
    made = Pair(ThreadLoop())
    yield made
    made.peer.close()
    wait_until(lambda: not made.group.connections)


def test_frames_leave_in_the_order_in_which_they_were_sent(pair: Pair) -> None:
    """Answers, messages and the close frame share one order."""

    def act() -> None:
        for number in range(500):
            (pair.connection.answer if number % 3 else pair.connection.send)(encode_frame(b"%d" % number))
        pair.connection.close(4403, "bye", "disconnected")

    pair.run(act)
    frames = frames_of(pair.read_all())
    assert [int(payload) for opcode, payload in frames if opcode == TEXT] == list(range(500))
    assert frames[-1] == (CLOSE, encode_close(4403, "bye")[2:])
    assert pair.receiver.endings == [(4403, "disconnected")]


def test_a_slow_reader_gets_whole_frames_and_then_the_code_1013(pair: Pair) -> None:
    """The frame receiver is told once."""

    def act() -> None:
        for number in range(200):
            pair.connection.send(encode_frame(b"%d " % number + b"x" * 1000))

    pair.run(act)
    wait_until(lambda: pair.receiver.endings)
    frames = frames_of(pair.read_all())
    assert [int(payload.split()[0]) for _, payload in frames[:-1]] == list(range(len(frames) - 1))
    assert frames[-1] == (CLOSE, encode_close(1013, "Too slow")[2:])
    assert pair.receiver.endings == [(1013, "slow")]


def test_the_outbox_may_fill_up_to_its_limit(pair: Pair) -> None:
    """One byte more closes the connection."""

    def fill() -> None:
        while not pair.connection.writing:
            pair.connection.send(b"x" * 1000)
            pair.group._flush()
        pair.connection.send(b"x" * (LIMIT - pair.connection.backlog))

    pair.run(fill)
    assert pair.receiver.endings == []
    blocked = Blocked("a client", "ann", LIMIT)
    assert pair.run(pair.group.backlog) == Backlog(LIMIT, LIMIT, 1, (blocked,))
    pair.run(lambda: pair.connection.send(b"x"))
    wait_until(lambda: pair.receiver.endings)
    assert pair.receiver.endings == [(1013, "slow")]


def test_an_answer_may_be_larger_than_the_outbox(pair: Pair) -> None:
    """The limit is for messages that the connection did not ask for."""
    pair.run(lambda: pair.connection.answer(encode_frame(b"x" * 60000)))
    for _ in range(3):
        pair.run(lambda: pair.connection.answer(encode_frame(b"y" * 60000)))
    pair.run(lambda: pair.connection.close(1000, "", "closed"))
    assert [len(payload) for _, payload in frames_of(pair.read_all())] == [60000] * 4 + [2]


def test_a_peer_that_vanishes_is_lost_once(pair: Pair) -> None:
    """The code is 1006 and the reason is "lost"."""
    pair.peer.close()
    wait_until(lambda: pair.receiver.endings)
    pair.run(lambda: pair.connection.send(encode_frame(b"late")))
    assert pair.receiver.endings == [(1006, "lost")]


def test_a_close_that_cannot_be_encoded_leaves_the_connection_open(pair: Pair) -> None:
    with pytest.raises(AttributeError):
        pair.run(lambda: pair.connection.close(4403, None, "disconnected"))  # type: ignore[arg-type]
    assert pair.receiver.endings == []
    pair.run(lambda: pair.connection.send(encode_frame(b"still here")))
    assert pair.peer.recv(100) == encode_frame(b"still here")


PEERS = 4
shared_loop = lru_cache(ThreadLoop)
ACTS = st.lists(
    st.tuples(
        st.sampled_from(["all", "all", "all", "all but one", "some", "send", "answer", "close"]),
        st.integers(0, PEERS - 1),
        st.sampled_from([1, 1, 100, 20_000]),
    ),
    max_size=12,
)


@settings(max_examples=150, deadline=None)
@given(rounds=st.lists(ACTS, min_size=1, max_size=4))
def test_every_connection_gets_exactly_its_frames_in_order(rounds: list[list[tuple[str, int, int]]]) -> None:
    """This holds for any mix of broadcasts, messages, answers and closes in one iteration of the loop: each connection
    gets its frames whole and in order, until it ends."""
    loop = shared_loop()
    first = Pair(loop)
    pairs = [first, *(Pair(loop, first.group) for _ in range(PEERS - 1))]
    everyone, some = tuple(pair.connection for pair in pairs), tuple(pair.connection for pair in pairs[::2])
    wanted: list[list[bytes]] = [[] for _ in pairs]
    ended: set[int] = set()

    def act(number: int, what: str, index: int, size: int) -> None:
        payload = b"%d " % number + b"x" * size
        frame, chosen = encode_frame(payload), pairs[index].connection
        if what == "close":
            chosen.close(1000, "", "closed")
            ended.add(index)
            return
        meant = {
            "all": range(PEERS),
            "all but one": [other for other in range(PEERS) if other != index],
            "some": range(0, PEERS, 2),
        }.get(what, [index])
        if what in ("send", "answer"):
            (chosen.send if what == "send" else chosen.answer)(frame)
        else:
            first.group.send_all(some if what == "some" else everyone, frame, chosen if "but" in what else None)
        for other in set(meant) - ended:
            wanted[other].append(payload)

    def play(acts: list[tuple[str, int, int]], number: int) -> None:
        for offset, (what, index, size) in enumerate(acts):
            act(number + offset, what, index, size)

    for turn, acts in enumerate(rounds):
        loop.run(lambda acts=acts, turn=turn: play(acts, turn * 100))  # type: ignore[misc]
    loop.run(lambda: play([("close", index, 0) for index in range(PEERS)], 0))
    for pair, payloads in zip(pairs, wanted, strict=True):
        *frames, close_frame = frames_of(pair.read_all())
        assert close_frame[0] == CLOSE
        got = [payload for _, payload in frames]
        slow = (1013, "slow") in pair.receiver.endings
        assert got == (payloads[: len(got)] if slow else payloads)
        pair.peer.close()
    wait_until(lambda: not first.group.connections)
