"""Connections to Redis: idle ones, lost ones, and bookkeeping that does not grow."""

from __future__ import annotations

import dataclasses
import gc
import time
import tracemalloc
from contextlib import ExitStack
from functools import partial

import pytest

from flask_presence.backends.redis.client.address import Address, parse_address
from flask_presence.backends.redis.client.client import Client
from flask_presence.backends.redis.client.pool import Pool
from flask_presence.backends.redis.client.subscriber import Subscriber
from flask_presence.loops.thread_loop import ThreadLoop

from ..support.client import client
from ..support.proxy import running_proxy
from ..support.redis_server import RedisServer
from ..support.server import running, wait_until


def use_all(pool: Pool, count: int) -> None:
    """Send a PING on `count` connections at the same time, and return all of them to the pool."""
    taken = [pool.take() for _ in range(count)]
    for connection in taken:
        connection.send_command("PING")
        assert connection.read_response() == b"PONG"
    for connection in taken:
        pool.give_back(connection)


def address_of(port: int, **changes: float) -> Address:
    return dataclasses.replace(parse_address(f"redis://127.0.0.1:{port}/0"), **changes)  # type: ignore[arg-type]


def test_a_connection_that_was_idle_too_long_is_not_used_again(redis_server: RedisServer) -> None:
    with running_proxy(redis_server.port) as proxy:
        pool = Pool(address_of(proxy.port, max_idle=0.2), lambda connection: None)
        use_all(pool, 5)
        idle_since = time.monotonic()
        assert proxy.mute() == 5
        wait_until(lambda: time.monotonic() - idle_since > 0.2)
        use_all(pool, 5)
        pool.close()


def test_a_closed_connection_is_replaced(redis_server: RedisServer) -> None:
    with running_proxy(redis_server.port) as proxy:
        pool = Pool(address_of(proxy.port), lambda connection: None)
        use_all(pool, 3)
        proxy.cut()
        proxy.mend()
        wait_until(lambda: all(pool._has_ended(connection) for connection, _ in pool._free))
        use_all(pool, 3)
        pool.close()


def test_the_libuv_loop_of_gevent_works(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEVENT_LOOP", "libuv-cffi")
    options = {"PRESENCE_BACKEND": redis_server.url, "PRESENCE_REDIS_PREFIX": "test-libuv", "PRESENCE_RATE_LIMIT": None}
    with running(**options) as server, client(server, "ann") as ann, client(server, "bob") as bob:
        for number in range(50):
            ann.join(f"presence-room-{number}")
            bob.join(f"presence-room-{number}")
            assert ann.say(f"presence-room-{number}", "hello")["delivered"] == 1
            assert server.json(f"/presence/channels/presence-room-{number}")["memberCount"] == 2
        assert "not ready" not in server.log()
        assert "WARNING" not in server.log()


def test_a_message_that_redis_may_have_got_is_not_retryable(redis_server: RedisServer) -> None:
    """It is not sent twice. A message that Redis cannot have got is retryable."""
    prefix = {"PRESENCE_REDIS_PREFIX": "test-delivery-unknown", "PRESENCE_LEASE": 30}
    with running_proxy(redis_server.port) as proxy, ExitStack() as stack:
        behind = stack.enter_context(running(PRESENCE_BACKEND=f"redis://127.0.0.1:{proxy.port}/0", **prefix))
        direct = stack.enter_context(running(PRESENCE_BACKEND=redis_server.url, **prefix))
        ann, bob = stack.enter_context(client(behind, "ann")), stack.enter_context(client(direct, "bob"))
        for one in (ann, bob):
            one.join("private-room")
        assert ann.say("private-room", "before")["delivered"] == 1
        proxy.mute()
        answer = ann.request("channel:message", channel="private-room", data="unknown")
        assert answer == {"type": "error", "code": "SEND_FAILED", "message": "Delivery unknown"}
        assert [bob.event()["data"] for _ in range(2)] == ["before", "unknown"]
        proxy.cut()
        answer = ann.request("channel:message", channel="private-room", data="never sent")
        assert (answer["message"], answer["retryable"]) == ("Temporarily unavailable", True)
        assert bob.silent()
        proxy.mend()
        wait_until(lambda: ann.request("channel:message", channel="private-room", data="after")["type"] != "error")
        assert bob.event()["data"] == "after"


def test_dropped_subscriptions_leave_no_memory_behind(redis_server: RedisServer) -> None:
    loop, store = ThreadLoop(), Client(parse_address(redis_server.url))
    heard: list[str] = []
    subscriber = Subscriber(store, loop, lambda topic, _: heard.append(topic), lambda: None)
    loop.run(lambda: subscriber.subscribe("test-books"))
    loop.run(subscriber.begin)

    def hear_and_drop(start: int, count: int) -> None:
        for number in range(start, start + count, 100):
            names = [f"test-books-{one:0100d}" for one in range(number, number + 100)]
            pending = loop.run(lambda names=names: [subscriber.subscribe(name) for name in names])  # type: ignore[misc]
            wait_until(lambda pending=pending: all(one.settled for one in pending))  # type: ignore[misc]
            for name in names:
                loop.run(partial(subscriber.unsubscribe, name))
        done = loop.run(lambda: subscriber.subscribe(f"test-books-{start}"))
        wait_until(lambda: done.settled)
        loop.run(lambda: subscriber.unsubscribe(f"test-books-{start}"))

    hear_and_drop(0, 500)
    tracemalloc.start()
    gc.collect()
    before = tracemalloc.get_traced_memory()[0]
    hear_and_drop(500, 10_000)
    gc.collect()
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    loop.run(subscriber.close)
    assert grown < 10_000 * 20, f"{grown} bytes for 10,000 names"
