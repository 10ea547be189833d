"""Runs operations on Redis off the loop. Calls that are asked for while Redis is busy are sent together afterwards.

Rule: operations start in the order in which they were asked for, and are settled in the loop. If one fails, the others
do not. While Redis is down, all fail at once.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, NamedTuple, Protocol, TypeVar

from ....domain.errors import BackendUnavailable
from ....loops.base import Loop
from ....loops.pending import Pending, raising
from ..store.calls import Call, Operation, Refused
from .client import Client

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
    """Sends the calls of operations off the loop, one batch after another.

    It uses one greenlet or thread, which ends when nothing is left to send. `failed` is called in the loop when the
    connection was lost or refused.
    """

    def __init__(self, client: Client, loop: Loop, failed: Callable[[BackendUnavailable], object]) -> None:
        self._client = client
        self._loop = loop
        self._failed = failed
        self._waiting: deque[_Step] = deque()
        self._working = False

    @property
    def idle(self) -> bool:
        """Whether no operation is under way."""
        return not self._waiting and not self._working

    def run(self, operation: Operation[T], paused: Pausable | None = None) -> Pending[T]:
        """Start an operation, in the loop. Returns its outcome.

        `paused` is paused from the moment at which a call is sent until its reply has been handled.
        """
        pending: Pending[T] = Pending()
        self._advance(operation, partial(next, operation), pending, paused)
        self._ensure_working()
        return pending

    def fail_all(self, problem: BackendUnavailable) -> None:
        """Fail all operations whose calls have not been sent yet."""
        waiting, self._waiting = self._waiting, deque()
        for step in waiting:
            self._throw_into(step, problem)

    def _ensure_working(self) -> None:
        if self._waiting and not self._working:
            self._working = True
            self._loop.spawn(self._work)

    def _work(self) -> None:
        batch = self._loop.run(self._next_batch)
        while batch:
            calls = [call for step in batch for call in step.calls]
            try:
                replies = self._client.run_calls(calls)
            except Exception as problem:
                log.exception("calls to Redis failed, and the operations that made them fail too")
                replies = [BackendUnavailable(f"the client of Redis failed: {problem}")] * len(calls)
            batch = self._loop.run(partial(self._handle_replies, batch, replies))

    def _next_batch(self) -> list[_Step]:
        batch: list[_Step] = []
        size = 0
        while self._waiting and (not batch or size + len(self._waiting[0].calls) <= MAX_BATCH):
            batch.append(self._waiting.popleft())
            size += len(batch[-1].calls)
        self._working = bool(batch)
        for step in batch:
            if step.paused is not None:
                step.paused.pause()
        return batch

    def _handle_replies(self, batch: list[_Step], replies: Sequence[Any]) -> list[_Step]:
        """Advance the operations of a batch. Returns the next batch."""
        failure = next((reply for reply in replies if isinstance(reply, BackendUnavailable)), None)
        if failure is not None and not isinstance(failure, Refused):
            self._failed(failure)
        at = 0
        for step in batch:
            own = replies[at : at + len(step.calls)]
            at += len(step.calls)
            problem = next((reply for reply in own if isinstance(reply, BackendUnavailable)), None)
            if problem is not None:
                self._throw_into(step, problem)
            else:
                reply = own if isinstance(step.yielded, list) else own[0]
                self._advance(step.operation, partial(step.operation.send, reply), step.pending, step.paused)
        for step in batch:
            if step.paused is not None:
                step.paused.resume()
        return self._next_batch()

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
        except StopIteration as end:
            value = end.value
            pending.settle(lambda: value)
        except Exception as problem:
            pending.settle(raising(problem))
        else:
            self._waiting.append(_Step(operation, yielded, pending, paused))
