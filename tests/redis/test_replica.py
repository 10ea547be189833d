"""The copy of a channel: it stays right if events are late, doubled or lost."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_presence.backends.redis.store.calls import NOWHERE
from flask_presence.backends.redis.store.entries import Document, Entry, encode
from flask_presence.backends.redis.store.events import Event, parse_event
from flask_presence.backends.redis.worker.replica import Replica, ReplicaEvent
from flask_presence.domain.errors import BackendUnavailable
from flask_presence.domain.history import Position

NOW = datetime(2024, 1, 15, tzinfo=timezone.utc)
EPOCH = 7
CHANGES = st.lists(st.tuples(st.sampled_from(["ann", "bob", "eve"]), st.sampled_from(["come", "change", "go", "say"])))


class History:
    """The events of a channel, and the list of members after each of them."""

    def __init__(self, changes: list[tuple[str, str]]) -> None:
        entries: dict[str, Entry] = {}
        self.events: list[Event] = []
        self.lists: list[dict[str, Entry]] = [{}]
        for user_id, what in changes:
            number = len(self.events) + 1
            kind = {"come": "joined", "change": "updated", "go": "left", "say": "message"}[what]
            if what != "say" and (user_id in entries) == (what == "come"):
                continue
            body = b"said"
            if what != "say":
                place = entries[user_id].place if user_id in entries else number
                entry = Entry(number, place, encode(Document(user_id, "client", NOW, {"at": number})))
                if what == "go":
                    entry = entries.pop(user_id)
                else:
                    entries[user_id] = entry
                body = b"%d\0%d\0" % (entry.version, entry.place) + entry.raw
            self.events.append(Event(kind, Position(EPOCH, number), "", user_id, None, body))
            self.lists.append(dict(entries))


def nobody(_user: str) -> bool:
    """The worker of these tests has no connection of any user."""
    return False


def json_of(entries: Mapping[str, Entry]) -> dict[str, Any]:
    return {user: entry.json for user, entry in entries.items()}


class Listener:
    """Replays the events, and fails if one is impossible. They come when the copy has its first list."""

    def __init__(self) -> None:
        self.view: dict[str, Any] = {}
        self.messages = 0

    def load(self, replica: Replica, position: Position, entries: dict[str, Entry], **options: Any) -> None:
        comes = replica.position == NOWHERE
        replica.load(position, dict(entries), **options)
        if comes:
            self.view = json_of(replica.entries)

    def hear(self, event: ReplicaEvent) -> None:
        if event.member is None:
            self.messages += 1
            return
        user_id = event.member.id
        assert (user_id in self.view) == (event.kind != "joined"), event
        if event.kind == "left":
            del self.view[user_id]
        else:
            self.view[user_id] = event.member.json


@given(changes=CHANGES, data=st.data())
def test_the_events_add_up_to_the_list_of_members(changes: list[tuple[str, str]], data: st.DataObject) -> None:
    """Events are lost, doubled, or come before their snapshot, and a stale copy loads a snapshot of any position."""
    history, listener = History(changes), Listener()
    replica = Replica(listener.hear, nobody)
    reached: list[int] = []
    for number in range(len(history.events) + 1):
        replica.reach(Position(EPOCH, number)).when(lambda _, number=number: reached.append(number))  # type: ignore[misc]
    for number, event in enumerate(history.events, 1):
        fate = data.draw(st.sampled_from(["heard", "heard", "heard", "lost", "twice", "connection lost"]))
        if fate == "connection lost":
            replica.health.lose()
        for _ in range({"lost": 0, "connection lost": 0, "twice": 2}.get(fate, 1)):
            replica.hear(event)
        if not replica.health.is_current and data.draw(st.booleans()):
            listener.load(replica, Position(EPOCH, number), history.lists[number])
        if replica.health.is_current:
            at = replica.position.number
            assert replica.entries == history.lists[at]
            expected = b",".join(bytes(entry.json) for entry in replica.entries.values())
            assert bytes(replica.list_json()) == b"[" + expected + b"]"
            assert listener.view == json_of(history.lists[at])
            assert reached == list(range(at + 1))
    end = len(history.events)
    listener.load(replica, Position(EPOCH, end), history.lists[end])
    assert replica.entries == history.lists[end]
    assert listener.view == json_of(history.lists[end])
    assert reached == list(range(end + 1))
    assert not replica.awaited


@given(before=CHANGES, changes=CHANGES, data=st.data())
def test_a_list_that_was_read_in_slices_is_right_at_its_place(
    before: list[tuple[str, str]], changes: list[tuple[str, str]], data: st.DataObject
) -> None:
    """Each member is read at some moment between the first change and the last."""
    history, listener = History([*before, *changes]), Listener()
    start, end = len(History(before).events), len(history.events)
    replica = Replica(listener.hear, nobody)
    if data.draw(st.booleans(), label="has an old list"):
        known = data.draw(st.integers(0, start))
        listener.load(replica, Position(EPOCH, known), history.lists[known])
        replica.health.lose()
    scanned: dict[str, Entry] = {}
    for user in ("ann", "bob", "eve"):
        moment = data.draw(st.integers(start, end))
        if user in history.lists[moment]:
            scanned[user] = history.lists[moment][user]
    scanned = dict(sorted(scanned.items(), key=lambda item: item[1].place))
    lost = data.draw(st.none() | st.integers(start + 1, end + 1), label="lost event")
    for number in range(start + 1, end + 1):
        if number != lost:
            replica.hear(history.events[number - 1])
    listener.load(replica, Position(EPOCH, start), scanned, sliced=True)
    if lost is None or lost > end:
        assert replica.position == (EPOCH, end)
        assert replica.entries == history.lists[end]
        assert listener.view == json_of(history.lists[end])
        assert list(replica.entries) == list(history.lists[end])
    else:
        listener.load(replica, Position(EPOCH, end), history.lists[end])
        assert replica.entries == history.lists[end]
        assert listener.view == json_of(history.lists[end])


def test_every_message_is_told_once() -> None:
    """It may come before the snapshot or after it."""
    history, listener = History([("ann", "say")] * 6), Listener()
    replica = Replica(listener.hear, nobody)
    for event in history.events[:4]:
        replica.hear(event)
    assert listener.messages == 0
    replica.load(Position(EPOCH, 2), {})
    assert listener.messages == 4
    for event in history.events[2:]:
        replica.hear(event)
    assert listener.messages == 6


def test_a_copy_waits_for_a_snapshot_in_a_later_epoch() -> None:
    """Members who are kept do not leave in the meantime."""
    history, listener = History([("ann", "come"), ("bob", "come")]), Listener()
    replica = Replica(listener.hear, nobody)
    listener.load(replica, Position(EPOCH, 2), history.lists[2])
    old = history.events[1]
    new = Event("message", Position(EPOCH + 1, 4), "", "", None, b"said")
    replica.hear(new)
    assert not replica.health.is_current
    replica.load(Position(EPOCH + 1, 3), dict(history.lists[1]), keep=True)
    assert (set(listener.view), listener.messages) == ({"ann", "bob"}, 1)
    replica.hear(old)
    assert replica.position == (EPOCH + 1, 4)
    replica.load(Position(EPOCH + 1, 4), dict(history.lists[1]))
    assert set(listener.view) == {"ann"}


def test_a_copy_keeps_nobody_whose_leave_it_has_heard() -> None:
    """After a loss of data, members who are missing from Redis stay listed until other workers have restored them. A
    member whose leave was announced in the meantime does not."""
    changes = [("ann", "come"), ("bob", "come"), ("eve", "come"), ("bob", "go"), ("eve", "go"), ("eve", "come")]
    history, listener = History(changes), Listener()
    replica = Replica(listener.hear, nobody)
    listener.load(replica, Position(EPOCH, 3), history.lists[3])
    replica.health.lose()
    for event in history.events[3:]:
        replica.hear(event)
    replica.load(Position(EPOCH, 6), {}, keep=True)
    assert set(listener.view) == {"ann", "eve"}


def test_a_callback_runs_right_after_the_event_that_it_waits_for() -> None:
    history = History([("ann", "come"), ("ann", "say"), ("ann", "say")])
    log: list[Any] = []
    replica = Replica(lambda event: log.append(event.kind), nobody)
    replica.load(Position(EPOCH, 0), {})
    replica.reach(Position(EPOCH, 2)).when(lambda _: log.append("two"))
    for event in history.events:
        replica.hear(event)
    assert log == ["joined", "message", "two", "message"]


def test_the_body_of_an_event_may_have_any_bytes() -> None:
    data = b"message\x007\x003\x00client\x00user\x00\x00a\x00b\xff"
    assert parse_event(data) == Event("message", Position(7, 3), "client", "user", None, b"a\0b\xff")


def test_a_paused_copy_takes_in_no_events() -> None:
    """Each callback still runs at its own position."""
    history = History([("ann", "come"), ("ann", "say"), ("bob", "come")])
    log: list[Any] = []
    replica = Replica(lambda event: log.append(event.kind), nobody)
    replica.load(Position(EPOCH, 0), {})
    replica.pause()
    replica.pause()
    for event in history.events:
        replica.hear(event)
    assert log == []
    replica.reach(Position(EPOCH, 2)).when(lambda _: log.append("two"))
    replica.resume()
    assert log == []
    replica.resume()
    assert log == ["joined", "message", "two", "joined"]


def test_a_user_with_a_local_connection_has_not_left() -> None:
    """If an event or a snapshot says so, the copy asks to be healed, and tells no event."""
    history, listener = History([("ann", "come"), ("bob", "come"), ("ann", "go"), ("bob", "go")]), Listener()
    replica = Replica(listener.hear, lambda user: user == "ann")
    replica.load(Position(EPOCH, 0), {})
    for event in history.events:
        replica.hear(event)
    assert set(listener.view) == {"ann"}
    assert replica.health.needs_heal_now
    replica.health.heal_starts()
    assert not replica.health.needs_heal_now
    replica.health.lose()
    replica.load(Position(EPOCH + 1, 9), {})
    assert set(listener.view) == {"ann"}
    assert replica.health.needs_heal_now


def test_giving_up_fails_everything_that_waits() -> None:
    replica = Replica(lambda event: None, nobody)
    waiting = replica.reach(Position(EPOCH, 1))
    assert replica.awaited
    replica.give_up(BackendUnavailable("gone"))
    assert not replica.awaited
    outcomes: list[Any] = []
    waiting.when(outcomes.append)
    with pytest.raises(BackendUnavailable):
        outcomes[0]()
