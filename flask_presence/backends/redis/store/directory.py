"""Questions over the whole service, for processes with sockets and without.

Law: sans IO; asks Redis alone, never another process.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from ....domain.channels import Channel, ChannelName, ChannelType, matches
from .calls import Call, Operation, pairs
from .keys import Keys, unescape
from .workers import Nodes

BATCH: Final = 500
"""Channels that one script counts, so that none takes long."""


class Census:
    """The channels under one prefix, as they are counted."""

    def __init__(self, keys: Keys, nodes: Nodes) -> None:
        self._keys = keys
        self._nodes = nodes

    def channels(self, kind: ChannelType | None, prefix: str | None) -> Operation[list[Channel]]:
        """Those that somebody is in, oldest first, without their members."""
        names: set[str] = {unescape(name) for name in (yield from self._nodes.graces.channels())}
        nodes = yield from self._nodes.all()
        for noted in (yield [Call("SMEMBERS", (self._keys.index(node),)) for node in nodes]):
            names |= {name.decode() for name in noted}
        wanted = [name for name in map(ChannelName, names) if matches(name, kind, prefix)]
        found: list[Channel] = []
        for at in range(0, len(wanted), BATCH):
            batch = wanted[at : at + BATCH]
            keys = [key for name in batch for key in self._keys.tally(name, listed=name.type == "presence")]
            tally = yield Call("tally", tuple(keys))
            for name, (since, number) in zip(batch, pairs(tally), strict=True):
                if since:
                    found.append(Channel(name, name.type, number, datetime.fromisoformat(since.decode())))
        return sorted(found, key=lambda channel: (channel.created_at, channel.name))
