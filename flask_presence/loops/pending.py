"""`Pending`: a value that arrives later, in an event loop. Like a future, but its callbacks run at once.

Rule: it is settled once, in the loop. Its callbacks run inside `settle`, so whoever settles it decides what happens
before them and what happens after them.
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
"""A function that returns the value, or raises the exception that came instead."""


class Pending(Generic[T]):
    """A value that arrives later. It belongs to the loop, which creates it, settles it and calls its callbacks."""

    __slots__ = ("_callbacks", "_outcome")

    def __init__(self) -> None:
        self._outcome: Outcome[T] | None = None
        self._callbacks: list[Callable[[Outcome[T]], object]] = []

    def settle(self, outcome: Outcome[T]) -> None:
        """Set the outcome, and run the callbacks. `outcome` may be called several times, so it must be quick."""
        assert self._outcome is None, "a Pending is settled once"
        self._outcome = outcome
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            try:
                callback(outcome)
            except Exception:  # the other callbacks must run, and whoever settles this must go on
                log.exception("a callback of a Pending failed")

    @property
    def settled(self) -> bool:
        """Whether the outcome has arrived."""
        return self._outcome is not None

    def when(self, callback: Callable[[Outcome[T]], object]) -> None:
        """Call `callback` with the outcome when it arrives; now, if it has arrived. `callback` should not raise."""
        if self._outcome is not None:
            callback(self._outcome)
        else:
            self._callbacks.append(callback)

    def then(self, function: Callable[[Outcome[T]], U | Pending[U]]) -> Pending[U]:
        """Call `function` with the outcome. Returns a `Pending` for what `function` returns, or raises.

        `function` calls the outcome to get the value, and may catch the exception that this raises.
        """
        result: Pending[U] = Pending()
        self.when(partial(_pass_on, result, function))
        return result

    def map(self, function: Callable[[T], U | Pending[U]]) -> Pending[U]:
        """Like `then`, for a `function` that takes the value. If an exception came instead, the result has it too."""
        return self.then(lambda outcome: function(outcome()))


def then(value: T | Pending[T], function: Callable[[Outcome[T]], U | Pending[U]]) -> U | Pending[U]:
    """Like `Pending.then`. If `value` is not a `Pending`, this calls `function` at once and returns what it returns."""
    return value.then(function) if isinstance(value, Pending) else function(lambda: value)


def when_all(values: Iterable[object], callback: Callable[[], object]) -> None:
    """Call `callback` when all `Pending`s among `values` are settled, with a value or not; now, if there is none."""
    waiting = [value for value in values if isinstance(value, Pending)]
    unsettled = len(waiting)

    def count_down(_: Outcome[Any]) -> None:
        nonlocal unsettled
        unsettled -= 1
        if not unsettled:
            callback()

    for value in waiting:
        value.when(count_down)
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
    """An outcome that raises `problem`."""
    return partial(throw, problem)


def throw(problem: Exception) -> Any:
    """`raise`, as a function. It drops the traceback, because many outcomes may raise the same exception, and it would
    collect all their tracebacks."""
    raise problem.with_traceback(None)
