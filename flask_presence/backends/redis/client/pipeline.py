"""Runs operations on Redis in the loop. Calls that are asked for while Redis is busy are sent together afterwards.

Rule: nothing blocks. Operations start in the order in which they were asked for. If one fails, the others do not. While
Redis is down, all fail at once. A call whose reply was lost is never sent again.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, NamedTuple, Protocol, TypeVar

from ....domain.errors import BackendUnavailable
from ....loops.base import Loop
from ....loops.pending import Pending, raising
from ..store.calls import Call, Operation, Refused
from .client import Client, Exchange
from .loop_connection import LoopConnection

T = TypeVar("T")

log = logging.getLogger("flask_presence")

MAX_BATCH: Final = 256
"""The maximum number of calls sent together, unless a single operation yields more."""


class Pausable(Protocol):
    """Something that is paused while a reply is on its way: a replica."""

    def pause(self) -> None: ...
    def resume(self) -> None: ...


class _Step(NamedTuple):
    """An operation, the calls that it yielded last, and what is paused until they are answered."""

    operation: Operation[Any]
    yielded: Call | list[Call]
    pending: Pending[Any]
    paused: Pausable | None

    @property
    def calls(self) -> list[Call]:
        return self.yielded if isinstance(self.yielded, list) else [self.yielded]


class Pipeline:
    """Sends the calls of operations, one batch after another, on a connection of its own.

    The first batch is sent at the end of the loop's iteration, so that whatever is asked for in one iteration travels
    together. `failed` is called when the connection was lost or refused, and `replaced` when a new connection is to
    another run of Redis, before anything is sent on it.
    """

    def __init__(
        self,
        client: Client,
        loop: Loop,
        failed: Callable[[BackendUnavailable], object],
        replaced: Callable[[], object] = lambda: None,
    ) -> None:
        self._client = client
        self._loop = loop
        self._failed = failed
        self._replaced = replaced
        self._run_id: str | None = None
        self._waiting: deque[_Step] = deque()
        self._batch: list[_Step] = []
        self._exchange: Exchange
        self._unanswered = 0
        self._replies: list[Any] = []
        self._sent_at = 0.0
        self._is_busy = False
        self._connection: LoopConnection | None = None
        self._closed = False

    @property
    def idle(self) -> bool:
        """Whether no operation is under way."""
        return not self._waiting and not self._is_busy

    def run(self, operation: Operation[T], paused: Pausable | None = None) -> Pending[T]:
        """Start an operation, in the loop. Returns its outcome.

        `paused` is paused from the moment at which a call is sent until its reply has been handled.
        """
        pending: Pending[T] = Pending()
        self._advance(operation, partial(next, operation), pending, paused)
        if self._waiting and not self._is_busy:
            self._is_busy = True
            self._loop.soon(self._begin)
        return pending

    def fail_all(self, problem: BackendUnavailable) -> None:
        """Fail all operations whose calls have not been sent yet."""
        waiting, self._waiting = self._waiting, deque()
        for step in waiting:
            self._throw_into(step, problem)

    def tick(self, now: float) -> None:
        """Give up the connection if Redis has been silent for too long, at `now` in seconds of the monotonic clock. The
        replies to a batch may take longer, as long as they keep arriving."""
        connection = self._connection
        if connection is None or not self._is_overdue(connection, now):
            return
        connection.read()  # if the process has been paused, the answer may be there, or the beginning of a long one
        if self._connection is connection and self._is_overdue(connection, now):
            connection.close()
            self._lost(TimeoutError(f"no answer within {self._client.timeout:g} seconds"))

    def _is_overdue(self, connection: LoopConnection, now: float) -> bool:
        return bool(self._batch) and now >= max(self._sent_at, connection.heard_at) + self._client.timeout

    def leave_old_master(self) -> None:
        """Give up the connection if it is to a server that is no longer the master."""
        connection = self._connection
        if connection is not None and self._client.is_outdated(connection.raw):
            connection.close()
            self._lost(ConnectionError("another server is the master now"))

    def close(self) -> None:
        """Close the connection."""
        self._closed = True
        if self._connection is not None:
            self._connection.close()

    def _begin(self) -> None:
        if self._connection is None:
            self._loop.spawn(self._connect)
        else:
            self._send_next()

    def _connect(self) -> None:
        """Off the loop: connecting blocks."""
        try:
            connection = self._client.connect(for_calls=True)
            run_id = self._client.run_id(connection)
        except BackendUnavailable as problem:
            self._loop.run(partial(self._fail_next, problem))
        except Exception as problem:
            log.exception("no connection to Redis could be made")
            self._loop.run(partial(self._fail_next, _client_failed(problem)))
        else:
            self._loop.run(partial(self._connected, connection, run_id))

    def _connected(self, connection: Any, run_id: str) -> None:
        before, self._run_id = self._run_id, run_id
        if before is not None and (before != run_id or not run_id):
            self._replaced()
        self._connection = LoopConnection(connection, self._loop, self._received, self._lost)
        if self._closed:
            self._connection.close()
        self._send_next()

    def _fail_next(self, problem: BackendUnavailable) -> None:
        self._batch = self._next_batch()
        self._fail_batch(problem)

    def _send_next(self) -> None:
        self._batch = batch = self._next_batch()
        self._is_busy = bool(batch)
        if batch:
            try:
                self._exchange = self._client.exchange([call for step in batch for call in step.calls])
                self._send(next(self._exchange))
            except Exception as problem:  # before anything was sent: a word of a call cannot be encoded
                log.exception("calls to Redis failed, and the operations that made them fail too")
                self._fail_batch(_client_failed(problem))

    def _next_batch(self) -> list[_Step]:
        batch: list[_Step] = []
        size = 0
        while self._waiting and (not batch or size + len(self._waiting[0].calls) <= MAX_BATCH):
            batch.append(self._waiting.popleft())
            size += len(batch[-1].calls)
        for step in batch:
            if step.paused is not None:
                step.paused.pause()
        return batch

    def _send(self, commands: list[tuple[Any, ...]]) -> None:
        assert self._connection is not None, "calls are sent on a connection"
        self._unanswered = len(commands)
        self._sent_at = time.monotonic()
        self._connection.send(commands)

    def _received(self, replies: list[Any]) -> None:
        self._replies += replies
        if len(self._replies) < self._unanswered:
            return
        replies, self._replies = self._replies, []
        try:
            commands = self._exchange.send(replies)
        except StopIteration as end:
            self._finish(end.value)
        else:
            self._send(commands)

    def _lost(self, problem: Exception) -> None:
        self._connection = None
        self._replies = []
        if self._batch:
            self._fail_batch(self._client.lost_reply(problem))

    def _fail_batch(self, problem: BackendUnavailable) -> None:
        self._finish([problem] * sum(len(step.calls) for step in self._batch))

    def _finish(self, replies: Sequence[Any]) -> None:
        """Advance the operations of the batch with their replies. Then send what has been asked for meanwhile."""
        batch, self._batch = self._batch, []
        failure = _problem_in(replies)
        if failure is not None and not isinstance(failure, Refused):
            self._failed(failure)
        at = 0
        for step in batch:
            if isinstance(step.yielded, list):
                reply = replies[at : at + len(step.yielded)]
                problem = None if failure is None else _problem_in(reply)
                at += len(step.yielded)
            else:
                reply = replies[at]
                problem = reply if isinstance(reply, BackendUnavailable) else None
                at += 1
            if problem is not None:
                self._throw_into(step, problem)
            else:
                self._advance(step.operation, partial(step.operation.send, reply), step.pending, step.paused)
        for step in batch:
            if step.paused is not None:
                _resume(step.paused)
        if not self._waiting:
            self._is_busy = False
        elif self._connection is not None:
            self._send_next()
        else:
            self._loop.soon(self._begin)

    def _throw_into(self, step: _Step, problem: BackendUnavailable) -> None:
        self._advance(step.operation, partial(step.operation.throw, problem), step.pending, step.paused)

    def _advance(
        self,
        operation: Operation[Any],
        resume: Callable[[], Call | list[Call]],
        pending: Pending[Any],
        paused: Pausable | None,
    ) -> None:
        """Resume an operation, and queue the calls that it yields, or settle its outcome."""
        try:
            yielded = resume()
            while yielded == []:  # Redis would answer nothing
                yielded = operation.send([])
        except StopIteration as end:
            value = end.value
            pending.settle(lambda: value)
        except Exception as problem:
            pending.settle(raising(problem))
        else:
            self._waiting.append(_Step(operation, yielded, pending, paused))


def _resume(paused: Pausable) -> None:
    """Resume what was paused. If that fails, the other operations must go on."""
    try:
        paused.resume()
    except Exception:
        log.exception("what was heard during a call to Redis could not be handled")


def _client_failed(problem: Exception) -> BackendUnavailable:
    return BackendUnavailable(f"the client of Redis failed: {problem}")


def _problem_in(replies: Sequence[Any]) -> BackendUnavailable | None:
    """The first problem among replies."""
    for reply in replies:
        if isinstance(reply, BackendUnavailable):
            return reply
    return None
