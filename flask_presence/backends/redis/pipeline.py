"""Operations of a process, put together: what is asked for while Redis is busy with one lot is the next lot.

Law: operations are begun in the order in which they were asked for, and settled in the loop; one that fails, or is
lost with the connection, harms no other.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Final, Protocol, TypeVar

from ...domain.errors import BackendUnavailable
from ..pending import Pending
from .client import Client
from .operations import Call, Operation

T = TypeVar("T")

LOT: Final = 256
"""Calls that are sent together, at the most."""


class Loop(Protocol):
    """The event loop that the operations are asked for in."""

    def run(self, function: Callable[[], T]) -> T: ...
    def spawn(self, function: Callable[..., object], *arguments: Any) -> None: ...


class Pipeline:
    """Drives operations beside the loop, by one worker, which is there only while there is work."""

    def __init__(self, client: Client, loop: Loop) -> None:
        self._client = client
        self._loop = loop
        self._waiting: deque[tuple[Operation[Any], Call, Pending[Any]]] = deque()
        self._working = False

    def run(self, operation: Operation[T]) -> Pending[T]:
        """Begin an operation, in the loop; its outcome, which may be there already."""
        pending: Pending[T] = Pending()
        self._advance(operation, partial(next, operation), pending)
        if self._waiting and not self._working:
            self._working = True
            self._loop.spawn(self._work)
        return pending

    def _work(self) -> None:
        lot = self._loop.run(self._take)
        while lot:
            replies = self._client.run_calls([call for _, call, _ in lot])
            self._loop.run(partial(self._deal_out, lot, replies))
            lot = self._loop.run(self._take)

    def _take(self) -> list[tuple[Operation[Any], Call, Pending[Any]]]:
        lot = [self._waiting.popleft() for _ in range(min(LOT, len(self._waiting)))]
        self._working = bool(lot)
        return lot

    def _deal_out(
        self, lot: list[tuple[Operation[Any], Call, Pending[Any]]], replies: list[list[Any] | BackendUnavailable]
    ) -> None:
        for (operation, _, pending), reply in zip(lot, replies, strict=True):
            if isinstance(reply, BackendUnavailable):
                self._advance(operation, partial(operation.throw, reply), pending)
            else:
                self._advance(operation, partial(operation.send, reply), pending)

    def _advance(self, operation: Operation[Any], step: Callable[[], Call], pending: Pending[Any]) -> None:
        try:
            call = step()
        except StopIteration as end:
            value = end.value
            pending.settle(lambda: value)
        except Exception as problem:
            pending.settle(partial(_throw, problem))
        else:
            self._waiting.append((operation, call, pending))


def _throw(problem: Exception) -> Any:
    raise problem
