"""Run the workloads against our server and its peers, interleaved, and print medians and ratios.

    python -m benchmarks.peers      # once: install the peers
    python -m benchmarks.run        # the table; --help lists the options

Servers run on one core and the load client on another. Exits with 1 where a message was lost.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parent
PEERS = HERE / ".peers"
SERVER_CORE, CLIENT_CORE = 0, 1
TICKS = os.sysconf("SC_CLK_TCK")
GUNICORN = ["-k", "gevent", "--worker-connections", "30000", "--backlog", "2048", "--no-control-socket", "-b"]
WEBSOCKET_WORKER = "geventwebsocket.gunicorn.workers.GeventWebSocketWorker"

Result = dict[str, float]


@dataclass(frozen=True)
class Peer:
    """A server: how to start it, where its socket is, and how it speaks."""

    name: str
    command: tuple[str, ...]
    path: str
    dialect: str = "presence"
    workers: bool = False


def our_command() -> tuple[str, ...]:
    return (sys.executable, "-m", "gunicorn", *GUNICORN, "127.0.0.1:{port}", "benchmarks.server:app")


def python_peer(name: str, module: str, worker: str = "gevent") -> tuple[str, ...]:
    options = [worker if part == "gevent" else part for part in GUNICORN]
    python = str(PEERS / name / "bin" / "python")
    return (python, "-m", "gunicorn", *options, "127.0.0.1:{port}", f"benchmarks.peers.{module}:app")


US = Peer("flask_presence", our_command(), "/presence/ws", workers=True)
OTHERS = [
    Peer("bare epoll", (str(PEERS / "bare" / "bare"), "{port}"), "/"),
    Peer("node ws", ("node", str(HERE / "peers" / "node_ws.js"), "{port}", str(PEERS / "node-ws")), "/"),
    Peer(
        "flask-socketio",
        python_peer("flask-socketio", "flask_socketio_server", WEBSOCKET_WORKER),
        "/socket.io/?EIO=4&transport=websocket",
        "socketio",
        workers=True,
    ),
    Peer("flask-sock", python_peer("flask-sock", "flask_sock_naive"), "/ws", workers=True),
]


@dataclass(frozen=True)
class Workload:
    """What the client does: its mode, connections, window, and which figure counts."""

    name: str
    mode: str
    connections: int
    window: int = 1
    figure: str = "rate"
    peers: tuple[str, ...] = ("bare epoll", "node ws", "flask-socketio", "flask-sock")
    anonymous: bool = False


ALL_PEERS = ("bare epoll", "node ws", "flask-socketio", "flask-sock")
WORKLOADS = [
    *[Workload(f"fan-out to {n}, one in flight (deliveries/s)", "fanout", n) for n in (10, 100, 1000)],
    *[
        Workload(f"fan-out to {n}, 64 in flight (deliveries per CPU s)", "fanout", n, 64, "per_cpu")
        for n in (10, 100, 1000)
    ],
    Workload("latency p99, 100 subscribers, 50 msg/s (µs)", "latency", 100, 50, "p99"),
    Workload("latency p99, 1000 subscribers, 10 msg/s (µs)", "latency", 1000, 10, "p99"),
    Workload("requests answered, 200 connections (pings/s)", "ping", 200),
    Workload("ping-pong p99 beside a flooding client (µs)", "flood", 2, figure="p99", peers=("node ws",)),
    Workload("handshakes (1/s)", "handshake", 1, peers=("node ws", "flask-socketio", "flask-sock")),
    Workload("join storm, 1000 users (s)", "storm", 1000, figure="seconds", peers=()),
    Workload("memory, anonymous in a public channel (kB)", "hold", 5000, 5000, "kb", ("node ws",), anonymous=True),
    Workload("memory, token, presence channels of 50 (kB)", "hold", 5000, 50, "kb", ()),
]


class Running:
    """A server process and its workers."""

    def __init__(self, peer: Peer) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        command = [part.format(port=self.port) for part in peer.command]
        self.log = tempfile.TemporaryFile()  # noqa: SIM115
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdout=self.log,
            stderr=subprocess.STDOUT,
            preexec_fn=lambda: os.sched_setaffinity(0, {SERVER_CORE}),  # noqa: PLW1509
        )
        self._has_workers = peer.workers
        end = time.monotonic() + 20
        while True:
            with suppress(OSError):
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                break
            if self.process.poll() is not None or time.monotonic() > end:
                self.log.seek(0)
                sys.exit(f"{peer.name} does not start; is it installed?\n{self.log.read().decode()[-2000:]}")
            time.sleep(0.05)
        time.sleep(1)

    @property
    def pid(self) -> int:
        if not self._has_workers:
            return self.process.pid
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return int(children[-1])

    def cpu(self) -> float:
        """Seconds of CPU time so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def memory(self) -> float:
        """Resident kB."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return float(next(line.split()[1] for line in lines if line.startswith("VmRSS")))

    def stop(self) -> None:
        self.process.send_signal(signal.SIGKILL if self.process.poll() else signal.SIGTERM)
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(5)


@contextmanager
def running(peer: Peer) -> Iterator[Running]:
    server = Running(peer)
    try:
        yield server
    finally:
        server.stop()


def measure(peer: Peer, workload: Workload, seconds: float) -> Result:
    """One run of one workload on a fresh server."""
    with running(peer) as server, tempfile.NamedTemporaryFile("w") as tokens:
        before = server.memory()
        file = "-"
        if peer is US and not workload.anonymous:
            url = f"http://127.0.0.1:{server.port}/tokens?count={workload.connections + 1}"
            tokens.write(urllib.request.urlopen(url).read().decode())
            tokens.flush()
            file = tokens.name
            before = server.memory()
        options = [workload.connections, seconds, workload.window, file]
        command = [str(PEERS / "wsload" / "wsload"), workload.mode, server.port, peer.path, peer.dialect, *options]
        client = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: os.sched_setaffinity(0, {CLIENT_CORE}),  # noqa: PLW1509
        )
        assert client.stdin is not None
        assert client.stdout is not None
        spent: list[float] = []
        for expected in ("begin", "end"):
            word = client.stdout.readline().strip()
            if word != expected:
                client.kill()
                sys.exit(f"{peer.name}, {workload.name}: the client ended early ({word!r})")
            spent.append(server.cpu())
            if expected == "begin":
                held = server.memory()
            client.stdin.write("\n")
            client.stdin.flush()
        result: Result = json.loads(client.stdout.readline())
        client.wait(30)
        used = spent[1] - spent[0]
        result["kb"] = (held - before) / workload.connections
        result["per_cpu"] = result.get("deliveries", 0) / max(used, 1 / TICKS)
        result["server_cpu"] = used / result.get("seconds", 1)
        return result


def table(results: dict[str, dict[str, list[Result]]], chosen: list[Workload]) -> str:
    """Medians, and our ratio to each peer's."""
    lines = [f"| | flask_presence | {' | '.join(ALL_PEERS)} |", f"|---|---|{'---|' * len(ALL_PEERS)}"]
    for workload in chosen:
        runs = results[workload.name]
        ours = statistics.median(run[workload.figure] for run in runs[US.name])
        cells = [number(ours)]
        for name in ALL_PEERS:
            if name not in runs:
                cells.append("")
                continue
            theirs = statistics.median(run[workload.figure] for run in runs[name])
            cells.append(f"{number(theirs)} ({ours / theirs:.2f} x)" if theirs else number(theirs))
        lines.append(f"| {workload.name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="workloads whose name has this in it")
    parser.add_argument("--peers", default=None, help="only these peers, separated by commas")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0)
    options = parser.parse_args()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 40000)), hard))
    chosen = [workload for workload in WORKLOADS if options.only in workload.name]
    wanted = ALL_PEERS if options.peers is None else options.peers.split(",")
    results: dict[str, dict[str, list[Result]]] = {}
    lost = 0.0
    for _ in range(options.repeat):
        for workload in chosen:
            peers = [US, *(peer for peer in OTHERS if peer.name in workload.peers and peer.name in wanted)]
            for peer in peers:
                result = measure(peer, workload, options.seconds)
                lost += result.get("lost", 0)
                results.setdefault(workload.name, {}).setdefault(peer.name, []).append(result)
                shown: dict[str, Any] = {key: round(value, 3) for key, value in result.items()}
                print(workload.name, "|", peer.name, "|", json.dumps(shown), file=sys.stderr, flush=True)
    print(table(results, chosen))
    if lost:
        sys.exit(f"{lost:.0f} messages were lost")


if __name__ == "__main__":
    main()
