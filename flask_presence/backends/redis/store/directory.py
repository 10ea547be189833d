"""Queries about all channels of the service, for processes with connections and without.

Rule: sans IO; asks Redis only, never another process.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from ....domain.channels import Channel, ChannelName, ChannelType, matches
from .calls import Call, Operation, pairs
from .grace import Graces
from .keys import Keys, unescape
from .workers import Workers

BATCH: Final = 500
"""The maximum number of channels that one script counts, so that no script takes long."""


class ChannelDirectory:
    """The channels under one prefix."""

    def __init__(self, keys: Keys, workers: Workers, graces: Graces) -> None:
        self._keys = keys
        self._workers = workers
        self._graces = graces

    def channels(self, kind: ChannelType | None, prefix: str | None) -> Operation[list[Channel]]:
        """The channels that somebody is in and that match (`None` matches any), oldest first, without members."""
        names: set[str] = {unescape(name) for name in (yield from self._graces.channels())}
        workers = yield from self._workers.all()
        for found in (yield [Call("SMEMBERS", (self._keys.worker_channels(worker_id),)) for worker_id in workers]):
            names |= {name.decode() for name in found}
        wanted = [name for name in map(ChannelName, names) if matches(name, kind, prefix)]
        channels: list[Channel] = []
        for at in range(0, len(wanted), BATCH):
            batch = wanted[at : at + BATCH]
            keys = [key for name in batch for key in self._keys.counting(name, listed=name.type == "presence")]
            counted = yield Call("count_channels", tuple(keys))
            for name, (since, number) in zip(batch, pairs(counted), strict=True):
                if since:
                    channels.append(Channel(name, name.type, number, datetime.fromisoformat(since.decode())))
        return sorted(channels, key=lambda channel: (channel.created_at, channel.name))
