"""The memory backend: it keeps the state of one process in that process.

Rule: every method except `watch` runs in the event loop and never waits, so every change is atomic.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Final, NamedTuple

from ..domain.channels import Channel, ChannelCounts, ChannelList, ChannelName, ChannelType
from ..domain.events import MemberLeft, Reason
from ..domain.history import NO_RULES, HistoryRules, HistorySize, MessageLog, Page, Position, Published
from ..domain.members import Member, OwnedInfo, Profile, User
from ..domain.readings import Survey
from ..domain.roster import Change, Joined, Joiner, Roster, Updated
from ..domain.shards import ShardState
from ..domain.timestamps import from_epoch
from ..domain.wire import with_id
from ..loops.base import Loop
from ..loops.pending import Pending
from .base import Listener

MAX_UNSEEN: Final = 10000
"""How many changes are kept for a watcher that does not keep up. Older ones are dropped."""

GraceKey = tuple[ChannelName, str]
"""Identifies a grace period: a channel, and the id of a user in it."""


class _Grace(NamedTuple):
    """When a user's grace period ends, in epoch seconds, and the connection that was lost last."""

    end: float
    client_id: str
    user: User | None


class MemoryBackend:
    """Keeps the roster and the grace periods in it, and tells one hub of every change."""

    blocking = False
    outlives_process = False

    def __init__(self, max_info: int, max_members: int | None = None, history: HistoryRules = NO_RULES) -> None:
        self._max_info = max_info
        self._max_members = max_members
        self._history = history
        self._last_epoch = 0
        self._listener: Listener
        self.forked()

    def forked(self) -> None:
        self._roster = Roster(self._max_info, self._max_members)
        self._clients: dict[str, User | None] = {}
        self._graces: dict[GraceKey, _Grace] = {}
        self._logs: dict[str, MessageLog] = {}
        self._watchers: dict[int, tuple[str | None, deque[tuple[ChannelName, Change]]]] = {}

    def bind(self, listener: Listener) -> None:
        self._listener = listener

    def start(self, loop: Loop) -> None:
        """Nothing has to be started."""

    def tick(self, now: float) -> None:
        over = [key for key, grace in self._graces.items() if now >= grace.end]
        self._end_graces(over, from_epoch(now))
        for name in [name for name, log in self._logs.items() if now >= log.ends_at]:
            self._logs[name].expire(now)
            if self._roster.get(name) is None:
                del self._logs[name]

    def close(self) -> None:
        """Nothing outlives the process."""

    def check(self) -> None:
        """Memory is always available."""

    def obstacle(self) -> str | None:
        return None

    def shards(self, *, with_counts: bool = False) -> tuple[ShardState, ...]:  # noqa: ARG002 (there are none)
        return ()

    def opened(self, client_id: str, user: User | None) -> None:
        self._clients[client_id] = user

    def closed(self, client_id: str) -> None:
        self._clients.pop(client_id, None)

    def connections(self) -> int:
        return len(self._clients)

    def join(self, joiner: Joiner) -> Joined:
        outcome = self._roster.join(joiner)
        self._announce(joiner.channel, outcome.change, joiner.client_id, joiner.now)
        log = self._log(joiner.channel, joiner.now.timestamp())
        return outcome if log is None else replace(outcome, replayed=log.replay(joiner.replay))

    def leave(
        self, channel: ChannelName, client_id: str, now: datetime, reason: Reason, *, grace: float = 0
    ) -> Change | None:
        change = self._roster.leave(channel, client_id, grace=grace > 0, reason=reason)
        user = self._clients.get(client_id)
        if grace and user is not None:
            self._graces[channel, user.id] = _Grace(now.timestamp() + grace, client_id, user)
        self._announce(channel, change, client_id, now)
        return change

    def disconnect(self, user_id: str | None, client_id: str | None, text: str) -> int:
        closed = self._listener.close_matching(user_id, client_id, text)
        matching = [
            key
            for key, grace in self._graces.items()
            if user_id in (None, key[1]) and client_id in (None, grace.client_id)
        ]
        self._end_graces(matching, self._listener.utc_now())
        assert not isinstance(closed, Pending), "leaving is immediate in memory"
        return closed

    def update(
        self,
        channel: ChannelName,
        client_id: str,
        info: Mapping[str, Any],
        now: datetime,
        owned: OwnedInfo | None = None,
    ) -> Updated:
        outcome = self._roster.update(channel, client_id, info, now, owned)
        self._announce(channel, outcome.change, client_id if owned is None else None, now)
        return outcome

    def remove(self, channel: str, user_id: str, text: str) -> int:
        removed = self._listener.remove_from(channel, user_id, text)
        matching = [key for key in self._graces if key == (channel, user_id)]
        self._end_graces(matching, self._listener.utc_now())
        assert not isinstance(removed, Pending), "leaving is immediate in memory"
        return removed

    def recheck(self, user_id: str | None, channel: str | None) -> int:
        count = self._listener.recheck(user_id, channel)
        if user_id is not None:  # no guard can be asked about a user without a connection
            matching = [key for key in self._graces if user_id == key[1] and channel in (None, key[0])]
            self._end_graces(matching, self._listener.utc_now())
        return count

    def send_to_user(self, user_id: str, payload: bytes) -> int:
        return self._listener.deliver_to_user(user_id, payload)

    def is_online(self, user_id: str) -> bool:
        return self._listener.has_user(user_id)

    def profile(self, channel: ChannelName, client_id: str) -> Profile | None:
        return self._roster.profile(channel, client_id)

    def publish(self, channel: str, payload: bytes, exclude: str | None) -> int:
        return self._listener.deliver(channel, payload, exclude)

    def publish_kept(self, channel: str, payload: bytes, exclude: str | None, key: str | None) -> Published:
        now = self._listener.utc_now().timestamp()
        log = self._log(channel, now)
        assert log is not None, "the channel keeps messages"
        repeated = log.find(key) if key is not None else None
        if repeated is not None:
            return repeated
        frame = with_id(payload, log.next_id)
        return log.add(frame, key, self._listener.deliver(channel, frame, exclude), now)

    def broadcast(self, channel: str, payload: bytes, exclude: str | None, *, keep: bool = False) -> int:
        if keep and self._history.find(channel) is not None:
            return self.publish_kept(channel, payload, exclude, None).delivered
        return self._listener.deliver(channel, payload, exclude)

    def history(self, channel: str, limit: int, before: Position | None) -> Page:
        log = self._log(channel, self._listener.utc_now().timestamp())
        return Page((), more=False) if log is None else log.page(limit, before)

    def clear_history(self, channel: str) -> int:
        return self._logs[channel].clear() if channel in self._logs else 0

    def history_size(self, channel: str | None) -> HistorySize | None:
        if channel is not None and self._history.find(channel) is None:
            return None
        now = self._listener.utc_now().timestamp()
        names = self._logs if channel is None else self._logs.keys() & {channel}
        logs = [log for log in map(self._logs.__getitem__, names) if now < log.ends_at]
        return HistorySize(sum(map(len, logs)), sum(log.size for log in logs))

    def get(self, name: str) -> Channel | None:
        return self._roster.get(name)

    def channels(self, kind: ChannelType | None = None, prefix: str | None = None) -> ChannelList:
        return ChannelList(self._roster.channels(kind, prefix))

    def members(self, name: str) -> Sequence[Member]:
        return self._roster.members(name)

    def counts(self) -> ChannelCounts:
        return ChannelCounts(*self._roster.counts())

    def connections_of(self, name: str) -> Mapping[str, int]:
        return self._roster.connections_of(name)

    def survey(self) -> Survey:
        return Survey((self._listener.reading(),), {}, {})

    def watch(self, name: str | None = None) -> Iterator[tuple[ChannelName, Change] | None]:
        unseen: deque[tuple[ChannelName, Change]] = deque(maxlen=MAX_UNSEEN)
        self._watchers[id(unseen)] = name, unseen  # a single step, because this runs off the loop
        try:
            while True:
                yield unseen.popleft() if unseen else None
        finally:
            del self._watchers[id(unseen)]

    def _log(self, channel: str, now: float) -> MessageLog | None:
        """The log of a channel that keeps messages, at `now`, in epoch seconds; `None` if the channel keeps none."""
        log = self._logs.get(channel)
        if log is None:
            retention = self._history.find(channel)
            if retention is None:
                return None
            self._last_epoch = max(self._last_epoch + 1, int(now * 1000))
            log = self._logs[channel] = MessageLog(retention, self._last_epoch, now)
        log.expire(now)
        return log

    def _end_graces(self, keys: Sequence[GraceKey], now: datetime) -> None:
        for key in keys:
            channel, user_id = key
            grace = self._graces.pop(key)
            change = self._roster.end_grace(channel, user_id)
            self._announce(channel, change, None, now)
            if change is not None:
                self._listener.notify(MemberLeft(grace.client_id, grace.user, channel, change.member, change.reason))

    def _announce(self, channel: ChannelName, change: Change | None, exclude: str | None, now: datetime) -> None:
        if change is not None:
            self._listener.announce(channel, change, exclude, now)
            for name, unseen in list(self._watchers.values()):
                if name in (None, channel):
                    unseen.append((channel, change))
