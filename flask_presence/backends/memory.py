"""The state of one process, in its memory.

Law: plain dictionaries, changed without a greenlet switch; must be called in the event loop.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from ..domain.channels import Channel, ChannelName, ChannelType
from ..domain.members import Member, User
from ..domain.roster import Change, Joined, Roster, Updated
from . import Listener


class MemoryBackend:
    """The roster, and the one hub that hears of its changes."""

    blocking = False

    def __init__(self, max_info: int) -> None:
        self._roster = Roster(max_info)
        self._listener: Listener

    def bind(self, listener: Listener) -> None:
        self._listener = listener

    def join(
        self, channel: ChannelName, client_id: str, user: User | None, info: Mapping[str, Any] | None, now: datetime
    ) -> Joined:
        outcome = self._roster.join(channel, client_id, user, info, now)
        self._announce(channel, outcome.change, client_id, now)
        return outcome

    def leave(self, channel: ChannelName, client_id: str, now: datetime, *, hold: bool = False) -> Change | None:
        change = self._roster.leave(channel, client_id, hold=hold)
        self._announce(channel, change, client_id, now)
        return change

    def release(self, channel: ChannelName, user_id: str, now: datetime) -> Change | None:
        change = self._roster.release(channel, user_id)
        self._announce(channel, change, None, now)
        return change

    def update(self, channel: ChannelName, client_id: str, info: Mapping[str, Any], now: datetime) -> Updated:
        outcome = self._roster.update(channel, client_id, info, now)
        self._announce(channel, outcome.change, client_id, now)
        return outcome

    def publish(self, channel: str, payload: bytes, exclude: str | None) -> int:
        return self._listener.deliver(channel, payload, exclude)

    broadcast = publish

    def get(self, name: str) -> Channel | None:
        return self._roster.get(name)

    def channels(self, kind: ChannelType | None = None, prefix: str | None = None) -> list[Channel]:
        return [
            channel
            for channel in self._roster.channels()
            if (kind is None or channel.type == kind) and channel.name.startswith(prefix or "")
        ]

    def members(self, name: str) -> Sequence[Member]:
        return self._roster.members(name)

    def counts(self) -> tuple[int, dict[str, int]]:
        return self._roster.counts()

    def _announce(self, channel: ChannelName, change: Change | None, exclude: str | None, now: datetime) -> None:
        if change is not None:
            self._listener.announce(channel, change, exclude, now)
