"""A service with shards: three Redis servers of its own, and two servers that use them."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import redis

from flask_presence.backends.redis.shards.sharding import Sharding

from .client import Client, client
from .redis_server import RedisServer, running_redis
from .server import Server, running, wait_until

LABELS = ("a", "b", "c")
SHARDING = Sharding(LABELS)


def channel_in(label: str, name: str, kind: str = "presence-") -> str:
    """The name of a channel that is in the shard with that label."""
    return _first(lambda text: SHARDING.of_channel(text) == label, f"{kind}{name}-{label}")


def user_in(label: str, name: str) -> str:
    """The id of a user who has that shard for a home."""
    return _first(lambda text: SHARDING.of_user(text) == label, f"{name}-{label}")


def _first(fits: Callable[[str], bool], stem: str) -> str:
    return next(text for number in range(1000) if fits(text := f"{stem}-{number}"))


class ShardedService:
    """The Redis servers by label, and the servers. `config` are the settings of these, and of any other."""

    def __init__(self, program: str, stack: ExitStack, config: dict[str, Any]) -> None:
        self.shards = {label: stack.enter_context(running_redis(program)) for label in LABELS}
        self.config = {"PRESENCE_BACKEND": {label: shard.url for label, shard in self.shards.items()}, **config}
        self.servers = [stack.enter_context(running(**self.config)) for _ in range(2)]
        self._stack = stack

    @contextmanager
    def used(self) -> Iterator[None]:
        """Use the service in this block. At its end all shards are there again and no client is left."""
        with ExitStack() as self._stack:
            yield
        self.mend()
        for server in self.servers:
            wait_until(lambda server=server: self._is_empty(server))  # type: ignore[misc]

    def mend(self) -> None:
        """Let every shard run, and wait until every server knows."""
        for shard in self.shards.values():
            if shard.process.poll() is not None:
                shard.start()
            shard.process.send_signal(signal.SIGCONT)
        for server in self.servers:
            wait_until(lambda server=server: server.get("/presence/health")[0] == 200)  # type: ignore[misc]

    def enter(self, server: int = 0, user: str | None = None, **options: Any) -> Client:
        return self._stack.enter_context(client(self.servers[server], user, **options))

    def admin(self, label: str) -> Any:
        """redis-py's client of a shard."""
        return self._stack.enter_context(redis.Redis(port=self.shards[label].port, socket_timeout=5))

    def _is_empty(self, server: Server) -> bool:
        status, _, body = server.get("/presence/stats")
        stats = json.loads(body)
        return status == 200 and "unavailable" not in stats and stats["connections"] == stats["totalMembers"] == 0


@contextmanager
def running_shards(program: str, **config: Any) -> Iterator[ShardedService]:
    with ExitStack() as stack:
        yield ShardedService(program, stack, config)


def kill(shard: RedisServer) -> None:
    shard.stop()


def pause(shard: RedisServer) -> None:
    shard.process.send_signal(signal.SIGSTOP)


def empty(shard: RedisServer) -> None:
    with redis.Redis(port=shard.port) as admin:
        admin.flushall()
