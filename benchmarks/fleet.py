"""What a service costs Redis while nothing happens, by its number of workers: `python -m benchmarks.fleet`.

The workers are pretended: one process beats for all of them with the package's own heartbeats, on a Redis of its own.
Each has its own id, eight on a host. In the end a tenth of them die, and the others have to remove these. The exit
status is 1 if they do not.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, NamedTuple, TypeVar

import redis

from flask_presence.backends.redis.client.address import parse_address
from flask_presence.backends.redis.client.client import Client
from flask_presence.backends.redis.store.calls import Call, Operation
from flask_presence.backends.redis.store.keys import Keys
from flask_presence.backends.redis.store.store import Store
from flask_presence.backends.redis.worker.breaker import CircuitBreaker
from flask_presence.backends.redis.worker.comparisons import Comparisons
from flask_presence.backends.redis.worker.heartbeat import Heartbeat
from flask_presence.domain.readings import Backlog, Reading
from flask_presence.hub.instruments import Instruments
from flask_presence.loops.pending import Pending
from tests.support.redis_server import RedisServer, running_redis

from .report import format_markdown, format_text
from .servers import redis_program

T = TypeVar("T")

LEASE: Final = 3600.0
"""Seconds that a lease lasts: no worker that is late here is dead."""
PER_HOST: Final = 8
"""Workers on one host."""
DEAD: Final = 10
"""One worker of so many dies in the end."""
MAX_ROUNDS: Final = 10
"""Heartbeats of all workers within which those that died must be removed."""
CLAIMS: Final = 25
BATCHES: Final = 20
"""Claims that are measured together, and how often: Redis's own times include those in which it did not run."""
COMPARISONS: Final = 5000
"""Comparisons that are measured."""
PRETENDED: Final = 3600
"""Seconds for which the turns of a worker's copies are followed, by a pretended clock."""


def main() -> int:
    options = _parse()
    program = redis_program()
    table = format_markdown if options.markdown else format_text
    beats = [["workers", "CPU µs", "commands", "bytes in", "bytes out", "claim: µs", "beats until the dead are gone"]]
    left = 0
    for count in options.workers:
        with running_redis(program) as server, Fleet(server, count) as fleet:
            rounds = max(1, min(options.rounds, 10_000 // count))
            cost = fleet.cost(partial(fleet.beat, rounds), rounds * count)
            claim = fleet.script_time(fleet.claim)
            remaining, needed = fleet.remove_dead()
            left += remaining
            beats.append([f"{count:,}", *_format(cost), f"{claim:.1f}", str(needed)])
    print("A heartbeat of one worker, every second\n" + table(beats))
    with running_redis(program) as server, Fleet(server, 1) as fleet:
        cost = fleet.cost(fleet.compare, COMPARISONS)
    turns = [["channels", "comparisons/s", "CPU µs", "bytes in", "bytes out"]]
    for channels in options.channels:
        rate = _turns(channels) / PRETENDED
        cpu, _, received, sent = _format(Cost(*(rate * number for number in cost)))
        turns.append([f"{channels:,}", f"{rate:.2f}", cpu, received, sent])
    print(f"\nThe comparisons of one worker's idle channels, every second ({cost.cpu:.0f} µs each)\n" + table(turns))
    return 1 if left else 0


def _turns(channels: int) -> int:
    """How many comparisons a worker with so many channels makes in `PRETENDED` seconds."""
    comparisons = Comparisons()
    for number in range(channels):
        comparisons.add(str(number), 0)
    return sum(len(comparisons.due(tenth / 10)) for tenth in range(10 * PRETENDED))


def _format(cost: Cost) -> list[str]:
    return [f"{cost.cpu:,.0f}", f"{cost.commands:.1f}", f"{cost.received:,.0f}", f"{cost.sent:,.0f}"]


class Cost(NamedTuple):
    """What something costs Redis, each time: microseconds of CPU, commands (a script is one), bytes in and out."""

    cpu: float
    commands: float
    received: float
    sent: float


class CountingClient(Client):
    """Counts the commands that it sends."""

    sent = 0

    def run_calls(self, calls: Sequence[Call]) -> list[Any]:
        self.sent += len(calls)
        return super().run_calls(calls)


class Calls:
    """Runs operations at once, in place of a worker's pipeline."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def run(self, operation: Operation[T]) -> Pending[T]:
        value, done = self._client.run(operation), Pending[T]()
        done.settle(lambda: value)
        return done


class Idle:
    """The listener of a worker on which nothing happens, but whose event loop runs."""

    def __init__(self) -> None:
        self._instruments = Instruments()

    def reading(self) -> Reading:
        self._instruments.lagged(time.time(), 0.001)
        return self._instruments.read(Backlog())

    def notify(self, event: object) -> None:
        raise AssertionError(f"nobody is connected: {event}")


class Fleet:
    """So many workers on one Redis."""

    def __init__(self, server: RedisServer, count: int) -> None:
        self._client = CountingClient(parse_address(server.url))
        self._keys = Keys("fp")
        self._store = Store(self._keys, lease=LEASE, max_info=4096)
        self._redis: Any = redis.Redis(port=server.port)
        self._redis.set(self._keys.data_since, "1")  # the time after a loss of data is over
        self._workers = [self._worker(number) for number in range(count)]
        self.beat(2)  # in the first, the workers get to know each other

    def __enter__(self) -> Fleet:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()
        self._redis.close()

    def beat(self, rounds: int = 1) -> None:
        """So many heartbeats of each worker, with everything that belongs to them."""
        for _ in range(rounds):
            for worker in self._workers:
                worker.beat()

    def claim(self) -> None:
        for _ in range(CLAIMS):
            assert self._client.run(self._store.dead_workers.claim([])) is None

    def compare(self) -> None:
        for number in range(COMPARISONS):
            self._client.run(self._store.channels("worker").position(f"presence-{number}"))

    def remove_dead(self) -> tuple[int, int]:
        """Let some workers die. Returns how many remain listed, and after how many rounds of heartbeats."""
        dead, self._workers = self._workers[::DEAD], [w for at, w in enumerate(self._workers) if at % DEAD]
        self._redis.zadd(self._keys.leases, {worker.worker_id: 1 for worker in dead})
        rounds = 0
        while rounds < MAX_ROUNDS and self._redis.scard(self._keys.workers) > len(self._workers):
            self.beat()
            rounds += 1
        return self._redis.scard(self._keys.workers) - len(self._workers), rounds

    def cost(self, action: Callable[[], object], times: int) -> Cost:
        """What `action`, which does something so many times, costs Redis each time."""
        before = self._usage()
        action()
        return Cost(*((end - begin) / times for begin, end in zip(before, self._usage(), strict=True)))

    def script_time(self, action: Callable[[], object]) -> float:
        """The microseconds that Redis takes for each script that `action` calls, when it is least disturbed."""
        times = []
        for _ in range(BATCHES):
            self._redis.config_resetstat()
            action()
            times.append(float(self._redis.info("commandstats")["cmdstat_evalsha"]["usec_per_call"]))
        return min(times)

    def _usage(self) -> tuple[float, float, float, float]:
        cpu, stats = self._redis.info("cpu"), self._redis.info("stats")
        used = (cpu["used_cpu_user"] + cpu["used_cpu_sys"]) * 1e6
        return used, self._client.sent, stats["total_net_input_bytes"], stats["total_net_output_bytes"]

    def _worker(self, number: int) -> Heartbeat:
        ignored: Any = lambda *_: []  # noqa: E731
        listener: Any = Idle()
        calls: Any = Calls(self._client)
        worker = Heartbeat(self._store, calls, CircuitBreaker(LEASE), listener, 1e-6, ignored, ignored, ignored)
        worker.worker_id = f"{number // PER_HOST:012x}.{number + 1}.1.{number:012x}"
        return worker


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fleet", description=__doc__)
    parser.add_argument("--workers", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--channels", type=int, nargs="+", default=[10, 100, 1000, 10_000])
    parser.add_argument("--rounds", type=int, default=10, help="heartbeats of each worker that are measured")
    parser.add_argument("--markdown", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
