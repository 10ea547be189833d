"""The Redis servers of the chaos, what goes wrong with them, and what is in them.

Rule: a fault hits only `victims`. In a round in which only Redis is harmed, these are so few that other shards are left
over, which must notice nothing.
"""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Iterable, Mapping
from typing import Any

import redis

from flask_presence.backends.redis.shards.sharding import Sharding
from flask_presence.backends.redis.store.keys import Keys

from ..redis_server import RedisServer
from .faults import LEASE, Fault


class Stores:
    """Independent Redis servers by the labels of their shards; a single one is the only shard of a service without
    labels. `backend` is the value of `PRESENCE_BACKEND`."""

    def __init__(self, servers: Mapping[str, RedisServer], labels: Iterable[str] | None = None) -> None:
        self._servers = dict(servers)
        self.labels = sorted(self._servers if labels is None else labels)
        self.sharding = Sharding(self.labels)
        self.victims = list(self.labels)

    @property
    def backend(self) -> Any:
        urls = self.urls()
        return urls if len(urls) > 1 else next(iter(urls.values()))

    def urls(self) -> dict[str, str]:
        return {label: server.url for label, server in self._servers.items()}

    def keys(self, prefix: str, label: str) -> Keys:
        """The names in a shard of the service with that prefix."""
        del label
        return Keys(prefix)

    def look_up(self) -> None:
        """Find out which servers have the shards now."""

    def server(self, label: str) -> RedisServer:
        """The server that has a shard, as of the last `look_up`."""
        return self._servers[label]

    def admin(self, label: str) -> Any:
        """redis-py's client of that server."""
        return redis.Redis(port=self.server(label).port, decode_responses=True, socket_timeout=5)

    def aim(self, chance: random.Random, *, narrowly: bool) -> list[str]:
        """Choose the victims of a round. `narrowly`: so that other shards are left over, if there are several. Returns
        the labels of those that will not be touched."""
        self.victims = [chance.choice(self.labels)] if narrowly else list(self.labels)
        return [label for label in self.labels if label not in self.victims]

    def mend(self) -> None:
        """See to it that all servers run, and wait until they are as they should be."""

    def faults(self) -> dict[str, Fault]:
        return {
            **self.cuts(),
            "restart Redis": Fault(lambda chance: self._restart(self._victim(chance), chance.uniform(0, 1.5))),
            "pause Redis": Fault(lambda chance: self._pause(self._victim(chance), chance.uniform(0.2, 1.6))),
            "pause Redis past the lease": Fault(lambda chance: self._pause(self._victim(chance), LEASE * 1.5)),
        }

    def cuts(self) -> dict[str, Fault]:
        """The faults that every kind of Redis server can have."""
        return {
            "cut pub/sub": Fault(lambda chance: self._cut(chance, "pubsub")),
            "cut commands": Fault(lambda chance: self._cut(chance, "normal")),
            "cut everything": Fault(lambda chance: self._cut(chance, "pubsub", "normal")),
            "flush": Fault(self._flush),
        }

    def _victim(self, chance: random.Random) -> RedisServer:
        return self.server(chance.choice(self.victims))

    def _cut(self, chance: random.Random, *kinds: str) -> None:
        """Close the connections of these kinds to a server."""
        with self.admin(chance.choice(self.victims)) as admin:
            own = admin.client_id()
            for one in [one for kind in kinds for one in admin.client_list(_type=kind)]:
                # Sentinels come back only after a second, and would choose another master meanwhile.
                if int(one["id"]) != own and not one["name"].startswith("sentinel-"):
                    admin.client_kill_filter(_id=one["id"])

    def _flush(self, chance: random.Random) -> None:
        with self.admin(chance.choice(self.victims)) as admin:
            admin.flushall()

    @staticmethod
    def _restart(server: RedisServer, seconds: float) -> None:
        server.stop()
        time.sleep(seconds)
        server.start()

    @staticmethod
    def _pause(server: RedisServer, seconds: float) -> None:
        server.process.send_signal(signal.SIGSTOP)
        time.sleep(seconds)
        server.process.send_signal(signal.SIGCONT)
