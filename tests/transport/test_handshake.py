"""The handshake: what the server refuses, with which status, and how many connections it takes."""

from __future__ import annotations

import json
import socket
import struct
import threading

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect as open_socket

from ..support.client import client
from ..support.handshake import UPGRADE, raw_status, raw_upgrade
from ..support.raw import upgrade_request
from ..support.server import Server, running, wait_until
from ..support.variations import variation


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"Sec-WebSocket-Version": None}, 426),
        ({"Sec-WebSocket-Version": "8"}, 426),
        ({"Sec-WebSocket-Key": None}, 400),
        ({"Sec-WebSocket-Key": "short"}, 400),
        ({"Sec-WebSocket-Key": "!" * 24}, 400),
        ({"Connection": "keep-alive"}, 426),
        ({"Upgrade": None}, 426),
        ({"Upgrade": "h2c"}, 426),
    ],
)
def test_malformed_handshake(server: Server, changes: dict[str, str | None], status: int) -> None:
    """What is no handshake is a 400 or 426, never a 500."""
    headers = {key: value for key, value in {**UPGRADE, **changes}.items() if value is not None}
    assert raw_status(server, headers) == status


def test_full() -> None:
    """A full server refuses with 503 and `Retry-After`, and has a place again when somebody goes."""
    with running(PRESENCE_MAX_CONNECTIONS=2) as server:
        with client(server), client(server) as second:
            with pytest.raises(InvalidStatus) as caught, client(server):
                pass
            assert caught.value.response.status_code == 503
            assert int(caught.value.response.headers["Retry-After"]) > 0
            assert server.get("/ready")[0] == 200
            second.socket.close()
            with client(server):
                pass


def test_reset_during_the_handshake(server: Server) -> None:
    """A client that is gone before the handshake is costs no traceback and no place."""
    before = server.json("/presence/stats")["connections"]
    for _ in range(30):
        with socket.create_connection(("127.0.0.1", server.port)) as raw:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            raw.sendall(upgrade_request(server.port))
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


def test_answers_of_the_socket_route(server: Server) -> None:
    """Without an upgrade the socket's route says what it is, as JSON; HEAD opens nothing."""
    status, headers, body = server.get("/presence/ws")
    assert (status, json.loads(body)["error"]["code"]) == (426, "UPGRADE_REQUIRED")
    assert headers["Upgrade"] == "websocket"
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as raw:
        raw.sendall(upgrade_request(server.port).replace(b"GET ", b"HEAD ", 1))
        assert raw.recv(4096).split()[1] == b"400"


def test_handshake_with_a_body() -> None:
    """A handshake has no body: bytes of one would be taken for frames."""
    with variation("with_tokens") as server:
        for extra in ({"Content-Length": "5"}, {"Transfer-Encoding": "chunked"}):
            status, body = raw_upgrade(server, UPGRADE | extra)
            assert (status, body["error"]["message"]) == (400, "A WebSocket handshake has no body")
        assert raw_upgrade(server, UPGRADE | {"Content-Length": "0"})[0] == 101


def test_proxy_that_drops_upgrade() -> None:
    """A handshake without its hop-by-hop headers names the proxy, for the client and in the log."""
    with variation("with_tokens") as server:
        headers = {name: value for name, value in UPGRADE.items() if name.startswith("Sec-")}
        status, answered, body = server.get("/presence/ws", headers)
        assert (status, answered["Upgrade"]) == (426, "websocket")
        assert "proxy" in json.loads(body)["error"]["message"]
        assert "proxy_set_header Upgrade" in server.log()
        assert "proxy" not in json.loads(server.get("/presence/ws")[2])["error"]["message"]


def test_many_requests_on_a_connection_that_is_refused() -> None:
    """A refusal ends the HTTP connection where the server lets the app say so."""
    with variation("with_tokens") as server, socket.create_connection(("127.0.0.1", server.port)) as raw:
        head = "".join(f"{name}: {value}\r\n" for name, value in UPGRADE.items())
        raw.sendall(f"GET /presence/ws?token=x HTTP/1.1\r\nHost: {server.host}\r\n{head}\r\n".encode())
        raw.settimeout(20)
        answer = b""
        while part := raw.recv(4096):
            answer += part
        assert answer.startswith(b"HTTP/1.1 401 ")


def test_no_deflate() -> None:
    """A client that offers compression is not given it."""
    with running() as server, open_socket(f"ws://{server.host}/presence/ws") as one:
        assert one.response is not None
        assert "Sec-WebSocket-Extensions" not in one.response.headers
