"""Faults of workers: they are killed, paused and reloaded."""

from __future__ import annotations

import os
import random
import signal
import threading

from ..server import Server, wait_until
from .faults import LEASE, Fault

PAUSE_PAST_LEASE = LEASE * 1.7


class WorkerFaults:
    """The faults of `servers`, which have one worker each."""

    def __init__(self, servers: list[Server]) -> None:
        self._servers = servers

    def faults(self) -> dict[str, Fault]:
        return {
            "kill worker": Fault(self._kill),
            "pause worker briefly": Fault(lambda chance: self._pause(chance, chance.uniform(0.1, 0.8))),
            "pause worker past its lease": Fault(
                lambda chance: self._pause(chance, PAUSE_PAST_LEASE), PAUSE_PAST_LEASE
            ),
            "reload worker": Fault(lambda chance: chance.choice(self._servers).process.send_signal(signal.SIGHUP)),
        }

    def _kill(self, chance: random.Random) -> None:
        os.kill(worker_of(chance.choice(self._servers)), signal.SIGKILL)

    def _pause(self, chance: random.Random, seconds: float) -> None:
        pid = worker_of(chance.choice(self._servers))
        os.kill(pid, signal.SIGSTOP)
        threading.Timer(seconds, os.kill, (pid, signal.SIGCONT)).start()


def worker_of(server: Server) -> int:
    """The pid of a server's one worker; waits until it has one."""
    wait_until(server.worker_pids)
    return server.worker_pids()[-1]
