"""The counts of several workers: each is counted once, whether a worker stops, is killed or is paused."""

from __future__ import annotations

import os
import secrets
import signal
from contextlib import ExitStack

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from flask_presence.domain.meter import add
from flask_presence.domain.readings import ZERO_COUNTS, Reading

from ..conftest import on_redis, on_shards
from ..support.client import client
from ..support.metrics import scrape, value
from ..support.redis_server import running_redis
from ..support.server import Server, running, wait_until
from ..support.store import Client as RedisClient
from ..support.store import store_of

LEASE = 1.5
WORKERS = ["a", "b", "c"]


@settings(
    max_examples=60,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["record", "forget", "begin"]),
            st.sampled_from(WORKERS),
            st.integers(0, 1000),
            st.floats(0, 9),
        ),
        max_size=25,
    )
)
def test_every_count_is_counted_once_and_never_goes_back(
    redis_client: RedisClient, steps: list[tuple[str, str, int, float]]
) -> None:
    """Workers begin, record counts, and are forgotten, some of them twice."""
    store = store_of(f"test-{secrets.token_hex(8)}")
    said: dict[str, dict[str, float]] = {}
    gone: dict[str, float] = {}
    slots: dict[int, int] = {}
    now = redis_client.run(store.workers.time()) / 1000
    slot, before = int(now // 2) - 5, 0.0
    for step, worker_id, count, seconds in steps:
        if step == "begin":
            redis_client.run(store.workers.heartbeat(worker_id, first=True))
            said.setdefault(worker_id, {})
        elif worker_id in said and step == "record":
            mine = said[worker_id]
            said[worker_id] = {"received": mine.get("received", 0) + count, "lag|sum": mine.get("lag|sum", 0) + seconds}
            reading = Reading(said[worker_id], {slot: (int(said[worker_id]["received"]), 0)})
            redis_client.run(store.counts.record(worker_id, reading))
        elif step == "forget":
            redis_client.run(store.dead_workers.forget(worker_id))
            gone = add(gone, said.pop(worker_id, {}))
        survey = redis_client.run(store.counts.read())
        expected = add(gone, *said.values())
        assert survey.counts["received"] == expected.get("received", 0) >= before
        assert abs(survey.counts["lag|sum"] - expected.get("lag|sum", 0)) < 1e-6
        before = survey.counts["received"]
        slots[slot] = int(before)
        assert round(sum(survey.rates(now)[0]) * 2) == slots[slot]


def test_a_reading_of_a_removed_worker_is_refused(redis_client: RedisClient) -> None:
    """Its counts have been added to the total already."""
    store = store_of(f"test-{secrets.token_hex(8)}")
    redis_client.run(store.workers.heartbeat("a", first=True))
    assert redis_client.run(store.counts.record("a", Reading({"received": 100})))
    assert redis_client.run(store.dead_workers.claim(["a"])) == "a"
    assert not redis_client.run(store.counts.record("a", Reading({"received": 150})))
    redis_client.run(store.dead_workers.remove("a"))
    assert not redis_client.run(store.counts.record("a", Reading({"received": 150})))
    redis_client.run(store.dead_workers.leave_to_others("a", []))
    redis_client.run(store.dead_workers.forget("a"))
    assert redis_client.run(store.counts.read()).counts["received"] == 100


def test_counts_of_nothing_are_not_recorded(redis_client: RedisClient) -> None:
    """They are the larger part of what an idle worker would send with every heartbeat."""
    store = store_of(f"test-{secrets.token_hex(8)}")
    redis_client.run(store.workers.heartbeat("a", first=True))
    redis_client.run(store.counts.record("a", Reading({**ZERO_COUNTS, "received": 1})))
    survey = redis_client.run(store.counts.read())
    assert survey.readings[0].counts == {"received": 1}
    assert survey.counts == {**ZERO_COUNTS, "received": 1}


@pytest.mark.parametrize("backend", ["redis", "sharded"])
def test_every_worker_returns_the_same_counts(request: pytest.FixtureRequest, backend: str) -> None:
    """One of three workers is killed, one is stopped, and one is paused longer than its lease."""
    service = (
        on_redis(request.getfixturevalue("redis_server"))
        if backend == "redis"
        else on_shards(request.getfixturevalue("redis_shards"))
    )
    config = service | {"PRESENCE_LEASE": LEASE, "PRESENCE_GRACE": 0}
    with ExitStack() as stack:
        servers = [stack.enter_context(running(**config)) for _ in range(3)]
        people = [stack.enter_context(client(server, f"user-{at}")) for at, server in enumerate(servers)]
        for at, person in enumerate(people):
            person.join("presence-room")
            for _ in range(at + 1):
                person.say("presence-room", "hello")
        published, received = 1 + 2 + 3, 3 + 1 + 2 + 3

        lost = 0

        def all_agree(connections: int, workers: int, *asked: Server) -> bool:
            for server in asked:
                samples = scrape(server)
                assert value(samples, "messages_published_total") <= published, "counted twice"
                assert value(samples, "messages_received_total") <= received, "counted twice"
                seen = (
                    value(samples, "messages_published_total"),
                    value(samples, "messages_received_total"),
                    value(samples, "connections"),
                    value(samples, "workers"),
                    value(samples, "connections_closed_total", code="1006"),
                    value(samples, "leaves_total", type="presence"),
                )
                if seen != (published, received, connections, workers, lost, lost):
                    return False
            return True

        wait_until(lambda: all_agree(3, 3, *servers))
        servers[2].kill()
        lost = 1
        wait_until(lambda: all_agree(2, 2, *servers[:2]))
        paused = min(servers[1].worker_pids())
        os.kill(paused, signal.SIGSTOP)
        lost = 2  # the other worker takes the paused one for dead
        wait_until(lambda: all_agree(1, 1, servers[0]))
        os.kill(paused, signal.SIGCONT)
        wait_until(lambda: all_agree(2, 2, *servers[:2]))
        people[1].say("presence-room", "still here")
        published, received = published + 1, received + 1
        wait_until(lambda: all_agree(2, 2, *servers[:2]))
        servers[1].stop()
        wait_until(lambda: value(scrape(servers[0]), "connections") == 1)
        assert value(scrape(servers[0]), "messages_published_total") == published


def test_live_workers_record_their_counts_again_after_a_loss(program: str) -> None:
    """They are counted once."""
    with running_redis(program) as store, running(PRESENCE_BACKEND=store.url) as server, client(server, "ann") as ann:
        ann.join("presence-room")
        ann.say("presence-room", "hello")
        assert value(scrape(server), "messages_published_total") == 1
        store.stop()
        wait_until(lambda: "unavailable" in server.get("/presence/health")[2])
        status, _, body = server.get("/presence/metrics")
        assert (status, "flask_presence_backend_up 0.0" in body) == (200, True)
        store.start()
        wait_until(lambda: server.get("/presence/health")[0] == 200)
        wait_until(lambda: value(scrape(server), "messages_published_total") == 1)
        ann.say("presence-room", "hello")
        assert value(scrape(server), "messages_published_total") == 2
