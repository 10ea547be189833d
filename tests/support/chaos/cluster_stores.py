"""A Redis Cluster for the chaos: masters are lost, and slots move, also to new servers."""

from __future__ import annotations

import random
import signal
from collections.abc import Callable

from flask_presence.backends.redis.client.cluster import tags
from flask_presence.backends.redis.store.keys import Keys, prefix_in

from ..cluster import FAILOVER_DEADLINE, NODE_TIMEOUT, Cluster, ClusterNode
from ..redis_server import RedisServer
from ..server import wait_until
from .faults import Fault
from .stores import Stores

SHARDS = 16
MAX_NEW_NODES = 2


class ClusterStores(Stores):
    """The shards of a service on a cluster. The victims of a narrow aim are those of one master."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__({}, tags(SHARDS))
        self._cluster = cluster
        self._new_nodes = 0
        self._is_narrow = False
        self._owners = cluster.owners(self.labels)

    def urls(self) -> dict[str, str]:
        return {"": f"{self._cluster.url}?shards={SHARDS}"}

    def keys(self, prefix: str, label: str) -> Keys:
        return Keys(prefix_in(prefix, label))

    def server(self, label: str) -> RedisServer:
        return self._owners[label]

    def look_up(self) -> None:
        self._owners = self._cluster.owners(self.labels)

    def aim(self, chance: random.Random, *, narrowly: bool) -> list[str]:
        self.look_up()
        self._is_narrow = narrowly
        chosen = chance.choice(list(dict.fromkeys(self._owners.values())))
        self.victims = [label for label in self.labels if not narrowly or self._owners[label] is chosen]
        return [label for label in self.labels if label not in self.victims]

    def mend(self) -> None:
        self._cluster.until_whole()
        self.look_up()

    def faults(self) -> dict[str, Fault]:
        found = {
            **self.cuts(),
            "kill a master": Fault(self._with_replica(self._cluster.kill)),
            "fail over as planned": Fault(self._with_replica(self._cluster.fail_over)),
            "pause a master until its replica takes over": Fault(self._with_replica(self._pause_until_replaced)),
            "pause a master briefly": Fault(
                lambda chance: self._pause(self._victim(chance), chance.uniform(0.1, 0.5 * NODE_TIMEOUT / 1000))
            ),
            "restart a master empty": Fault(lambda chance: self._restart(self._victim(chance), 0)),
        }
        if len(self.victims) > 1:
            found["move a slot"] = Fault(self._move)
            if self._new_nodes < MAX_NEW_NODES:
                found["a new server takes a slot"] = Fault(self._move_to_new)
        return found

    def _with_replica(self, harm: Callable[[ClusterNode, str], None]) -> Callable[[random.Random], None]:
        """Harm the owner of a victim's slot. If it has no replica, because it is new, it restarts empty instead."""

        def cause(chance: random.Random) -> None:
            label = chance.choice(self.victims)
            node = self._owners[label]
            if node.ask("CLUSTER", "REPLICAS", node.id):
                harm(node, label)
            else:
                self._restart(node, 0)

        return cause

    def _pause_until_replaced(self, old: ClusterNode, label: str) -> None:
        """It goes on as if it were the master still."""
        replica = self._cluster.replica_of(old)
        old.process.send_signal(signal.SIGSTOP)
        try:
            wait_until(lambda: replica.ask("ROLE")[0] == "master", FAILOVER_DEADLINE)
        finally:
            old.process.send_signal(signal.SIGCONT)
        wait_until(lambda: self._cluster.owner(label) is replica, FAILOVER_DEADLINE)

    def _move(self, chance: random.Random) -> None:
        label = chance.choice(self.victims)
        others = set(self._owners.values()) - {self._owners[label]}
        self._move_to(label, chance.choice(sorted(others, key=lambda node: node.port)))

    def _move_to_new(self, chance: random.Random) -> None:
        self._new_nodes += 1
        self._move_to(chance.choice(self.victims), self._cluster.enlarge())

    def _move_to(self, label: str, target: ClusterNode) -> None:
        """After a narrow aim the slot is no victim from then on: harm to its owner would harm others too."""
        self._cluster.move(label, target)
        if self._is_narrow:
            self.victims.remove(label)
