"""Nodes that live, die, are claimed and reaped."""

from __future__ import annotations

from typing import Any

import pytest

from flask_presence.backends.redis.client import Client
from flask_presence.backends.redis.keys import Keys
from flask_presence.backends.redis.nodes import Nodes
from flask_presence.backends.redis.operations import Holder, Operations
from flask_presence.domain.members import User

from ..support.redis_server import running_redis
from ..support.server import wait_until
from .test_operations import ANN, BOB, NOW, ROOM, Ear


class Driven:
    """Nodes whose operations are driven at once."""

    def __init__(self, client: Client, prefix: str, lease: float, grace: float = 0) -> None:
        self._client, self._nodes = client, Nodes(Keys(prefix), lease, grace)

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments, **options: self._client.run(getattr(self._nodes, name)(*arguments, **options))


@pytest.fixture
def nodes(redis_client: Client, prefix: str) -> Driven:
    return Driven(redis_client, prefix, 60)


@pytest.fixture
def hasty(redis_client: Client, prefix: str) -> Driven:
    """The same nodes, with leases that end at once."""
    return Driven(redis_client, prefix, 0.05)


def test_a_lease_ends(redis_client: Client, prefix: str, nodes: Driven, hasty: Driven) -> None:
    """Who is silent for longer than the lease has lost it, and must begin again."""
    born = nodes.beat("a", begins=True)
    assert born.verdict == nodes.beat("a").verdict == "held"
    assert nodes.beat("a").birth == born.birth
    assert nodes.beat("never").verdict == "lost"
    client = redis_client.redis
    client.zadd(Keys(prefix).leases, {"a": 1})
    assert hasty.beat("a").verdict == "late"  # which nobody has noticed
    assert nodes.claim([]) is None
    wait_until(lambda: hasty.claim([]) == "a")
    assert nodes.beat("a").verdict == "lost"
    assert nodes.beat("b", begins=True).verdict == "held"


def test_a_claim_is_one_nodes(nodes: Driven, hasty: Driven) -> None:
    """A dead node is claimed once; a live one never."""
    nodes.beat("alive", begins=True)
    hasty.beat("dead", begins=True)
    wait_until(lambda: hasty.claim([]) == "dead")
    assert hasty.claim([]) is None
    nodes.reap("dead")
    assert hasty.claim([]) is None


def test_reaping(redis_client: Client, prefix: str, nodes: Driven) -> None:
    """With a dead node goes whoever was nowhere else; each is announced once, however often it is reaped."""
    ear = Ear(redis_client, Keys(prefix), ROOM)
    everybody = [User(f"user-{number}", name="x") for number in range(125)]
    dead, alive = Operations(Keys(prefix), "dead", 1000), Operations(Keys(prefix), "alive", 1000)
    nodes.opened("dead", {"dead-0": everybody[0], "dead-50": ANN, "nowhere": None})
    for number, user in enumerate([*everybody, *everybody, ANN]):
        redis_client.run(dead.join(ROOM, f"dead-{number}", user, None, NOW))
    redis_client.run(alive.join(ROOM, "1", ANN, None, NOW))
    redis_client.run(alive.join(ROOM, "2", BOB, None, NOW))
    events = nodes.reap("dead")
    assert nodes.reap("dead") == []
    left = [event for event in events if event.name == "member.left"]
    assert sorted(event.member.id for event in left) == sorted(user.id for user in everybody)
    gone = [event for event in events if event.name == "channel.left"]
    assert sorted(event.client_id for event in gone) == sorted(f"dead-{number}" for number in range(251))
    assert {event.reason for event in gone} == {"worker_lost"}
    ended = {event.client_id: event for event in events if event.name == "client.disconnected"}
    assert events[-3:] == list(ended.values())
    assert ended["dead-0"].user == everybody[0]
    assert (ended["nowhere"].user, ended["nowhere"].code, ended["nowhere"].reason) == (None, 1006, "worker_lost")
    snapshot = redis_client.run(alive.snapshot(ROOM)).value
    assert [member.id for member in snapshot.members] == ["ann", "bob"]
    assert snapshot.connections == 2
    heard = [event for _ in range(127 + 125) if (event := ear.hear())]
    assert sorted(user for kind, _, _, user, _ in heard if kind == "left") == sorted(user.id for user in everybody)
    assert ear.hear(0.01) is None
    ear.close()


@pytest.mark.parametrize("how", ["join", "heal"])
def test_killed_after_a_loss(program: str, prefix: str, how: str) -> None:
    """A node that is killed before it has noticed that Redis had lost everything leaves nothing that is not found."""
    with running_redis(program) as server:
        client = Client(server.url)
        nodes, dead = Driven(client, prefix, 60), Operations(Keys(prefix), "dead", 1000)
        nodes.beat("dead", begins=True)
        nodes.beat("alive", begins=True)
        nodes.opened("dead", {"1": ANN})
        entered = client.run(dead.join(ROOM, "1", ANN, None, NOW))
        client.redis.flushall()
        if how == "join":
            client.run(dead.join(ROOM, "1", ANN, None, NOW, entered.position))
        else:
            holder = Holder("1", "ann", entered.value.entry)
            client.run(dead.heal(ROOM, lambda: [holder], lambda: {"1"}, entered.position, NOW))
        nodes.opened("dead", {"2": BOB})
        assert nodes.claim(["dead"]) == "dead"
        ended = {event.client_id for event in nodes.reap("dead") if event.name == "client.disconnected"}
        assert ended == {"2"}
        assert client.run(dead.snapshot(ROOM)).value.connections == 0
        assert nodes.reap("dead") == []
        keys = {key.decode().removeprefix(prefix) for key in client.redis.scan_iter(f"{prefix}:*")}
        assert keys == {":counts", f":channel:{{{ROOM}}}:state"}
        client.close()


def test_nobody_is_reaped_after_a_loss(program: str, prefix: str) -> None:
    """When Redis has lost everything, every node has the time of a lease to come back before any is reaped."""
    with running_redis(program) as server:
        client = Client(server.url)
        nodes = Driven(client, prefix, 60)
        born = nodes.beat("a", begins=True)
        client.redis.flushall()
        client.redis.sadd(Keys(prefix).nodes, "b")
        assert nodes.claim([]) is None
        assert nodes.beat("a", begins=True).birth > born.birth - 1
        assert nodes.claim([]) is None
        client.close()
