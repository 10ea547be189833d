"""Every WSGI server that can serve WebSockets: the same conversation works on all of them."""

from __future__ import annotations

import socket
import ssl
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosedError
from websockets.sync.client import connect as open_socket

from ..conftest import Share
from ..support.client import Client, client
from ..support.server import COMMANDS, Server, wait_until

GEVENT_WEBSOCKET = ("gunicorn-gevent-websocket", "pywsgi-gevent-websocket")
THREADED = ("gunicorn-gthread", "flask-run")


@pytest.mark.parametrize("kind", COMMANDS)
def test_the_same_conversation_works_on_every_server(shared: Share, kind: str) -> None:
    """It has large messages both ways, a guard that blocks, and an abrupt end."""
    server = shared(kind=kind)
    with client(server, "watcher") as watcher:
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
def test_a_refusal_behind_gevent_websocket_is_a_close_frame(
    shared: Share, kind: str, headers: dict[str, str], query: str, code: int
) -> None:
    """gevent-websocket answers 101 before it asks the app."""
    server = shared(kind=kind)
    url = f"ws://{server.host}/presence/ws{query}"
    with open_socket(url, additional_headers=headers) as one, pytest.raises(ConnectionClosedError) as caught:
        one.recv(timeout=10)
    assert caught.value.rcvd is not None
    assert caught.value.rcvd.code == code


def own_sock(shared: Share, kind: str) -> Server:
    """A server of an app with routes of its own, in which few greenlets of gunicorn may serve."""
    arguments = ("--worker-connections", "10") if kind.startswith("gunicorn-gevent") else ()
    return shared(app="tests.support.own_sock:create_app()", kind=kind, arguments=arguments)


@pytest.mark.parametrize("kind", ["gunicorn-gevent", "pywsgi", *THREADED])
def test_the_flask_sock_routes_of_an_app_keep_working(shared: Share, kind: str) -> None:
    """They keep their own options."""
    server = own_sock(shared, kind)
    with client(server) as one, open_socket(f"ws://{server.host}/echo", compression=None, close_timeout=1) as echo:
        for number in range(3):
            echo.send(f"{number}")
            assert echo.recv(timeout=10) == f"own: {number}"
            assert one.request("ping")["type"] == "pong"


@pytest.mark.parametrize("kind", ["gunicorn-gevent", "gunicorn-gevent-websocket", "pywsgi", "pywsgi-gevent-websocket"])
def test_an_idle_connection_costs_no_greenlet(shared: Share, kind: str) -> None:
    """It occupies no worker connection of gunicorn either."""
    server = own_sock(shared, kind)
    with client(server):
        before = server.json("/greenlets")
    with ExitStack() as stack:
        opened = [stack.enter_context(client(server)) for _ in range(30)]
        wait_until(lambda: server.json("/greenlets") <= before)
        assert all(one.request("ping")["type"] == "pong" for one in opened)
    wait_until(lambda: server.json("/presence/stats")["connections"] == 0)


@pytest.mark.parametrize("kind", ["gunicorn-gevent", "gunicorn-gthread"])
def test_tls_of_gunicorn_works_with_large_messages(kind: str, tmp_path: Path) -> None:
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
