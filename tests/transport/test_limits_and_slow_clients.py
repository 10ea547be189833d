"""Message sizes, pings and outboxes: a slow, silent or flooding client delays nobody else."""

from __future__ import annotations

import socket
import threading
from contextlib import ExitStack

import pytest

from ..support.client import Client, client
from ..support.raw import greet, masked
from ..support.server import running, wait_until


def test_slow_reader_delays_nobody() -> None:
    """Who does not read is closed with 1013; the others get everything, and what was sent is whole."""
    with running(PRESENCE_RATE_LIMIT=None, PRESENCE_MAX_OUTBOX=131072) as server:
        with client(server, "slow") as slow, client(server, "ann") as ann, client(server, "bob") as bob:
            for one in (slow, ann, bob):
                one.join("private-room")
            stalled = _Stalled(slow)
            for number in range(400):
                ann.say("private-room", [number, "x" * 30000])
                event = bob.event()
                assert event["data"][0] == number
                if server.json("/presence/stats")["connections"] == 2:
                    break
            else:
                pytest.fail("the reader that does not read is still there")
            code, numbers = stalled.read_on()
            assert numbers == list(range(len(numbers)))
            assert code == 1013


class _Stalled:
    """A client whose library's reading thread is held up."""

    def __init__(self, one: Client) -> None:
        self._one = one
        one.socket.protocol_mutex.acquire()

    def read_on(self) -> tuple[int, list[int]]:
        self._one.socket.protocol_mutex.release()
        code, _ = self._one.wait_closed()
        events = [event for event in self._one._events if event["type"] == "channel:message"]
        return code, [event["data"][0] for event in events]


def test_unread_answers_stop_the_reading() -> None:
    """Who does not read its own answers is no longer read from, and nothing is lost when it reads on."""
    with running(PRESENCE_RATE_LIMIT=None) as server, client(server, "ann") as ann, client(server) as other:
        with socket.create_connection(("127.0.0.1", server.port)) as raw:
            raw.settimeout(10)
            greet(raw, server.port)
            padding = "y" * 1000
            frame = masked(f'{{"type":"ping","requestId":"{padding}"}}'.encode())
            raw.settimeout(0.5)
            sent = 0
            with pytest.raises(TimeoutError):
                while sent < 200_000_000:
                    sent += raw.send(frame * 100)
            assert other.request("ping")["type"] == "pong"
            assert ann.request("ping")["type"] == "pong"
            raw.settimeout(10)
            answers = 0
            pending = b""
            while answers * len(frame) < sent - len(frame):
                pending += raw.recv(1 << 20)
                answers += pending.count(b'"type":"pong"')
                pending = pending[-20:] if b'"type":"pong"' not in pending[-20:] else b""
            assert answers >= sent // len(frame) - 1


@pytest.mark.parametrize("kind", ["gunicorn-gevent", "flask-run"])
def test_message_size(kind: str) -> None:
    """A message of 65536 bytes is taken; one byte more closes with 1009, before it is read."""
    with running(kind=kind) as server:
        with client(server) as one:
            head = '{"type":"ping","x":"'
            assert one.raw(head + "x" * (65536 - len(head) - 2) + '"}')["type"] == "pong"
            one.socket.send(head + "x" * (65537 - len(head) - 2) + '"}')
            assert one.wait_closed()[0] == 1009


@pytest.mark.parametrize("kind", ["gunicorn-gevent", "flask-run"])
def test_half_open_peer(kind: str) -> None:
    """A client that answers no ping is gone within the interval and the timeout."""
    with running(kind=kind, PRESENCE_PING_INTERVAL=0.4, PRESENCE_PING_TIMEOUT=0.4) as server:
        with socket.create_connection(("127.0.0.1", server.port)) as raw, client(server) as alive:
            greet(raw, server.port)
            wait_until(lambda: server.json("/presence/stats")["connections"] == 1)
            assert alive.request("ping")["type"] == "pong"


def test_guard_longer_than_the_ping_timeout() -> None:
    """A guard that takes longer than the heartbeat drops nobody."""
    with running(PRESENCE_PING_INTERVAL=0.3, PRESENCE_PING_TIMEOUT=0.3) as server, client(server, "ann") as one:
        one.join("private-slow-1", seconds=1.5)


def test_many_idle_connections() -> None:
    """A thousand that do nothing cost the one that does something nothing."""
    with running(PRESENCE_STATS_PUBLIC=True) as server, client(server) as normal, ExitStack() as stack:
        for _ in range(1000):
            raw = stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
            greet(raw, server.port)
        assert server.json("/presence/stats")["connections"] == 1001
        for _ in range(100):
            assert normal.request("ping")["type"] == "pong"


def test_flooding_client_delays_nobody() -> None:
    """Beside a client that sends valid frames flat out, and one that sends a byte at a time, others are served."""
    with running(PRESENCE_RATE_LIMIT=None) as server, client(server) as normal:
        stop = threading.Event()

        def flood() -> None:
            with socket.create_connection(("127.0.0.1", server.port)) as raw:
                greet(raw, server.port)
                raw.settimeout(0.2)
                frames = masked(b'{"type":"pong"}', 10) * 2000
                while not stop.is_set():
                    try:
                        raw.send(frames)
                    except TimeoutError:
                        continue

        flooder = threading.Thread(target=flood)
        flooder.start()
        try:
            with socket.create_connection(("127.0.0.1", server.port)) as slow:
                greet(slow, server.port)
                for byte in masked(b'{"type":"ping"}'):
                    slow.send(bytes((byte,)))
                    assert normal.request("ping")["type"] == "pong"
                slow.settimeout(10)
                assert b"pong" in slow.recv(4096)
        finally:
            stop.set()
            flooder.join()
