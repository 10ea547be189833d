"""The world of the chaos: it plays rounds of random requests and faults, each of which is followed by the checks."""

from __future__ import annotations

import itertools
import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Literal

from flask_presence.backends.redis.shards.sharding import Sharding

from ..cluster import running_cluster
from ..conversation import HISTORY, LISTENERS, WRITERS, Conversation
from ..redis_server import running_redis
from ..sentinel import running_sentinels
from ..server import Server, running
from .checks import Checks
from .cluster_stores import ClusterStores
from .crowd import Crowd
from .faults import LEASE, Fault
from .sentinel_stores import SentinelStores
from .stores import Stores
from .witnesses import Figures, witnessing
from .workers import WorkerFaults

Kind = Literal["servers", "sentinel", "cluster"]

USERS = [f"user-{number}" for number in range(6)]
WITNESSES = [f"witness-{number}" for number in range(4)]
PAUSE = 0.02
"""Seconds between the requests during a fault, which may take long."""
CALM = 2.5
"""Seconds after a fault until messages reach everybody again."""
HEALING_TIMEOUT = 25.0


class World:
    """The servers, the Redis servers, the crowd that uses them, and a source of random numbers."""

    def __init__(self, seed: int, servers: list[Server], stores: Stores, prefix: str) -> None:
        self.random = random.Random(seed)
        self.servers = servers
        self.stores = stores
        self.done: Counter[str] = Counter()
        self.healed: list[float] = []  # the seconds that each round needed to heal after its last fault
        self.figures = Figures()
        self.log: list[str] = []
        self._tokens = {user: servers[0].token(user, name=user.title()) for user in USERS}
        self._witness_tokens = {user: servers[0].token(user) for user in WITNESSES}
        channels = _channels_in(stores.sharding)
        self._crowd = Crowd(self.random, servers, self._tokens, channels, stores.sharding, self.done)
        self._checks = Checks(servers, stores, prefix, channels)
        self._workers = WorkerFaults(servers)
        self._calm_at = 0.0
        self._harms_redis_only = False
        self._fault_pool = ThreadPoolExecutor(2)

    def play(self, rounds: int, until: float = float("inf"), script: Sequence[str] | None = None) -> None:
        """Play rounds of requests and faults, and check each. Stop early at `until`, in seconds of the monotonic clock.
        With a `script`, each round has these faults of Redis, and no others."""
        self.stores.aim(self.random, narrowly=True)
        kept = _channel_in(self.stores.sharding, self.stores.victims[0], "private-kept")
        conversation = Conversation(self.random.randrange(2**32), self.servers, self._tokens, kept)
        conversation.start()
        self._crowd.act(4)
        while len(self.healed) < rounds and time.monotonic() < until:
            with self._naming_faults():
                self.stores.mend()
            self._harms_redis_only = script is not None or self.random.random() < 0.5
            untouched = self.stores.aim(self.random, narrowly=self._harms_redis_only)
            if self._harms_redis_only:
                self._crowd.expect_calm(untouched)
            else:
                untouched = []
            self._play_round(script or [None] * self.random.randrange(1, 4), untouched)
            self._crowd.expect_anything()
        conversation.stop()
        self._check()
        self.done += conversation.counts
        wrong = list(conversation.problems())
        assert not wrong, "\n".join([f"a conversation with gaps after {self.log}:", *wrong[:20]])
        self._disconnect_all()

    def _play_round(self, faults: Sequence[str | None], untouched: Sequence[str]) -> None:
        channels = [_channel_in(self.stores.sharding, label, "presence-still") for label in untouched]
        with witnessing(self.servers, self._witness_tokens, channels) if channels else nullcontext() as witnesses:
            for name in faults:
                for _ in range(self.random.randrange(10, 60)):
                    self._crowd.act(self.random.randrange(1, 6))
                self._strike(name)
            fault_over = self._calm_at - CALM
            for _ in range(self.random.randrange(20)):
                self._crowd.act(self.random.randrange(1, 6))
            self._check(WRITERS + LISTENERS + (len(witnesses) if witnesses is not None else 0))
            self.healed.append(time.monotonic() - fault_over)
            if witnesses is not None:
                wrong, figures = witnesses.stop()
                self.figures = self.figures.with_(figures).with_(Figures(answer=self._crowd.slowest))
                self.done["round with witnesses"] += 1
                text = f"shards were disturbed that no fault had touched, after {self.log[-len(faults) :]}:"
                assert not wrong, "\n".join([text, *wrong[:20]])

    # Faults

    def _strike(self, name: str | None) -> None:
        """Cause a fault, a random one without a `name`, and perhaps a fault of a worker at the same time. Meanwhile the
        participants go on."""
        with self._naming_faults():
            self.stores.mend()
        of_redis, of_workers = self.stores.faults(), self._workers.faults()
        faults = of_redis if self._harms_redis_only else of_redis | of_workers
        name = name or self.random.choice(sorted(faults))
        striking = [self._begin(name, faults[name])]
        if not self._harms_redis_only and name in of_redis and self.random.random() < 0.5:
            another = self.random.choice(sorted(of_workers))
            striking.append(self._begin(another, of_workers[another]))
        while wait(striking, PAUSE).not_done:
            self._crowd.act(self.random.randrange(1, 6))
        with self._naming_faults():
            lasts = max(one.result() for one in striking)
        self._calm_at = max(self._calm_at, time.monotonic() + CALM + lasts)

    def _begin(self, name: str, fault: Fault) -> Future[float]:
        """Cause a fault beside this thread. The result says for how many seconds longer it lasts."""
        self.log.append(name)
        self.done[f"fault: {name}"] += 1
        chance = random.Random(self.random.random())

        def cause() -> float:
            fault.cause(chance)
            return fault.lasts

        return self._fault_pool.submit(cause)

    @contextmanager
    def _naming_faults(self) -> Iterator[None]:
        """Name the latest faults in a failure."""
        try:
            yield
        except AssertionError as problem:
            calm = time.monotonic() - self._calm_at
            raise AssertionError(f"{problem}; after {self.log[-4:]}, {calm:.1f} s into the calm") from None

    # Checks

    def _check(self, others: int = 0) -> None:
        """Wait until every view, every server and Redis agree; fail with the differences. Up to so many `others` may be
        connected."""
        while time.monotonic() < self._calm_at:
            time.sleep(0.05)  # a message that is sent before this may be lost, as documented
        deadline = time.monotonic() + HEALING_TIMEOUT
        while problems := list(self._checks.problems(self._crowd.connected(), others)):
            if time.monotonic() > deadline:
                raise AssertionError("\n".join([f"not healed after {self.log[-4:]}:", *problems[:20]]))
            time.sleep(0.1)
        with self._naming_faults():
            self._checks.messages(self._crowd.connected(), self.random, self._crowd.numbers)
        wrong = self._crowd.problems()
        assert not wrong, "\n".join([f"impossible after {self.log[-4:]}:", *wrong[:20]])

    def _disconnect_all(self) -> None:
        """Close every connection, and wait until nothing of them is left in Redis."""
        self._crowd.close()
        deadline = time.monotonic() + HEALING_TIMEOUT
        while left := list(self._checks.left_behind()):
            assert time.monotonic() < deadline, f"left behind: {left}"
            time.sleep(0.1)


def _channels_in(sharding: Sharding) -> list[str]:
    """Channels for the participants: in each shard a presence channel, or more if there are few shards, and in some of
    them a private channel."""
    few = len(sharding.labels) == 1
    kinds = ["presence-a", "presence-b"] if few else ["presence-a"]
    named = [_channel_in(sharding, label, kind) for label in sharding.labels for kind in kinds]
    return named + [_channel_in(sharding, label, "private-c") for label in sharding.labels[:: 1 if few else 2]]


def _channel_in(sharding: Sharding, label: str, stem: str) -> str:
    return next(name for number in itertools.count() if sharding.of_channel(name := f"{stem}-{number}") == label)


@contextmanager
def running_stores(program: str, kind: Kind, shards: int, seed: int) -> Iterator[Stores]:
    """The Redis servers of a service: so many independent ones, or with one of them behind Sentinel, or a cluster."""
    with ExitStack() as stack:
        if kind == "cluster":
            yield ClusterStores(stack.enter_context(running_cluster(program)))
            return
        labels = [f"shard-{number}" for number in range(shards)]
        watched = labels[seed % shards] if kind == "sentinel" else None
        alone = {label: stack.enter_context(running_redis(program)) for label in labels if label != watched}
        if watched is None:
            yield Stores(alone)
        else:
            yield SentinelStores(alone, watched, stack.enter_context(running_sentinels(program)))


@contextmanager
def running_world(
    program: str, seed: int, servers: int = 3, shards: int = 1, kind: Kind = "servers"
) -> Iterator[World]:
    """Servers on Redis servers of their own. If the block fails, their logs are printed."""
    with ExitStack() as stack:
        stores = stack.enter_context(running_stores(program, kind, shards, seed))
        prefix = f"chaos-{seed}"
        config = {
            "PRESENCE_BACKEND": stores.backend,
            "PRESENCE_REDIS_PREFIX": prefix,
            "PRESENCE_LEASE": LEASE,
            "PRESENCE_GRACE": 1,
            "PRESENCE_GRACE_ABRUPT": 0 if seed % 2 else 1,
            "PRESENCE_DRAIN": 0.5,
            "PRESENCE_HISTORY": HISTORY,
        }
        started = [stack.enter_context(running(arguments=("--log-level", "warning"), **config)) for _ in range(servers)]
        yield World(seed, started, stores, prefix)
