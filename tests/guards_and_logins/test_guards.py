"""Guards on a real server: which answers let a user in, and in which context a guard runs."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest

from flask_presence import ChannelName, Presence, User, allow

from ..conftest import Connect
from ..support.client import client
from ..support.flask_app import make_app
from ..support.raw import greet, masked
from ..support.server import DEADLINE, Server, running, wait_until
from ..support.variations import variation


def test_a_guard_sees_the_claims_and_the_topic(connect: Connect, name: str) -> None:
    ann = connect("ann", claims={"teams": [name]})
    ann.join(f"private-team-{name}")
    ann.join(f"presence-team-{name}")
    answer = ann.request("join", channel=f"private-team-other-{name}")
    assert (answer["code"], answer["message"]) == ("FORBIDDEN", "Access denied")


@pytest.mark.parametrize("kind", ["denied", "truthy", "none", "broken", "coroutine", "timeout", "exit"])
def test_every_answer_but_a_plain_yes_denies(connect: Connect, name: str, kind: str) -> None:
    """False, None, a truthy value, a coroutine and any exception deny, and the client is not told why."""
    ann = connect("ann")
    answer = ann.request("join", channel=f"private-{kind}-{name}")
    assert answer == {"type": "error", "code": "FORBIDDEN", "message": "Access denied"}
    assert ann.request("ping")["type"] == "pong"


def test_the_client_is_told_the_reason(connect: Connect, name: str) -> None:
    answer = connect("ann").request("join", channel=f"presence-reason-{name}")
    assert (answer["code"], answer["message"]) == ("FORBIDDEN", "Not on Mondays")


def test_the_log_names_the_mistake_of_a_guard(connect: Connect, server: Server, name: str) -> None:
    """If the guard raised, the log has its traceback."""
    ann = connect("ann")
    for kind in ("truthy", "broken"):
        ann.request("join", channel=f"private-{kind}-{name}")
    log = server.log()
    assert "a guard returns True, False or deny(reason), not 'yes'" in log
    assert "secret of the guard" in log


def test_each_kind_of_mistake_of_a_guard_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """One mistake does not hide another."""
    app = make_app()
    presence = Presence(app)
    mistakes: list[Callable[[], Any]] = [
        lambda: 1,
        lambda: {"authorized": "yes"},
        lambda: allow({"id": 1}),
        lambda: allow({"a": {1}}),
        lambda: dict[str, int]()["missing"],
        lambda: int("x"),
    ]

    @presence.guard("room-*")
    def answer(_user: User, _channel: ChannelName, user_info: dict[str, Any]) -> Any:
        return mistakes[user_info["number"]]()

    with presence.test_client("ann", app) as ann:
        for number in [*range(len(mistakes))] * 2:
            ann.request({"type": "join", "channel": "presence-room-1", "userInfo": {"number": number}})
    assert len([record for record in caplog.records if "answer" in record.getMessage()]) == len(mistakes)


def test_no_guard_is_asked_about_a_public_channel(connect: Connect, name: str) -> None:
    connect().join(f"denied-{name}")


def test_flask_jwt_extended_works_in_a_guard(connect: Connect, name: str) -> None:
    """`user_info` is a copy."""
    me = connect("ann").join(f"presence-context-{name}", name="Ann")["me"]
    assert me["name"] == "Ann"


def test_the_guard_is_asked_at_every_join(connect: Connect, server: Server, name: str) -> None:
    """If it denies, the connection leaves the channel."""
    one, watcher, channel = connect("ann"), connect("watcher"), f"presence-closing-{name}"
    one.join(channel)
    watcher.join(channel)
    assert server.get(f"/close/{channel}")[0] == 200
    assert one.request("join", channel=channel)["code"] == "FORBIDDEN"
    assert one.request("channel:message", channel=channel, data=1)["code"] == "NOT_IN_CHANNEL"
    assert watcher.event()["type"] == "presence:member_left"
    left = [event for event in server.json(f"/heard/{one.id}") if event["name"] == "channel.left"]
    assert [event["reason"] for event in left] == ["denied"]


def test_a_join_with_a_revoked_token_closes_with_4401(connect: Connect, server: Server, name: str) -> None:
    """This holds for public channels too."""
    for prefix in ("presence-", "public-"):
        user = f"{prefix}{name}"
        one = connect(user)
        one.join(f"{prefix}{name}")
        assert server.get(f"/revoke/{user}")[0] == 200
        one.send({"type": "join", "channel": f"{prefix}other-{name}"})
        assert one.wait_closed()[0] == 4401


def test_a_fault_of_the_app_outside_the_guard_fails_the_join(connect: Connect, server: Server, name: str) -> None:
    """The log has the client id."""
    one = connect(f"user-{name}", claims={"fragile": True})
    assert server.get(f"/close/user-{name}")[0] == 200
    answer = one.request("join", channel=f"private-{name}")
    assert answer == {"type": "error", "code": "JOIN_FAILED", "message": "Internal error"}
    assert one.request("ping")["type"] == "pong"
    wait_until(lambda: f"join of client {one.id} failed" in server.log())


def test_a_blocking_guard_delays_nobody_else(connect: Connect, server: Server, name: str) -> None:
    """The connection that waits for the guard still answers pings."""
    ann, bob, channel = connect("ann"), connect("bob"), f"private-gated-{name}"
    ann.send({"type": "join", "channel": channel})
    for _ in range(20):
        bob.request("ping")
    assert ann.socket.ping().wait(DEADLINE)
    assert server.get(f"/open/{channel}")[0] == 200
    assert ann.event()["type"] == "channel:joined"


def test_a_client_that_goes_while_the_guard_runs_joins_nothing(connect: Connect, server: Server, name: str) -> None:
    watcher, channel = connect("watcher"), f"presence-slow-{name}"
    watcher.join(channel, seconds=0)
    ann = connect("ann")
    ann.send({"type": "join", "channel": channel, "userInfo": {"seconds": 0.3}})
    ann.socket.close()
    wait_until(lambda: server.json(f"/heard/{ann.id}")[-1]["name"] == "client.disconnected")
    later = connect("later")
    later.join(f"presence-slow-b-{name}", seconds=0.5)
    assert watcher.silent()
    assert [event["name"] for event in server.json(f"/heard/{ann.id}")] == ["client.connected", "client.disconnected"]


def test_each_guard_call_returns_its_database_session() -> None:
    """Fifty open connections share a pool of one."""
    with running(app="tests.support.database:create_app()") as server:
        clients: list[Any] = []
        problems: list[BaseException] = []

        def stay(number: int, everybody: threading.Barrier) -> None:
            try:
                with client(server, f"user-{number}") as one:
                    one.join("presence-db-room")
                    everybody.wait(20)
                    one.join("presence-db-again")
                    clients.append(one.id)
                    everybody.wait(20)
            except BaseException as problem:
                problems.append(problem)
                everybody.abort()

        barrier = threading.Barrier(50)
        threads = [threading.Thread(target=stay, args=(number, barrier)) for number in range(50)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert problems == []
        assert len(clients) == 50
        assert server.json("/pool") == {"checked_out": 0, "teardowns_missing": 0}


def test_a_connection_that_ends_during_its_join_joins_nothing(connect: Connect, server: Server, name: str) -> None:
    """This holds for any number of frames that it sent behind the join."""
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


def test_async_to_sync_makes_a_guard_of_an_async_function() -> None:
    """It gets the arguments of the async function."""
    with variation("async_guard") as server, client(server, "ann") as ann:
        assert ann.join("presence-ann")["me"]["id"] == "ann"
        assert ann.request("join", channel="presence-bob")["code"] == "FORBIDDEN"


def test_many_async_guards_run_at_the_same_time() -> None:
    with variation("async_guard") as server, ExitStack() as stack:
        users = [f"user-{number}" for number in range(20)]
        clients = [stack.enter_context(client(server, user)) for user in users]
        for one, user in zip(clients, users, strict=True):
            one.send({"type": "join", "channel": f"presence-{user}-"})
        assert [one.event()["type"] for one in clients] == ["channel:joined"] * 20


def test_the_log_names_a_guard_that_stops_the_loop() -> None:
    """It also says what to do. A guard that lets other greenlets run is not named."""
    with variation("slow_guards") as server, client(server, "ann") as ann, client(server, "bob") as bob:
        ann.join("private-patient-1")
        assert "blocked this worker's event loop" not in server.log()
        ann.send({"type": "join", "channel": "private-database-1"})
        bob.send({"type": "join", "channel": "private-patient-2"})
        assert ann.event()["type"] == bob.event()["type"] == "channel:joined"
        held_up = [line for line in server.log().splitlines() if "blocked this worker's event loop" in line]
        assert len(held_up) == 1
        assert "slow_guards.<locals>.ask" in held_up[0]
        assert "threadpool" in held_up[0]
