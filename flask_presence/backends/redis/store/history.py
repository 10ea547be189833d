"""The kept messages of a channel in Redis: a stream beside the channel's state.

Rule: sans IO. A message is numbered, published and kept in one step.
"""

from __future__ import annotations

import math

from ....domain.history import MAX_ANSWER_BYTES, MAX_LOG_BYTES, Extract, KeptMessage, Position, Published, Retention
from .calls import NOWHERE, Call, Lost, Operation, Placed, position_of
from .keys import Keys

NO_LIMIT = 1_000_000
"""More messages than any channel keeps."""


class HistoryOperations:
    """The kept messages under one prefix. `known`: see `ChannelOperations`."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

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
        reply = yield Call("publish_kept", names, arguments)
        if len(reply) == 1:
            raise Lost
        position = position_of(reply)
        message_id = str(Position(position.epoch, int(reply[3])))
        return Placed(position, Published(int(reply[2]), message_id, is_new=reply[4] == 1))

    def extract(
        self, channel: str, *, after: int | None = None, before: Position | None = None, limit: int | None = None
    ) -> Operation[Extract]:
        """The newest messages: at most `limit`, and `MAX_ANSWER_BYTES`; only those above the number `after`, and before
        the place `before`."""
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
