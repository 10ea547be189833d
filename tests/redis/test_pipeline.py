"""Operations that travel to Redis together: each gets its own outcome, in order."""

from __future__ import annotations

import threading
from functools import partial
from typing import Any, TypeVar

import pytest

from flask_presence.backends.redis.client.pipeline import Pipeline
from flask_presence.backends.redis.store.calls import Operation
from flask_presence.domain.channels import ChannelName
from flask_presence.domain.errors import BackendUnavailable, JoinFailed, NotFound
from flask_presence.domain.roster import Joiner
from flask_presence.loops.pending import Pending
from flask_presence.loops.thread_loop import ThreadLoop

from ..support.redis_server import running_redis
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
