"""Application code and logging, run off the event loop.

Rule: what blocks never runs in the loop; what it returns or raises takes effect there.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from ..loops.base import Loop
from ..loops.pending import Outcome, Pending, raising

T = TypeVar("T")


class Offload:
    """The way off the hub's loop and back. There is no loop until the process has had a connection."""

    def __init__(self) -> None:
        self.current_loop: Loop | None = None

    @property
    def loop(self) -> Loop:
        assert self.current_loop is not None, "there is no loop before the first connection"
        return self.current_loop

    def spawn(self, function: Callable[..., object], *arguments: Any) -> None:
        """Run `function` off the loop."""
        self.loop.spawn(function, *arguments)

    def ask(self, question: Callable[[], T]) -> Pending[T]:
        """Run `question` off the loop. Its outcome is settled in the loop. Anything it raises that is not an
        `Exception`, such as `gevent.Timeout`, becomes a `RuntimeError`."""
        answer: Pending[T] = Pending()
        self.loop.spawn(self._answer, answer, question)
        return answer

    def _answer(self, answer: Pending[T], question: Callable[[], T]) -> None:
        outcome: Outcome[T]
        try:
            value = question()
            outcome = lambda: value  # noqa: E731
        except Exception as problem:
            outcome = raising(problem)
        except BaseException as problem:
            fault = RuntimeError(f"the application raised {problem!r}")
            fault.__cause__ = problem
            outcome = raising(fault)
        self.loop.run(partial(answer.settle, outcome))
