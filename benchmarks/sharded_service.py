"""A service with several Redis servers, whose commands, CPU time and memory are counted, and its connections.

Rule: costs are sums over all shards, and what the service costs while nothing happens is not in them.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import redis

from flask_presence.backends.redis.shards.sharding import Sharding
from flask_presence.backends.redis.store.keys import unescape
from tests.support.raw import masked, split_frames, upgraded
from tests.support.redis_server import RedisServer, running_redis
from tests.support.server import wait_until

from .peers import OURS
from .servers import SERVER_CORE, running

OWN: Final = ("cmdstat_info", "cmdstat_scan", "cmdstat_config", "cmdstat_client")
"""Commands of the benchmark itself."""
PING: Final = 9
PONG: Final = 10
RECEIVED: Final = 65536
CLOCK_TICKS: Final = os.sysconf("SC_CLK_TCK")


class Cost(NamedTuple):
    """What something costs, each time, in all shards: microseconds of CPU, scripts, commands (those that scripts
    call included), and bytes of memory for data. The comparisons of idle channels are not counted. `servers`: the
    microseconds of CPU of all workers, with what they use while nothing happens. `seconds`: how long all of it took."""

    cpu: float
    scripts: float
    commands: float
    memory: float
    servers: float
    seconds: float


class Connection:
    """A WebSocket that counts the frames that it receives."""

    def __init__(self, raw: socket.socket) -> None:
        self._raw = raw
        self._rest = b""
        self._frames: Counter[str] = Counter()

    def send(self, request: dict[str, Any]) -> None:
        self._raw.sendall(masked(json.dumps(request).encode()))

    def wait(self, count: int, *types: str) -> None:
        """Wait for so many more frames of these types. Raises `RuntimeError` for an error of the server."""
        while (found := sum(self._frames[kind] for kind in types)) < count:
            self._read()
        if found > count:
            raise RuntimeError(f"{found} frames instead of {count} of {types}")
        for kind in types:
            del self._frames[kind]

    def _read(self) -> None:
        part = self._raw.recv(RECEIVED)
        if not part:
            raise RuntimeError("the server has closed a connection")
        frames, self._rest = split_frames(self._rest + part)
        for opcode, payload in frames:
            if opcode == PING:
                self._raw.sendall(masked(payload, PONG))
                continue
            kind = json.loads(payload)["type"]
            if "error" in kind:
                raise RuntimeError(f"the server has answered {payload!r}")
            self._frames[kind] += 1


class ShardedService:
    """Redis servers with these labels, and servers of one worker each. With one label there are no shards."""

    def __init__(self, program: str, labels: Sequence[str], servers: int = 2) -> None:
        self.sharding = Sharding(labels)
        self._stack = ExitStack()
        with ExitStack() as stack:
            shards = {label: stack.enter_context(running_redis(program)) for label in labels}
            for shard in shards.values():
                os.sched_setaffinity(shard.process.pid, {SERVER_CORE})
            self._redis = {label: stack.enter_context(_opened(shard)) for label, shard in shards.items()}
            urls: dict[str, str] = {label: shard.url for label, shard in shards.items()}
            self.urls = urls
            backend = json.dumps(urls if len(urls) > 1 else urls[labels[0]])
            self._servers = [stack.enter_context(running(OURS, FLASK_PRESENCE_BACKEND=backend)) for _ in range(servers)]
            for server in self._servers:
                upgraded(server.port).close()  # the worker begins with its first connection
            self._stack = stack.pop_all()

    def __enter__(self) -> ShardedService:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @contextmanager
    def connected(self, number: int, token: str) -> Iterator[Connection]:
        """A connection. The servers take turns."""
        with upgraded(self._servers[number % len(self._servers)].port, token) as raw:
            yield Connection(raw)

    def cost(self, times: int, action: Callable[[], object], rest: Cost | None = None) -> Cost:
        """What `action`, which does something so many times, costs each time. `rest` is the cost of doing nothing."""
        before = self._usage()
        action()
        used = [end - begin for begin, end in zip(before, self._usage(), strict=True)]
        cpu, scripts, commands, memory, servers, seconds = used
        if rest is not None:
            cpu, scripts, commands = (
                max(0.0, value - idle * seconds / rest.seconds)
                for value, idle in zip((cpu, scripts, commands), rest, strict=False)
            )
        return Cost(cpu / times, scripts / times, commands / times, memory / times, servers / times, seconds)

    def numbered(self) -> dict[str, int]:
        """How many events of channels each shard has numbered and published so far. (Workers also publish to
        themselves, to test what they hear.)"""
        return {label: _calls(one)["cmdstat_hincrby"] for label, one in self._redis.items()}

    def channels(self) -> dict[str, set[str]]:
        """The channels with connections in each shard."""
        return {
            label: {
                unescape(key.decode().partition("{")[2].rpartition("}")[0])
                for key in one.scan_iter("fp:channel:*:connections", count=1000)
            }
            for label, one in self._redis.items()
        }

    def lasting_keys(self) -> int:
        """How many keys do not expire."""
        return sum(found["keys"] - found["expires"] for found in self._keyspaces())

    def expiring_keys(self) -> int:
        return sum(found["expires"] for found in self._keyspaces())

    def redis_memory(self) -> int:
        """In bytes."""
        return sum(one.info("memory")["used_memory"] for one in self._redis.values())

    def worker_memory(self) -> int:
        """The resident memory of the first server's worker, in bytes."""
        pages = Path(f"/proc/{self._servers[0].pids[1]}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def server_cpu(self, number: int) -> float:
        """The microseconds of CPU that a server has used."""
        ticks = 0
        for pid in self._servers[number].pids:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])  # user and system
        return ticks / CLOCK_TICKS * 1e6

    def settle(self) -> None:
        """Wait until Redis knows all connections, which the servers tell it after they have told the client."""
        seen = [-1]

        def is_still() -> bool:
            seen.append(sum(sum(_calls(one)[kind] for kind in ("cmdstat_hset",)) for one in self._redis.values()))
            return seen[-1] == seen[-2]

        wait_until(is_still)

    def _keyspaces(self) -> list[dict[str, int]]:
        return [one.info("keyspace").get("db0", {"keys": 0, "expires": 0}) for one in self._redis.values()]

    def _usage(self) -> tuple[float, ...]:
        cpu = scripts = commands = memory = 0.0
        for one in self._redis.values():
            used, calls = one.info("cpu"), _calls(one)
            cpu += (used["used_cpu_user"] + used["used_cpu_sys"]) * 1e6
            comparisons = calls["cmdstat_hmget"]  # each is a script with two commands
            scripts += calls["cmdstat_evalsha"] - comparisons
            commands += calls.total() - 3 * comparisons
            memory += one.info("memory")["used_memory_dataset"]
        servers = sum(map(self.server_cpu, range(len(self._servers))))
        return cpu, scripts, commands, memory, servers, time.monotonic()


def _calls(one: Any) -> Counter[str]:
    """How often each command was called, without those of the benchmark."""
    stats = one.info("commandstats")
    return Counter({name: stat["calls"] for name, stat in stats.items() if name.split("|")[0] not in OWN})


@contextmanager
def _opened(server: RedisServer) -> Iterator[Any]:
    with redis.Redis(port=server.port) as client:
        yield client
