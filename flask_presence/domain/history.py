"""History: the last messages of a channel, and what a client that comes back has missed.

Rule: sans IO and without a clock. `recovered` is true only if it is certain that every missed message is there.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice, pairwise
from typing import Any, Final, NamedTuple

from .channels import ChannelName
from .guards import Pattern
from .timestamps import isoformat

MAX_LOG_BYTES: Final = 4 * 1024 * 1024
"""The maximum number of bytes of messages that one channel keeps."""
MAX_ANSWER_BYTES: Final = 256 * 1024
"""The maximum number of bytes of messages in one answer."""
DEFAULT_LIMIT: Final = 50
"""How many messages an answer has if the client does not say."""
MAX_LIMIT: Final = 1000
"""The maximum number of messages that a client may ask for."""

_POSITION: Final = re.compile(r"(0|[1-9][0-9]{0,15})-(0|[1-9][0-9]{0,15})")


class Retention(NamedTuple):
    """How many messages a channel keeps, and for how many seconds after the last one."""

    messages: int
    seconds: float


class HistoryRules:
    """Which channels keep their last messages, by patterns. Their precedence is that of guards."""

    def __init__(self, rules: Mapping[str, Retention]) -> None:
        """Raises `ValueError` for a pattern that matches no channel name."""
        patterns = [(Pattern(text), retention) for text, retention in rules.items()]
        self._rules = sorted(patterns, key=lambda rule: rule[0].rank, reverse=True)

    def __bool__(self) -> bool:
        return bool(self._rules)

    def find(self, channel: str) -> Retention | None:
        """What the channel keeps; `None` if it keeps nothing."""
        if not self._rules:
            return None
        name = ChannelName(channel)
        for pattern, retention in self._rules:
            if pattern.matches(name) or pattern.matches(name.topic):
                return retention
        return None


NO_RULES: Final = HistoryRules({})


class Position(NamedTuple):
    """A place in a channel's order. Epochs grow; within one, every event has a larger number than the one before."""

    epoch: int
    number: int

    def __str__(self) -> str:
        return f"{self.epoch}-{self.number}"


def parse_position(text: str) -> Position | None:
    """Read a position that `str` has written. `None` if `text` is not a position."""
    found = _POSITION.fullmatch(text)
    return Position(int(found[1]), int(found[2])) if found else None


class KeptMessage(NamedTuple):
    """A kept message: its number, that of the message before it (0 if there was none), and its frame's JSON."""

    number: int
    previous: int
    frame: bytes


@dataclass(frozen=True, slots=True)
class Message:
    """A message that a channel keeps. Immutable.

    `data` is decoded JSON. `client_id` is `"server"` for what the server published, and `user_id` is `None` for that
    and for an anonymous sender. `timestamp` is an aware `datetime`.
    """

    id: str
    channel: ChannelName
    event: str
    data: Any
    client_id: str
    user_id: str | None
    timestamp: datetime

    def to_dict(self) -> dict[str, Any]:
        """A JSON object: `{id, channel, event, data, clientId, userId?, timestamp}`."""
        sender = {"clientId": self.client_id} | ({} if self.user_id is None else {"userId": self.user_id})
        fields = {"id": self.id, "channel": str(self.channel), "event": self.event, "data": self.data}
        return fields | sender | {"timestamp": isoformat(self.timestamp)}


class Extract(NamedTuple):
    """The newest messages of a log up to `position`, oldest first. `last` is the number of the last message up to there
    in this epoch, kept or not; 0 if there was none. `is_cut` says that older messages were left out."""

    position: Position
    last: int
    messages: Sequence[KeptMessage]
    is_cut: bool = False


class Replay(NamedTuple):
    """Which kept messages a client that joins asks for: all after the position `since`, or else the newest `limit`."""

    since: str | None = None
    limit: int | None = None

    @property
    def wanted(self) -> bool:
        """Whether it asks for any message."""
        return self.since is not None or self.limit is not None

    def known_since(self, position: Position) -> int | None:
        """The number of the position `since`; `None` unless that is in the epoch of `position`, and not after it."""
        after = None if self.since is None else parse_position(self.since)
        if after is None or after.epoch != position.epoch or after.number > position.number:
            return None
        return after.number


NO_REPLAY: Final = Replay()


class Replayed(NamedTuple):
    """The answer to a `Replay`. `messages` is `None` if the client asked for none, and `recovered` is `None` if it gave
    no `since`."""

    position: str
    messages: tuple[bytes, ...] | None = None
    recovered: bool | None = None


class Page(NamedTuple):
    """Some messages, as frames' JSON, oldest first, and whether older ones are kept."""

    messages: tuple[bytes, ...]
    more: bool


class HistorySize(NamedTuple):
    """How many messages are kept, and how many bytes their frames' JSON has."""

    messages: int
    bytes: int


class Published(NamedTuple):
    """A message that has gone to `delivered` connections. `is_new` is false if it repeats an earlier one, which has
    this `id`."""

    delivered: int
    id: str
    is_new: bool


def replay(extract: Extract, wanted: Replay) -> Replayed:
    """Answer a client that has joined at the position of `extract`.

    `extract` must begin at or before the position `wanted.since`, or have the newest `MAX_ANSWER_BYTES` of messages.
    """
    position = str(extract.position)
    if wanted.since is not None:
        missed = _missed(extract, wanted.known_since(extract.position))
        if missed is not None:
            return Replayed(position, missed, recovered=True)
        return Replayed(position, _newest(extract.messages, wanted.limit or DEFAULT_LIMIT)[0], recovered=False)
    if wanted.limit is not None:
        return Replayed(position, _newest(extract.messages, wanted.limit)[0])
    return Replayed(position)


def messages_after(extract: Extract, number: int) -> list[KeptMessage] | None:
    """The messages after a number of the same epoch; `None` if they are not all there."""
    found = [message for message in extract.messages if message.number > number]
    first_missing = found[0].previous if found else extract.last
    is_whole = all(later.previous == earlier.number for earlier, later in pairwise(found))
    ends_at_the_last = not found or found[-1].number == extract.last
    return found if first_missing <= number and is_whole and ends_at_the_last else None


def page(extract: Extract, limit: int) -> Page:
    """The newest `limit` messages of `extract`."""
    messages, is_cut = _newest(extract.messages, limit)
    return Page(messages, is_cut or extract.is_cut)


def _missed(extract: Extract, after: int | None) -> tuple[bytes, ...] | None:
    """The messages after a number; `None` if they are not all there, or too large for an answer."""
    missed = None if after is None else messages_after(extract, after)
    if missed is None:
        return None
    frames = tuple(message.frame for message in missed)
    return frames if sum(map(len, frames)) <= MAX_ANSWER_BYTES else None


def _newest(messages: Sequence[KeptMessage], limit: int) -> tuple[tuple[bytes, ...], bool]:
    """The newest frames, at most `limit`, and as many as fit into an answer, but at least one; and whether older ones
    were left out."""
    chosen: deque[bytes] = deque()
    size = 0
    for message in reversed(messages):
        size += len(message.frame)
        if len(chosen) == limit or (chosen and size > MAX_ANSWER_BYTES):
            break
        chosen.appendleft(message.frame)
    return tuple(chosen), len(chosen) < len(messages)


class _Logged(NamedTuple):
    number: int
    frame: bytes
    key: str | None
    delivered: int


class MessageLog:
    """The last messages of one channel, in memory.

    A message that was sent with a `key` is found by it, for as long as it is kept. Callers pass `now`, in epoch
    seconds.
    """

    def __init__(self, retention: Retention, epoch: int, now: float) -> None:
        self._retention = retention
        self._epoch = epoch
        self._last = 0
        self._log: deque[_Logged] = deque()
        self._by_key: dict[str, _Logged] = {}
        self.size = 0
        self.ends_at = now + retention.seconds

    def __len__(self) -> int:
        return len(self._log)

    @property
    def next_id(self) -> str:
        """The id of the next message."""
        return f"{self._epoch}-{self._last + 1}"

    def find(self, key: str) -> Published | None:
        """The kept message that was sent with `key`."""
        found = self._by_key.get(key)
        if found is None:
            return None
        return Published(found.delivered, str(Position(self._epoch, found.number)), is_new=False)

    def add(self, frame: bytes, key: str | None, delivered: int, now: float) -> Published:
        """Keep a message whose id is `next_id`."""
        published = Published(delivered, self.next_id, is_new=True)
        self._last += 1
        logged = _Logged(self._last, frame, key, delivered)
        self._log.append(logged)
        if key is not None:
            self._by_key[key] = logged
        self.size += len(frame)
        self.ends_at = now + self._retention.seconds
        while len(self._log) > self._retention.messages or self.size > MAX_LOG_BYTES:
            self._drop(self._log.popleft())
        return published

    def expire(self, now: float) -> None:
        """Forget the messages if their time is over. An empty log gets a new end."""
        if now >= self.ends_at:
            self.clear()
            self.ends_at = now + self._retention.seconds

    def clear(self) -> int:
        """Forget the messages. Returns how many there were."""
        count = len(self._log)
        self._log.clear()
        self._by_key.clear()
        self.size = 0
        return count

    def replay(self, wanted: Replay) -> Replayed:
        """Answer a client that joins now."""
        position = Position(self._epoch, self._last)
        since = wanted.known_since(position)
        limit = (wanted.limit or DEFAULT_LIMIT) if since is None else self._last - since
        return replay(self._newest(position, limit if wanted.wanted else 0), wanted)

    def page(self, limit: int, before: Position | None) -> Page:
        """The newest `limit` messages before a position (`None`: all)."""
        position = Position(self._epoch, self._last)
        if before is not None and before <= position:
            position = Position(self._epoch, max(before.number - 1, 0) if before.epoch == self._epoch else 0)
        return page(self._newest(position, limit), limit)

    def _newest(self, position: Position, limit: int) -> Extract:
        """The newest messages up to a position. Numbers in memory follow each other, so they count from the end."""
        newer = self._last - position.number
        newest = islice(reversed(self._log), newer, newer + limit)
        found = [KeptMessage(one.number, one.number - 1, one.frame) for one in newest]
        found.reverse()
        return Extract(position, position.number, found, is_cut=newer + len(found) < len(self._log))

    def _drop(self, logged: _Logged) -> None:
        self.size -= len(logged.frame)
        if logged.key is not None and self._by_key.get(logged.key) is logged:
            del self._by_key[logged.key]


class Tail:
    """The newest messages that a worker has heard in a channel, up to `MAX_ANSWER_BYTES` of them.

    It has every message after the number `floor`, up to the newest that has been heard.
    """

    def __init__(self, retention: Retention) -> None:
        self.floor = 0
        self._retention = retention
        self._ends_at = 0.0
        self._messages: deque[KeptMessage] = deque()
        self._size = 0

    def start(self, number: int) -> None:
        """Begin anew: what was published up to `number` is not here."""
        self._messages.clear()
        self._size, self.floor = 0, number

    def expire(self, now: float) -> None:
        """Forget the messages if they are no longer kept. `now` in seconds of the monotonic clock, as for `add`."""
        if self._messages and now >= self._ends_at:
            self.start(self._messages[-1].number)

    def add(self, message: KeptMessage, now: float) -> None:
        """Add the message that follows."""
        self._ends_at = now + self._retention.seconds
        self._messages.append(message)
        self._size += len(message.frame)
        most = self._retention.messages
        while len(self._messages) > most or (self._size > MAX_ANSWER_BYTES and len(self._messages) > 1):
            oldest = self._messages.popleft()
            self._size -= len(oldest.frame)
            self.floor = oldest.number

    def serves(self, wanted: Replay, position: Position) -> bool:
        """Whether this has all that a client asks for that joins at `position`, so that the store need not be read."""
        after = wanted.known_since(position)
        if after is not None:
            return after >= self.floor
        return len(self._messages) >= (wanted.limit or DEFAULT_LIMIT)

    def extract(self, position: Position) -> Extract:
        """All of them, for a client that joins at `position`."""
        last = self._messages[-1].number if self._messages else self.floor
        return Extract(position, last, tuple(self._messages), is_cut=True)

    def continued(self, older: Extract, position: Position) -> Extract | None:
        """What was read from the store, `older`, continued to `position` with what has been heard since. `None` if
        there is a gap between them, or if the epochs differ."""
        epoch, read_upto = older.position
        if epoch != position.epoch or read_upto < min(self.floor, position.number):
            return None
        known = [message for message in older.messages if message.number <= position.number]
        heard = [message for message in self._messages if message.number > read_upto]
        if heard:
            last = heard[-1].number
        elif len(known) < len(older.messages):  # more than what `position` has reached was read
            last = older.messages[len(known)].previous
        else:
            last = older.last
        return Extract(position, last, [*known, *heard], older.is_cut)
