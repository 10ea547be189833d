"""Nodes that live, die, are claimed and reaped."""

from __future__ import annotations

import pytest

from flask_presence.backends.redis.client import Client
from flask_presence.backends.redis.keys import Keys
from flask_presence.backends.redis.nodes import Nodes
from flask_presence.backends.redis.operations import Operations
from flask_presence.domain.members import User

from ..support.redis_server import running_redis
from ..support.server import wait_until
from .test_operations import ANN, BOB, NOW, ROOM, Ear


@pytest.fixture
def nodes(redis_client: Client, prefix: str) -> Nodes:
    return Nodes(redis_client, Keys(prefix), 60)


@pytest.fixture
def hasty(redis_client: Client, prefix: str) -> Nodes:
    """The same nodes, with leases that end at once."""
    return Nodes(redis_client, Keys(prefix), 0.05)


def test_a_lease_ends(nodes: Nodes, hasty: Nodes) -> None:
    """Who is silent for longer than the lease has lost it, and must begin again."""
    born = nodes.beat("a", begins=True)
    assert born.held
    assert nodes.beat("a") == born
    assert nodes.beat("never") == (born.birth, False)
    hasty.beat("a")
    wait_until(lambda: hasty.claim() == "a")
    assert nodes.beat("a") == (born.birth, False)
    assert nodes.beat("a", begins=True).held


def test_a_claim_is_one_nodes(nodes: Nodes, hasty: Nodes) -> None:
    """A dead node is claimed once; a live one never."""
    nodes.beat("alive", begins=True)
    hasty.beat("dead", begins=True)
    wait_until(lambda: hasty.claim() == "dead")
    assert hasty.claim() is None
    nodes.reap("dead")
    assert hasty.claim() is None


def test_reaping(redis_client: Client, prefix: str, nodes: Nodes) -> None:
    """With a dead node goes whoever was nowhere else; each is announced once, however often it is reaped."""
    ear = Ear(redis_client, Keys(prefix), ROOM)
    dead, alive = Operations(Keys(prefix), "dead", 1000), Operations(Keys(prefix), "alive", 1000)
    nodes.enter("dead", ROOM)
    everybody = [User(f"user-{number}") for number in range(25)]
    for number, user in enumerate([*everybody, *everybody, ANN]):
        redis_client.run(dead.join(ROOM, f"dead-{number}", user, None, NOW))
    redis_client.run(alive.join(ROOM, "1", ANN, None, NOW))
    redis_client.run(alive.join(ROOM, "2", BOB, None, NOW))
    assert nodes.reap("dead", chunk=10) == 25
    assert nodes.reap("dead", chunk=10) == 0
    snapshot = redis_client.run(alive.snapshot(ROOM)).value
    assert [entry.document.id for entry in snapshot.entries] == ["ann", "bob"]
    assert snapshot.connections == 2
    heard = [event for _ in range(27 + 25) if (event := ear.hear())]
    assert sorted(user for kind, _, _, user, _ in heard if kind == "left") == sorted(user.id for user in everybody)
    assert ear.hear(0.01) is None
    ear.close()


def test_nobody_is_reaped_after_a_loss(program: str, prefix: str) -> None:
    """When Redis has lost everything, every node has the time of a lease to come back before any is reaped."""
    with running_redis(program) as server:
        client = Client(server.url)
        nodes = Nodes(client, Keys(prefix), 60)
        born = nodes.beat("a", begins=True)
        client.redis.flushall()
        client.redis.sadd(Keys(prefix).nodes, "b")
        assert nodes.claim() is None
        assert nodes.beat("a", begins=True).birth > born.birth - 1
        assert nodes.claim() is None
        client.close()
