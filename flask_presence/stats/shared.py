"""A short-lived cache of expensive answers, which all viewers of the stats page share.

Rule: an answer is cached for up to four times the query's duration, at most two seconds. So cheap answers stay
current, and viewers use a bounded share of the process, however many there are.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Final, Generic, TypeVar

from ..domain.channels import Channel, ChannelList, ChannelType, Stats, count_channels, matches
from ..domain.history import HistorySize
from ..domain.readings import Survey
from ..domain.shards import ShardState
from ..hub.directory import Directory

T = TypeVar("T")

AGE_FACTOR: Final = 4.0
"""How long an answer is cached, as a multiple of the query's duration."""
MAX_AGE: Final = 2.0
"""The longest time, in seconds, for which an answer is cached."""


class SharedAnswers:
    """Reads a `Directory` for callers that accept an answer that is up to `MAX_AGE` seconds old."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._channels = _Shared(directory.channels)
        self._survey = _Shared(directory.survey)
        self._history_size = _Shared(directory.history_size)

    def channels(self, kind: ChannelType | None = None, prefix: str | None = None) -> ChannelList:
        known = self._channels.get()
        return ChannelList((one for one in known if matches(one.name, kind, prefix)), known.unavailable)

    def survey(self) -> Survey:
        return self._survey.get()

    def stats(self) -> Stats:
        channels = self._channels.get()
        members, by_type = count_channels(channels)
        return Stats(sum(by_type.values()), members, by_type, self._directory.connections(), channels.unavailable)

    def channel(self, name: str) -> Channel | None:
        return self._directory.channel(name)

    def connections_of(self, name: str) -> Mapping[str, int]:
        return self._directory.connections_of(name)

    def history_size(self) -> HistorySize:
        return self._history_size.get()

    def history_size_of(self, channel: str) -> HistorySize | None:
        return self._directory.history_size_of(channel)

    def shards(self) -> tuple[ShardState, ...]:
        return self._directory.shards()

    def check(self) -> None:
        self._directory.check()


class _Shared(Generic[T]):
    """Caches the answer of one query. While one caller runs the query, the others wait for its answer."""

    def __init__(self, query: Callable[[], T]) -> None:
        self._query = query
        self._lock = threading.Lock()
        self._answer: T | None = None
        self._valid_until = 0.0

    def get(self) -> T:
        called_at = time.monotonic()
        with self._lock:
            if self._answer is None or called_at >= self._valid_until:
                started_at = time.monotonic()
                self._answer = self._query()
                ended_at = time.monotonic()
                self._valid_until = ended_at + min(MAX_AGE, AGE_FACTOR * (ended_at - started_at))
            return self._answer
