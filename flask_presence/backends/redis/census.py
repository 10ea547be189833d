"""Questions over the whole service, for processes with sockets and without.

Law: sans IO; asks Redis alone, never another process.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Final

from ...domain.channels import CHANNEL_TYPES, Channel, ChannelName, ChannelType
from .keys import Keys, unescape
from .nodes import Nodes
from .operations import Call, Operation, Snapshot

BATCH: Final = 500
"""Channels that are asked about in one round trip."""


class Census:
    """The channels under one prefix, as they are counted."""

    def __init__(self, keys: Keys, nodes: Nodes) -> None:
        self._keys = keys
        self._nodes = nodes

    def channels(self, kind: ChannelType | None, prefix: str | None) -> Operation[list[Channel]]:
        """Those that somebody is in, oldest first, without their members."""
        names: set[str] = {unescape(name) for name in (yield from self._nodes.held_channels())}
        nodes = yield from self._nodes.all()
        for noted in (yield [Call("SMEMBERS", (self._keys.index(node),)) for node in nodes]):
            names |= {name.decode() for name in noted}
        wanted = sorted(
            name for name in names if name.startswith(prefix or "") and (kind is None or ChannelName(name).type == kind)
        )
        found: list[Channel] = []
        for at in range(0, len(wanted), BATCH):
            batch = wanted[at : at + BATCH]
            replies = yield [Call("snapshot", self._keys.channel(name), ("",)) for name in batch]
            found += _describe(batch, replies)
        return sorted(found, key=lambda channel: channel.created_at)


def count(channels: list[Channel]) -> tuple[int, dict[str, int]]:
    """The sum of the channels' member counts, and the number of channels by type."""
    by_type: dict[str, int] = dict.fromkeys(CHANNEL_TYPES, 0)
    for channel in channels:
        by_type[channel.type] += 1
    return sum(channel.member_count for channel in channels), by_type


def _describe(names: list[str], replies: list[list[bytes]]) -> Iterator[Channel]:
    for name, reply in zip(names, replies, strict=True):
        if reply[2]:
            snapshot = Snapshot(datetime.fromisoformat(reply[2].decode()), int(reply[3]), int(reply[4]), {})
            channel = snapshot.channel(name, with_members=False)
            if channel is not None:
                yield channel
