"""Redis servers for the chaos, one of which is a master with a replica behind Sentinels; only that one is harmed."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Mapping

from ..redis_server import RedisServer
from ..sentinel import DOWN_AFTER, FAILOVER_DEADLINE, SentinelTrio
from ..server import wait_until
from .faults import Fault
from .stores import Stores


class SentinelStores(Stores):
    """`trio` has the shard with that label; the other servers stand alone."""

    def __init__(self, servers: Mapping[str, RedisServer], label: str, trio: SentinelTrio) -> None:
        super().__init__(servers, [*servers, label])
        self._label = label
        self._trio = trio
        self.victims = [label]

    def urls(self) -> dict[str, str]:
        return {**super().urls(), self._label: self._trio.url}

    def server(self, label: str) -> RedisServer:
        return self._trio.master if label == self._label else super().server(label)

    def aim(self, chance: random.Random, *, narrowly: bool) -> list[str]:
        del chance, narrowly
        return [label for label in self.labels if label != self._label]

    def mend(self) -> None:
        self._trio.restore()

    def faults(self) -> dict[str, Fault]:
        down_after = DOWN_AFTER / 1000
        return {
            **self.cuts(),
            "kill the master": Fault(self._kill),
            "kill the master of a replica that lags": Fault(self._kill_after_lag),
            "fail over as planned": Fault(lambda _: self._trio.fail_over()),
            "pause the master until another one is chosen": Fault(
                lambda chance: self._pause_until_replaced(chance.uniform(0, 3))
            ),
            "pause the master, and lose the one that is chosen": Fault(self._fall_back),
            "pause the master briefly": Fault(
                lambda chance: self._pause(self._trio.master, chance.uniform(0.1, 0.8 * down_after))
            ),
            "restart the master empty": Fault(lambda _: self._restart(self._trio.master, 0)),
            "kill the replica": Fault(lambda _: self._trio.replica.stop()),
        }

    def _kill(self, _: random.Random) -> None:
        old = self._trio.master
        old.stop()
        self._await_another(old)

    def _kill_after_lag(self, chance: random.Random) -> None:
        """The replica stands still for a while, so the new master knows nothing of that time."""
        old, replica = self._trio.master, self._trio.replica
        replica.process.send_signal(signal.SIGSTOP)
        time.sleep(chance.uniform(0.1, 1.0))
        old.stop()
        replica.process.send_signal(signal.SIGCONT)
        self._await_another(old)

    def _pause_until_replaced(self, seconds: float) -> None:
        """The old master goes on so many seconds after another one was chosen, as if it were the master."""
        old = self._trio.master
        old.process.send_signal(signal.SIGSTOP)
        try:
            self._await_another(old)
            time.sleep(seconds)
        finally:
            old.process.send_signal(signal.SIGCONT)

    def _fall_back(self, chance: random.Random) -> None:
        """The old master becomes the master again, without having heard of what happened meanwhile."""
        self._pause_until_replaced(chance.uniform(0.5, 2))
        chosen = self._trio.master
        time.sleep(chance.uniform(0.2, 0.5))
        chosen.stop()
        self._await_another(chosen)

    def _await_another(self, old: RedisServer) -> None:
        wait_until(lambda: self._trio.master_port != old.port, FAILOVER_DEADLINE)
