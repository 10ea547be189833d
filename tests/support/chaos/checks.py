"""What must be right after a fault: views, counts, the data in Redis, messages, and what stays when all have left."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import redis

from ..server import DEADLINE, Server
from .participants import Participant
from .stores import Stores


class Checks:
    """Compares `servers` and `stores` with what the participants know. `channels` are those that they use."""

    def __init__(self, servers: list[Server], stores: Stores, prefix: str, channels: Sequence[str]) -> None:
        self._servers = servers
        self._stores = stores
        self._prefix = prefix
        self._channels = {
            label: [channel for channel in channels if stores.sharding.of_channel(channel) == label]
            for label in stores.labels
        }

    def problems(self, connected: Sequence[Participant], others: int) -> Iterator[str]:
        """What is wrong. Up to so many `others` may be connected."""
        self._stores.look_up()
        for label, channels in self._channels.items():
            if not channels:
                continue
            try:
                found = self._in_redis(label, channels)
            except redis.RedisError as problem:
                yield f"the Redis of {label}: {problem}"
                continue
            for channel, (members, count) in found.items():
                inside = [one for one in connected if channel in one.views]
                if count != len(inside):
                    yield f"{channel}: {count} connections in Redis, {len(inside)} expected"
                if channel.startswith("presence-"):
                    yield from _differences(channel, inside, members)
        for server in self._servers:
            status, _, body = server.get("/presence/stats")
            stats = json.loads(body)
            expected = range(len(connected), len(connected) + others + 1)
            if status != 200 or "unavailable" in stats or stats["connections"] not in expected:
                yield f"stats: {status} {body}, {len(connected)} connections expected"

    def _in_redis(self, label: str, channels: Iterable[str]) -> dict[str, tuple[set[str], int]]:
        """The members of the channels in a shard, and the numbers of their connections."""
        keys = self._stores.keys(self._prefix, label)
        found = {}
        with self._stores.admin(label) as admin:
            for channel in channels:
                _, members, connections, *_ = keys.channel(channel)
                found[channel] = set(admin.hkeys(members)), admin.hlen(connections)
        return found

    def messages(self, connected: Sequence[Participant], chance: random.Random, numbers: Iterator[int]) -> None:
        """Without a fault a message reaches everybody once, and `delivered` is right."""
        for channel in [channel for channels in self._channels.values() for channel in channels]:
            inside = [one for one in connected if channel in one.views]
            if not inside:
                continue
            sender, number = chance.choice(inside), next(numbers)
            where = f"a message on {channel} from {sender.server.port}"
            answer, seconds = sender.request("channel:message", channel=channel, data=number)
            where += f", answered after {seconds:.2f} s,"
            assert answer is not None, f"{where}: a connection was lost without a fault"
            assert answer["type"] == "channel:sent", f"{where}: {answer}"
            assert answer["delivered"] == len(inside) - 1, f"{where}: {answer}"
            key, deadline = f"{channel} {number}", time.monotonic() + DEADLINE
            while missed := [one for one in inside if one is not sender and one.heard[key] != 1]:
                counts = [(one.user, one.server.port, one.heard[key]) for one in missed]
                assert time.monotonic() < deadline, f"{where} did not arrive once: {counts}"
                time.sleep(0.01)

    def left_behind(self) -> list[str]:
        """What may not stay in Redis when everybody has left: keys that do not expire, other than the running workers'
        own, and what belongs to other workers."""
        self._stores.look_up()
        return [text for label in self._stores.labels for text in self._left_in(label)]

    def _left_in(self, label: str) -> Iterator[str]:
        keys = self._stores.keys(self._prefix, label)
        with self._stores.admin(label) as admin:
            workers = admin.smembers(keys.workers)
            if len(workers) != len(self._servers):
                yield f"{len(workers)} workers in {label}"
            lasting = {keys.data_since, keys.layout, keys.leases, keys.workers, *map(keys.worker_channels, workers)}
            for key in admin.scan_iter(f"{keys.prefix}:*", count=1000):
                stays = key not in lasting and admin.ttl(key) == -1
                if stays or key.endswith((":clients", ":guests")):
                    yield key


def _differences(channel: str, inside: Sequence[Participant], members: set[str]) -> Iterator[str]:
    """Where the views of a channel differ from each other, and from the members in Redis."""
    users = {one.user for one in inside}
    if members != users:
        yield f"{channel}: ghosts {members - users}, missing {users - members} in Redis"
    views: list[Mapping[str, Any]] = [one.views.get(channel, {}) for one in inside]
    shapes = {json.dumps(view, sort_keys=True) for view in views}
    if len(shapes) > 1:
        yield f"{channel}: the views differ: {shapes}"
    for one, view in zip(inside, views, strict=True):
        if set(view) != users:
            yield f"{channel}: {one.user} at {one.server.port} sees {sorted(view)}, not {users}"
