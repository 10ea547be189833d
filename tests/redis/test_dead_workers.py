"""Workers that live, die, are claimed and reaped."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flask_presence.backends.redis.store.channels import Departure, LiveConnection, Snapshot
from flask_presence.backends.redis.store.keys import Keys
from flask_presence.backends.redis.worker import worker_id as processes
from flask_presence.domain.members import User

from ..support.redis_server import running_redis
from ..support.server import wait_until
from ..support.store import Client, store_of
from .test_channel_operations import ANN, BOB, NOW, ROOM, Ear


class Driven:
    """Workers whose operations are driven at once."""

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


def test_a_lease_ends(redis_client: Client, prefix: str, workers: Driven, hasty: Driven) -> None:
    """Who is silent for longer than the lease has lost it, and must begin again."""
    born = workers.heartbeat("a", first=True)
    assert born.lease == workers.heartbeat("a").lease == "held"
    assert workers.heartbeat("a").data_since == born.data_since
    assert workers.heartbeat("never").lease == "lost"
    client = redis_client.redis
    client.zadd(Keys(prefix).leases, {"a": 1})
    assert hasty.heartbeat("a").lease == "late"  # which nobody has noticed
    assert workers.claim([]) is None
    wait_until(lambda: hasty.claim([]) == "a")
    assert workers.heartbeat("a").lease == "lost"
    assert workers.heartbeat("b", first=True).lease == "held"


def test_a_claim_is_one_nodes(workers: Driven, hasty: Driven) -> None:
    """A dead worker is claimed once; a live one never."""
    workers.heartbeat("alive", first=True)
    hasty.heartbeat("dead", first=True)
    wait_until(lambda: hasty.claim([]) == "dead")
    assert hasty.claim([]) is None
    workers.remove("dead")
    assert hasty.claim([]) is None


def test_reaping(redis_client: Client, prefix: str, workers: Driven) -> None:
    """With a dead worker goes whoever was nowhere else; each is announced once, however often it is reaped."""
    ear = Ear(redis_client, Keys(prefix), ROOM)
    everybody = [User(f"user-{number}", name="x") for number in range(125)]
    dead, alive = store_of(prefix, max_info=1000).channels("dead"), store_of(prefix, max_info=1000).channels("alive")
    workers.add_connections("dead", {"dead-0": everybody[0], "dead-50": ANN, "nowhere": None})
    for number, user in enumerate([*everybody, *everybody, ANN]):
        redis_client.run(dead.join(ROOM, f"dead-{number}", user, None, NOW))
    redis_client.run(alive.join(ROOM, "1", ANN, None, NOW))
    redis_client.run(alive.join(ROOM, "2", BOB, None, NOW))
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


def test_forgetting_oneself(redis_client: Client, prefix: str, workers: Driven) -> None:
    """A worker that ends leaves nothing, and what Redis has done for it too late is found by the others."""
    ending = store_of(prefix, max_info=1000).channels("ending")
    workers.heartbeat("ending", first=True)
    redis_client.run(ending.join(ROOM, "late", ANN, None, NOW))
    workers.remove("ending")  # as one that ends does
    assert workers.all() == ["ending"]
    workers.remove("ending")
    assert workers.all() == []
    assert redis_client.run(ending.snapshot(ROOM)).value == Snapshot(None, 0, 0, {})


def test_processes_that_are_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where `/proc` shows nobody else's processes (`hidepid`), a live one does not count as gone."""
    mine = processes.new_worker_id()
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        start = processes._start(process.pid) or "1"
    gone = f"{mine.partition('.')[0]}.{process.pid}.{start}.abc"
    assert (processes.is_gone(mine), processes.is_gone(gone)) == (False, True)
    for name in ("sys", "self"):
        (tmp_path / name).symlink_to(Path("/proc") / name)
    monkeypatch.setattr(processes, "_PROC", tmp_path)
    assert (processes.is_gone(mine), processes.is_gone(gone)) == (False, True)


def hold_without_owner(place: Holding) -> None:
    """The first reaper took the connections' owners, and was killed."""
    place.enter()
    place.steps(place.store.dead_workers.remove("dead"), 4)
    place.run(place.store.dead_workers.remove("dead"))


def hold_after_a_loss(place: Holding) -> None:
    """The worker was killed before it could write down anew whose its connections are."""
    place.enter()
    place.client.redis.flushall()
    place.run(place.dead.join(ROOM, "1", ANN, None, NOW))
    place.run(place.store.dead_workers.remove("dead"))


def hold_for_a_late_join(place: Holding) -> None:
    """What the worker had asked for was done only after it had been reaped."""
    place.run(place.store.workers.add_connections("dead", {"1": ANN}))
    place.run(place.store.dead_workers.remove("dead"))
    place.run(place.dead.join(ROOM, "1", ANN, None, NOW))
    place.run(place.store.dead_workers.remove("dead"))


def hold_let_go_before_it_begins(place: Holding) -> None:
    """Somebody ends the user's holds between the note of one and the leave."""
    place.enter()
    rest = place.steps(place.dead.leave(ROOM, "1", Departure(ANN, GRACE, "lost")), 1)
    place.run(place.store.graces.end_matching("ann", None))
    place.send(rest)


def hold_over_before_it_begins(place: Holding) -> None:
    """The leave comes to Redis when the time of its hold is over."""
    place.enter()
    rest = place.steps(place.dead.leave(ROOM, "1", Departure(ANN, GRACE, "lost")), 1)
    place.end_holds()
    place.send(rest)


def hold_by_two_reapers(place: Holding) -> None:
    """The first reaper's notes, of an earlier end, come after all that the second has done."""
    place.enter()
    rest = place.steps(place.store.dead_workers.remove("dead"), 8)
    earlier = int(rest[0].arguments[-2])
    wait_until(lambda: place.run(place.store.workers.time()) + GRACE * 1000 > earlier)
    place.run(place.store.workers.add_connections("dead", {"1": ANN}))
    place.run(place.store.dead_workers.remove("dead"))
    place.send(rest)
    place.run(place.store.graces.end_due(earlier))


GRACE = 0.1


class Holding:
    """A worker that dies, and others that hold its users for a moment; operations are driven whole, or step by
    step."""

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
        self.run(self.dead.join(ROOM, "1", ANN, None, NOW))

    def steps(self, operation: Any, count: int) -> Any:
        """What an operation asks after so many answers."""
        asked = next(operation)
        for _ in range(count):
            asked = operation.send(self.send(asked))
        return asked

    def send(self, asked: Any) -> Any:
        replies = self.client.run_calls(asked if isinstance(asked, list) else [asked])
        return replies if isinstance(asked, list) else replies[0]

    def end_holds(self) -> None:
        """Wait until every hold is over, and end them."""
        until = self.run(self.store.workers.time()) + GRACE * 1000

        def is_over() -> bool:
            return bool(self.run(self.store.workers.time()) > until)

        wait_until(is_over)
        self.run(self.store.graces.end_due(self.run(self.store.workers.time())))


@pytest.mark.parametrize(
    "way",
    [
        hold_without_owner,
        hold_after_a_loss,
        hold_for_a_late_join,
        hold_let_go_before_it_begins,
        hold_over_before_it_begins,
        hold_by_two_reapers,
    ],
)
def test_holds_end(program: str, prefix: str, way: Callable[[Holding], None]) -> None:
    """Whoever is held is let go of in the end, whatever comes between."""
    with running_redis(program) as server:
        client = Client(server.url)
        place = Holding(client, prefix)
        way(place)
        place.end_holds()
        for _ in range(2):
            place.run(place.store.dead_workers.remove("dead"))
        assert place.run(place.dead.snapshot(ROOM)).value == Snapshot(None, 0, 0, {})
        left = [key.decode() for key in client.redis.scan_iter("*") if client.redis.ttl(key) < 0]
        assert set(left) <= {place.keys.data_since}
        client.close()


@pytest.mark.parametrize("how", ["join", "heal"])
def test_killed_after_a_loss(program: str, prefix: str, how: str) -> None:
    """A worker that is killed before it has noticed that Redis had lost everything leaves nothing that is not
    found."""
    with running_redis(program) as server:
        client = Client(server.url)
        workers, dead = Driven(client, prefix, 60), store_of(prefix, max_info=1000).channels("dead")
        workers.heartbeat("dead", first=True)
        workers.heartbeat("alive", first=True)
        workers.add_connections("dead", {"1": ANN})
        entered = client.run(dead.join(ROOM, "1", ANN, None, NOW))
        client.redis.flushall()
        if how == "join":
            client.run(dead.join(ROOM, "1", ANN, None, NOW, entered.position))
        else:
            holder = LiveConnection("1", "ann", entered.value.entry)
            client.run(dead.heal(ROOM, lambda: [holder], lambda: {"1"}, {}, entered.position, NOW))
        workers.add_connections("dead", {"2": BOB})
        assert workers.claim(["dead"]) == "dead"
        ended = {event.client_id for event in workers.remove("dead") if event.name == "client.disconnected"}
        assert ended == {"2"}
        assert client.run(dead.snapshot(ROOM)).value.connections == 0
        assert workers.remove("dead") == []
        keys = {key.decode().removeprefix(prefix) for key in client.redis.scan_iter(f"{prefix}:*")}
        assert keys == {":absorbed_counts", f":channel:{{{ROOM}}}:state"}
        client.close()


def test_nobody_is_reaped_after_a_loss(program: str, prefix: str) -> None:
    """When Redis has lost everything, every worker has the time of a lease to come back before any is reaped."""
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
