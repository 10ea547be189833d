"""A real cluster: three masters, each with a replica, on ports that were free."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, Final
from urllib.parse import quote

from redis import Redis
from redis.exceptions import RedisError

from flask_presence.backends.redis.client.cluster import slot_of

from .ports import free_port
from .redis_server import RedisServer
from .server import wait_until

MASTERS: Final = 3
NODE_TIMEOUT: Final = 1500
"""Milliseconds after which the others consider a silent server dead."""
FAILOVER_DEADLINE: Final = 60.0
"""Seconds that a failover may take: the replica may have to be elected again."""
ATTEMPTS: Final = 4
"""How often a replica may ask for the place of its master."""
SLOTS: Final = 16384


class ClusterNode(RedisServer):
    """A server of the cluster, or one that may join it."""

    def __init__(self, program: str, password: str | None, *options: str) -> None:
        self.password = password
        self.bus_port = free_port()
        secrets = ("--requirepass", password, "--masterauth", password) if password else ()
        super().__init__(
            program,
            *("--cluster-enabled", "yes", "--cluster-port", str(self.bus_port)),
            *("--cluster-node-timeout", str(NODE_TIMEOUT), "--cluster-require-full-coverage", "no"),
            *("--cluster-replica-validity-factor", "0", "--cluster-allow-replica-migration", "no"),
            *("--repl-diskless-sync-delay", "0"),
            *secrets,
            *options,
        )

    def client(self) -> Any:
        return Redis("127.0.0.1", self.port, password=self.password, decode_responses=True, socket_timeout=5)

    def ask(self, *words: Any) -> Any:
        """The answer to one command, as Redis gives it."""
        with self.client() as client:
            client.response_callbacks.clear()
            return client.execute_command(*words)

    @property
    def id(self) -> str:
        found: str = self.ask("CLUSTER", "MYID")
        return found

    @property
    def is_running(self) -> bool:
        return self.process.poll() is None

    def _answers(self) -> bool:
        """Without the password, an error is an answer too."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as probe:
                probe.sendall(b"PING\r\n")
                return probe.recv(7) in (b"+PONG\r\n", b"-NOAUTH")
        except OSError:
            return False


class Cluster:
    """The servers, of which the first three are the masters at first."""

    def __init__(self, program: str, stack: ExitStack, password: str | None = None) -> None:
        self._program = program
        self._stack = stack
        self.password = password
        self.nodes: list[ClusterNode] = []
        for _ in range(2 * MASTERS):
            self.add_node()
        for at, master in enumerate(self.nodes[:MASTERS]):
            first, last = SLOTS * at // MASTERS, SLOTS * (at + 1) // MASTERS - 1
            master.ask("CLUSTER", "ADDSLOTSRANGE", first, last)
            master.ask("CLUSTER", "SET-CONFIG-EPOCH", at + 1)
        for node in self.nodes[1:]:
            self.meet(node)
        for master, replica in zip(self.nodes[:MASTERS], self.nodes[MASTERS:], strict=True):
            wait_until(lambda m=master, r=replica: m.id in r.ask("CLUSTER", "NODES"))  # type: ignore[misc]
            replica.ask("CLUSTER", "REPLICATE", master.id)
        self.until_whole()

    @property
    def url(self) -> str:
        userinfo = f":{quote(self.password, safe='')}@" if self.password else ""
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in self.nodes[:2])
        return f"redis+cluster://{userinfo}{hosts}/"

    def add_node(self) -> ClusterNode:
        """Start a server that is in no cluster yet."""
        node = ClusterNode(self._program, self.password)
        self._stack.callback(node.close)
        self.nodes.append(node)
        return node

    def meet(self, node: ClusterNode) -> None:
        """Let a server join the cluster, without slots."""
        node.ask("CLUSTER", "MEET", "127.0.0.1", self.nodes[0].port, self.nodes[0].bus_port)

    def enlarge(self) -> ClusterNode:
        """Let a new server join, and wait until all know it."""
        node = self.add_node()
        self.meet(node)
        wait_until(lambda: all(node.id in other.ask("CLUSTER", "NODES") for other in self.nodes if other.is_running))
        self.until_whole()
        return node

    def owner(self, tag: str) -> ClusterNode:
        """The master that owns the slot of a tag, as most servers say."""
        return self.owners([tag])[tag]

    def owners(self, tags: Iterable[str]) -> dict[str, ClusterNode]:
        """The same for several tags."""
        answers = [self._ranges(node) for node in self.nodes if node.is_running]
        found = {}
        for tag in tags:
            ports = [port for ranges in answers if (port := _port_in(ranges, slot_of(tag))) is not None]
            port = max(set(ports), key=ports.count)
            found[tag] = next(node for node in self.nodes if node.port == port)
        return found

    def replica_of(self, master: ClusterNode) -> ClusterNode:
        ids = [line.split()[0] for line in master.ask("CLUSTER", "REPLICAS", master.id)]
        return next(node for node in self.nodes if node.is_running and node.id in ids)

    def move(self, tag: str, target: ClusterNode) -> None:
        """Move the slot of a tag, and its keys, to another master."""
        source, slot = self.owner(tag), slot_of(tag)
        target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", source.id)
        source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", target.id)
        auth = ("AUTH", self.password) if self.password else ()
        while keys := source.ask("CLUSTER", "GETKEYSINSLOT", slot, 10):
            source.ask("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, *auth, "KEYS", *keys)
        for node in (target, source):
            node.ask("CLUSTER", "SETSLOT", slot, "NODE", target.id)
        running = [node for node in self.nodes if node.is_running]
        wait_until(lambda: all(_port_in(self._ranges(node), slot) == target.port for node in running))

    def kill(self, master: ClusterNode, tag: str) -> None:
        """Kill a master, and wait until its replica has taken over the slot of a tag."""
        master.stop()
        wait_until(lambda: self.owner(tag) is not master, FAILOVER_DEADLINE)

    def fail_over(self, master: ClusterNode, tag: str) -> None:
        """Let the replica of a master take its place, and the slot of a tag. Redis gives an attempt up after five
        seconds."""
        replica = self.replica_of(master)
        for attempt in range(ATTEMPTS):
            replica.ask("CLUSTER", "FAILOVER")
            try:
                wait_until(lambda: self.owner(tag) is replica, 10)
            except AssertionError:
                if attempt == ATTEMPTS - 1:
                    raise
            else:
                return

    def until_whole(self) -> None:
        """Start what was killed, and wait until each server has the others and every master a replica in step."""
        for node in self.nodes:
            if not node.is_running:
                node.start()
        wait_until(lambda: all(self._is_well(node) for node in self.nodes), FAILOVER_DEADLINE)

    def _is_well(self, node: ClusterNode) -> bool:
        with suppress(RedisError, OSError):
            state = node.ask("CLUSTER", "INFO")
            lines = node.ask("CLUSTER", "NODES").splitlines()
            replication = node.ask("INFO", "replication")
            in_step = "role:master" in replication or "master_link_status:up" in replication
            replicas = [line for line in lines if "slave" in line]
            failing = [line for line in lines if "fail" in line or "handshake" in line]
            return "cluster_state:ok" in state and in_step and len(replicas) >= MASTERS and not failing
        return False

    @staticmethod
    def _ranges(node: ClusterNode) -> list[Any]:
        """What a server says of the slots; nothing if it does not answer."""
        with suppress(RedisError, OSError):
            answer: list[Any] = node.ask("CLUSTER", "SLOTS")
            return answer
        return []


def _port_in(ranges: list[Any], slot: int) -> int | None:
    for first, last, (_, port, *_), *_ in ranges:
        if first <= slot <= last:
            return int(port)
    return None


def missing(program: str) -> str | None:
    """Why that Redis cannot make a cluster; `None` if it can."""
    found = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=10, check=True).stdout
    version = next((word.removeprefix("v=") for word in found.split() if word.startswith("v=")), "0")
    return None if int(version.partition(".")[0]) >= 7 else f"sharded pub/sub needs Redis 7, and this is {version}"


@contextmanager
def running_cluster(program: str, password: str | None = None) -> Iterator[Cluster]:
    """A cluster for a `with` block."""
    with ExitStack() as stack:
        yield Cluster(program, stack, password)
