"""The kept messages of channels in Redis: in each, a stream beside the channel's state.

Rule: sans IO. A message is numbered, published and kept in one step.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any, Final

from ....domain.history import (
    MAX_ANSWER_BYTES,
    MAX_LOG_BYTES,
    Extract,
    HistorySize,
    KeptMessage,
    Position,
    Published,
    Retention,
)
from .calls import NOWHERE, Call, Lost, Operation, Placed, pairs, position_of
from .history_index import HistoryIndex
from .keys import Keys

NO_LIMIT: Final = 1_000_000
"""More messages than any channel keeps."""
BATCH: Final = 250
"""The maximum number of channels whose sizes are asked for in one round trip."""


class HistoryOperations:
    """The kept messages under one prefix. `known`: see `ChannelOperations`. `clock` in seconds."""

    def __init__(self, keys: Keys, clock: Callable[[], float] = time.monotonic) -> None:
        self._keys = keys
        self._index = HistoryIndex(keys, clock)

    def publish(
        self,
        channel: str,
        message: bytes,
        exclude: str | None,
        retention: Retention,
        *,
        key: str | None = None,
        known: Position = NOWHERE,
    ) -> Operation[Placed[Published]]:
        """Send a message to all connections in the channel except `exclude`, and keep it. If a kept message was sent
        with the same `key`, nothing is sent.

        Raises `Lost`, and sends nothing, if Redis has lost the channel in which `known` was a position.
        """
        names = (*self._keys.channel(channel), *self._keys.history(channel))
        arguments = (
            *(self._keys.topic(channel), str(known.epoch), exclude or "", message[:-1], key or ""),
            *(str(retention.messages), str(math.ceil(retention.seconds)), str(MAX_LOG_BYTES)),
        )
        publish, note = Call("publish_kept", names, arguments), self._index.note(channel, retention)
        if note is None:
            reply = yield publish
        else:
            _, reply = yield [note, publish]
            self._index.noted(channel)
        if len(reply) == 1:
            raise Lost
        position = position_of(reply)
        message_id = str(Position(position.epoch, int(reply[3])))
        return Placed(position, Published(int(reply[2]), message_id, is_new=reply[4] == 1))

    def extract(
        self, channel: str, *, after: int | None = None, before: Position | None = None, limit: int | None = None
    ) -> Operation[Extract]:
        """The newest messages: at most `limit`, and `MAX_ANSWER_BYTES`; only those above the number `after`, and before
        the position `before`."""
        log, _ = self._keys.history(channel)
        arguments = (
            *("" if after is None else str(after), "" if before is None else str(before)),
            *(str(NO_LIMIT if limit is None else limit), str(MAX_ANSWER_BYTES)),
        )
        epoch, number, last, is_cut, *flat = yield Call("read_log", (*self._keys.channel(channel), log), arguments)
        messages = [KeptMessage(int(flat[at]), int(flat[at + 1]), flat[at + 2]) for at in range(len(flat) - 3, -1, -3)]
        return Extract(Position(int(epoch or 0), int(number)), int(last), messages, is_cut == 1)

    def clear(self, channel: str) -> Operation[int]:
        """Forget the kept messages. Returns how many there were."""
        names = (*self._keys.channel(channel), *self._keys.history(channel))
        return int((yield Call("clear_log", names, (self._keys.topic(channel),))))

    def size(self, channel: str) -> Operation[HistorySize]:
        """What a channel keeps."""
        return _sum_of((yield self._measuring(channel)))

    def total_size(self) -> Operation[HistorySize]:
        """What all channels keep together."""
        channels = yield from self._index.channels()
        total = HistorySize(0, 0)
        for at in range(0, len(channels), BATCH):
            calls = [call for channel in channels[at : at + BATCH] for call in self._measuring(channel)]
            found = _sum_of((yield calls))
            total = HistorySize(total.messages + found.messages, total.bytes + found.bytes)
        return total

    def _measuring(self, channel: str) -> list[Call]:
        """The calls whose replies `_sum_of` takes."""
        state, *_ = self._keys.channel(channel)
        log, _ = self._keys.history(channel)
        return [Call("HMGET", (state,), ("m", "b")), Call("XLEN", (log,))]


def _sum_of(replies: list[Any]) -> HistorySize:
    """What channels keep together. Whatever is left of an earlier epoch, or of a log that has expired, is not kept."""
    messages = size = 0
    for (last, size_of_log), count in pairs(replies):
        if last is not None and count:
            messages, size = messages + count, size + int(size_of_log or 0)
    return HistorySize(messages, size)
