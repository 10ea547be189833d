"""What the application's own code asks of the hub and tells it to do, from any thread.

Rule: methods may block, unless the backend keeps its state in memory. They raise `BackendUnavailable` while the state
store is unreachable.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

from ..backends import base
from ..domain.channels import Channel, ChannelList, ChannelName, ChannelType, Stats
from ..domain.frozen import freeze
from ..domain.history import HistorySize, Page, Position
from ..domain.members import Member
from ..domain.readings import Survey
from ..domain.roster import Change
from ..domain.shards import ShardState
from .offload import Offload

T = TypeVar("T")


class Directory:
    """Calls a backend's `Directory` where it may be called: in the loop, or off it."""

    def __init__(self, backend: base.Directory, offload: Offload) -> None:
        self._backend = backend
        self._offload = offload

    @property
    def blocking(self) -> bool:
        """See `backends.base.Directory`."""
        return self._backend.blocking

    def publish(self, channel: str, payload: bytes, exclude: str | None = None, *, keep: bool = False) -> int:
        """Send a frame's JSON to all connections in `channel` except `exclude`. Returns how many. With `keep`, the
        channel keeps it, if it keeps messages."""
        return self._ask(lambda: self._backend.broadcast(channel, payload, exclude, keep=keep))

    def history(self, channel: str, limit: int, before: Position | None) -> Page:
        """The newest `limit` kept messages of a channel that are older than `before` (`None`: all)."""
        return self._ask(lambda: self._backend.history(channel, limit, before))

    def clear_history(self, channel: str) -> int:
        """Forget the kept messages of a channel. Returns how many there were."""
        return self._ask(lambda: self._backend.clear_history(channel))

    def history_size(self) -> HistorySize:
        """What all channels keep together."""
        return self._ask(lambda: self._backend.history_size(None)) or HistorySize(0, 0)

    def history_size_of(self, channel: str) -> HistorySize | None:
        """What a channel keeps; `None` if it keeps no messages."""
        return self._ask(lambda: self._backend.history_size(channel))

    def send_to_user(self, user_id: str, payload: bytes) -> int:
        """Send a frame's JSON to all connections of a user. Returns how many."""
        return self._ask(lambda: self._backend.send_to_user(user_id, payload))

    def channel(self, name: str) -> Channel | None:
        return self._ask(lambda: self._backend.get(name))

    def channels(self, kind: ChannelType | None = None, prefix: str | None = None) -> ChannelList:
        return self._ask(lambda: self._backend.channels(kind, prefix))

    def members(self, name: str) -> list[Member]:
        return self._ask(lambda: list(self._backend.members(name)))

    def stats(self) -> Stats:
        def count() -> Stats:
            total, by_type, unavailable = self._backend.counts()
            connections = self._backend.connections()
            return Stats(sum(by_type.values()), total, freeze(by_type), connections, unavailable)

        return self._ask(count)

    def connections(self) -> int:
        """How many connections are open, over the whole service."""
        return self._ask(self._backend.connections)

    def connections_of(self, name: str) -> Mapping[str, int]:
        """How many connections each member of a presence channel has, by user id; 0 during a grace period."""
        return self._ask(lambda: self._backend.connections_of(name))

    def survey(self) -> Survey:
        """The readings of all processes."""
        return self._ask(self._backend.survey)

    def is_online(self, user_id: str) -> bool:
        """Whether the user has an open connection."""
        return self._ask(lambda: self._backend.is_online(user_id))

    def watch(self, name: str | None = None) -> Iterator[tuple[ChannelName, Change] | None]:
        """See `backends.base.Directory.watch`."""
        return self._backend.watch(name)

    def check(self) -> None:
        """Raise `BackendUnavailable` if the state store does not answer."""
        self._ask(self._backend.check)

    def obstacle(self) -> str | None:
        """See `backends.base.Directory`."""
        return self._backend.obstacle()

    def shards(self, *, with_counts: bool = False) -> tuple[ShardState, ...]:
        """See `backends.base.Directory`."""
        return self._backend.shards(with_counts=with_counts)

    def disconnect(self, user_id: str | None, client_id: str | None, text: str) -> int:
        """Close the connections that match (`None` matches any) with 4403. Returns how many."""
        return self._ask(lambda: self._backend.disconnect(user_id, client_id, text))

    def remove(self, channel: str, user_id: str, text: str) -> int:
        """Take a user's connections out of a channel. Returns how many."""
        return self._ask(lambda: self._backend.remove(channel, user_id, text))

    def recheck(self, user_id: str | None, channel: str | None) -> int:
        """Ask the application again about the connections that match (`None` matches any). Returns how many."""
        return self._ask(lambda: self._backend.recheck(user_id, channel))

    def _ask(self, question: Callable[[], T]) -> T:
        loop = self._offload.current_loop
        return question() if loop is None or self._backend.blocking else loop.run(question)
