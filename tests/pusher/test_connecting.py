"""The socket of the Pusher dialect: the greeting, refusals after the handshake, subprotocols, and pings."""

from __future__ import annotations

import json
import re
from contextlib import ExitStack
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

from flask_presence.web.pusher.upgrade import SUBPROTOCOLS

from ..conftest import Share
from ..support.client import client
from ..support.handshake import UPGRADE, raw_upgrade
from ..support.pusher import KEY, SETTINGS, pusher_client, pusher_socket
from ..support.server import DEADLINE, Server, running, wait_until
from .conftest import ConnectPusher


def refused(socket: ClientConnection) -> int:
    """The code with which the server refuses, which it says in a frame and in the close."""
    error = json.loads(socket.recv(DEADLINE))
    assert error["event"] == "pusher:error"
    assert set(error) == {"event", "data"}
    assert set(error["data"]) == {"code", "message"}
    with pytest.raises(ConnectionClosed):
        socket.recv(DEADLINE)
    assert socket.close_code == error["data"]["code"]
    assert error["data"]["message"].startswith(socket.close_reason or "nothing")  # a close has 123 bytes for it
    return int(error["data"]["code"])


def refusal(server: Server, **options: Any) -> int:
    with pusher_socket(server, **options) as socket:
        return refused(socket)


@pytest.mark.parametrize("protocol", [5, 6, 7])
def test_the_greeting_names_the_socket_and_the_timeout(connect_pusher: ConnectPusher, protocol: int) -> None:
    query = f"protocol={protocol}&client=js&version=8.6.0&flash=false"
    greetings = [connect_pusher(query=query).greeting for _ in range(3)]
    data = [json.loads(greeting["data"]) for greeting in greetings]
    assert all(set(greeting) == {"event", "data"} for greeting in greetings)
    assert all(re.fullmatch(r"\d{1,18}\.\d{1,18}", fields.pop("socket_id")) for fields in data)
    assert data == [{"activity_timeout": 30}] * 3


def test_every_connection_has_a_socket_id_of_its_own(connect_pusher: ConnectPusher) -> None:
    assert len({connect_pusher().id for _ in range(20)}) == 20


def test_the_activity_timeout_is_a_setting(shared: Share) -> None:
    server = shared(PRESENCE_PUSHER_ACTIVITY_TIMEOUT=7, PRESENCE_PUSHER_PATH="/sockets", **SETTINGS)
    with pusher_client(server, path="/sockets") as one:
        assert json.loads(one.greeting["data"])["activity_timeout"] == 7
    assert raw_upgrade(server, UPGRADE, f"/app/{KEY}?protocol=7")[0] == 404


def test_without_a_key_the_routes_are_not_there(shared: Share) -> None:
    assert raw_upgrade(shared(), UPGRADE, f"/app/{KEY}?protocol=7")[0] == 404


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"key": "another-key"}, 4001),
        ({"key": KEY.upper()}, 4001),
        ({"query": ""}, 4008),
        ({"query": "protocol=4"}, 4007),
        ({"query": "protocol=8"}, 4007),
        ({"query": "protocol="}, 4007),
        ({"query": "protocol=seven"}, 4007),
        ({"origin": "https://elsewhere.example"}, 4009),
        ({"origin": "null"}, 4009),
    ],
)
def test_a_refusal_comes_after_the_handshake(server: Server, options: dict[str, Any], code: int) -> None:
    assert refusal(server, **options) == code


def test_allowed_origins_connect(server: Server, shared: Share) -> None:
    """A page of the app itself, and a page of another origin in the setting."""
    with pusher_client(server, origin=server.origin):
        pass
    elsewhere = shared(PRESENCE_ALLOWED_ORIGINS=["https://elsewhere.example"], **SETTINGS)
    with pusher_client(elsewhere, origin="https://elsewhere.example"):
        pass


def test_a_disabled_service_refuses(shared: Share) -> None:
    assert refusal(shared(PRESENCE_ENABLED=False, **SETTINGS)) == 4003


def test_a_full_server_refuses_until_there_is_a_place(shared: Share) -> None:
    """Connections of both dialects count, and refusals do not."""
    server = shared(PRESENCE_MAX_CONNECTIONS=2, **SETTINGS)
    with client(server), pusher_client(server):
        assert [refusal(server) for _ in range(3)] == [4100] * 3
        assert refusal(server, key="another-key") == 4001
    wait_until(lambda: server.json("/presence/stats")["connections"] == 0)
    with ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(pusher_client(server))


@pytest.mark.parametrize("kind", ["gunicorn-gevent", "gunicorn-gthread"])
def test_a_draining_server_refuses(kind: str) -> None:
    with running(kind=kind, **SETTINGS) as server, pusher_client(server) as one:
        assert server.call("drain") is None
        assert one.last_words() == (4200, 4200)
        assert refusal(server) == 4100


def test_a_process_that_cannot_serve_sockets_refuses() -> None:
    """With a status if the server does not give the app the socket."""
    with running(kind="gunicorn-sync", **SETTINGS) as server:
        assert refusal(server) == 4100
    with running(kind="waitress", **SETTINGS) as server:
        assert raw_upgrade(server, UPGRADE, f"/app/{KEY}?protocol=7")[0] == 503


def test_what_is_no_handshake_gets_an_http_status(server: Server) -> None:
    path = f"/app/{KEY}?protocol=7"
    assert raw_upgrade(server, {}, path)[0] == 426
    assert raw_upgrade(server, UPGRADE | {"Sec-WebSocket-Version": "8"}, path)[0] == 426
    assert raw_upgrade(server, UPGRADE | {"Sec-WebSocket-Key": "short"}, path)[0] == 400
    assert raw_upgrade(server, UPGRADE | {"Sec-WebSocket-Key": "short"}, "/app/unknown")[0] == 400


@pytest.mark.parametrize(
    ("offered", "selected"),
    [
        (None, None),
        (["pusher-channels-protocol-7"], "pusher-channels-protocol-7"),
        (["chat", "pusher-channels-protocol-5"], "pusher-channels-protocol-5"),
        (["pusher-channels-protocol-8"], None),
        (["chat", "bearer"], None),
    ],
)
def test_an_offered_protocol_is_selected(server: Server, offered: list[Any] | None, selected: str | None) -> None:
    with pusher_socket(server, subprotocols=offered) as socket:
        assert socket.subprotocol == selected
        assert json.loads(socket.recv(DEADLINE))["event"] == "pusher:connection_established"


def test_a_refusal_selects_the_protocol_too(server: Server) -> None:
    """A client that offers one may close before it reads the error."""
    with pusher_socket(server, key="another-key", subprotocols=list(SUBPROTOCOLS)) as socket:
        assert socket.subprotocol == "pusher-channels-protocol-7"
        assert refused(socket) == 4001


@pytest.mark.parametrize(
    "kind",
    ["gunicorn-gevent-websocket", "gunicorn-gthread", "flask-run", "pywsgi", "pywsgi-gevent-websocket"],
)
def test_every_server_greets_and_refuses(kind: str) -> None:
    with running(kind=kind, **SETTINGS) as server:
        assert refusal(server, key="another-key") == 4001
        assert refusal(server, query="") == 4008
        assert refusal(server, origin="https://elsewhere.example") == 4009
        with pusher_client(server) as one, pusher_client(server) as other:
            assert one.members("presence-room", "ann") == {"ann": {}}
            assert other.members("presence-room", "bob") == {"ann": {}, "bob": {}}
            one.send("client-wave", {"x": 1}, "presence-room")
            assert other.event()["event"] == "client-wave"
        assert "Traceback" not in server.log()


def test_cookies_and_tokens_are_not_looked_at(server: Server, connect_pusher: ConnectPusher, name: str) -> None:
    one = connect_pusher(query=f"protocol=7&token={server.token('mallory')}")
    wrong = connect_pusher(query="protocol=7&token=wrong", additional_headers={"Authorization": "Bearer wrong"})
    assert one.ask(f"private-{name}")["data"]["status"] == 401
    assert server.call("disconnect", user_id="mallory") == 0
    assert one.frames() == wrong.frames() == []


def test_a_ping_gets_a_pong_and_a_pong_gets_nothing(connect_pusher: ConnectPusher) -> None:
    one = connect_pusher()
    one.send("pusher:ping", {})
    assert one.frame() == {"event": "pusher:pong", "data": "{}"}
    one.send("pusher:pong", {})
    one.send("pusher:pong")
    assert one.frames() == []


def test_a_binary_frame_is_taken_like_a_text(connect_pusher: ConnectPusher) -> None:
    one = connect_pusher()
    one.socket.send(b'{"event": "pusher:ping"}')
    assert one.frame()["event"] == "pusher:pong"
    assert one.refusal(b"\xff\xfe") == 4300
