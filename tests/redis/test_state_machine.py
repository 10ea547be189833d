"""The state machine of connections, with Redis: everything that holds in memory holds there."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis
from flask import Flask
from flask_jwt_extended import JWTManager
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from flask_presence import Presence

from ..conftest import on_cluster, on_redis, on_shards
from ..membership.test_state_machine import ConnectionMachine, Peer
from ..support.effort import at_effort
from ..support.redis_server import RedisServer
from ..support.server import wait_until

PLACES: dict[str, tuple[str, Callable[[Any], dict[str, Any]]]] = {
    "one Redis": ("redis_server", on_redis),
    "shards": ("redis_shards", on_shards),
    "cluster": ("redis_cluster", on_cluster),
}
"""The fixtures of the places where a service has its data, and the functions that make its settings of them."""


@pytest.mark.parametrize(
    ("workers", "place"), [(1, "one Redis"), (3, "one Redis"), (1, "shards"), (3, "shards"), (3, "cluster")]
)
def test_the_state_machine_holds_with_redis(request: pytest.FixtureRequest, workers: int, place: str) -> None:
    """It runs with one worker, and with several that know each other only through Redis: one server, three that are
    shards, or a cluster."""
    fixture, settings_for = PLACES[place]
    servers = request.getfixturevalue(fixture)

    class RedisConnectionMachine(ConnectionMachine):
        def configure(self) -> dict[str, Any]:
            return settings_for(servers)

        count = workers

        def hear(self, peer: Peer, enough: Callable[[list[Any]], bool]) -> list[Any]:
            heard = super().hear(peer, enough)

            def has_enough() -> bool:
                if not enough(heard):
                    heard.extend(peer.listen())
                return enough(heard)

            if workers > 1:
                wait_until(has_enough)
            return heard

        def everywhere(self, call: Callable[[], int]) -> int:
            with ThreadPoolExecutor(1) as thread:
                returned = thread.submit(super().everywhere, call)
                while not returned.done():
                    self.settle(first=1)
                return returned.result()

    few = settings(
        max_examples=at_effort(4 if place == "cluster" else 8),
        phases=[Phase.explicit, Phase.reuse, Phase.generate],
        stateful_step_count=30,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    run_state_machine_as_test(RedisConnectionMachine, settings=few)


def test_test_clients_leave_nothing_in_redis(redis_server: RedisServer, prefix: str) -> None:
    """A test client does not wait for the previous one. If the machine stood still for longer than the lease, what
    is left is removed later."""
    app = Flask("test-clients")
    app.config.update(
        JWT_SECRET_KEY="a secret of thirty-two characters",
        PRESENCE_BACKEND=redis_server.url,
        PRESENCE_REDIS_PREFIX=prefix,
        PRESENCE_LEASE=1,
    )
    JWTManager(app)
    presence = Presence(app)
    for number in range(5):
        with presence.test_client(user="ann", app=app) as ann:
            ann.join("presence-room", user_info={"n": number})
            if number == 0:
                end = time.monotonic() + 1.2  # longer than the lease, as in a debugger
                wait_until(lambda end=end: time.monotonic() > end)  # type: ignore[misc]
            assert ann.update("presence-room", x=number)["member"]["x"] == number
    keys = redis.Redis(port=redis_server.port, decode_responses=True)

    def no_worker_is_left() -> bool:
        with app.app_context():
            presence.get_channel_stats()  # a process without connections removes dead workers before it asks
        return not keys.smembers(f"{prefix}:workers")

    wait_until(no_worker_is_left)
    assert {key for key in keys.scan_iter(f"{prefix}:*") if keys.ttl(key) < 0} == {f"{prefix}:data_since"}
