"""Several real workers on a real Redis are one service: what holds in one process holds across them.

The kernel chooses which worker of one gunicorn gets a connection, so most tests start several servers of one worker.
"""

from __future__ import annotations

import itertools
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
import redis
from flask import Flask
from websockets.exceptions import InvalidStatus

from flask_presence import Presence

from ..conftest import Connect
from ..support.client import Client, client
from ..support.redis_server import RedisServer, running_redis
from ..support.server import DEADLINE, Server, running, wait_until

WORKERS = 3
LEASE = 3.0


@pytest.fixture(scope="module")
def config(redis_server: RedisServer) -> dict[str, Any]:
    return {
        "PRESENCE_BACKEND": redis_server.url,
        "PRESENCE_REDIS_PREFIX": f"test-workers-{os.getpid()}",
        "PRESENCE_LEASE": LEASE,
        "PRESENCE_RATE_LIMIT": None,
    }


@pytest.fixture(scope="module")
def workers(config: dict[str, Any]) -> Iterator[list[Server]]:
    """Three servers of one worker each: `gunicorn -k gevent`."""
    with ExitStack() as stack:
        yield [stack.enter_context(running(**config)) for _ in range(WORKERS)]


@pytest.fixture
def connect(workers: list[Server]) -> Iterator[Connect]:
    """Connections to the workers in turn."""
    turns = itertools.cycle(workers)
    with ExitStack() as stack:
        yield lambda user=None, **options: stack.enter_context(client(next(turns), user, **options))


def pid_of(one: Client) -> int:
    """The process at the other end of a client's connection."""
    sock = one.socket.socket
    # Both ports: the kernel gives connections to different servers the same port.
    ends = [f":{sock.getpeername()[1]:04X}", f":{sock.getsockname()[1]:04X}"]
    inode = next(
        line.split()[9]
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]
        if [end[-5:] for end in line.split()[1:3]] == ends and line.split()[3] == "01"
    )
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended, or belongs to another user
            if any(descriptor.readlink().name == f"socket:[{inode}]" for descriptor in (process / "fd").iterdir()):
                return int(process.name)
    raise AssertionError("no process has the connection")


def kinds(one: Client) -> list[tuple[str, str]]:
    return [(event["type"].partition(":")[2], event["member"]["id"]) for event in one.events() if "member" in event]


def settled(one: Client, wanted: list[tuple[str, str]]) -> None:
    """Wait until exactly these changes of the member list have arrived, in any order."""
    heard: list[tuple[str, str]] = []

    def all_there() -> bool:
        heard.extend(kinds(one))
        return len(heard) >= len(wanted)

    wait_until(all_there)
    assert sorted(heard) == sorted(wanted)


def test_every_worker_gives_the_same_answers(connect: Connect, workers: list[Server], name: str) -> None:
    """This holds for members, messages, counts and updates."""
    channel = f"presence-{name}"
    clients = [connect(f"{name}-{number}") for number in range(9)]
    for number, one in enumerate(clients):
        answer = one.join(channel, n=number)
        assert [member["n"] for member in answer["members"]] == list(range(number + 1))
    assert clients[0].say(channel, "hello")["delivered"] == 8
    for number, one in enumerate(clients[1:], 1):
        expected = [f"{name}-{other}" for other in range(number + 1, 9)]
        assert [one.event()["member"]["id"] for _ in expected] == expected
        assert one.event()["data"] == "hello"
    for worker in workers:
        assert worker.json(f"/presence/channels/{channel}")["memberCount"] == 9
        assert channel in {one["name"] for one in worker.json("/presence/channels?type=presence")["channels"]}
    tab = connect(f"{name}-0")
    assert len(tab.join(channel, status="here")["members"]) == 9
    assert clients[8].event()["type"] == "presence:member_updated"
    assert tab.update(channel, status="away")["member"]["status"] == "away"
    assert clients[8].event()["member"]["status"] == "away"
    assert clients[8].say(channel, "to all")["delivered"] == 9
    for one in clients[1:8]:
        one.request("leave", channel=channel)
    settled(clients[8], [("member_left", f"{name}-{number}") for number in range(1, 8)])


def test_a_snapshot_and_the_events_after_it_add_up(connect: Connect, name: str) -> None:
    """Updates and messages go on while clients join. No client misses a member or gets one twice, and `delivered` is
    the number of connections that got the message."""
    channel = f"presence-{name}"
    writers = [connect(f"{name}-w{number}") for number in range(3)]
    for one in writers:
        one.join(channel)
    stop = threading.Event()
    sent: dict[str, int] = {}

    def write(number: int) -> None:
        turn = 0
        while not stop.is_set():
            turn += 1
            writers[number].update(channel, turn=turn)
            mark = f"{number}-{turn}"
            sent[mark] = writers[number].say(channel, mark)["delivered"]

    threads = [threading.Thread(target=write, args=(number,)) for number in range(len(writers))]
    for thread in threads:
        thread.start()
    joiners: list[tuple[Client, dict[str, Any]]] = []
    for number in range(40):
        one = connect(f"{name}-j{number}")
        joiners.append((one, one.join(channel)))
    stop.set()
    for thread in threads:
        thread.join()
    end = joiners[-1][0].join(channel)["members"]
    heard: dict[str, int] = {}
    for one, snapshot in joiners:
        view = {member["id"]: member for member in snapshot["members"]}
        while len(view) < len(end) or view != {member["id"]: member for member in end}:
            event = one.event()
            if "member" not in event:
                heard[event["data"]] = heard.get(event["data"], 0) + 1
                continue
            assert (event["member"]["id"] in view) == (event["type"] != "presence:member_joined")
            view[event["member"]["id"]] = event["member"]
    for one in [*writers, *(one for one, _ in joiners)]:
        one.say(channel, "the end")
    for one in [*writers, *(one for one, _ in joiners)]:
        ends = 0
        while ends < len(joiners) + len(writers) - 1:
            event = one.event()
            if event["type"] == "channel:message":
                ends += event["data"] == "the end"
                heard[event["data"]] = heard.get(event["data"], 0) + 1
    assert {mark: heard.get(mark, 0) for mark in sent} == sent


def test_all_clients_get_messages_in_one_order(connect: Connect, name: str) -> None:
    """Several clients send at once through several workers."""
    channel = f"private-{name}"
    clients = [connect(f"{name}-{number}") for number in range(6)]
    for one in clients:
        one.join(channel)

    def send(one: Client, number: int) -> None:
        for turn in range(50):
            one.say(channel, [number, turn])

    threads = [threading.Thread(target=send, args=(one, number)) for number, one in enumerate(clients[:4])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    orders = [[one.event()["data"] for _ in range(200)] for one in clients[4:]]
    assert orders[0] == orders[1]
    for number in range(4):
        assert [turn for sender, turn in orders[0] if sender == number] == list(range(50))


def test_a_process_without_sockets_can_ask_and_send(connect: Connect, config: dict[str, Any], name: str) -> None:
    """It only needs the app and the URL of Redis."""
    channel = f"presence-{name}"
    ann, bob, tab = connect(f"{name}-ann"), connect(f"{name}-bob"), connect(f"{name}-ann")
    for one in (ann, bob, tab):
        one.join(channel)
    app = Flask("elsewhere")
    app.config.update(config, JWT_SECRET_KEY="another secret of thirty-two characters")
    presence = Presence(app)
    with app.app_context():
        assert [member.id for member in presence.get_channel_members(channel)] == [f"{name}-ann", f"{name}-bob"]
        assert presence.publish(channel, "news", {"n": 1}) == 3
        assert presence.broadcast_to_channel(channel, {"type": "news"}, exclude=bob.id) == 2
        found = presence.get_channel(channel)
        assert found is not None
        assert found.member_count == 2
        assert channel in [one.name for one in presence.list_channels(prefix=channel)]
        assert presence.get_channel_stats().connections >= 3
        assert presence.disconnect(user_id=f"{name}-ann", reason="Bye") == 2
        assert [member.id for member in presence.get_channel_members(channel)] == [f"{name}-bob"]
    assert ann.wait_closed() == tab.wait_closed() == (4403, "Bye")
    assert [bob.event()["type"] for _ in range(2)] == ["channel:message", "presence:member_left"]
    assert bob.silent()


def test_disconnect_reaches_the_connections_of_every_worker(connect: Connect, workers: list[Server], name: str) -> None:
    clients = [connect(f"{name}-ann") for _ in range(6)]
    assert workers[0].call("disconnect", user_id=f"{name}-ann") == 6
    assert [one.wait_closed()[0] for one in clients] == [4403] * 6
    assert workers[1].call("disconnect", user_id=f"{name}-ann") == 0


def test_the_members_of_a_killed_worker_leave_once_long_before_its_lease_ends(config: dict[str, Any]) -> None:
    """No other member leaves, and the app of another worker gets the events."""
    options = config | {"PRESENCE_REDIS_PREFIX": "test-kill", "PRESENCE_LEASE": 3 * DEADLINE}
    with ExitStack() as stack:
        doomed, *others = [stack.enter_context(running(**options)) for _ in range(3)]
        lost = {f"lost-{number}": stack.enter_context(client(doomed, f"lost-{number}")) for number in range(5)}
        lost["twice"] = stack.enter_context(client(doomed, "twice"))
        nowhere = stack.enter_context(client(doomed))
        safe = [stack.enter_context(client(other, user)) for other in others for user in ("twice", "safe")]
        for one in [*lost.values(), *safe]:
            one.join("presence-room")
        # "safe" joins last, with two connections. The first connection in `safe` still has that event to read.
        for number, one in enumerate(safe):
            settled(one, [("member_joined", "safe")] if number == 0 else [])
        os.kill(pid_of(nowhere), signal.SIGKILL)
        for one in safe:
            settled(one, [("member_left", user) for user in lost if user != "twice"])
        for other in others:
            members = other.json("/presence/channels/presence-room")["members"]
            assert {member["id"] for member in members} == {"twice", "safe"}
            assert other.json("/presence/stats")["connections"] == len(safe)
        for user, one in [*lost.items(), (None, nowhere)]:
            heard: list[dict[str, Any]] = []

            def is_over(one: Client = one, heard: list[dict[str, Any]] = heard) -> bool:
                heard[:] = [event for other in others for event in other.json(f"/heard/{one.id}")]
                return "client.disconnected" in [event["name"] for event in heard]

            wait_until(is_over)
            inside = ["channel.left", "member.left"] if user != "twice" else ["channel.left"]
            assert [event["name"] for event in heard] == [*(inside if user else []), "client.disconnected"]
            assert {event["user"] for event in heard} == {user}
            assert {event["reason"] for event in heard if "reason" in event} == {"worker_lost"}


def test_a_worker_that_is_killed_right_after_its_start_is_found_long_before_its_lease_ends(
    config: dict[str, Any],
) -> None:
    """The others have known their neighbours for a while by then."""
    options = config | {"PRESENCE_REDIS_PREFIX": "test-kill-new", "PRESENCE_LEASE": 3 * DEADLINE}
    with running(**options) as first, client(first, "ann") as ann:
        ann.join("presence-room")
        for _ in range(2):
            with running(**options) as second, client(second, "bob") as bob:
                bob.join("presence-room")
                os.kill(pid_of(bob), signal.SIGKILL)
                settled(ann, [("member_joined", "bob"), ("member_left", "bob")])


def test_a_query_removes_a_dead_worker_if_no_other_worker_has_sockets(config: dict[str, Any]) -> None:
    options = config | {"PRESENCE_REDIS_PREFIX": "test-kill-all", "PRESENCE_LEASE": 3 * DEADLINE}
    with running(arguments=("-w", "2"), **options) as server, ExitStack() as stack:
        one = stack.enter_context(client(server, "ann"))
        one.join("presence-room")
        os.kill(pid_of(one), signal.SIGKILL)
        wait_until(lambda: server.get("/presence/channels/presence-room")[0] == 404)


def test_a_worker_that_is_paused_longer_than_its_lease_comes_back(workers: list[Server], name: str) -> None:
    """The others see its members leave and join again. Its own clients see nothing of that, and get every message whose
    `delivered` counts them."""
    here, there, _ = workers
    room = f"presence-{name}"
    with client(here, "ann") as ann, client(there, "bob") as bob:
        bob.join(room, n=1)
        ann.join(room, n=2)
        settled(bob, [("member_joined", "ann")])
        # A worker that has just started removes no other by its lease.
        settled_at = time.monotonic() + LEASE
        wait_until(lambda: time.monotonic() > settled_at)
        pid = pid_of(bob)
        os.kill(pid, signal.SIGSTOP)
        settled(ann, [("member_left", "bob")])
        os.kill(pid, signal.SIGCONT)
        counted: list[int] = []
        for number in range(10_000):
            if ann.say(room, number)["delivered"]:
                counted.append(number)
                if len(counted) == 50:
                    break
        settled(ann, [("member_joined", "bob")])
        assert ann.say(room, "hello")["delivered"] == 1
        heard = []
        while (event := bob.event())["data"] != "hello":
            assert event["type"] == "channel:message"
            heard.append(event["data"])
        assert set(counted) <= set(heard)
        assert heard == sorted(heard)
        assert bob.silent()
        assert [member["n"] for member in here.json(f"/presence/channels/{room}")["members"]] == [1, 2]


def come_back(stack: ExitStack, server: Server, user: str) -> Client:
    """A connection to a server that is being restarted, whose old workers still refuse some with 503."""
    deadline = time.monotonic() + DEADLINE
    while True:
        try:
            return stack.enter_context(client(server, user))
        except InvalidStatus as refused:
            assert refused.response.status_code == 503
            assert time.monotonic() < deadline


def test_a_client_that_comes_back_after_a_restart_causes_no_events(config: dict[str, Any]) -> None:
    """A client that does not come back leaves at the end of its grace period."""
    options = config | {"PRESENCE_REDIS_PREFIX": "test-restart", "PRESENCE_GRACE": 15, "PRESENCE_DRAIN": 0.5}
    with running(**options) as watched, running(arguments=("-w", "2"), **options) as server, ExitStack() as stack:
        watcher = stack.enter_context(client(watched, "watcher"))
        watcher.join("presence-room")
        users = ["ann", "bob", "eve"]
        before = {user: stack.enter_context(client(server, user)) for user in users}
        members = {user: before[user].join("presence-room", of=user)["me"] for user in users}
        settled(watcher, [("member_joined", user) for user in users])
        server.process.send_signal(signal.SIGHUP)
        for user in users:
            assert before[user].wait_closed() == (1001, "Server shutting down")
        wait_until(lambda: watcher.say("presence-room", "anybody?")["delivered"] == 0)
        assert watched.json("/presence/channels/presence-room")["memberCount"] == 4
        for user in users[:2]:
            again = come_back(stack, server, user)
            assert again.join("presence-room")["me"] == members[user]
        left = watcher.event()
        assert (left["type"], left["member"]) == ("presence:member_left", members["eve"])
        assert watcher.silent()
        wait_until(lambda: len(server.worker_pids()) == 2)
        assert watched.json("/presence/stats")["connections"] == 3


def test_a_member_of_a_killed_worker_may_come_back_within_the_abrupt_grace(config: dict[str, Any]) -> None:
    options = config | {"PRESENCE_REDIS_PREFIX": "test-kill-grace", "PRESENCE_GRACE_ABRUPT": 15}
    with running(**options) as watched, running(**options) as server, ExitStack() as stack:
        watcher, ann = stack.enter_context(client(watched, "watcher")), stack.enter_context(client(server, "ann"))
        watcher.join("presence-room")
        me = ann.join("presence-room")["me"]
        bob = stack.enter_context(client(server, "bob"))
        bob.join("presence-room")
        settled(watcher, [("member_joined", "ann"), ("member_joined", "bob")])
        os.kill(pid_of(ann), signal.SIGKILL)
        wait_until(lambda: watcher.say("presence-room", "anybody?")["delivered"] == 0)
        server.wait_until_ready()
        again = stack.enter_context(client(server, "ann"))
        assert again.join("presence-room")["me"] == me
        left = watcher.event()
        assert (left["type"], left["member"]["id"]) == ("presence:member_left", "bob")
        assert watcher.silent()


def test_a_worker_that_stops_with_hundreds_of_memberships_leaves_none_behind(
    redis_server: RedisServer, config: dict[str, Any]
) -> None:
    prefix = "test-leave-all"
    options = config | {"PRESENCE_REDIS_PREFIX": prefix, "PRESENCE_GRACE": 1, "PRESENCE_DRAIN": 0.2}
    keys = redis.Redis(port=redis_server.port, decode_responses=True)
    with running(**options) as watched, ExitStack() as stack:
        watcher = stack.enter_context(client(watched, "watcher"))
        watcher.join("presence-0-0")
        with running(**options) as server:
            for user in range(6):
                one = stack.enter_context(client(server, f"user-{user}"))
                for number in range(100):
                    one.send({"type": "join", "channel": f"presence-{user}-{number}"})
                assert {one.event()["type"] for _ in range(100)} == {"channel:joined"}
            server.process.send_signal(signal.SIGTERM)
            server.process.wait(30)
        settled(watcher, [("member_joined", "user-0"), ("member_left", "user-0")])

        def is_clean() -> bool:
            graces = keys.zcard(f"{prefix}:graces"), keys.hlen(f"{prefix}:grace_owners")
            listed = sum(int(keys.hlen(name)) for name in keys.scan_iter(f"{prefix}:channel:*:members", count=1000))
            return (graces, listed, keys.scard(f"{prefix}:workers")) == ((0, 0), 1, 1)

        wait_until(is_clean)


def test_events_about_a_dead_worker_have_the_claims_of_its_users(workers: list[Server], name: str) -> None:
    doomed, other, _ = workers
    with client(other, "watcher") as watcher, client(doomed, "ann", claims={"teams": ["red"]}) as ann:
        watcher.join(f"presence-{name}")
        ann.join(f"presence-{name}")
        os.kill(pid_of(ann), signal.SIGKILL)
        heard: list[dict[str, Any]] = []

        def is_over() -> bool:
            heard[:] = [event for one in workers for event in one.json(f"/heard/{ann.id}")]
            return "client.disconnected" in [event["name"] for event in heard]

        doomed.wait_until_ready()
        wait_until(is_over)
        assert [event["teams"] for event in heard] == [["red"]] * 3


def test_a_user_who_came_back_and_leaves_has_left_at_once(config: dict[str, Any]) -> None:
    options = config | {"PRESENCE_REDIS_PREFIX": "test-came-back", "PRESENCE_GRACE_ABRUPT": 30}
    with running(**options) as one, running(**options) as other, ExitStack() as stack:
        watcher = stack.enter_context(client(one, "watcher"))
        watcher.join("presence-room")
        lost, back = (stack.enter_context(client(server, "ann")) for server in (one, other))
        lost.join("presence-room")
        back.join("presence-room")
        lost.cut()
        wait_until(lambda: watcher.say("presence-room", "anybody?")["delivered"] == 1)
        back.request("leave", channel="presence-room")
        settled(watcher, [("member_joined", "ann"), ("member_left", "ann")])


def test_a_connection_that_is_lost_right_after_its_join_has_its_grace(config: dict[str, Any]) -> None:
    """Comparing the channel with Redis at that moment does not end it."""
    options = config | {"PRESENCE_REDIS_PREFIX": "test-lost-at-once", "PRESENCE_GRACE_ABRUPT": 60}
    with running(**options) as server, ExitStack() as stack:
        for number in range(20):
            one = stack.enter_context(client(server, f"user-{number}"))
            channel = f"presence-room-{number}"
            one.join(channel)
            one.cut()
            wait_until(lambda one=one: server.json(f"/heard/{one.id}")[-1]["name"] == "client.disconnected")  # type: ignore[misc]
            assert server.json(f"/presence/channels/{channel}")["memberCount"] == 1


def test_requests_about_missing_channels_write_nothing_into_redis(
    redis_server: RedisServer, connect: Connect, config: dict[str, Any]
) -> None:
    keys, prefix = redis.Redis(port=redis_server.port), config["PRESENCE_REDIS_PREFIX"]
    one = connect("ann")
    before = set(keys.scan_iter(f"{prefix}:channel:*", count=1000))
    for number in range(20):
        assert one.request("channel:update", channel=f"presence-no-{number}", userInfo={"x": 1})["type"] == "error"
        assert one.request("leave", channel=f"no-{number}")["code"] == "NOT_FOUND"
    assert set(keys.scan_iter(f"{prefix}:channel:*", count=1000)) <= before


def test_many_joins_to_a_quiet_channel_are_not_taken_for_a_loss(
    redis_server: RedisServer, workers: list[Server], name: str
) -> None:
    """No worker replaces its subscriptions."""
    admin = redis.Redis(port=redis_server.port)

    def subscriptions() -> set[str]:
        return {one["id"] for one in admin.client_list(_type="pubsub")}

    with client(workers[0]) as one:
        one.join(f"quiet-{name}")
        wait_until(subscriptions)
        before = subscriptions()
        end = time.monotonic() + LEASE + 1

        def has_joined_often() -> bool:
            for _ in range(10):
                one.join(f"quiet-{name}")
            return time.monotonic() > end

        wait_until(has_joined_often)
        assert before <= subscriptions()


def test_of_many_who_join_at_once_few_ask_redis_for_the_list(program: str) -> None:
    """The others wait for it. Everybody gets the list at the place of their own join, and then the events after it."""
    with running_redis(program) as redis_server, ExitStack() as stack:
        server = stack.enter_context(running(PRESENCE_BACKEND=redis_server.url, PRESENCE_RATE_LIMIT=None))
        everyone = [stack.enter_context(client(server, f"user-{number}")) for number in range(40)]
        with redis.Redis(port=redis_server.port) as admin:
            for one in everyone:
                one.send({"type": "join", "channel": "presence-crowd"})
            views = [[member["id"] for member in one.event()["members"]] for one in everyone]
            assert admin.info("commandstats")["cmdstat_hgetall"]["calls"] < len(everyone) / 2
        for one, view in zip(everyone, views, strict=True):
            view += [one.event()["member"]["id"] for _ in range(len(everyone) - len(view))]
        assert sorted(views[0]) == sorted(f"user-{number}" for number in range(40))
        assert all(view == views[0] for view in views)
