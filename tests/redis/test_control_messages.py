"""`disconnect`, `remove` and `recheck` reach every worker, whatever happens to it or to Redis meanwhile."""

from __future__ import annotations

import json
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from flask_presence.backends.redis.store import control
from flask_presence.backends.redis.store.keys import Keys
from flask_presence.backends.redis.worker.heartbeat import remove_dead
from flask_presence.domain.roster import Joiner

from ..support.client import client
from ..support.pair import Borrow, Pair, lending_pairs
from ..support.redis_server import running_redis
from ..support.server import DEADLINE, wait_until
from ..support.store import Client as RedisClient
from ..support.store import store_of
from .test_channel_operations import ANN, NOW, ROOM

LEASE = 2.0
STANDSTILL = 3.0
"""Seconds for which a worker is stopped, which is shorter than the default lease."""


@pytest.fixture(scope="module")
def borrow(program: str) -> Iterator[Borrow]:
    with lending_pairs(program) as borrow:
        yield borrow


def listed(servers: Pair) -> list[str]:
    """The ids of the members."""
    status, _, body = servers.near.get("/presence/channels/presence-room")
    return [member["id"] for member in json.loads(body)["members"]] if status == 200 else []


def test_a_message_reaches_a_worker_that_was_not_subscribed(borrow: Borrow) -> None:
    with borrow(PRESENCE_LEASE=LEASE) as servers:
        eve, _ = servers.enter("far", "eve")
        for _ in range(3):
            servers.cut_subscriptions()
        servers.near.call("disconnect", user_id="eve")
        assert eve.wait_closed()[0] == 4403


def test_a_message_reaches_a_worker_that_loses_its_subscription_twice(borrow: Borrow) -> None:
    """The second time, the worker is reading what it missed the first time."""
    with borrow(PRESENCE_LEASE=LEASE) as servers:
        for user in ("eve", "bob"):
            member, _ = servers.enter("far", user)
            for _ in range(5):
                servers.cut_subscriptions()
                wait_until(lambda: servers.admin.client_list(_type="pubsub"))
                servers.cut_subscriptions()
                servers.near.call("disconnect", client_id="nobody")
            servers.near.call("disconnect", user_id=user)
            assert member.wait_closed()[0] == 4403


def test_a_message_reaches_a_worker_that_stood_still_and_lost_its_subscription(borrow: Borrow) -> None:
    """What the worker still reads from the lost connection was published before the message."""
    with borrow() as servers:
        (ann, _), (eve, _) = servers.enter("near", "ann"), servers.enter("far", "eve")
        ann.say("presence-room", "hello")
        with servers.far_stands_still():
            ann.say("presence-room", "hello")
            servers.cut_subscriptions()
            servers.near.call("disconnect", user_id="eve")
            end = time.monotonic() + STANDSTILL
            wait_until(lambda: time.monotonic() > end)
        assert eve.wait_closed()[0] == 4403


def test_a_message_reaches_a_worker_whose_subscription_was_silent(borrow: Borrow) -> None:
    with borrow(PRESENCE_LEASE=LEASE) as servers:
        eve, _ = servers.enter("far", "eve")
        servers.proxy.mute()
        servers.near.call("disconnect", user_id="eve")  # which may wait until the subscription has been replaced
        assert eve.wait_closed()[0] == 4403


def test_a_message_reaches_a_worker_that_was_cut_off_from_redis(borrow: Borrow) -> None:
    """The worker tried in vain to reconnect before."""
    with borrow(PRESENCE_LEASE=3 * DEADLINE) as servers:
        eve, _ = servers.enter("far", "eve")
        servers.cut_off(eve)
        assert servers.near.call("disconnect", user_id="eve") == 0
        assert eve.request("ping")["type"] == "pong"
        servers.proxy.mend()
        assert eve.wait_closed()[0] == 4403


def test_a_message_reaches_a_worker_that_starts_while_it_is_cut_off(borrow: Borrow) -> None:
    with borrow() as servers:
        servers.proxy.cut()
        with client(servers.near, "ann"), client(servers.far, "eve") as eve:
            assert servers.near.call("disconnect", user_id="eve") == 0
            assert eve.request("ping")["type"] == "pong"
            servers.proxy.mend()
            assert eve.wait_closed()[0] == 4403


@pytest.mark.parametrize("saved", [False, True], ids=["empty", "an old copy"])
def test_a_message_is_not_lost_with_the_data_of_redis(borrow: Borrow, saved: bool) -> None:
    """The workers that know of it send it again to one that was cut off."""
    with borrow(PRESENCE_LEASE=LEASE) as servers:
        (ann, _), (eve, _) = servers.enter("near", "ann"), servers.enter("far", "eve")
        if saved:
            servers.admin.save()
        servers.cut_off(eve)
        assert servers.near.call("disconnect", user_id="eve") == 0
        servers.restart_redis()
        wait_until(lambda: ann.request("join", channel="presence-room")["type"] == "channel:joined")
        assert eve.request("ping")["type"] == "pong"
        servers.proxy.mend()
        assert eve.wait_closed()[0] == 4403
        again, _ = servers.enter("near", "eve")
        wait_until(lambda: ann.say("presence-room", "hello")["delivered"] == 1)
        assert again.request("ping")["type"] == "pong"


def test_an_old_copy_of_the_data_brings_back_no_role(borrow: Borrow) -> None:
    """The guards are asked again about everybody who is listed."""
    with borrow(app="tests.support.permissions_app:create_app()", PRESENCE_STATS_PUBLIC=True) as servers:

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


def test_an_old_copy_of_the_data_brings_back_no_grace_period(borrow: Borrow) -> None:
    with borrow(PRESENCE_GRACE_ABRUPT=60) as servers:
        servers.enter("near", "ann")
        eve, _ = servers.enter("far", "eve")
        eve.cut()
        wait_until(lambda: servers.far.json(f"/heard/{eve.id}")[-1]["name"] == "client.disconnected")
        assert listed(servers) == ["ann", "eve"]
        servers.admin.save()
        servers.near.call("disconnect", user_id="eve")
        assert listed(servers) == ["ann"]
        servers.restart_redis()
        assert listed(servers) == ["ann", "eve"]
        wait_until(lambda: listed(servers) == ["ann"])


@pytest.mark.parametrize(
    ("method", "arguments"), [("disconnect", {}), ("remove", {"name": "presence-room"}), ("recheck", {})]
)
def test_a_grace_period_that_begins_later_ends_at_once(borrow: Borrow, method: str, arguments: dict[str, str]) -> None:
    """The worker that lost the connection was cut off from Redis when the user was sent away."""
    with borrow(PRESENCE_GRACE_ABRUPT=60) as servers:
        (ann, _), (eve, _) = servers.enter("near", "ann"), servers.enter("far", "eve")
        servers.cut_off(eve)
        eve.cut()
        wait_until(lambda: servers.far.json(f"/heard/{eve.id}")[-1]["name"] == "client.disconnected")
        servers.near.call(method, user_id="eve", **arguments)
        servers.proxy.mend()
        assert [ann.event()["type"] for _ in range(2)] == ["presence:member_joined", "presence:member_left"]


def test_no_grace_period_begins_while_a_message_waits_for_its_worker(borrow: Borrow) -> None:
    """The worker stood still when the users lost their connections and were sent away."""
    with borrow(PRESENCE_GRACE_ABRUPT=60) as servers:
        servers.enter("near", "ann")
        lost = [servers.enter("far", f"eve-{number}")[0] for number in range(3)]
        with servers.far_stands_still():
            for one in lost:
                one.cut()
            for number in range(len(lost)):
                servers.near.call("remove", name="presence-room", user_id=f"eve-{number}")
        wait_until(lambda: listed(servers) == ["ann"])


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
