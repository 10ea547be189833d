"""The log of kept messages, against a model that keeps everything."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_presence.domain import history
from flask_presence.domain.history import (
    MAX_ANSWER_BYTES,
    MAX_LOG_BYTES,
    Extract,
    HistoryRules,
    KeptMessage,
    MessageLog,
    Position,
    Replay,
    Retention,
    Tail,
    messages_after,
    parse_position,
    replay,
)

EPOCH = 7
SIZES = st.sampled_from([1, 10, 5_000, 70_000, 200_000, 300_000])
SEND = st.tuples(st.just("send"), SIZES)


def steps_of(*others: str) -> st.SearchStrategy[list[tuple[str, int]]]:
    """Many messages, and these other steps between them."""
    return st.lists(SEND | SEND | st.tuples(st.sampled_from(others), st.just(0)), min_size=12, max_size=60)


LIMITS = st.none() | st.sampled_from([1, 2, 3, 50, 1000])


def frame(number: int, size: int) -> bytes:
    """A frame that says which message it is."""
    return f"{number}:".encode().ljust(size, b"x")


def numbers(frames: tuple[bytes, ...] | None) -> list[int]:
    return [int(one.partition(b":")[0]) for one in frames or ()]


def fits(sizes: list[int]) -> bool:
    return sum(sizes) <= MAX_ANSWER_BYTES


@given(
    retention=st.builds(Retention, st.sampled_from([1, 3, 60, 10_000]), st.just(10.0)),
    steps=steps_of("join", "join", "join", "clear", "expire"),
    data=st.data(),
)
def test_what_is_recovered_is_exactly_what_was_missed(
    retention: Retention, steps: list[tuple[str, int]], data: st.DataObject
) -> None:
    """`recovered` is true if and only if every message since then is kept and fits into an answer."""
    log, now, sizes, forgotten = MessageLog(retention, EPOCH, 0), 0.0, list[int](), 0
    for step, size in steps:
        if step == "send":
            assert log.next_id == f"{EPOCH}-{len(sizes) + 1}"
            assert log.add(frame(len(sizes) + 1, size), None, 3, now).is_new
            sizes.append(len(frame(len(sizes) + 1, size)))
        elif step == "clear":
            log.clear()
            forgotten = len(sizes)
        elif step == "expire":
            now = log.ends_at
            log.expire(now)
            forgotten = len(sizes)
        elif step == "join":
            first = forgotten
            while len(sizes) - first > retention.messages or sum(sizes[first:]) > MAX_LOG_BYTES:
                first += 1
            since = data.draw(st.integers(0, len(sizes)), label="since")
            limit = data.draw(LIMITS, label="limit")
            found = log.replay(Replay(f"{EPOCH}-{since}", limit))
            assert found.position == f"{EPOCH}-{len(sizes)}"
            if since >= first and fits(sizes[since:]):
                assert (found.recovered, numbers(found.messages)) == (True, list(range(since + 1, len(sizes) + 1)))
            else:
                assert not found.recovered
                chosen = numbers(found.messages)
                assert chosen == list(range(len(sizes) - len(chosen) + 1, len(sizes) + 1))
                assert len(chosen) <= (limit or 50)
                assert len(chosen) == 1 or fits([sizes[number - 1] for number in chosen])
                assert chosen or first == len(sizes)
            assert len(log) == len(sizes) - first
            assert log.size == sum(sizes[first:])


@given(st.integers(1, 30), st.integers(0, 40), st.integers(1, 40))
def test_pages_add_up_to_all_kept_messages(kept: int, sent: int, limit: int) -> None:
    log = MessageLog(Retention(kept, 10), EPOCH, 0)
    for number in range(1, sent + 1):
        log.add(frame(number, 10), None, 0, 0)
    found: list[int] = []
    before: Position | None = None
    while True:
        page = log.page(limit, before)
        assert len(page.messages) <= limit
        found = numbers(page.messages) + found
        if not page.more:
            break
        before = Position(EPOCH, found[0])
    assert found == list(range(max(sent - kept, 0) + 1, sent + 1))
    assert log.page(limit, Position(EPOCH - 1, 10**6)).messages == ()
    assert log.page(50, Position(EPOCH + 1, 0)) == log.page(50, None)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["send", "clear"])), max_size=30), st.integers(1, 4))
def test_a_key_finds_its_message_for_as_long_as_that_is_kept(steps: list[tuple[str, str]], kept: int) -> None:
    log, model = MessageLog(Retention(kept, 10), EPOCH, 0), list[tuple[str, int]]()
    for number, (key, step) in enumerate(steps):
        if step == "clear":
            log.clear()
            model.clear()
            continue
        known = next((delivered for other, delivered in model if other == key), None)
        found = log.find(key)
        assert (None if found is None else found.delivered) == known
        if found is None:
            log.add(frame(number, 5), key, number, 0)
            model = [*model, (key, number)][-kept:]


@given(
    steps=steps_of("hear", "hear", "hear", "join", "join", "lose", "read"),
    kept=st.sampled_from([2, 5, 10_000]),
    data=st.data(),
)
def test_a_worker_recovers_exactly_from_its_tail_and_the_store(
    steps: list[tuple[str, int]], kept: int, data: st.DataObject
) -> None:
    """The worker hears later than the store numbers, and may lose what it has not heard."""
    retention = Retention(kept, 10.0)
    tail, heard, sizes = Tail(retention), 0, list[int]()
    read: Extract | None = None

    def extract() -> Extract:
        """All that the store keeps."""
        kept_now = [KeptMessage(number, number - 1, frame(number, sizes[number - 1])) for number in kept_numbers()]
        return Extract(Position(EPOCH, len(sizes)), len(sizes), kept_now)

    def kept_numbers() -> range:
        first = max(len(sizes) - kept, 0)
        while sum(sizes[first:]) > MAX_LOG_BYTES:
            first += 1
        return range(first + 1, len(sizes) + 1)

    for step, size in steps:
        if step == "send":
            sizes.append(len(frame(len(sizes) + 1, size)))
        elif step == "hear":
            for number in range(heard + 1, min(heard + 3, len(sizes)) + 1):
                tail.add(KeptMessage(number, number - 1, frame(number, sizes[number - 1])), 0)
                heard = number
        elif step == "read":
            read = extract()
        elif step == "lose":
            missed = messages_after(extract(), heard)
            if missed is None:
                tail.start(len(sizes))
            else:
                for message in missed:
                    tail.add(message, 0)
            heard = len(sizes)
        elif step == "join":
            position = Position(EPOCH, heard)
            wanted = Replay(f"{EPOCH}-{data.draw(st.integers(0, heard), label='since')}")
            since = wanted.known_since(position)
            assert since is not None
            if tail.serves(wanted, position):
                found = replay(tail.extract(position), wanted)
            else:
                continued = tail.continued(read or extract(), position)
                read = None
                if continued is None:
                    continue
                found = replay(continued, wanted)
            if found.recovered:
                assert numbers(found.messages) == list(range(since + 1, heard + 1))
            else:
                assert since + 1 not in kept_numbers() or not fits(sizes[since:heard])


@pytest.mark.parametrize(
    "text", ["", "7", "7-", "-7", "7-07", "07-7", "7-7-7", "\u0667-\u0667", " 7-7", "7-7\n", "1" * 17 + "-1"]
)
def test_only_the_text_of_a_position_is_a_position(text: str) -> None:
    assert parse_position(text) is None
    assert parse_position(str(Position(7, 8))) == Position(7, 8)


def test_the_most_specific_rule_decides() -> None:
    """A pattern may match the name or the topic, as a guard's."""
    rules = {"*": 1, "room-*": 2, "presence-room-*": 3, "room-1": 4}
    found = HistoryRules({text: Retention(messages, 1) for text, messages in rules.items()})
    expected: dict[str, Any] = {"news": 1, "room-2": 2, "private-room-2": 2, "presence-room-2": 3, "private-room-1": 4}
    assert {name: (found.find(name) or (0,))[0] for name in expected} == expected
    assert HistoryRules({}).find("news") is None


def test_the_bounds_are_those_of_the_protocol() -> None:
    assert (history.DEFAULT_LIMIT, history.MAX_LIMIT) == (50, 1000)
    assert (MAX_ANSWER_BYTES, MAX_LOG_BYTES) == (256 * 1024, 4 * 1024 * 1024)
