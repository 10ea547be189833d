"""`disconnect`, `remove` and `recheck` reach every worker, whatever happens to it or to Redis meanwhile."""

from __future__ import annotations

import json
import os
import signal
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any

import pytest
import redis

from flask_presence.backends.redis.store import control
from flask_presence.backends.redis.store.keys import Keys
from flask_presence.backends.redis.worker.heartbeat import remove_dead
from flask_presence.domain.roster import Joiner

from ..support.client import Client, client
from ..support.proxy import running_proxy
from ..support.redis_server import running_redis
from ..support.server import DEADLINE, running, wait_until
from ..support.store import Client as RedisClient
from ..support.store import store_of
from .test_channel_operations import ANN, NOW, ROOM

LEASE = 2.0
STANDSTILL = 3.0
"""Seconds for which a worker is stopped, which is shorter than the default lease."""


class Pair:
    """Two servers on a Redis of their own: `near`, and `far`, which reaches it through a proxy."""

    def __init__(self, program: str, stack: ExitStack, **options: Any) -> None:
        self._stack = stack
        self.redis_server = stack.enter_context(running_redis(program))
        self.proxy = stack.enter_context(running_proxy(self.redis_server.port))
        self.near = stack.enter_context(running(PRESENCE_BACKEND=self.redis_server.url, **options))
        url = f"redis://127.0.0.1:{self.proxy.port}/0"
        self.far = stack.enter_context(running(PRESENCE_BACKEND=url, **options))

    def enter(self, place: str, user: str) -> Client:
        """A member of the room on one of the servers."""
        one = self._stack.enter_context(client(getattr(self, place), user))
        one.join("presence-room")
        return one

    @property
    def admin(self) -> Any:
        return self._stack.enter_context(redis.Redis(port=self.redis_server.port, socket_timeout=5))

    def cut(self, far: Client) -> None:
        """Cut the far server off from Redis."""
        self.proxy.cut()
        wait_until(lambda: far.request("join", channel="presence-room")["type"] == "error")

    def restart_redis(self) -> None:
        """Restart Redis with the data that was saved, or without any."""
        self.redis_server.stop()
        self.redis_server.start()

    def members(self) -> list[str]:
        status, _, body = self.near.get("/presence/channels/presence-room")
        return [member["id"] for member in json.loads(body)["members"]] if status == 200 else []


@contextmanager
def pair(program: str, **options: Any) -> Iterator[Pair]:
    with ExitStack() as stack:
        yield Pair(program, stack, **options)


def cut_subscriptions(servers: Pair) -> None:
    servers.admin.client_kill_filter(_type="pubsub")


@contextmanager
def stopped(servers: Pair) -> Iterator[None]:
    """The far server stands still in this block."""
    pids = servers.far.worker_pids()
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def test_a_message_reaches_a_worker_that_was_not_subscribed(program: str) -> None:
    with pair(program, PRESENCE_LEASE=LEASE) as servers:
        eve = servers.enter("far", "eve")
        for _ in range(3):
            cut_subscriptions(servers)
        servers.near.call("disconnect", user_id="eve")
        assert eve.wait_closed()[0] == 4403


def test_a_message_reaches_a_worker_that_loses_its_subscription_twice(program: str) -> None:
    """The second time, the worker is reading what it missed the first time."""
    with pair(program, PRESENCE_LEASE=LEASE) as servers:
        for user in ("eve", "bob"):
            member = servers.enter("far", user)
            for _ in range(5):
                cut_subscriptions(servers)
                wait_until(lambda: servers.admin.client_list(_type="pubsub"))
                cut_subscriptions(servers)
                servers.near.call("disconnect", client_id="nobody")
            servers.near.call("disconnect", user_id=user)
            assert member.wait_closed()[0] == 4403


def test_a_message_reaches_a_worker_that_stood_still_and_lost_its_subscription(program: str) -> None:
    """What the worker still reads from the lost connection was published before the message."""
    with pair(program) as servers:
        ann, eve = servers.enter("near", "ann"), servers.enter("far", "eve")
        ann.say("presence-room", "hello")
        with stopped(servers):
            ann.say("presence-room", "hello")
            cut_subscriptions(servers)
            servers.near.call("disconnect", user_id="eve")
            end = time.monotonic() + STANDSTILL
            wait_until(lambda: time.monotonic() > end)
        assert eve.wait_closed()[0] == 4403


def test_a_message_reaches_a_worker_whose_subscription_was_silent(program: str) -> None:
    with pair(program, PRESENCE_LEASE=LEASE) as servers:
        eve = servers.enter("far", "eve")
        servers.proxy.mute()
        servers.near.call("disconnect", user_id="eve")  # which may wait until the subscription has been replaced
        assert eve.wait_closed()[0] == 4403


def test_a_message_reaches_a_worker_that_was_cut_off_from_redis(program: str) -> None:
    """The worker tried in vain to reconnect before."""
    with pair(program, PRESENCE_LEASE=3 * DEADLINE) as servers:
        eve = servers.enter("far", "eve")
        servers.cut(eve)
        assert servers.near.call("disconnect", user_id="eve") == 0
        assert eve.request("ping")["type"] == "pong"
        servers.proxy.mend()
        assert eve.wait_closed()[0] == 4403


def test_a_message_reaches_a_worker_that_starts_while_it_is_cut_off(program: str) -> None:
    with pair(program) as servers:
        servers.proxy.cut()
        with client(servers.near, "ann"), client(servers.far, "eve") as eve:
            assert servers.near.call("disconnect", user_id="eve") == 0
            assert eve.request("ping")["type"] == "pong"
            servers.proxy.mend()
            assert eve.wait_closed()[0] == 4403


@pytest.mark.parametrize("saved", [False, True], ids=["empty", "an old copy"])
def test_a_message_is_not_lost_with_the_data_of_redis(program: str, saved: bool) -> None:
    """The workers that know of it send it again to one that was cut off."""
    with pair(program, PRESENCE_LEASE=LEASE) as servers:
        ann, eve = servers.enter("near", "ann"), servers.enter("far", "eve")
        if saved:
            servers.admin.save()
        servers.cut(eve)
        assert servers.near.call("disconnect", user_id="eve") == 0
        servers.restart_redis()
        wait_until(lambda: ann.request("join", channel="presence-room")["type"] == "channel:joined")
        assert eve.request("ping")["type"] == "pong"
        servers.proxy.mend()
        assert eve.wait_closed()[0] == 4403
        again = servers.enter("near", "eve")
        assert ann.say("presence-room", "hello")["delivered"] == 1
        assert again.request("ping")["type"] == "pong"


def test_an_old_copy_of_the_data_brings_back_no_role(program: str) -> None:
    """The guards are asked again about everybody who is listed."""
    with pair(program, app="tests.support.permissions_app:create_app()", PRESENCE_STATS_PUBLIC=True) as servers:

        def answer(verdict: Any) -> None:
            steps = urllib.parse.quote(json.dumps([{"answer": verdict}]))
            assert servers.near.get(f"/plan?user=ann&steps={steps}")[0] == 200

        def role() -> str | None:
            status, _, body = servers.far.get("/presence/channels/presence-planned-room")
            members = json.loads(body)["members"] if status == 200 else [{"role": "unknown"}]
            found: str | None = members[0].get("role")
            return found

        answer({"authorized": True, "userInfo": {"role": "admin"}})
        with client(servers.near, "ann") as ann, closing(RedisClient(servers.redis_server.url)) as store:
            ann.join("presence-planned-room")
            servers.admin.save()
            answer(True)
            servers.near.call("recheck", user_id="ann")
            wait_until(lambda: role() is None)
            servers.restart_redis()
            assert b"admin" in store.redis.hget(Keys("fp").channel("presence-planned-room")[1], "ann")
            wait_until(lambda: role() is None)


def test_an_old_copy_of_the_data_brings_back_no_grace_period(program: str) -> None:
    with pair(program, PRESENCE_GRACE_ABRUPT=60) as servers:
        servers.enter("near", "ann")
        eve = servers.enter("far", "eve")
        eve.cut()
        wait_until(lambda: servers.far.json(f"/heard/{eve.id}")[-1]["name"] == "client.disconnected")
        assert servers.members() == ["ann", "eve"]
        servers.admin.save()
        servers.near.call("disconnect", user_id="eve")
        assert servers.members() == ["ann"]
        servers.restart_redis()
        assert servers.members() == ["ann", "eve"]
        wait_until(lambda: servers.members() == ["ann"])


@pytest.mark.parametrize(
    ("method", "arguments"), [("disconnect", {}), ("remove", {"name": "presence-room"}), ("recheck", {})]
)
def test_a_grace_period_that_begins_later_ends_at_once(program: str, method: str, arguments: dict[str, str]) -> None:
    """The worker that lost the connection was cut off from Redis when the user was sent away."""
    with pair(program, PRESENCE_GRACE_ABRUPT=60) as servers:
        ann, eve = servers.enter("near", "ann"), servers.enter("far", "eve")
        servers.cut(eve)
        eve.cut()
        wait_until(lambda: servers.far.json(f"/heard/{eve.id}")[-1]["name"] == "client.disconnected")
        servers.near.call(method, user_id="eve", **arguments)
        servers.proxy.mend()
        assert [ann.event()["type"] for _ in range(2)] == ["presence:member_joined", "presence:member_left"]


def test_no_grace_period_begins_while_a_message_waits_for_its_worker(program: str) -> None:
    """The worker stood still when the users lost their connections and were sent away."""
    with pair(program, PRESENCE_GRACE_ABRUPT=60) as servers:
        servers.enter("near", "ann")
        lost = [servers.enter("far", f"eve-{number}") for number in range(4)]
        with stopped(servers):
            for one in lost:
                one.cut()
            for number in range(len(lost)):
                servers.near.call("recheck", user_id=f"eve-{number}")
        wait_until(lambda: servers.members() == ["ann"])


def test_the_users_of_a_dead_worker_get_no_grace_period_if_they_were_sent_away(program: str, prefix: str) -> None:
    """Nobody knows whether the worker had carried out the message."""
    with running_redis(program) as redis_server, closing(RedisClient(redis_server.url)) as redis_client:
        store = store_of(prefix, grace=60)
        for user, left in ((ANN, 0), (ANN, 1)):
            worker = f"dead-{left}"
            redis_client.run(store.workers.heartbeat(worker, first=True))
            redis_client.run(store.workers.add_connections(worker, {worker: user}))
            redis_client.run(store.channels(worker).join(Joiner(ROOM, worker, user, None, NOW)))
            if left:
                redis_client.run(control.send(Keys(prefix), control.new_message("", user=user.id)))
            redis_client.redis.zadd(Keys(prefix).leases, {worker: 1})
            now = redis_client.run(store.workers.time())
            redis_client.redis.set(Keys(prefix).data_since, 1)
            events = redis_client.run(remove_dead(store, now, after=0))
            assert [event.name for event in events].count("member.left") == left
