"""The hub as those see it who look again and again: what takes long is asked once for all of them.

Law: nothing is older than a few times what it took to ask, so where that is little it is always new; and however many
look, they take a bounded share of the process.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Final, Generic, TypeVar

from ..domain.channels import Channel, ChannelType, Stats, count_channels, matches
from ..domain.readings import Survey
from ..hub.hub import Hub

T = TypeVar("T")

AGE: Final = 4.0
"""How old an answer may be, as a multiple of what it took."""
MAX_AGE: Final = 2.0
"""Seconds."""


class Glances:
    """The questions of `Hub`, for whom an answer of a moment ago will do."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._channels = _Shared(hub.channels)
        self._survey = _Shared(hub.survey)

    def channels(self, kind: ChannelType | None = None, prefix: str | None = None) -> list[Channel]:
        return [channel for channel in self._channels.get() if matches(channel.name, kind, prefix)]

    def survey(self) -> Survey:
        return self._survey.get()

    def stats(self) -> Stats:
        members, by_type = count_channels(self._channels.get())
        return Stats(sum(by_type.values()), members, by_type, self._hub.connections())

    def channel(self, name: str) -> Channel | None:
        return self._hub.channel(name)

    def connections_of(self, name: str) -> Mapping[str, int]:
        return self._hub.connections_of(name)

    def check(self) -> None:
        self._hub.check()


class _Shared(Generic[T]):
    """An answer that is good for a moment. Who asks while somebody else does waits for the same one."""

    def __init__(self, ask: Callable[[], T]) -> None:
        self._ask = ask
        self._lock = threading.Lock()
        self._answer: T | None = None
        self._good_until = 0.0

    def get(self) -> T:
        wanted_at = time.monotonic()
        with self._lock:
            if self._answer is None or wanted_at >= self._good_until:
                began = time.monotonic()
                self._answer = self._ask()
                ended = time.monotonic()
                self._good_until = ended + min(MAX_AGE, AGE * (ended - began))
            return self._answer
