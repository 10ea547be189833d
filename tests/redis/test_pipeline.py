"""Operations that travel to Redis together: each gets its own outcome, in order."""

from __future__ import annotations

import select
import threading
import time
from functools import partial
from typing import Any, TypeVar

import pytest

from flask_presence.backends.redis.client.pipeline import Pipeline
from flask_presence.backends.redis.store.calls import Call, Operation
from flask_presence.domain.channels import ChannelName
from flask_presence.domain.errors import BackendUnavailable, JoinFailed, NotFound
from flask_presence.domain.roster import Joiner
from flask_presence.loops.inline_loop import InlineLoop
from flask_presence.loops.pending import Pending
from flask_presence.loops.thread_loop import ThreadLoop

from ..support.redis_server import running_redis
from ..support.server import wait_until
from ..support.store import Client, store_of
from .test_channel_operations import ANN, BOB, NOW, ROOM

T = TypeVar("T")
LOBBY = ChannelName("lobby")


class Counted(Client):
    """A client that records the sizes of its batches."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.batches: list[int] = []

    def exchange(self, calls: Any) -> Any:
        self.batches.append(len(calls))
        return super().exchange(calls)


def all_of(loop: ThreadLoop, pipeline: Pipeline, operations: list[Operation[Any]]) -> list[Any]:
    """The outcomes, values or errors, of operations that start in one step."""
    outcomes: dict[int, Any] = {}
    done = threading.Event()

    def note(at: int, outcome: Any) -> None:
        try:
            outcomes[at] = outcome().value
        except Exception as problem:
            outcomes[at] = problem
        if len(outcomes) == len(operations):
            done.set()

    def begin() -> None:
        pendings: list[Pending[Any]] = [pipeline.run(operation) for operation in operations]
        for at, pending in enumerate(pendings):
            pending.when(partial(note, at))

    loop.run(begin)
    assert done.wait(20)
    return [outcomes[at] for at in range(len(operations))]


def pipeline_on(client: Client, loop: ThreadLoop) -> Pipeline:
    return Pipeline(client, loop, lambda problem: None)


@pytest.fixture(scope="module")
def loop() -> ThreadLoop:
    return ThreadLoop()


def test_a_thousand_operations_travel_in_a_few_batches(redis_server: Any, loop: ThreadLoop, prefix: str) -> None:
    """They are done in order."""
    client, operations = Counted(redis_server.url), store_of(prefix, max_info=20).channels("worker")
    pipeline = pipeline_on(client, loop)
    joins: list[Operation[Any]] = [
        operations.join(Joiner(LOBBY, str(number), None, None, NOW)) for number in range(1000)
    ]
    messages: list[Operation[Any]] = [operations.publish(LOBBY, b"", str(number)) for number in (0, 999, "x")]
    outcomes = all_of(loop, pipeline, [*joins, *messages])
    assert [outcome.entry for outcome in outcomes[:1000]] == [None] * 1000
    assert outcomes[1000:] == [999, 999, 1000]
    assert sum(client.batches) == 3 * 1000 + 3
    assert len(client.batches) <= 20
    client.close()


def test_each_operation_gets_its_own_outcome(redis_server: Any, loop: ThreadLoop, prefix: str) -> None:
    """The batch has an error, a merge of several calls, and scripts that Redis forgot."""
    client, operations = Client(redis_server.url), store_of(prefix, max_info=20).channels("worker")
    pipeline = pipeline_on(client, loop)
    all_of(loop, pipeline, [operations.join(Joiner(ROOM, "1", ANN, {"x": 1}, NOW))])
    client.redis.script_flush()
    refused, merged, too_large, updated = all_of(
        loop,
        pipeline,
        [
            operations.leave(LOBBY, "1"),
            operations.join(Joiner(ROOM, "2", ANN, {"y": 2}, NOW)),
            operations.join(Joiner(ROOM, "3", BOB, {"x": "x" * 50}, NOW)),
            operations.update(ROOM, "1", {"x": None}, NOW),
        ],
    )
    assert isinstance(refused, NotFound)
    assert merged.change.kind == updated[1].kind == "updated"
    assert isinstance(too_large, JoinFailed)
    end = client.run(operations.snapshot(ROOM)).value.entries
    assert [dict(entry.document.info) for entry in end.values()] == [{"y": 2}]
    client.close()


def test_operations_under_way_fail_if_redis_stops(program: str, loop: ThreadLoop, prefix: str) -> None:
    """Operations after its return succeed."""
    with running_redis(program) as server:
        client, operations = Client(server.url), store_of(prefix, max_info=20).channels("worker")
        pipeline = pipeline_on(client, loop)
        all_of(loop, pipeline, [operations.join(Joiner(LOBBY, "1", None, None, NOW))])
        server.stop()
        failed = all_of(
            loop, pipeline, [operations.join(Joiner(LOBBY, str(number), None, None, NOW)) for number in range(5)]
        )
        assert [type(outcome) for outcome in failed] == [BackendUnavailable] * 5
        server.start()
        assert all_of(loop, pipeline, [operations.join(Joiner(LOBBY, "1", None, None, NOW))])[0].entry is None
        client.close()


def test_another_run_of_redis_is_told_from_a_lost_connection(program: str, loop: ThreadLoop, prefix: str) -> None:
    """Its data may be older than what it has published."""
    replaced: list[bool] = []
    with running_redis(program) as server:
        client, operations = Client(server.url), store_of(prefix, max_info=20).channels("worker")
        pipeline = Pipeline(client, loop, lambda problem: None, lambda: replaced.append(True))

        def join() -> list[Any]:
            return all_of(loop, pipeline, [operations.join(Joiner(LOBBY, "1", None, None, NOW))])

        join()
        client.redis.client_kill_filter(skipme=True)
        wait_until(lambda: pipeline._connection is None)
        join()
        assert replaced == []
        server.stop()
        wait_until(lambda: pipeline._connection is None)
        server.start()
        join()
        assert replaced == [True]
        client.close()


class Attended:
    """Lets a loop without a thread wait for a pipeline, whose time stands still."""

    ended = False

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline

    @property
    def is_behind(self) -> bool:
        return not self._pipeline.idle

    def tick(self, now: float) -> None:
        """Do nothing."""


def ask(*words: str) -> Operation[Any]:
    return (yield Call(words[0], words[1:]))


def ask_nothing() -> Operation[str]:
    replies = yield []
    assert replies == []
    return "done"


def test_an_operation_without_calls_waits_for_nothing(redis_server: Any) -> None:
    """The end of the last grace period of a worker asks for such a round trip."""
    client, loop, failed = Client(redis_server.url), InlineLoop(), list[Exception]()
    pipeline = Pipeline(client, loop, failed.append)
    outcome = pipeline.run(ask_nothing())
    assert outcome.settled
    assert pipeline.idle
    client.close()


def test_a_long_reply_that_begins_while_the_process_stands_still_is_read(redis_server: Any, prefix: str) -> None:
    """More than one read is needed for it, so it is not complete when the process sees that it is late."""
    client, loop, failed = Client(redis_server.url), InlineLoop(), list[Exception]()
    pipeline = Pipeline(client, loop, failed.append)
    loop.add_source(Attended(pipeline))
    pipeline.run(ask("PING"))
    loop.settle()
    client.redis.set(prefix, b"x" * 1_000_000)
    outcomes: list[Any] = []
    pipeline.run(ask("GET", prefix)).when(lambda outcome: outcomes.append(outcome()))
    for callback in list(loop._waiting):
        callback()
    loop._waiting.clear()
    assert pipeline._connection is not None
    assert select.select([pipeline._connection._sock], [], [], 20)[0]
    pipeline.tick(time.monotonic() + client.timeout)
    pipeline.tick(time.monotonic())
    loop.settle()
    assert [len(value) for value in outcomes] == [1_000_000]
    assert not failed
    client.redis.delete(prefix)
    pipeline.close()
    client.close()


class Broken:
    """Something that cannot be resumed."""

    def pause(self) -> None:
        """Do nothing."""

    def resume(self) -> None:
        raise ValueError("an event cannot be read")


def test_what_cannot_be_resumed_stops_no_other_operation(
    redis_server: Any, loop: ThreadLoop, caplog: pytest.LogCaptureFixture
) -> None:
    client = Client(redis_server.url)
    pipeline = pipeline_on(client, loop)
    answers: list[Any] = []
    done = threading.Event()

    def note(outcome: Any) -> None:
        answers.append(outcome())
        if len(answers) == 2:
            done.set()
        else:
            loop.soon(lambda: pipeline.run(ask("PING")).when(note))

    loop.run(lambda: pipeline.run(ask("PING"), Broken()).when(note))
    assert done.wait(20)
    assert answers == [b"PONG"] * 2
    assert "an event cannot be read" in caplog.text
    client.close()


def test_a_call_that_cannot_be_encoded_fails_at_once(redis_server: Any) -> None:
    """Those that were to travel with it fail too, and later ones succeed."""
    client, loop, failed = Client(redis_server.url), InlineLoop(), list[Exception]()
    pipeline = Pipeline(client, loop, failed.append)
    loop.add_source(Attended(pipeline))
    outcomes: list[Any] = []
    for words in (("PING",), ("GET", "\ud800")):
        pipeline.run(ask(*words)).when(outcomes.append)
    loop.settle()
    assert pipeline.idle
    for outcome in outcomes:
        with pytest.raises(BackendUnavailable, match="the client of Redis failed"):
            outcome()
    assert len(outcomes) == 2
    pipeline.run(ask("PING")).when(outcomes.append)
    loop.settle()
    assert outcomes[2]() == b"PONG"
    pipeline.close()
    client.close()
