"""The same service behind every server that can carry it."""

from __future__ import annotations

import socket
import ssl
import subprocess
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosedError
from websockets.sync.client import connect as open_socket

from ..support.client import Client, client
from ..support.raw import greet, masked
from ..support.server import COMMANDS, Server, running, wait_until

GEVENT_WEBSOCKET = ("gunicorn-gevent-websocket", "pywsgi-gevent-websocket")
THREADED = ("gunicorn-gthread", "flask-run")


@pytest.mark.parametrize("kind", COMMANDS)
def test_conversation(kind: str) -> None:
    """Join, talk, large messages both ways, a blocking guard, an abrupt end: the same on every server."""
    with running(kind=kind) as server, client(server, "watcher") as watcher:
        watcher.join("presence-room")
        with client(server, "ann") as ann, client(server, "bob") as bob:
            ann.join("presence-room", name="Ann")
            bob.join("presence-room")
            large = "x" * 60000
            for number in range(20):
                assert ann.say("presence-room", [number, large])["delivered"] == 2
            messages = [event for event in bob.events() if event["type"] == "channel:message"]
            assert [event["data"] for event in messages] == [[number, large] for number in range(20)]
            ann.send({"type": "join", "channel": "private-slow-1", "userInfo": {"seconds": 0.5}})
            assert bob.request("ping")["type"] == "pong"
            assert ann.event()["type"] in ("channel:joined", "presence:member_joined")
            bob.socket.socket.shutdown(socket.SHUT_RDWR)
        left = [event["member"]["id"] for event in _until_quiet(watcher, server) if event["type"].endswith("left")]
        assert sorted(left) == ["ann", "bob"]
        assert server.json("/presence/stats")["connections"] == 1


def _until_quiet(watcher: Client, server: Server) -> list[dict[str, Any]]:
    wait_until(lambda: server.json("/presence/channels/presence-room")["memberCount"] == 1)
    return watcher.events()


@pytest.mark.parametrize("kind", GEVENT_WEBSOCKET)
@pytest.mark.parametrize(
    ("headers", "query", "code"),
    [({}, "?token=garbage", 4401), ({"Origin": "http://evil.example"}, "", 1008)],
)
def test_refusal_is_a_close_frame(kind: str, headers: dict[str, str], query: str, code: int) -> None:
    """Where 101 is out before the application is asked, a close frame is the refusal."""
    with running(kind=kind) as server:
        url = f"ws://{server.host}/presence/ws{query}"
        with open_socket(url, additional_headers=headers) as one, pytest.raises(ConnectionClosedError) as caught:
            one.recv(timeout=10)
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == code


@pytest.mark.parametrize("kind", ["gunicorn-gevent", "pywsgi", *THREADED])
def test_own_flask_sock_routes(kind: str) -> None:
    """An app's own flask-sock routes work beside the extension's, with their own options."""
    with running(app="tests.support.own_sock:create_app()", kind=kind) as server:
        with client(server) as one, open_socket(f"ws://{server.host}/echo", compression=None, close_timeout=1) as echo:
            for number in range(3):
                echo.send(f"{number}")
                assert echo.recv(timeout=10) == f"own: {number}"
                assert one.request("ping")["type"] == "pong"


@pytest.mark.parametrize("kind", ["gunicorn-gevent", "gunicorn-gevent-websocket", "pywsgi", "pywsgi-gevent-websocket"])
def test_idle_connection_costs_no_greenlet(kind: str) -> None:
    """After the hand-over no greenlet, no context and no worker slot belongs to a connection."""
    arguments = ("--worker-connections", "10") if kind.startswith("gunicorn") else ()
    with running(app="tests.support.own_sock:create_app()", kind=kind, arguments=arguments) as server:
        with client(server):
            before = server.json("/greenlets")
        with ExitStack() as stack:
            opened = [stack.enter_context(client(server)) for _ in range(30)]
            wait_until(lambda: server.json("/greenlets") <= before)
            assert all(one.request("ping")["type"] == "pong" for one in opened)
        wait_until(lambda: server.json("/presence/stats")["connections"] == 0)


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


def test_no_deflate() -> None:
    """A client that offers compression is not given it."""
    with running() as server, open_socket(f"ws://{server.host}/presence/ws") as one:
        assert one.response is not None
        assert "Sec-WebSocket-Extensions" not in one.response.headers


@pytest.mark.parametrize("kind", ["gunicorn-gevent", "flask-run"])
def test_message_size(kind: str) -> None:
    """A message of 65536 bytes is taken; one byte more closes with 1009, before it is read."""
    with running(kind=kind) as server:
        with client(server) as one:
            head = '{"type":"ping","x":"'
            assert one.raw(head + "x" * (65536 - len(head) - 2) + '"}')["type"] == "pong"
            one.socket.send(head + "x" * (65537 - len(head) - 2) + '"}')
            assert one.wait_closed()[0] == 1009


def test_rate_limit() -> None:
    """Over the limit requests are refused with their ids; whoever keeps on is closed with 1008."""
    with running(PRESENCE_RATE_LIMIT=[1, 5]) as server, client(server) as one, client(server) as pinger:
        answers = [one.request("ping") for _ in range(8)]
        assert [answer["type"] for answer in answers] == ["pong"] * 5 + ["error"] * 3
        assert answers[-1] == {"type": "error", "code": "RATE_LIMIT_EXCEEDED", "message": "Too many requests"}
        for _ in range(110):
            one.send({"type": "ping"})
        assert one.wait_closed() == (1008, "Too many requests")
        pongs = [pinger.socket.ping() for _ in range(8)]
        assert all(pong.wait(10) for pong in pongs[:5])
        assert not any(pong.is_set() for pong in pongs[5:])


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


@pytest.mark.parametrize("kind", ["gunicorn-gevent", "gunicorn-gthread"])
def test_tls(kind: str, tmp_path: Path) -> None:
    """TLS that gunicorn terminates works, with large messages and many at once."""
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=127.0.0.1",
            "-addext",
            "subjectAltName=IP:127.0.0.1",
            "-keyout",
            str(key),
            "-out",
            str(certificate),
        ],
        check=True,
        capture_output=True,
    )
    context = ssl.create_default_context(cafile=str(certificate))
    arguments = ("--certfile", str(certificate), "--keyfile", str(key))
    server = Server(kind=kind, arguments=arguments)
    try:
        wait_until(lambda: "Listening at" in server.log())
        url = f"wss://{server.host}/presence/ws"
        options = {"ssl": context, "compression": None, "max_queue": None}
        with open_socket(url, **options) as first, open_socket(url, **options) as second:  # type: ignore[arg-type]
            one, other = Client(first), Client(second)
            one.join("public-room")
            other.join("public-room")
            for number in range(50):
                one.say("public-room", [number, "x" * 50000])
            assert [event["data"][0] for event in other.events()] == list(range(50))
            first.close()
        server.stop()
        assert "Traceback" not in server.log()
    finally:
        server.close()


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
