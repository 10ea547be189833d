"""Asks several shards at the same time.

Rule: everything here blocks, and is called off the loop. A shard that does not answer holds up no other.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from functools import partial
from typing import Final, Generic, TypeVar

from ....domain.errors import BackendUnavailable

T = TypeVar("T")

WAIT: Final = 1.0
"""Seconds after which `merge` yields `None` if nothing has come."""
RETRY_AFTER: Final = 1.0
"""Seconds after which `merge` tries again to read from a shard that does not answer."""


class Answers(Generic[T]):
    """What each question returned, by label, or the `BackendUnavailable` that it raised."""

    def __init__(self) -> None:
        self.values: dict[str, T] = {}
        self.problems: dict[str, BackendUnavailable] = {}

    @property
    def unavailable(self) -> tuple[str, ...]:
        """The labels of those that do not answer."""
        return tuple(sorted(self.problems))

    def ask(self, label: str, question: Callable[[], T]) -> None:
        """Ask one."""
        try:
            self.values[label] = question()
        except BackendUnavailable as problem:
            self.problems[label] = problem.with_traceback(None)  # it would keep this object alive, in a circle


def ask_all(questions: Mapping[str, Callable[[], T]], *, at_once: bool) -> Answers[T]:
    """Ask each question, by label; one after the other unless `at_once`. Raises what a question raises, unless that is
    `BackendUnavailable`."""
    answers: Answers[T] = Answers()
    if not at_once or len(questions) == 1:
        for label, question in questions.items():
            answers.ask(label, question)
        return answers
    failures: list[BaseException] = []

    def ask(label: str, question: Callable[[], T]) -> None:
        try:
            answers.ask(label, question)
        except BaseException as problem:  # raised again below
            failures.append(problem)

    threads = [threading.Thread(target=ask, args=item, daemon=True) for item in questions.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return answers


def merge(openers: Mapping[str, Callable[[], Iterator[T | None]]]) -> Generator[T | None, None, None]:
    """What several iterators yield, as it comes, and `None` while nothing comes.

    An iterator yields `None` first, when it is sure to miss nothing, and again at least every second or so. If it
    raises `BackendUnavailable`, it is opened again, and the others go on. Raises that if none can be opened.
    """
    arrived: queue.Queue[T | None] = queue.Queue()
    opened: queue.Queue[BackendUnavailable | None] = queue.Queue()
    ended = threading.Event()

    def read(open_one: Callable[[], Iterator[T | None]]) -> None:
        is_first = True
        while not ended.is_set():
            try:
                for item in open_one():
                    if is_first:
                        is_first = False
                        opened.put(None)
                    if item is not None:
                        arrived.put(item)
                    if ended.is_set():
                        return
            except BackendUnavailable as problem:
                if is_first:
                    is_first = False
                    opened.put(problem)
            ended.wait(RETRY_AFTER)

    try:
        for open_one in openers.values():
            threading.Thread(target=partial(read, open_one), daemon=True).start()
        results = [opened.get() for _ in openers]
        if all(results):
            raise next(problem for problem in results if problem is not None)
        yield None
        while True:
            try:
                yield arrived.get(timeout=WAIT)
            except queue.Empty:
                yield None
    finally:
        ended.set()
