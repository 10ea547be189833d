"""The channels that keep messages in Redis can be added up, and no message costs a call more for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flask_presence.backends.redis.store.calls import Call, Operation
from flask_presence.backends.redis.store.history import BATCH, HistoryOperations
from flask_presence.backends.redis.store.history_index import RENEW_EVERY
from flask_presence.backends.redis.store.keys import Keys
from flask_presence.domain.history import MAX_LOG_BYTES, HistorySize, Retention

from ..support.store import Client

T = TypeVar("T")
HOUR = Retention(messages=5, seconds=3600)
CHANNELS = ["room", "presence-room", "private-{\u00e4}%"]


class Histories:
    """The histories under a prefix of their own, with a clock that the test sets."""

    def __init__(self, client: Client, prefix: str) -> None:
        self.keys = Keys(prefix)
        self.client = client
        self.now = 1000.0
        self.sent: list[list[Call]] = []
        self.new_process()

    def new_process(self) -> HistoryOperations:
        """Continue as another process, which has noted nothing yet."""
        self._operations = HistoryOperations(self.keys, lambda: self.now)
        return self._operations

    def publish(self, channel: str, data: str = "hello", retention: Retention = HOUR) -> None:
        self._run(self._operations.publish(channel, b'{"data":"%s"}' % data.encode(), None, retention))

    def clear(self, channel: str) -> int:
        return self._run(self._operations.clear(channel))

    def size(self, channel: str) -> HistorySize:
        return self._run(self._operations.size(channel))

    def total(self) -> HistorySize:
        return self._run(self._operations.total_size())

    def readable(self, channel: str) -> HistorySize:
        """The size of what can be read."""
        messages = self._run(self._operations.extract(channel)).messages
        return HistorySize(len(messages), sum(len(message.frame) for message in messages))

    def _run(self, operation: Operation[T]) -> T:
        return self.client.run(self._noting(operation))

    def _noting(self, operation: Operation[T]) -> Operation[T]:
        """The same operation; the calls of each round trip are noted in `sent`."""
        reply: Any = None
        while True:
            try:
                yielded = operation.send(reply)
            except StopIteration as end:
                result: T = end.value
                return result
            self.sent.append(yielded if isinstance(yielded, list) else [yielded])
            reply = yield yielded


@pytest.fixture
def histories(redis_client: Client, prefix: str) -> Iterator[Histories]:
    made = Histories(redis_client, prefix)
    yield made
    for call in (call for calls in made.sent for call in calls):
        tags = {key.partition("{")[2].partition("}")[0] or key for key in call.keys}
        assert len(tags) == 1, f"{call.name} needs several slots of a cluster"


def test_publishing_notes_the_channel_once_a_minute(histories: Histories) -> None:
    """Every other message is one call."""
    for moment, wanted in ((0, 2), (1, 1), (RENEW_EVERY - 1, 1), (RENEW_EVERY, 2), (RENEW_EVERY + 1, 1)):
        histories.now = 1000 + moment
        histories.publish("room")
        assert len(histories.sent[-1]) == wanted
    histories.publish("another")
    assert len(histories.sent[-1]) == 2


def test_the_note_goes_out_together_with_the_message(histories: Histories) -> None:
    histories.publish("room")
    assert [[call.name for call in calls] for calls in histories.sent] == [["index_history", "publish_kept"]]


def test_many_channels_are_added_up_in_small_round_trips(histories: Histories) -> None:
    """Those of all processes count."""
    count = 2 * BATCH + 10
    for number in range(count):
        if number % 100 == 0:
            histories.new_process()
        histories.publish(f"room-{number}", "x" * number)
    sizes = [histories.size(f"room-{number}") for number in range(count)]
    histories.sent.clear()
    assert histories.total() == (count, sum(size.bytes for size in sizes))
    assert max(len(calls) for calls in histories.sent) == 2 * BATCH
    assert len(histories.sent) == 4


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["publish", "publish", "publish", "clear", "lose"]),
            st.sampled_from(CHANNELS),
            st.integers(0, 2000),
            st.integers(1, 4),
        ),
        max_size=20,
    )
)
def test_the_figures_are_those_of_what_can_be_read(
    redis_client: Client, prefix: str, steps: list[tuple[str, str, int, int]]
) -> None:
    """Whatever is published, trimmed, forgotten, and lost by Redis."""
    histories = Histories(redis_client, prefix)
    for channel in CHANNELS:
        redis_client.redis.delete(*histories.keys.channel(channel), *histories.keys.history(channel))
    for step, channel, length, most in steps:
        if step == "publish":
            histories.publish(channel, "x" * length, Retention(most, 60))
        elif step == "clear":
            histories.clear(channel)
            assert histories.size(channel) == (0, 0)
        else:
            redis_client.redis.delete(histories.keys.channel(channel)[0])
        sizes = [histories.size(channel) for channel in CHANNELS]
        assert sizes == [histories.readable(channel) for channel in CHANNELS]
        assert histories.total() == (sum(size.messages for size in sizes), sum(size.bytes for size in sizes))


def test_no_channel_counts_for_more_than_it_may_keep(histories: Histories) -> None:
    for _ in range(6):
        histories.publish("room", "x" * 1_000_000, Retention(10_000, 60))
    messages, size = histories.total()
    assert (messages, size <= MAX_LOG_BYTES) == (4, True)


def test_the_index_forgets_channels_whose_messages_have_expired(histories: Histories) -> None:
    """It does so although nobody asks for the sum, and vanishes when the last messages have expired."""
    redis, key = histories.client.redis, histories.keys.histories
    histories.publish("stays")
    histories.client.run_calls([Call("index_history", (key,), ("gone", "-1"))])
    assert redis.zrange(key, 0, -1) == [b"gone", b"stays"]
    assert redis.pttl(key) > HOUR.seconds * 1000
    histories.publish("short", retention=Retention(5, 1))
    assert redis.zrange(key, 0, -1) == [b"short", b"stays"]
    assert HOUR.seconds * 1000 < redis.pttl(key) <= (HOUR.seconds + 2 * RENEW_EVERY) * 1000
    redis.delete(key)
    histories.publish("room", retention=Retention(5, 1))
    assert 0 < redis.pttl(key) <= (1 + 2 * RENEW_EVERY) * 1000


def test_a_shorter_time_in_another_process_forgets_nothing(histories: Histories) -> None:
    """While the app is deployed, workers may have different settings."""
    redis, key = histories.client.redis, histories.keys.histories
    histories.publish("room")
    noted = redis.zscore(key, "room")
    histories.new_process()
    histories.publish("room", retention=Retention(5, 1))
    assert redis.zscore(key, "room") == noted


def test_a_lost_index_is_complete_again_within_a_minute(histories: Histories) -> None:
    histories.publish("room")
    histories.client.redis.delete(histories.keys.histories)
    histories.publish("room")
    assert histories.total() == (0, 0)
    histories.now += RENEW_EVERY
    histories.publish("room")
    assert histories.total() == histories.size("room") == histories.readable("room")
    assert histories.size("room").messages == 3


def test_a_note_without_an_answer_is_repeated(histories: Histories) -> None:
    """The connection to Redis was cut, for instance."""
    operations = histories.new_process()
    first = operations.publish("room", b"{}", None, HOUR)
    next(first)
    first.close()
    histories.publish("room")
    assert [call.name for call in histories.sent[-1]] == ["index_history", "publish_kept"]
