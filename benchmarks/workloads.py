"""The workloads, and the metrics that are read from each.

Rule: a workload is the same for all servers; only the address, the dialect and the tokens differ.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MEMBERS: Final = 50


@dataclass(frozen=True, slots=True)
class Metric:
    """A number in the load client's report: its key, its unit, and whether more is better."""

    key: str
    unit: str
    more_is_better: bool


@dataclass(frozen=True, slots=True)
class Workload:
    """A load, with the `arguments` of the load client.

    With `tokens`, every connection to a server that has presence brings one. A workload that is `presence_only` needs a
    roster. `stretch` multiplies the measured seconds. The table shows `metrics`, and compares the first one.
    """

    name: str
    title: str
    arguments: tuple[str, ...]
    metrics: tuple[Metric, ...]
    tokens: bool = False
    presence_only: bool = False
    bare_too: bool = True
    stretch: float = 1

    def command(self, seconds: float) -> list[str]:
        return [*self.arguments, "--seconds", str(seconds * self.stretch)]


DELIVERIES: Final = Metric("deliveries_per_s", "deliveries/s", True)
ANSWERS: Final = Metric("answers_per_s", "answers/s", True)
P50: Final = Metric("p50_ms", "ms p50", False)
P99: Final = Metric("p99_ms", "ms p99", False)
MEMORY: Final = Metric("kb_per_connection", "kB", False)
HANDSHAKES: Final = Metric("handshakes_per_s", "handshakes/s", True)
JOINED: Final = Metric("joined_s", "s", False)
SETTLED: Final = Metric("settled_s", "s until all is delivered", False)


def _fanout(subscribers: int, window: int) -> Workload:
    manner = "one message in flight" if window == 1 else f"bursts, {window} in flight"
    return Workload(
        name=f"fanout-{subscribers}-w{window}",
        title=f"fan-out to {subscribers}, {manner}",
        arguments=("--mode", "fanout", "--connections", str(subscribers), "--window", str(window)),
        metrics=(DELIVERIES,),
        tokens=True,
    )


def _latency(subscribers: int, rate: int) -> Workload:
    return Workload(
        name=f"latency-{subscribers}x{rate}",
        title=f"latency, {subscribers} subscribers x {rate} messages/s",
        arguments=("--mode", "rate", "--connections", str(subscribers), "--rate", str(rate)),
        metrics=(P99, P50),
        tokens=True,
        stretch=2,
    )


WORKLOADS: Final = (
    *(_fanout(subscribers, window) for window in (1, 64) for subscribers in (10, 100, 1000)),
    _latency(1000, 10),
    _latency(100, 50),
    Workload(
        name="ping",
        title="requests answered, 200 connections, one in flight each",
        arguments=("--mode", "ping", "--connections", "200"),
        metrics=(ANSWERS, P99),
    ),
    Workload(
        name="memory-public",
        title="memory per idle connection, 5000 anonymous in one public channel",
        arguments=("--mode", "idle", "--connections", "5000", "--channel", "lobby"),
        metrics=(MEMORY,),
        bare_too=False,
    ),
    Workload(
        name="memory-presence",
        title=f"memory per idle connection, 5000 with a token in presence channels of {MEMBERS}",
        arguments=("--mode", "idle", "--connections", "5000", "--members", str(MEMBERS)),
        metrics=(MEMORY,),
        tokens=True,
        presence_only=True,
    ),
    Workload(
        name="handshakes",
        title="handshakes, anonymous, up to the first frame",
        arguments=("--mode", "connect", "--connections", "3000"),
        metrics=(HANDSHAKES,),
    ),
    Workload(
        name="handshakes-token",
        title="handshakes with a token, up to the first frame",
        arguments=("--mode", "connect", "--connections", "3000"),
        metrics=(HANDSHAKES,),
        tokens=True,
        presence_only=True,
    ),
    Workload(
        name="storm",
        title="1000 users join one presence channel at once",
        arguments=("--mode", "storm", "--connections", "1000"),
        metrics=(JOINED, SETTLED),
        tokens=True,
        presence_only=True,
    ),
    Workload(
        name="flood",
        title="ping-pong while another client floods",
        arguments=("--mode", "flood", "--connections", "2"),
        metrics=(P99, P50),
        bare_too=False,
    ),
)
