"""Guards over a real server: what lets in, what does not, and in which context they run."""

from __future__ import annotations

import json
import socket
import threading
from contextlib import ExitStack
from typing import Any

import pytest

from ..conftest import Connect
from ..support.client import client
from ..support.raw import greet, masked
from ..support.server import DEADLINE, Server, running, wait_until
from ..support.variations import variation


def test_guard_decides(connect: Connect, name: str) -> None:
    """A guard sees the user's claims and the channel's topic."""
    ann = connect("ann", claims={"teams": [name]})
    ann.join(f"private-team-{name}")
    ann.join(f"presence-team-{name}")
    answer = ann.request("join", channel=f"private-team-other-{name}")
    assert (answer["code"], answer["message"]) == ("FORBIDDEN", "Access denied")


@pytest.mark.parametrize("kind", ["denied", "truthy", "none", "broken", "coroutine", "timeout", "exit"])
def test_everything_else_denies(connect: Connect, name: str, kind: str) -> None:
    """False, None, what is merely truthy, a coroutine and anything raised all deny, and tell nothing."""
    ann = connect("ann")
    answer = ann.request("join", channel=f"private-{kind}-{name}")
    assert answer == {"type": "error", "code": "FORBIDDEN", "message": "Access denied"}
    assert ann.request("ping")["type"] == "pong"


def test_reason(connect: Connect, name: str) -> None:
    """A guard's reason is told."""
    answer = connect("ann").request("join", channel=f"presence-reason-{name}")
    assert (answer["code"], answer["message"]) == ("FORBIDDEN", "Not on Mondays")


def test_mistakes_are_logged(connect: Connect, server: Server, name: str) -> None:
    """The log says what is wrong with a guard, with its traceback where it raised."""
    ann = connect("ann")
    for kind in ("truthy", "broken"):
        ann.request("join", channel=f"private-{kind}-{name}")
    log = server.log()
    assert "a guard returns True, False or deny(reason), not 'yes'" in log
    assert "secret of the guard" in log


def test_no_guard_on_public(connect: Connect, name: str) -> None:
    """No guard is asked about a public channel."""
    connect().join(f"denied-{name}")


def test_context(connect: Connect, name: str) -> None:
    """Inside a guard flask-jwt-extended works as in a view, and `user_info` is a copy."""
    me = connect("ann").join(f"presence-context-{name}", name="Ann")["me"]
    assert me["name"] == "Ann"


def test_denied_later(connect: Connect, server: Server, name: str) -> None:
    """A guard is asked again at every join; a no takes the connection out of the channel."""
    one, watcher, channel = connect("ann"), connect("watcher"), f"presence-closing-{name}"
    one.join(channel)
    watcher.join(channel)
    assert server.get(f"/close/{channel}")[0] == 200
    assert one.request("join", channel=channel)["code"] == "FORBIDDEN"
    assert one.request("channel:message", channel=channel, data=1)["code"] == "NOT_IN_CHANNEL"
    assert watcher.event()["type"] == "presence:member_left"
    left = [event for event in server.json(f"/heard/{one.id}") if event["name"] == "channel.left"]
    assert [event["reason"] for event in left] == ["denied"]


def test_revoked_at_join(connect: Connect, server: Server, name: str) -> None:
    """The blocklist is asked again at every join, of a public channel too; revoked means 4401."""
    for prefix in ("presence-", "public-"):
        user = f"{prefix}{name}"
        one = connect(user)
        one.join(f"{prefix}{name}")
        assert server.get(f"/revoke/{user}")[0] == 200
        one.send({"type": "join", "channel": f"{prefix}other-{name}"})
        assert one.wait_closed()[0] == 4401


def test_fault_in_the_application(connect: Connect, server: Server, name: str) -> None:
    """Where the app's own code fails beside a guard, the join fails, and the log has the client id."""
    one = connect(f"user-{name}", claims={"fragile": True})
    assert server.get(f"/close/user-{name}")[0] == 200
    answer = one.request("join", channel=f"private-{name}")
    assert answer == {"type": "error", "code": "JOIN_FAILED", "message": "Internal error"}
    assert one.request("ping")["type"] == "pong"
    wait_until(lambda: f"join of client {one.id} failed" in server.log())


def test_slow_guard_delays_nobody_else(connect: Connect, server: Server, name: str) -> None:
    """While a guard blocks, other connections are answered, and this one's pings too."""
    ann, bob, channel = connect("ann"), connect("bob"), f"private-gated-{name}"
    ann.send({"type": "join", "channel": channel})
    for _ in range(20):
        bob.request("ping")
    assert ann.socket.ping().wait(DEADLINE)
    assert server.get(f"/open/{channel}")[0] == 200
    assert ann.event()["type"] == "channel:joined"


def test_gone_while_guard_runs(connect: Connect, server: Server, name: str) -> None:
    """Who goes away while the guard runs has joined nothing."""
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


def test_database_session_per_guard_call() -> None:
    """Fifty open sockets share a pool of one database connection: each call gives it back."""
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


def test_async_guard() -> None:
    """What asgiref makes of an async function is an ordinary one, with the arguments of the inner one."""
    with variation("async_guard") as server, client(server, "ann") as ann:
        assert ann.join("presence-ann")["me"]["id"] == "ann"
        assert ann.request("join", channel="presence-bob")["code"] == "FORBIDDEN"


def test_async_guards_at_once() -> None:
    """Also where many are asked at the same time."""
    with variation("async_guard") as server, ExitStack() as stack:
        users = [f"user-{number}" for number in range(20)]
        clients = [stack.enter_context(client(server, user)) for user in users]
        for one, user in zip(clients, users, strict=True):
            one.send({"type": "join", "channel": f"presence-{user}-"})
        assert [one.event()["type"] for one in clients] == ["channel:joined"] * 20


def test_guard_that_waits_in_c() -> None:
    """A guard that stops gevent's loop is named in the log, with what to do; one that lets others go on is not."""
    with variation("slow_guards") as server, client(server, "ann") as ann, client(server, "bob") as bob:
        ann.join("private-patient-1")
        assert "held everybody up" not in server.log()
        ann.send({"type": "join", "channel": "private-database-1"})
        bob.send({"type": "join", "channel": "private-patient-2"})
        assert ann.event()["type"] == bob.event()["type"] == "channel:joined"
        held_up = [line for line in server.log().splitlines() if "held everybody up" in line]
        assert len(held_up) == 1
        assert "slow_guards.<locals>.ask" in held_up[0]
        assert "threadpool" in held_up[0]
