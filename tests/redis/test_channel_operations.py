"""The channel operations on a real Redis do what the roster does, and publish each change once and in order."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import invariant, run_state_machine_as_test

from flask_presence.backends.redis.store.calls import Call, Lost, Operation
from flask_presence.backends.redis.store.channels import ChannelOperations, Departure, Entered, Snapshot
from flask_presence.backends.redis.store.entries import parse_entry
from flask_presence.backends.redis.store.grace import TAKEN_FOR
from flask_presence.backends.redis.store.keys import Keys
from flask_presence.backends.redis.store.scripts import all_scripts
from flask_presence.domain.channels import Channel, ChannelName
from flask_presence.domain.errors import BackendUnavailable, JoinFailed, NotFound, NotMember, RequestError, UpdateFailed
from flask_presence.domain.history import Position, Retention, messages_after
from flask_presence.domain.members import Member, OwnedInfo, User
from flask_presence.domain.roster import Change, Joined, Joiner, Roster, Updated

from ..membership.test_roster import CHANNELS, MAX_INFO, MAX_MEMBERS, RosterMachine
from ..support.effort import at_effort
from ..support.redis_server import running_redis
from ..support.store import Client, store_of

T = TypeVar("T")
NOW = datetime(2024, 1, 15, 10, 30, tzinfo=timezone.utc)
ROOM = ChannelName("presence-room")
ANN, BOB = User("ann", name="Ann"), User("bob")


class Ear:
    """A subscription to the events of a channel."""

    def __init__(self, client: Client, keys: Keys, channel: str) -> None:
        self._pubsub = client.redis.pubsub()
        self._pubsub.subscribe(keys.topic(channel))
        assert self._pubsub.get_message(timeout=5)["type"] == "subscribe"

    def hear(self, timeout: float = 5) -> tuple[str, Position, str, str, bytes] | None:
        """Kind, position, excluded client, user and body of the next event."""
        message = self._pubsub.get_message(timeout=timeout)
        if message is None:
            return None
        kind, epoch, number, client, user, _, body = message["data"].split(b"\0", 6)
        return kind.decode(), Position(int(epoch), int(number)), client.decode(), user.decode(), body

    def close(self) -> None:
        self._pubsub.close()


class Compared:
    """A roster in memory and one in Redis, which must return the same for the same operations."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._keys = Keys(f"test-{secrets.token_hex(8)}")
        self._operations = store_of(self._keys.prefix, max_info=MAX_INFO, max_members=MAX_MEMBERS).channels("worker")
        self._roster = Roster(MAX_INFO, MAX_MEMBERS)
        self._graces = store_of(self._keys.prefix).graces
        self._inside: set[tuple[str, str]] = set()
        self._ears = {channel: Ear(client, self._keys, channel) for channel in CHANNELS}
        self._positions = dict.fromkeys(CHANNELS, Position(0, 0))
        self._shown: dict[tuple[str, str], Member] = {}

    def _both(self, wanted: Callable[[], T], found: Callable[[], T]) -> T:
        outcomes: list[Any] = []
        for operation in (wanted, found):
            try:
                outcomes.append(operation())
            except RequestError as problem:
                outcomes.append(problem)
        first, second = outcomes
        if isinstance(first, RequestError):
            assert (type(first), first.message) == (type(second), getattr(second, "message", second))
            raise first
        assert first == second
        result: T = first
        return result

    def _heard(self, channel: ChannelName, change: Change | None, but: str) -> None:
        """Check that exactly this change was published, with the next number."""
        if change is not None:
            assert self._hear(channel) == (change.kind, change.member, but)

    def _hear(self, channel: ChannelName, timeout: float = 5) -> tuple[str, Member, str] | None:
        """The next event that changes the shown member. A change of owned info may show nothing."""
        while (event := self._ears[channel].hear(timeout)) is not None:
            kind, position, client, user, body = event
            before, member = self._positions[channel], parse_entry(body).member
            assert position == (before.epoch or position.epoch, before.number + 1)
            self._positions[channel] = position
            if kind == "updated" and self._shown[channel, user] == member:
                continue
            self._shown[channel, user] = member
            return kind, member, client
        return None

    def join(self, joiner: Joiner) -> Any:
        channel, client_id = joiner.channel, joiner.client_id

        def found() -> Joined:
            fresh = (channel, client_id) not in self._inside
            entered: Entered = self._run(self._operations.join(joiner))
            self._inside.add((channel, client_id))
            if entered.entry is None:
                return Joined(fresh)
            snapshot = Snapshot(joiner.now, 0, 0, entered.entries)
            return Joined(fresh, entered.change, tuple(snapshot.members()), entered.entry.member)

        outcome = self._both(lambda: self._roster.join(joiner), found)
        self._heard(channel, outcome.change, client_id)
        return outcome

    def leave(self, channel: ChannelName, client_id: str, *, grace: bool = False) -> Change | None:
        user = User(client_id.partition("-")[0]) if channel.type == "presence" else None
        change = self._both(
            lambda: self._roster.leave(channel, client_id, grace=grace, reason="lost"),
            lambda: self._run(self._operations.leave(channel, client_id, Departure(user, 60 if grace else 0, "lost"))),
        )
        self._inside.discard((channel, client_id))
        self._heard(channel, change, client_id)
        result: Change | None = change
        return result

    def end_grace(self, channel: ChannelName, user_id: str) -> Change | None:
        def found() -> Change | None:
            events = self._client.run(self._graces.end_matching(user_id, None, channel))
            return Change("left", events[0].member, events[0].reason) if events else None

        change = self._both(lambda: self._roster.end_grace(channel, user_id), found)
        self._heard(channel, change, "")
        result: Change | None = change
        return result

    def update(self, channel: ChannelName, client_id: str, info: Any, now: datetime, owned: Any = None) -> Any:
        arguments = (channel, client_id, info, now)

        def found() -> Updated:
            entry, change = self._run(self._operations.update(*arguments, owned=owned))
            return Updated(entry.member, change)

        outcome = self._both(lambda: self._roster.update(*arguments, owned), found)
        self._heard(channel, outcome.change, client_id if owned is None else "")
        return outcome

    def get(self, name: str) -> Channel | None:
        channel = ChannelName(name)

        def found() -> Channel | None:
            snapshot: Snapshot = self._run(self._operations.snapshot(channel))
            return snapshot.channel(channel, snapshot.members())

        return self._both(lambda: self._roster.get(name), found)

    def members(self, name: str) -> tuple[Member, ...]:
        found = self.get(name)
        return tuple(found.members or ()) if found else ()

    def counts(self) -> Any:
        return self._roster.counts()

    def _run(self, operation: Any) -> Any:
        return self._client.run(operation).value

    def close(self) -> None:
        try:
            for channel in self._ears:
                assert self._hear(channel, 0.01) is None, "an event was published without a change"
        finally:
            for ear in self._ears.values():
                ear.close()


def test_any_sequence_of_operations_equals_the_roster(redis_client: Client) -> None:
    """The results, the errors, the lists and the events are the same."""

    class RedisMachine(RosterMachine):
        def __init__(self) -> None:
            super().__init__()
            self.roster = Compared(redis_client)  # type: ignore[assignment]

        @invariant()
        def channels_are_the_same(self) -> None:
            for channel in CHANNELS:
                self.roster.get(channel)

        def teardown(self) -> None:
            self.roster.close()  # type: ignore[attr-defined]

    checks = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
    few = settings(max_examples=at_effort(20), stateful_step_count=30, deadline=None, suppress_health_check=checks)
    run_state_machine_as_test(RedisMachine, settings=few)


@pytest.fixture
def operations(prefix: str) -> ChannelOperations:
    return store_of(prefix, max_info=1000).channels("worker")


@pytest.fixture
def ear(redis_client: Client, prefix: str) -> Iterator[Ear]:
    one = Ear(redis_client, Keys(prefix), ROOM)
    yield one
    one.close()


def test_a_message_is_numbered_and_leaves_out_one_connection(
    redis_client: Client, operations: ChannelOperations, ear: Ear
) -> None:
    for number, user in enumerate((ANN, ANN, BOB)):
        redis_client.run(operations.join(Joiner(ROOM, f"client-{number}", user, None, NOW)))
    said = b'{"data":"\\u0000"}\x00\xff'
    sent = redis_client.run(operations.publish(ROOM, said, "client-1"))
    assert (sent.value, sent.position.number) == (2, 3)
    assert redis_client.run(operations.publish(ROOM, b"", "elsewhere")).value == 3
    assert redis_client.run(operations.publish(ROOM, b"", None)).value == 3
    heard = [ear.hear() for _ in range(5)]
    assert [event and event[0] for event in heard] == ["joined", "joined", "message", "message", "message"]
    assert heard[2] == ("message", sent.position, "client-1", "", said)


def test_simultaneous_operations_leave_no_gap_in_the_numbers(
    redis_client: Client, operations: ChannelOperations, ear: Ear
) -> None:
    """Replayed, the events give the list."""

    def act(number: int) -> None:
        user = (ANN, BOB)[number % 2]
        for turn in range(25):
            redis_client.run(operations.join(Joiner(ROOM, f"client-{number}", user, {f"k{number}": turn}, NOW)))
            redis_client.run(operations.update(ROOM, f"client-{number}", {"shared": number, "turn": turn}, NOW))
            if turn % 3 or number > 1:
                redis_client.run(operations.leave(ROOM, f"client-{number}"))

    threads = [threading.Thread(target=act, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    end = redis_client.run(operations.snapshot(ROOM))
    view: dict[str, Any] = {}
    for number in range(1, end.position.number + 1):
        event = ear.hear()
        assert event is not None
        kind, position, _, user_id, body = event
        assert position == (end.position.epoch, number)
        assert (user_id in view) == (kind != "joined")
        if kind == "left":
            assert view.pop(user_id) == parse_entry(body)
        else:
            view[user_id] = parse_entry(body)
    assert ear.hear(0.01) is None
    assert view == dict(end.value.entries)


def test_a_repeated_operation_is_done_once(redis_client: Client, operations: ChannelOperations, ear: Ear) -> None:
    """A worker repeats an operation if its answer was lost."""
    for fresh in (True, False):
        assert (redis_client.run(operations.join(Joiner(ROOM, "1", ANN, None, NOW))).value.change is not None) is fresh
    assert redis_client.run(operations.leave(ROOM, "1")).value is not None
    with pytest.raises(NotFound):
        redis_client.run(operations.leave(ROOM, "1"))
    redis_client.run(operations.join(Joiner(ROOM, "2", BOB, None, NOW)))
    with pytest.raises(NotMember):
        redis_client.run(operations.leave(ROOM, "1"))
    assert [(event := ear.hear()) and event[0] for _ in range(3)] == ["joined", "left", "joined"]
    assert ear.hear(0.01) is None


def test_a_member_in_grace_is_listed_and_gets_no_messages(
    redis_client: Client, prefix: str, operations: ChannelOperations, ear: Ear
) -> None:
    """If the user comes back in time, the user has never left."""
    before = redis_client.run(operations.join(Joiner(ROOM, "1", ANN, {"x": 1}, NOW))).value.entry
    assert redis_client.run(operations.leave(ROOM, "1", Departure(ANN, 10, "lost"))).value is None
    assert redis_client.run(operations.publish(ROOM, b"", None)).value == 0
    assert list(redis_client.run(operations.snapshot(ROOM)).value.entries.values()) == [before]
    later = Joiner(ROOM, "2", ANN, None, NOW + timedelta(seconds=5))
    assert redis_client.run(operations.join(later)).value.entry == before
    assert before is not None
    assert redis_client.run(operations.leave(ROOM, "2")).value == Change("left", before.member)
    redis_client.run(operations.join(Joiner(ROOM, "1", ANN, None, NOW)))
    assert redis_client.run(operations.leave(ROOM, "1", Departure(ANN, 10, "lost"))).value is None
    store = store_of(prefix)
    now = redis_client.run(store.workers.time())
    assert redis_client.run(store.graces.end_due(now + 9_000)) == []
    assert redis_client.run(store.graces.end_matching("bob", None)) == []
    (gone,) = redis_client.run(store.graces.end_due(now + 11_000))
    assert (gone.client_id, gone.user, gone.member.id) == ("1", ANN, "ann")
    assert redis_client.run(store.graces.end_matching("ann", None)) == []
    assert [(event := ear.hear()) and event[0] for _ in range(5)] == ["joined", "message", "left", "joined", "left"]


def test_one_worker_at_a_time_ends_a_grace_period(
    redis_client: Client, prefix: str, operations: ChannelOperations
) -> None:
    """If it dies meanwhile, another one ends it soon."""
    store = store_of(prefix)

    def dying(now: int) -> Operation[None]:
        """A worker that ends the grace periods that are over at `now`, and dies after its second call."""
        ending = store.graces.end_due(now)
        reply = yield next(ending)
        yield ending.send(reply)

    for number in range(3):
        user = User(f"user-{number}")
        redis_client.run(operations.join(Joiner(ROOM, str(number), user, {}, NOW)))
        redis_client.run(operations.leave(ROOM, str(number), Departure(user, 10, "lost")))
    over = redis_client.run(store.workers.time()) + 11_000
    redis_client.run(dying(over))
    assert redis_client.run(store.graces.end_due(over)) == []
    assert redis_client.run(operations.snapshot(ROOM)).value.listed == 3
    gone = redis_client.run(store.graces.end_due(over + TAKEN_FOR))
    assert {event.client_id for event in gone} == {"0", "1", "2"}
    assert redis_client.run(store.graces.channels()) == set()


def test_prefixes_and_odd_names_never_meet(redis_client: Client, operations: ChannelOperations) -> None:
    other = store_of("test-other", max_info=1000).channels("worker")
    redis_client.run(operations.join(Joiner(ROOM, "1", ANN, None, NOW)))
    assert redis_client.run(other.snapshot(ROOM)).value.entries == {}
    names = [ChannelName(f"presence-{name}") for name in ("a{b}", "a}", "a{", "a%7B", "*", "[ab]", "a:events")]
    users = [User("u"), User("u\0v"), User("u%00v"), User("u\1")]
    for name in names:
        for number, user in enumerate(users):
            redis_client.run(operations.join(Joiner(name, str(number), user, None, NOW)))
    for name in names:
        gone = redis_client.run(operations.leave(name, "0")).value
        assert gone is not None
        left = redis_client.run(operations.snapshot(name)).value.members()
        assert [member.id for member in left] == [user.id for user in users[1:]]
    with pytest.raises(ValueError, match="1 to 32"):
        Keys("a:b")


def test_a_loss_of_data_begins_a_later_epoch(program: str, prefix: str) -> None:
    """This holds whatever the clock of Redis says."""
    with running_redis(program) as server:
        client, operations = Client(server.url), store_of(prefix, max_info=1000).channels("worker")
        first = client.run(operations.join(Joiner(ROOM, "1", ANN, None, NOW))).position
        client.redis.flushall()
        assert client.run(operations.snapshot(ROOM)).value.entries == {}
        known = Position(first.epoch + 10**9, 5)
        again = client.run(operations.join(Joiner(ROOM, "1", ANN, None, NOW), known)).position
        assert again == (known.epoch + 1, 1)
        client.close()


def test_an_unreachable_redis_raises_backend_unavailable(program: str, prefix: str) -> None:
    """When it is back, operations succeed again."""
    with running_redis(program) as server:
        client, operations = Client(server.url), store_of(prefix, max_info=1000).channels("worker")
        client.run(operations.join(Joiner(ROOM, "1", ANN, None, NOW)))
        client.redis.script_flush()
        client.run(operations.leave(ROOM, "1"))
        server.stop()
        for _ in range(3):
            with pytest.raises(BackendUnavailable):
                client.run(operations.join(Joiner(ROOM, "1", ANN, None, NOW)))
        server.start()
        assert client.run(operations.join(Joiner(ROOM, "1", ANN, None, NOW))).value.change
        client.close()


def test_operations_on_an_empty_channel_leave_no_key_that_stays(redis_client: Client, prefix: str) -> None:
    operations, small = (
        store_of(prefix, max_info=1000).channels("worker"),
        store_of(prefix, max_info=20).channels("worker"),
    )
    known = Position(5, 7)

    def heal() -> None:
        healed = redis_client.run(operations.heal(ROOM, list, tuple, (), {}, known, NOW)).value
        assert healed.snapshot is not None
        assert (healed.snapshot.entries, healed.left) == ({}, {})

    def refused(error: type[Exception], operation: Any) -> None:
        with pytest.raises(error):
            redis_client.run(operation)

    for act in (
        lambda: refused(JoinFailed, small.join(Joiner(ROOM, "1", ANN, {"a": "x" * 50}, NOW), known)),
        lambda: refused(NotFound, operations.leave(ROOM, "1", known=known)),
        lambda: refused(UpdateFailed, operations.update(ROOM, "1", {"a": 1}, NOW, known)),
        lambda: refused(Lost, operations.publish(ROOM, b"", None, known)),
        lambda: redis_client.run(operations.publish(ROOM, b"", None)),
        heal,
        lambda: redis_client.run(operations.position(ROOM)),
    ):
        act()
        assert redis_client.run(operations.snapshot(ROOM)).value.created_at is None
        keys = list(redis_client.redis.scan_iter(f"{prefix}:channel:*"))
        assert [key for key in keys if redis_client.redis.ttl(key) < 0] == []
        for key in keys:
            redis_client.redis.delete(key)


def test_the_servers_change_wins_over_a_flood(redis_client: Client, prefix: str) -> None:
    """If the server's change loses to those of the member's clients, the member is reserved for it."""
    channels = store_of(prefix).channels("worker")
    redis_client.run(channels.join(Joiner(ROOM, "1", ANN, None, NOW, owned=OwnedInfo({"role": "admin"}, 1, 1))))
    removal = channels.update(ROOM, "1", {}, NOW, owned=OwnedInfo({}, 2, 2))
    asked, refused = next(removal), 0
    with pytest.raises(StopIteration) as done:
        while True:
            assert isinstance(asked, Call)
            reply = redis_client.run_calls([asked])[0]
            try:
                redis_client.run(channels.update(ROOM, "1", {"n": secrets.token_hex(4)}, NOW))
            except BackendUnavailable:
                refused += 1
            asked = removal.send(reply)
    entry, _ = done.value.value.value
    assert (entry.document.owned, refused) == ({}, 1)
    assert redis_client.run(channels.update(ROOM, "1", {"n": 1}, NOW)).value[0].member.info["n"] == 1


def test_all_scripts_are_loaded_together(program: str, prefix: str) -> None:
    """If Redis has lost one script it gets all, so that calls keep their order."""
    with running_redis(program) as server:
        client = Client(server.url)
        known = [script.sha for script in all_scripts()]
        client.run(store_of(prefix).workers.time())
        assert all(client.redis.script_exists(*known))
        client.redis.script_flush()
        client.run(store_of(prefix).workers.heartbeat("worker", first=True))
        assert all(client.redis.script_exists(*known))
        client.close()


def test_kept_messages_that_an_old_copy_lacks_count_as_missed(redis_client: Client, prefix: str) -> None:
    """The copy is in the run of Redis that wrote it: that server was cut off, another one took over, and now it is the
    master again. A worker that heals knows what it lacks."""
    store, room, retention = store_of(prefix), ChannelName("kept-room"), Retention(100, 60)
    operations = store.channels("worker")

    def say(number: int) -> Position:
        return redis_client.run(store.history.publish(room, b'{"n":%d}' % number, None, retention)).position

    redis_client.run(operations.join(Joiner(room, "1", None, None, NOW)))
    for number in range(3):
        say(number)
    copy = {key: redis_client.redis.dump(key) for key in redis_client.redis.scan_iter(f"{prefix}:*")}
    lost = [say(number) for number in range(3, 6)]
    for key, value in copy.items():
        redis_client.redis.restore(key, 0, value, replace=True)
    healed = redis_client.run(operations.heal(room, list, lambda: {"1"}, (), {}, lost[1], NOW))
    assert healed.value.writes_lost
    later = [say(number) for number in range(6, 10)]
    for position in (*lost, healed.position):
        assert position < later[0]
    for seen in lost:
        extract = redis_client.run(store.history.extract(room, after=seen.number))
        assert messages_after(extract, seen.number) is None
    extract = redis_client.run(store.history.extract(room, after=later[1].number))
    assert [message.number for message in messages_after(extract, later[1].number) or ()] == [
        position.number for position in later[2:]
    ]
