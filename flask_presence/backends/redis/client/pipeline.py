"""ChannelOperations of a process, put together: what is asked for while Redis is busy with one lot is the next lot.

Law: operations are begun in the order in which they were asked for, and settled in the loop; one that fails, or is
lost with the connection, harms no other. While Redis is away they fail at once.
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

LOT: Final = 256
"""Calls that are sent together, at the most (or one operation's, if these are more)."""


class Halt(Protocol):
    """What must stand still while an answer is on its way: a replica."""

    def pause(self) -> None: ...
    def resume(self) -> None: ...


class _Step(NamedTuple):
    """An operation, what it asks next, and what stands still until that is answered."""

    operation: Operation[Any]
    asked: Call | list[Call]
    pending: Pending[Any]
    halt: Halt | None

    @property
    def calls(self) -> list[Call]:
        return self.asked if isinstance(self.asked, list) else [self.asked]


class Pipeline:
    """Drives operations beside the loop, by one worker, which is there only while there is work.

    `failed` is called in the loop when a lot has been lost.
    """

    def __init__(self, client: Client, loop: Loop, failed: Callable[[BackendUnavailable], object]) -> None:
        self._client = client
        self._loop = loop
        self._failed = failed
        self._waiting: deque[_Step] = deque()
        self._working = False

    @property
    def idle(self) -> bool:
        """Whether nothing is under way."""
        return not self._waiting and not self._working

    def run(self, operation: Operation[T], halt: Halt | None = None) -> Pending[T]:
        """Begin an operation, in the loop; its outcome, which may be there already. From when a call is sent until
        it has been answered, and the answer dealt with, `halt` stands still."""
        pending: Pending[T] = Pending()
        self._advance(operation, partial(next, operation), pending, halt)
        self._go_on()
        return pending

    def fail_all(self, problem: BackendUnavailable) -> None:
        """Nothing that waits will be sent."""
        waiting, self._waiting = self._waiting, deque()
        for step in waiting:
            self._throw_into(step, problem)

    def _go_on(self) -> None:
        if self._waiting and not self._working:
            self._working = True
            self._loop.spawn(self._work)

    def _work(self) -> None:
        lot = self._loop.run(self._take)
        while lot:
            calls = [call for step in lot for call in step.calls]
            try:
                replies = self._client.run_calls(calls)
            except Exception as problem:
                log.exception("a lot of calls to Redis failed; what needed them fails too")
                replies = [BackendUnavailable(f"the client of Redis failed: {problem}")] * len(calls)
            lot = self._loop.run(partial(self._deal_out, lot, replies))

    def _take(self) -> list[_Step]:
        lot: list[_Step] = []
        size = 0
        while self._waiting and (not lot or size + len(self._waiting[0].calls) <= LOT):
            lot.append(self._waiting.popleft())
            size += len(lot[-1].calls)
        self._working = bool(lot)
        for step in lot:
            if step.halt is not None:
                step.halt.pause()
        return lot

    def _deal_out(self, lot: list[_Step], replies: Sequence[Any]) -> list[_Step]:
        away = next((reply for reply in replies if isinstance(reply, BackendUnavailable)), None)
        if away is not None and not isinstance(away, Refused):
            self._failed(away)
        at = 0
        for step in lot:
            mine = replies[at : at + len(step.calls)]
            at += len(step.calls)
            problem = next((reply for reply in mine if isinstance(reply, BackendUnavailable)), None)
            if problem is not None:
                self._throw_into(step, problem)
            else:
                answer = mine if isinstance(step.asked, list) else mine[0]
                self._advance(step.operation, partial(step.operation.send, answer), step.pending, step.halt)
        for step in lot:
            if step.halt is not None:
                step.halt.resume()
        return self._take()

    def _throw_into(self, step: _Step, problem: BackendUnavailable) -> None:
        self._advance(step.operation, partial(step.operation.throw, problem), step.pending, step.halt)

    def _advance(
        self,
        operation: Operation[Any],
        step: Callable[[], Call | list[Call]],
        pending: Pending[Any],
        halt: Halt | None,
    ) -> None:
        try:
            asked = step()
        except StopIteration as end:
            value = end.value
            pending.settle(lambda: value)
        except Exception as problem:
            pending.settle(raising(problem))
        else:
            self._waiting.append(_Step(operation, asked, pending, halt))
