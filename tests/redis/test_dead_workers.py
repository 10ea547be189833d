"""Workers begin, die, are claimed and are removed."""

from __future__ import annotations

import secrets
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flask_presence.backends.redis.store.calls import Call, Operation
from flask_presence.backends.redis.store.channels import Departure, LiveConnection, Snapshot
from flask_presence.backends.redis.store.keys import Keys
from flask_presence.backends.redis.worker import worker_id as worker_ids
from flask_presence.backends.redis.worker.neighbours import Neighbours
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
    assert [member.id for member in snapshot.members()] == ["ann", "bob"]
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
    rest = scene.steps(scene.store.dead_workers.remove("dead"), 8)
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


ENDED, FAR = 1, 10**15
"""Ends of leases and claims, in ms: long ago, and never in this test."""


class Marks(NamedTuple):
    """What Redis has of a worker: whether it is listed, and until when its lease and its claim last, if it has them."""

    listed: bool
    lease: int | None = None
    claim: int | None = None

    def is_dead(self, *, known: bool, by_lease: bool) -> bool:
        """Whether the worker may be claimed."""
        dead = known or (by_lease and self.lease in (None, ENDED))
        return self.listed and dead and self.claim in (None, ENDED)

    @property
    def hides_another(self) -> bool:
        """Whether it counts more often among leases and claims than among the workers."""
        return (self.lease is not None) + (self.claim is not None) > self.listed


class Fleet:
    """Workers with such marks, in a service that lost no data lately."""

    def __init__(self, client: Client, prefix: str, marks: Mapping[str, Marks]) -> None:
        self.keys = Keys(prefix)
        self.redis = client.redis
        self._workers = Driven(client, prefix, 60)
        self.redis.set(self.keys.data_since, 1)
        for worker, (is_listed, lease, claim) in marks.items():
            if is_listed:
                self.redis.sadd(self.keys.workers, worker)
            self.end(worker, lease, claim)

    def end(self, worker: str, lease: int | None, claim: int | None) -> None:
        """Set when the lease and the claim of a worker end."""
        for key, end in ((self.keys.leases, lease), (self.keys.claims, claim)):
            if end is not None:
                self.redis.zadd(key, {worker: end})

    def claim(self, known: Sequence[str] = (), after: float | None = 0) -> str | None:
        """Claim a worker, and never let that claim end."""
        worker: str | None = self._workers.claim(known, after=after)
        if worker is not None:
            assert self.redis.zscore(self.keys.leases, worker) is None
            assert self.redis.zscore(self.keys.claims, worker) > ENDED
            self.end(worker, None, FAR)
        return worker

    def claim_all(self, known: Sequence[str] = (), after: float | None = 0) -> list[str]:
        found = []
        while (worker := self.claim(known, after)) is not None:
            found.append(worker)
        return found


ALIVE = Marks(listed=True, lease=FAR)


@pytest.mark.parametrize(
    ("dead", "known"),
    [
        (ALIVE, True),
        (Marks(listed=True, lease=FAR, claim=ENDED), True),
        (Marks(listed=True, lease=ENDED), False),
        (Marks(listed=True, lease=ENDED, claim=ENDED), False),
        (Marks(listed=True, claim=ENDED), False),
        (Marks(listed=True), False),
    ],
)
def test_every_kind_of_dead_worker_is_claimed_once(
    redis_client: Client, prefix: str, dead: Marks, *, known: bool
) -> None:
    """Nobody claims a worker that is alive."""
    fleet = Fleet(redis_client, prefix, {"dead": dead, "alive": ALIVE, "busy": Marks(listed=True, claim=FAR)})
    names = ["dead", "busy", "never"] if known else []
    assert fleet.claim_all(names) == ["dead"]


def test_after_a_loss_of_data_only_known_workers_are_claimed(redis_client: Client, prefix: str) -> None:
    """It is the same for a worker that does not rely on leases yet."""
    marks = [Marks(listed=True, lease=ENDED), Marks(listed=True, claim=ENDED), Marks(listed=True)]
    fleet = Fleet(redis_client, prefix, {f"dead-{number}": mark for number, mark in enumerate(marks)})
    assert fleet.claim_all(["dead-1"], after=None) == ["dead-1"]
    fleet.redis.set(fleet.keys.data_since, FAR)
    assert fleet.claim_all(["dead-2"]) == ["dead-2"]
    fleet.redis.delete(fleet.keys.data_since)
    assert fleet.claim_all() == []
    fleet.redis.set(fleet.keys.data_since, 1)
    assert fleet.claim_all(after=2 * 10**9) == []
    assert fleet.claim_all() == ["dead-0"]


@pytest.mark.parametrize(
    "hiding", [Marks(listed=False, lease=FAR), Marks(listed=False, claim=FAR), Marks(listed=True, lease=FAR, claim=FAR)]
)
def test_a_worker_without_a_lease_is_found_when_what_hides_it_has_ended(
    redis_client: Client, prefix: str, hiding: Marks
) -> None:
    """The others are counted, not looked at, so one too many hides one."""
    fleet = Fleet(redis_client, prefix, {"hiding": hiding, "stray": Marks(listed=True), "alive": ALIVE})
    assert fleet.claim() is None
    if hiding.lease:
        fleet.end("hiding", ENDED, None)
    else:
        fleet.end("hiding", None, ENDED)
    assert fleet.claim_all() == ["stray"]


def test_hundreds_of_leftovers_hide_no_dead_worker(redis_client: Client, prefix: str) -> None:
    """They come before it in the order in which leases and claims are looked up."""
    left = [Marks(listed=False, lease=0), Marks(listed=False, claim=0), Marks(listed=True, lease=FAR, claim=0)]
    marks = {f"left-{number}": left[number % 3] for number in range(300)}
    dead = {"by-lease": Marks(listed=True, lease=ENDED), "by-claim": Marks(listed=True, claim=ENDED)}
    fleet = Fleet(redis_client, prefix, marks | dead)
    assert fleet.claim_all() == ["by-lease", "by-claim"]
    assert fleet.redis.zcard(fleet.keys.leases) == 100
    assert fleet.redis.zcard(fleet.keys.claims) == 100 + 2


ENDS = st.sampled_from([None, ENDED, FAR])


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    marks=st.dictionaries(st.sampled_from("abcdefgh"), st.builds(Marks, st.booleans(), ENDS, ENDS)),
    known=st.lists(st.sampled_from("abcdefgh"), max_size=3),
    by_lease=st.booleans(),
)
def test_every_dead_worker_is_claimed_and_no_other(
    redis_client: Client, marks: dict[str, Marks], known: list[str], *, by_lease: bool
) -> None:
    """Leases and claims of workers that are not listed are deleted when they have ended."""
    fleet = Fleet(redis_client, f"test-{secrets.token_hex(8)}", marks)
    dead = {name for name, mark in marks.items() if mark.is_dead(known=name in known, by_lease=by_lease)}
    claimed = fleet.claim_all(known, 0 if by_lease else None)
    assert len(set(claimed)) == len(claimed)
    assert set(claimed) <= dead
    hidden = dead - set(claimed)
    assert all(by_lease and marks[name] == Marks(listed=True) for name in hidden)
    assert len(hidden) <= sum(mark.hides_another for mark in marks.values())
    hiding = [name for name, mark in marks.items() if mark.hides_another]
    for name in hiding:  # time passes
        fleet.end(name, marks[name].lease and ENDED, marks[name].claim and ENDED if not marks[name].listed else None)
    if by_lease:
        claimed += fleet.claim_all(known)
        assert dead <= set(claimed) <= dead | {name for name in hiding if marks[name].listed}
        listed = fleet.redis.smembers(fleet.keys.workers)
        for key in (fleet.keys.leases, fleet.keys.claims):
            assert set(fleet.redis.zrange(key, 0, -1)) <= listed
    fleet.redis.delete(fleet.keys.workers, fleet.keys.leases, fleet.keys.claims, fleet.keys.data_since)


def test_a_claim_does_not_look_at_every_worker(program: str, prefix: str) -> None:
    with running_redis(program) as server:
        client = Client(server.url)
        fleet = Fleet(client, prefix, {f"alive-{number}": ALIVE for number in range(100)})
        assert fleet.claim() is None
        fleet.redis.config_resetstat()
        assert fleet.claim(["never"]) is None
        stats = fleet.redis.info("commandstats")
        assert "cmdstat_smembers" not in stats
        assert sum(stats[name]["calls"] for name in stats if name != "cmdstat_config|resetstat") <= 12
        client.close()


class Host:
    """A worker of this host that looks after the others, with a fresh list of calls for each heartbeat."""

    def __init__(self, client: Client, prefix: str) -> None:
        self.client = client
        self.store = store_of(prefix)
        self.here, *_ = worker_ids.new_worker_id().partition(".")
        self._neighbours = Neighbours(self.store.workers)
        self.calls: list[str] = []
        assert self.beat(first=True) == []

    def start(self, process: subprocess.Popen[str]) -> str:
        """Let a process take its first lease, as a worker. Returns its id."""
        worker_id = f"{self.here}.{process.pid}.{worker_ids._start(process.pid)}.abc"
        self.client.run(self.store.workers.heartbeat(worker_id, self.here, first=True))
        return worker_id

    def beat(self, *, first: bool = False) -> list[str]:
        """Returns the workers that are gone."""
        reply = self.client.run(self.store.workers.heartbeat(f"{self.here}.0.0.me", self.here, first=first))
        self._neighbours.note(reply, first=first)
        self.calls.clear()
        return self.client.run(self._listen(self._neighbours.gone()))

    def _listen(self, operation: Operation[list[str]]) -> Operation[list[str]]:
        """The operation, with its calls noted."""
        replies: Any = None
        while True:
            try:
                asked = operation.send(replies)
            except StopIteration as end:
                result: list[str] = end.value
                return result
            assert isinstance(asked, Call)
            self.calls.append(asked.name)
            replies = yield asked


def waiting_process() -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, text=True)


def test_a_neighbour_that_has_just_started_is_found_as_soon_as_it_is_killed(redis_client: Client, prefix: str) -> None:
    """The list of workers is read only after a start on this host."""
    host = Host(redis_client, prefix)
    assert host.calls == ["SMEMBERS"]
    assert host.beat() == host.calls == []
    with waiting_process() as process:
        neighbour = host.start(process)
        process.kill()
        process.wait()
        assert host.beat() == [neighbour]
        assert host.calls == ["SMEMBERS", "SMISMEMBER"]
        assert host.beat() == [neighbour]
        assert host.calls == ["SMISMEMBER"]
        redis_client.run(host.store.dead_workers.forget(neighbour))
        assert host.beat() == []
        assert host.beat() == host.calls == []
    redis_client.run(host.store.workers.heartbeat("elsewhere.1.1.abc", "elsewhere", first=True))
    assert host.beat() == host.calls == []


def test_a_dead_neighbour_that_is_listed_again_by_late_commands_is_found(redis_client: Client, prefix: str) -> None:
    """So is one that started while this worker stood still for longer than a lease."""
    host = Host(redis_client, prefix)
    host.beat()
    with waiting_process() as process:
        neighbour = host.start(process)
        process.kill()
        process.wait()
        assert host.beat() == [neighbour]
        redis_client.run(host.store.dead_workers.forget(neighbour))
        assert host.beat() == []
        redis_client.run(host.store.workers.add_connections(neighbour, {"1": ANN}))
        assert host.beat() == [neighbour]
        redis_client.run(host.store.dead_workers.forget(neighbour))
        assert host.beat() == []
        keys = host.store.keys
        redis_client.redis.delete(keys.last_start(host.here))
        host.beat()
        redis_client.redis.sadd(keys.workers, neighbour)
        redis_client.redis.zadd(keys.leases, {neighbour: FAR, f"{host.here}.0.0.me": ENDED})
        assert host.beat() == [neighbour]


def test_an_id_that_is_given_up_is_listed_with_its_channels(redis_client: Client, prefix: str, workers: Driven) -> None:
    """If the connection to Redis is lost after the first round trip, nothing is left that nobody removes."""
    keys = Keys(prefix)
    operation = store_of(prefix).dead_workers.leave_to_others("old", ["lobby", "room"])
    calls = next(operation)

    def first_round_trip() -> Operation[None]:
        yield calls

    redis_client.run(first_round_trip())
    assert redis_client.redis.smembers(keys.worker_channels("old")) == {b"lobby", b"room"}
    assert workers.claim(["old"]) == "old"
    workers.remove("old")
    assert list(redis_client.redis.scan_iter(f"{prefix}:worker:*")) == []


@pytest.mark.parametrize("carried_out", range(5))
@pytest.mark.parametrize("way", ["remove_connection", "set_connections"])
def test_no_record_of_a_user_stays_if_only_the_first_calls_are_carried_out(
    redis_client: Client, prefix: str, workers: Driven, way: str, carried_out: int
) -> None:
    """The connection to Redis is lost, or a replica takes over that lacks the others. The next heal deletes it."""
    store = store_of(prefix).workers
    workers.add_connections("a", {"1": ANN})
    removing = {
        "remove_connection": lambda: store.remove_connection("a", "1", ANN),
        "set_connections": lambda: store.set_connections("a", {}),
    }
    carry_out(redis_client, removing[way](), carried_out)
    workers.set_connections("a", {})
    assert set(redis_client.redis.scan_iter(f"{prefix}:*")) == {Keys(prefix).workers.encode()}


def carry_out(redis_client: Client, operation: Operation[None], limit: int) -> None:
    """Run an operation, but at most so many of its calls."""

    def first_calls() -> Operation[None]:
        left = limit
        step = next(operation, None)
        while step is not None:
            calls = step if isinstance(step, list) else [step]
            replies = (yield calls[:left]) if left else []
            left -= len(replies)
            if len(replies) < len(calls):
                return
            try:
                step = operation.send(replies if isinstance(step, list) else replies[0])
            except StopIteration:
                return

    redis_client.run(first_calls())
