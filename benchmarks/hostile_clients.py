"""What a hostile client costs the others: `python -m benchmarks.hostile_clients`.

Two users talk in a presence channel at a steady pace, first without an attack, then during each attack. The program
checks every message, and measures the time from its sending to its arrival. The attackers are those of the tests. They
run in a process of their own with the lowest priority, because they share a core with the two users. The exit status is
1 if a message was lost, came twice or reached the wrong user, or if the server logged a traceback.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles
from typing import Any

from tests.support.client import Client, client
from tests.support.hostile import ATTACKS, attacked
from tests.support.server import running, wait_until

from .report import format_text
from .servers import CLIENT_CORE, SERVER_CORE

ROOM = "presence-room"
PACE = 80.0
"""Messages a second, within the rate limit."""


@dataclass
class Result:
    """The seconds that the messages took, what was wrong, and the outcomes of the attack."""

    delays: list[float]
    wrong: list[str]
    outcome: Counter[str]
    growth: float
    """MB of memory that the server did not give back."""

    def row(self, kind: str, undisturbed: Result) -> list[str]:
        shares = quantiles(self.delays, n=1000)
        theirs = quantiles(undisturbed.delays, n=1000)
        said = ", ".join(f"{count} x {what}" for what, count in self.outcome.items())
        times = [f"{shares[at] * 1000:.2f} ({shares[at] / theirs[at]:.1f}x)" for at in (499, 989)]
        return [kind, str(len(self.delays)), str(len(self.wrong)), *times, f"{self.growth:.1f}", said]


def main() -> int:
    """Return 0 if every message was right."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hostile_clients", description=__doc__)
    parser.add_argument("--seconds", type=float, default=15, help="the length of every attack")
    parser.add_argument("--only", default="", help="names of attacks, separated by commas")
    arguments = parser.parse_args()
    if not 1 <= arguments.seconds <= 50:
        parser.error("--seconds is 1 to 50")
    subprocess.run(["taskset", "-cp", str(CLIENT_CORE), str(_own_pid())], check=True, capture_output=True)
    chosen = [kind for kind in ATTACKS if not arguments.only or kind in arguments.only.split(",")]
    undisturbed = measure(None, arguments.seconds)
    rows = [
        ["attack", "messages", "wrong", "p50 ms", "p99 ms", "MB kept", "the attacker"],
        undisturbed.row("none", undisturbed),
    ]
    wrong = list(undisturbed.wrong)
    for kind in chosen:
        result = measure(kind, arguments.seconds)
        rows.append(result.row(kind, undisturbed))
        wrong += [f"{kind}: {text}" for text in result.wrong]
    print(format_text(rows))
    for text in wrong:
        print(f"FAILED: {text}", file=sys.stderr)
    return 1 if wrong else 0


def measure(kind: str | None, seconds: float) -> Result:
    """Measure two users on a server of their own, with an attacker if `kind` is given."""
    with running() as server, client(server, "ann") as ann, client(server, "bob") as bob:
        pids = [server.process.pid, *server.worker_pids()]
        for pid in pids:
            subprocess.run(["taskset", "-acp", str(SERVER_CORE), str(pid)], check=True, capture_output=True)
        bob.join(ROOM)
        ann.join(ROOM)
        bob.event()
        talk(ann, bob, 1)
        before = _memory(pids)
        outcome: Counter[str] = Counter()
        with ExitStack() as stack:
            if kind is not None:
                outcome = stack.enter_context(attacked(server, kind, niceness=19))
            delays, wrong = talk(ann, bob, seconds)
        wait_until(lambda: server.json("/presence/stats")["connections"] == 2)
        if server.json("/presence/stats")["channels"] != 1:
            wrong.append("channels were left behind")
        if "Traceback" in server.log():
            wrong.append("a traceback")
        return Result(delays, wrong, outcome, (_memory(pids) - before) / 1024)


def talk(ann: Client, bob: Client, seconds: float) -> tuple[list[float], list[str]]:
    """Ann sends messages and Bob reads them; return the delays, and what was wrong."""
    delays, wrong = [], []
    begun = time.perf_counter()
    for number in range(int(seconds * PACE)):
        time.sleep(max(0.0, begun + number / PACE - time.perf_counter()))
        sent = time.perf_counter()
        ann.send({"type": "channel:message", "channel": ROOM, "data": number, "requestId": number})
        heard = bob.event()
        delays.append(time.perf_counter() - sent)
        answer: dict[str, Any] = ann.event()
        if (heard.get("data"), answer.get("requestId"), answer.get("delivered")) != (number, number, 1):
            wrong.append(f"message {number}: {heard} {answer}")
    return delays, wrong


def _own_pid() -> int:
    return int(Path("/proc/self").readlink().name)


def _memory(pids: list[int]) -> int:
    """The resident memory of the processes in kB."""
    status = "".join(Path(f"/proc/{pid}/status").read_text() for pid in pids)
    return sum(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))


if __name__ == "__main__":
    sys.exit(main())
