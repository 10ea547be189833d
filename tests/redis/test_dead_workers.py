"""Workers begin, die, are claimed and are removed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flask_presence.backends.redis.store.channels import Departure, LiveConnection, Snapshot
from flask_presence.backends.redis.store.keys import Keys
from flask_presence.backends.redis.worker import worker_id as worker_ids
from flask_presence.domain.members import User
from flask_presence.domain.roster import Joiner

from ..support.redis_server import running_redis
from ..support.server import wait_until
from ..support.store import Client, store_of
from .test_channel_operations import ANN, BOB, NOW, ROOM, Ear


class Driven:
    """The operations of workers, each run to its end at once."""

    def __init__(self, client: Client, prefix: str, lease: float, grace: float = 0) -> None:
        self._client, self._store = client, store_of(prefix, lease=lease, grace=grace)

    def __getattr__(self, name: str) -> Any:
        part = self._store.workers if hasattr(self._store.workers, name) else self._store.dead_workers
        return lambda *arguments, **options: self._client.run(getattr(part, name)(*arguments, **options))


@pytest.fixture
def workers(redis_client: Client, prefix: str) -> Driven:
    return Driven(redis_client, prefix, 60)


@pytest.fixture
def hasty(redis_client: Client, prefix: str) -> Driven:
    """The same workers, with leases that end at once."""
    return Driven(redis_client, prefix, 0.05)


def test_a_worker_that_stays_silent_longer_than_its_lease_loses_it(
    redis_client: Client, prefix: str, workers: Driven, hasty: Driven
) -> None:
    """It must begin again."""
    born = workers.heartbeat("a", first=True)
    assert born.lease == workers.heartbeat("a").lease == "held"
    assert workers.heartbeat("a").data_since == born.data_since
    assert workers.heartbeat("never").lease == "lost"
    client = redis_client.redis
    client.zadd(Keys(prefix).leases, {"a": 1})
    assert hasty.heartbeat("a").lease == "late"  # no other worker has claimed it yet
    assert workers.claim([]) is None
    wait_until(lambda: hasty.claim([]) == "a")
    assert workers.heartbeat("a").lease == "lost"
    assert workers.heartbeat("b", first=True).lease == "held"


def test_a_dead_worker_is_claimed_once(workers: Driven, hasty: Driven) -> None:
    """A live worker is never claimed."""
    workers.heartbeat("alive", first=True)
    hasty.heartbeat("dead", first=True)
    wait_until(lambda: hasty.claim([]) == "dead")
    assert hasty.claim([]) is None
    workers.remove("dead")
    assert hasty.claim([]) is None


def test_removing_a_dead_worker_announces_each_departure_once(
    redis_client: Client, prefix: str, workers: Driven
) -> None:
    """Users with another connection stay, however often the worker is removed."""
    ear = Ear(redis_client, Keys(prefix), ROOM)
    everybody = [User(f"user-{number}", name="x") for number in range(125)]
    dead, alive = store_of(prefix, max_info=1000).channels("dead"), store_of(prefix, max_info=1000).channels("alive")
    workers.add_connections("dead", {"dead-0": everybody[0], "dead-50": ANN, "nowhere": None})
    for number, user in enumerate([*everybody, *everybody, ANN]):
        redis_client.run(dead.join(Joiner(ROOM, f"dead-{number}", user, None, NOW)))
    redis_client.run(alive.join(Joiner(ROOM, "1", ANN, None, NOW)))
    redis_client.run(alive.join(Joiner(ROOM, "2", BOB, None, NOW)))
    events = workers.remove("dead")
    assert workers.remove("dead") == []
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


def test_a_worker_that_ends_leaves_nothing(redis_client: Client, prefix: str, workers: Driven) -> None:
    """What Redis does for it after its end is found and removed by the other workers."""
    ending = store_of(prefix, max_info=1000).channels("ending")
    workers.heartbeat("ending", first=True)
    redis_client.run(ending.join(Joiner(ROOM, "late", ANN, None, NOW)))
    workers.remove("ending")  # as a worker does when it ends
    assert workers.all() == ["ending"]
    workers.remove("ending")
    assert workers.all() == []
    assert redis_client.run(ending.snapshot(ROOM)).value == Snapshot(None, 0, 0, {})


def test_a_hidden_process_does_not_count_as_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`/proc` shows only the user's own processes if it is mounted with `hidepid`."""
    mine = worker_ids.new_worker_id()
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        start = worker_ids._start(process.pid) or "1"
    gone = f"{mine.partition('.')[0]}.{process.pid}.{start}.abc"
    assert worker_ids.gone_among([mine, gone]) == [gone]
    for name in ("sys", "self"):
        (tmp_path / name).symlink_to(Path("/proc") / name)
    monkeypatch.setattr(worker_ids, "_PROC", tmp_path)
    assert worker_ids.gone_among([mine, gone]) == [gone]


def grace_without_owner(scene: Scene) -> None:
    """The first worker that removed the dead one took its clients, and was killed."""
    scene.enter()
    scene.steps(scene.store.dead_workers.remove("dead"), 4)
    scene.run(scene.store.dead_workers.remove("dead"))


def grace_after_a_loss(scene: Scene) -> None:
    """The worker was killed before it could record its clients again."""
    scene.enter()
    scene.client.redis.flushall()
    scene.run(scene.dead.join(Joiner(ROOM, "1", ANN, None, NOW)))
    scene.run(scene.store.dead_workers.remove("dead"))


def grace_for_a_late_join(scene: Scene) -> None:
    """Redis ran a join of the worker only after another had removed the worker."""
    scene.run(scene.store.workers.add_connections("dead", {"1": ANN}))
    scene.run(scene.store.dead_workers.remove("dead"))
    scene.run(scene.dead.join(Joiner(ROOM, "1", ANN, None, NOW)))
    scene.run(scene.store.dead_workers.remove("dead"))


def grace_ended_before_it_begins(scene: Scene) -> None:
    """The user's grace periods are ended between the record of a grace period and the leave."""
    scene.enter()
    rest = scene.steps(scene.dead.leave(ROOM, "1", Departure(ANN, GRACE, "lost")), 1)
    scene.run(scene.store.graces.end_matching("ann", None))
    scene.send(rest)


def grace_over_before_it_begins(scene: Scene) -> None:
    """The leave reaches Redis after the end of its grace period."""
    scene.enter()
    rest = scene.steps(scene.dead.leave(ROOM, "1", Departure(ANN, GRACE, "lost")), 1)
    scene.end_graces()
    scene.send(rest)


def grace_by_two_workers(scene: Scene) -> None:
    """The first worker's records, with an earlier end, arrive after everything that the second has done."""
    scene.enter()
    rest = scene.steps(scene.store.dead_workers.remove("dead"), 7)
    earlier = int(rest[0].arguments[-2])
    wait_until(lambda: scene.run(scene.store.workers.time()) + GRACE * 1000 > earlier)
    scene.run(scene.store.workers.add_connections("dead", {"1": ANN}))
    scene.run(scene.store.dead_workers.remove("dead"))
    scene.send(rest)
    scene.run(scene.store.graces.end_due(earlier))


GRACE = 0.1


class Scene:
    """A worker that dies, whose users have a short grace period. Operations run to their end or step by step."""

    def __init__(self, client: Client, prefix: str) -> None:
        self.client = client
        self.keys = Keys(prefix)
        self.store = store_of(prefix, grace=GRACE)
        self.dead = store_of(self.keys.prefix, max_info=1000).channels("dead")
        self.run(self.store.workers.heartbeat("dead", first=True))

    def run(self, operation: Any) -> Any:
        return self.client.run(operation)

    def enter(self) -> None:
        self.run(self.store.workers.add_connections("dead", {"1": ANN}))
        self.run(self.dead.join(Joiner(ROOM, "1", ANN, None, NOW)))

    def steps(self, operation: Any, count: int) -> Any:
        """Answer an operation `count` times, and return its next request."""
        asked = next(operation)
        for _ in range(count):
            asked = operation.send(self.send(asked))
        return asked

    def send(self, asked: Any) -> Any:
        replies = self.client.run_calls(asked if isinstance(asked, list) else [asked])
        return replies if isinstance(asked, list) else replies[0]

    def end_graces(self) -> None:
        """Wait until every grace period is over, and end them."""
        until = self.run(self.store.workers.time()) + GRACE * 1000

        def is_over() -> bool:
            return bool(self.run(self.store.workers.time()) > until)

        wait_until(is_over)
        self.run(self.store.graces.end_due(self.run(self.store.workers.time())))


@pytest.mark.parametrize(
    "way",
    [
        grace_without_owner,
        grace_after_a_loss,
        grace_for_a_late_join,
        grace_ended_before_it_begins,
        grace_over_before_it_begins,
        grace_by_two_workers,
    ],
)
def test_every_grace_ends(program: str, prefix: str, way: Callable[[Scene], None]) -> None:
    """This holds whatever comes between."""
    with running_redis(program) as server:
        client = Client(server.url)
        scene = Scene(client, prefix)
        way(scene)
        scene.end_graces()
        for _ in range(2):
            scene.run(scene.store.dead_workers.remove("dead"))
        assert scene.run(scene.dead.snapshot(ROOM)).value == Snapshot(None, 0, 0, {})
        left = [key.decode() for key in client.redis.scan_iter("*") if client.redis.ttl(key) < 0]
        assert set(left) <= {scene.keys.data_since}
        client.close()


@pytest.mark.parametrize("how", ["join", "heal"])
def test_a_worker_that_is_killed_after_a_loss_leaves_nothing_behind(program: str, prefix: str, how: str) -> None:
    """It was killed before it noticed that Redis had lost everything."""
    with running_redis(program) as server:
        client = Client(server.url)
        workers, dead = Driven(client, prefix, 60), store_of(prefix, max_info=1000).channels("dead")
        workers.heartbeat("dead", first=True)
        workers.heartbeat("alive", first=True)
        workers.add_connections("dead", {"1": ANN})
        entered = client.run(dead.join(Joiner(ROOM, "1", ANN, None, NOW)))
        client.redis.flushall()
        if how == "join":
            client.run(dead.join(Joiner(ROOM, "1", ANN, None, NOW), entered.position))
        else:
            live = LiveConnection("1", "ann", entered.value.entry)
            client.run(dead.heal(ROOM, lambda: [live], lambda: {"1"}, (), {}, entered.position, NOW))
        workers.add_connections("dead", {"2": BOB})
        assert workers.claim(["dead"]) == "dead"
        ended = {event.client_id for event in workers.remove("dead") if event.name == "client.disconnected"}
        assert ended == {"2"}
        assert client.run(dead.snapshot(ROOM)).value.connections == 0
        assert workers.remove("dead") == []
        keys = {key.decode().removeprefix(prefix) for key in client.redis.scan_iter(f"{prefix}:*")}
        assert keys == {":absorbed_counts", f":channel:{{{ROOM}}}:state"}
        client.close()


def test_no_worker_is_removed_right_after_a_loss(program: str, prefix: str) -> None:
    """Every worker has the time of a lease to come back."""
    with running_redis(program) as server:
        client = Client(server.url)
        workers = Driven(client, prefix, 60)
        born = workers.heartbeat("a", first=True)
        client.redis.flushall()
        client.redis.sadd(Keys(prefix).workers, "b")
        assert workers.claim([]) is None
        assert workers.heartbeat("a", first=True).data_since > born.data_since - 1
        assert workers.claim([]) is None
        client.close()
