"""The handshake: what the server refuses, with which status, and how many connections it accepts."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Iterator

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect as open_socket

from ..support.client import client
from ..support.handshake import UPGRADE, raw_status, raw_upgrade
from ..support.raw import upgrade_request
from ..support.server import Server, running, wait_until
from ..support.variations import variation


@pytest.fixture(scope="module")
def plain() -> Iterator[Server]:
    """A server in memory, for tests whose outcome does not depend on the backend."""
    with variation("with_tokens") as server:
        yield server


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
def test_a_malformed_handshake_is_refused_with_400_or_426(
    server: Server, changes: dict[str, str | None], status: int
) -> None:
    headers = {key: value for key, value in {**UPGRADE, **changes}.items() if value is not None}
    assert raw_status(server, headers) == status


def test_a_full_server_refuses_with_503_until_a_connection_closes() -> None:
    """The answer has a `Retry-After`, and other requests still work."""
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


def test_a_client_that_resets_during_the_handshake_costs_nothing(server: Server) -> None:
    """The log has no traceback, and the connection is not counted."""
    before = server.json("/presence/stats")["connections"]
    for _ in range(30):
        with socket.create_connection(("127.0.0.1", server.port)) as raw:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            raw.sendall(upgrade_request(server.port))
    wait_until(lambda: server.json("/presence/stats")["connections"] <= before)
    assert "ConnectionResetError" not in server.log()


@pytest.mark.parametrize("kind", ["gunicorn-gevent", "gunicorn-gthread"])
def test_simultaneous_clients_never_exceed_the_limit(kind: str) -> None:
    """This holds with a user loader too, which runs before a client is counted."""
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


def test_the_socket_route_explains_itself_without_an_upgrade(server: Server) -> None:
    """A GET gets 426 and JSON, and a HEAD gets 400."""
    status, headers, body = server.get("/presence/ws")
    assert (status, json.loads(body)["error"]["code"]) == (426, "UPGRADE_REQUIRED")
    assert headers["Upgrade"] == "websocket"
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as raw:
        raw.sendall(upgrade_request(server.port).replace(b"GET ", b"HEAD ", 1))
        assert raw.recv(4096).split()[1] == b"400"


def test_a_handshake_with_a_body_is_refused(plain: Server) -> None:
    """The server would take the bytes of a body for frames."""
    for extra in ({"Content-Length": "5"}, {"Transfer-Encoding": "chunked"}):
        status, body = raw_upgrade(plain, UPGRADE | extra)
        assert (status, body["error"]["message"]) == (400, "A WebSocket handshake has no body")
    assert raw_upgrade(plain, UPGRADE | {"Content-Length": "0"})[0] == 101


def test_a_handshake_without_upgrade_headers_blames_the_proxy(plain: Server) -> None:
    """The answer and the log say that a proxy removed them."""
    headers = {name: value for name, value in UPGRADE.items() if name.startswith("Sec-")}
    status, answered, body = plain.get("/presence/ws", headers)
    assert (status, answered["Upgrade"]) == (426, "websocket")
    assert "proxy" in json.loads(body)["error"]["message"]
    assert "proxy_set_header Upgrade" in plain.log()
    assert "proxy" not in json.loads(plain.get("/presence/ws")[2])["error"]["message"]


def test_a_refusal_ends_the_http_connection(plain: Server) -> None:
    with socket.create_connection(("127.0.0.1", plain.port)) as raw:
        head = "".join(f"{name}: {value}\r\n" for name, value in UPGRADE.items())
        raw.sendall(f"GET /presence/ws?token=x HTTP/1.1\r\nHost: {plain.host}\r\n{head}\r\n".encode())
        raw.settimeout(20)
        answer = b""
        while part := raw.recv(4096):
            answer += part
        assert answer.startswith(b"HTTP/1.1 401 ")


def test_an_offer_of_compression_is_declined(server: Server) -> None:
    with open_socket(f"ws://{server.host}/presence/ws") as one:
        assert one.response is not None
        assert "Sec-WebSocket-Extensions" not in one.response.headers


@pytest.mark.parametrize("kind", ["gunicorn-gevent", "gunicorn-gthread", "flask-run", "pywsgi"])
def test_flask_sock_does_no_more_than_the_handshake(kind: str) -> None:
    """It starts no thread that would read the socket. Afterwards the app sees the headers that flask-sock did not."""
    with variation("observed_handshakes", kind) as server:
        with client(server, subprotocols=["chat"], user_agent_header="a browser") as one:
            assert one.socket.subprotocol is None
        wait_until(lambda: "OFFERED: chat a browser" in server.log())
        assert "STARTS A THREAD" not in server.log()
