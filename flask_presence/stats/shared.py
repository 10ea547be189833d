"""Answers that many viewers share, so that expensive questions are asked once for all of them.

Rule: an answer is cached for up to four times as long as it took to get, at most two seconds. So cheap answers are
always new, and viewers take a bounded share of the process, however many there are.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Final, Generic, TypeVar

from ..domain.channels import Channel, ChannelType, Stats, count_channels, matches
from ..domain.readings import Survey
from ..hub.directory import Directory

T = TypeVar("T")

AGE_FACTOR: Final = 4.0
"""How old an answer may be, as a multiple of the time it took."""
MAX_AGE: Final = 2.0
"""Seconds."""


class SharedAnswers:
    """The questions of a `Directory`, for callers that are content with an answer of a moment ago."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._channels = _Shared(directory.channels)
        self._survey = _Shared(directory.survey)

    def channels(self, kind: ChannelType | None = None, prefix: str | None = None) -> list[Channel]:
        return [channel for channel in self._channels.get() if matches(channel.name, kind, prefix)]

    def survey(self) -> Survey:
        return self._survey.get()

    def stats(self) -> Stats:
        members, by_type = count_channels(self._channels.get())
        return Stats(sum(by_type.values()), members, by_type, self._directory.connections())

    def channel(self, name: str) -> Channel | None:
        return self._directory.channel(name)

    def connections_of(self, name: str) -> Mapping[str, int]:
        return self._directory.connections_of(name)

    def check(self) -> None:
        self._directory.check()


class _Shared(Generic[T]):
    """An answer that is valid for a moment. Callers that come while it is being asked for wait for it."""

    def __init__(self, ask: Callable[[], T]) -> None:
        self._ask = ask
        self._lock = threading.Lock()
        self._answer: T | None = None
        self._valid_until = 0.0

    def get(self) -> T:
        asked_at = time.monotonic()
        with self._lock:
            if self._answer is None or asked_at >= self._valid_until:
                began = time.monotonic()
                self._answer = self._ask()
                ended = time.monotonic()
                self._valid_until = ended + min(MAX_AGE, AGE_FACTOR * (ended - began))
            return self._answer
