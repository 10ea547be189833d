"""What must not hurt anybody else: odd tokens, odd names, impatient clients."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time

import pytest
from websockets.exceptions import InvalidStatus

from ..conftest import Connect
from ..support.client import client
from ..support.raw import greet, masked
from ..support.server import Server, running, wait_until


def test_lone_surrogates(connect: Connect, name: str) -> None:
    """A name that has no UTF-8 is shown without it, and hurts neither its bearer nor those who come later."""
    odd = connect("odd", claims={"name": "a\ud800b", "avatar": "\ud800", "email": "\udfff"})
    assert odd.join(f"presence-{name}")["me"]["name"] == "a?b"
    assert [member["id"] for member in connect("ann").join(f"presence-{name}")["members"]] == ["odd", "ann"]
    answer = odd.request("join", channel=f"private-surrogate-{name}")
    assert (answer["code"], answer["message"]) == ("FORBIDDEN", "?")


def test_odd_expiry() -> None:
    """A token whose `exp` is a string, or far beyond the calendar, disturbs no other token's end."""
    with running() as server:
        soon = int(time.time()) + 2
        with client(server, "odd", claims={"exp": str(soon + 1000)}), client(server, "far", claims={"exp": 10**15}):
            with client(server, "ann", claims={"exp": soon}) as ann:
                assert ann.wait_closed()[0] == 4401
        with client(server) as one:
            answer = one.request("auth", token=server.token("far", exp=10**13))
            assert (answer["type"], answer["expiresAt"][:4]) == ("auth:ok", "9999")


def test_reset_during_the_handshake(server: Server) -> None:
    """A client that is gone before the handshake is costs no traceback and no place."""
    request = (
        f"GET /presence/ws HTTP/1.1\r\nHost: {server.host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    before = server.json("/presence/stats")["connections"]
    for _ in range(30):
        with socket.create_connection(("127.0.0.1", server.port)) as raw:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            raw.sendall(request.encode())
    wait_until(lambda: server.json("/presence/stats")["connections"] <= before)
    assert "ConnectionResetError" not in server.log()


@pytest.mark.parametrize("kind", ["gunicorn-gevent", "gunicorn-gthread"])
def test_places_with_a_user_loader(kind: str) -> None:
    """However many come at once, and however they are known, no more get in than there are places."""
    options = {"app": "tests.support.flask_login_app:create_app()", "PRESENCE_MAX_CONNECTIONS": 3}
    with running(kind=kind, **options) as server:
        outcomes: list[str] = []
        everybody = threading.Barrier(8)

        def come() -> None:
            everybody.wait(20)
            try:
                with client(server, headers={"Origin": server.origin}):
                    outcomes.append("in")
                    everybody.wait(20)
            except InvalidStatus as refused:
                outcomes.append(str(refused.response.status_code))
                everybody.wait(20)

        threads = [threading.Thread(target=come) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(outcomes) == ["503"] * 5 + ["in"] * 3
        with client(server, headers={"Origin": server.origin}):
            pass


def test_end_behind_waiting_frames(connect: Connect, server: Server, name: str) -> None:
    """A connection that ends while its guard runs joins nothing, whatever it has sent behind the join."""
    watcher, channel = connect("watcher"), f"presence-slow-{name}"
    watcher.join(channel, seconds=0)
    for frames in (100, 3000):
        token = server.token("ann")
        with socket.create_connection(("127.0.0.1", server.port)) as raw:
            greet(raw, server.port, token)
            join = {"type": "join", "channel": channel, "userInfo": {"seconds": 2.5}}
            raw.sendall(masked(json.dumps(join).encode()) + masked(b"", 10) + masked(b'{"type":"ping"}') * frames)
        wait_until(lambda: server.json(f"/presence/channels/{channel}")["memberCount"] == 1)
    late = connect("late")
    late.join(f"presence-slow-late-{name}", seconds=2.6)
    assert watcher.silent()


def test_numbers_beyond_python(connect: Connect, server: Server, name: str) -> None:
    """A handler can read any data that was let through."""
    one = connect()
    one.join(name)
    one.raw(f'{{"type":"channel:message","channel":"{name}","data":[1e999]}}')
    wait_until(lambda: "Infinity" in server.get(f"/heard/{one.id}")[2])


def test_answers_of_the_socket_route(server: Server) -> None:
    """Without an upgrade the socket's route says what it is, as JSON; HEAD opens nothing."""
    status, headers, body = server.get("/presence/ws")
    assert (status, json.loads(body)["error"]["code"]) == (426, "UPGRADE_REQUIRED")
    assert headers["Upgrade"] == "websocket"
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as raw:
        raw.sendall(
            f"HEAD /presence/ws HTTP/1.1\r\nHost: {server.host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
        )
        assert raw.recv(4096).split()[1] == b"400"
