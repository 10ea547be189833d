"""An outcome that is still on its way, in an event loop.

Law: settled once, in the loop. What waits for it runs at once, in that very step, so that whoever settles it
decides what comes before and what after.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Generic, TypeVar

log = logging.getLogger("flask_presence")

T = TypeVar("T")
U = TypeVar("U")

Outcome = Callable[[], T]
"""Gives the value, or raises the problem."""


class Pending(Generic[T]):
    """A value that will be there later. Owned by the loop: made, settled and waited for in it."""

    __slots__ = ("_callbacks", "_outcome")

    def __init__(self) -> None:
        self._outcome: Outcome[T] | None = None
        self._callbacks: list[Callable[[Outcome[T]], object]] = []

    def settle(self, outcome: Outcome[T]) -> None:
        """The value is there. `outcome` may be asked more than once, and must not take time."""
        assert self._outcome is None, "an outcome comes once"
        self._outcome = outcome
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            try:
                callback(outcome)
            except Exception:  # it must not keep the others waiting, nor end the loop that brought the outcome
                log.exception("what waited for an outcome failed")

    @property
    def settled(self) -> bool:
        return self._outcome is not None

    def when(self, callback: Callable[[Outcome[T]], object]) -> None:
        """Call `callback`, which should not raise, with the outcome: once it is there, or now if it is."""
        if self._outcome is not None:
            callback(self._outcome)
        else:
            self._callbacks.append(callback)

    def then(self, function: Callable[[Outcome[T]], U | Pending[U]]) -> Pending[U]:
        """What `function` makes of the outcome, which it may ask and whose problem it may catch."""
        result: Pending[U] = Pending()
        self.when(partial(_pass_on, result, function))
        return result

    def map(self, function: Callable[[T], U | Pending[U]]) -> Pending[U]:
        """What `function` makes of the value; a problem stays one."""
        return self.then(lambda outcome: function(outcome()))


def then(value: T | Pending[T], function: Callable[[Outcome[T]], U | Pending[U]]) -> U | Pending[U]:
    """`Pending.then`, or `function` at once where the value is there already."""
    return value.then(function) if isinstance(value, Pending) else function(lambda: value)


def when_all(values: Iterable[object], callback: Callable[[], object]) -> None:
    """Call `callback` once those of `values` that are pending are settled, well or not; now, if none is."""
    waiting = [value for value in values if isinstance(value, Pending)]
    left = len(waiting)

    def count(_: Outcome[Any]) -> None:
        nonlocal left
        left -= 1
        if not left:
            callback()

    for value in waiting:
        value.when(count)
    if not waiting:
        callback()


def _pass_on(result: Pending[U], function: Callable[[Outcome[T]], U | Pending[U]], outcome: Outcome[T]) -> None:
    try:
        value = function(outcome)
    except Exception as problem:
        result.settle(raising(problem))
    else:
        if isinstance(value, Pending):
            value.when(result.settle)
        else:
            result.settle(lambda: value)


def raising(problem: Exception) -> Outcome[Any]:
    """The outcome that is a problem."""
    return partial(throw, problem)


def throw(problem: Exception) -> Any:
    """`raise`, as a function; one problem may be that of many, and must not gather all their tracebacks."""
    raise problem.with_traceback(None)
