"""Message sizes, pings and outboxes: a slow, silent or flooding client delays nobody else."""

from __future__ import annotations

import socket
import threading
from contextlib import ExitStack

import pytest

from ..support.client import Client, client
from ..support.raw import greet, masked
from ..support.server import running, wait_until


def test_a_client_that_does_not_read_is_closed_with_1013() -> None:
    """The others get every message, and the slow client gets whole frames up to its close."""
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
                pytest.fail("the client that does not read is still connected")
            code, numbers = stalled.read_on()
            assert numbers == list(range(len(numbers)))
            assert code == 1013


class _Stalled:
    """A client that stops reading, because its library's thread is blocked."""

    def __init__(self, one: Client) -> None:
        self._one = one
        one.socket.protocol_mutex.acquire()

    def read_on(self) -> tuple[int, list[int]]:
        self._one.socket.protocol_mutex.release()
        code, _ = self._one.wait_closed()
        events = [event for event in self._one._events if event["type"] == "channel:message"]
        return code, [event["data"][0] for event in events]


def test_the_server_stops_reading_from_a_client_that_does_not_read() -> None:
    """The client gets every answer as soon as it reads again."""
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
def test_a_message_over_65536_bytes_closes_with_1009(kind: str) -> None:
    """The server closes before it has read the message."""
    with running(kind=kind) as server:
        with client(server) as one:
            head = '{"type":"ping","x":"'
            assert one.raw(head + "x" * (65536 - len(head) - 2) + '"}')["type"] == "pong"
            one.socket.send(head + "x" * (65537 - len(head) - 2) + '"}')
            assert one.wait_closed()[0] == 1009


@pytest.mark.parametrize("kind", ["gunicorn-gevent", "flask-run"])
def test_a_client_that_answers_no_ping_is_dropped(kind: str) -> None:
    """This takes no longer than the ping interval and the ping timeout."""
    with running(kind=kind, PRESENCE_PING_INTERVAL=0.4, PRESENCE_PING_TIMEOUT=0.4) as server:
        with socket.create_connection(("127.0.0.1", server.port)) as raw, client(server) as alive:
            greet(raw, server.port)
            wait_until(lambda: server.json("/presence/stats")["connections"] == 1)
            assert alive.request("ping")["type"] == "pong"


def test_a_guard_that_runs_longer_than_the_ping_timeout_drops_nobody() -> None:
    with running(PRESENCE_PING_INTERVAL=0.3, PRESENCE_PING_TIMEOUT=0.3) as server, client(server, "ann") as one:
        one.join("private-slow-1", seconds=1.5)


def test_a_thousand_idle_connections_delay_nobody() -> None:
    with running(PRESENCE_STATS_PUBLIC=True) as server, client(server) as normal, ExitStack() as stack:
        for _ in range(1000):
            raw = stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
            greet(raw, server.port)
        assert server.json("/presence/stats")["connections"] == 1001
        for _ in range(100):
            assert normal.request("ping")["type"] == "pong"


def test_a_flooding_client_and_a_dripping_client_delay_nobody() -> None:
    """One sends valid frames as fast as it can, the other sends one byte at a time."""
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
