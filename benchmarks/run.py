"""Run the benchmarks and print the table: `python -m benchmarks.run`.

The server runs on core 0, the load client on core 1. In each repeat every server runs every workload, in a process of
its own, so that a machine that changes its speed changes it for all servers. The exit status is 1 if a message was lost
or came twice, or if a run failed.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from .peers import BENCHMARKS, OURS, PEERS, Peer, compile_c
from .report import Results, comparison, details, format_markdown, format_text
from .servers import CLIENT_CORE, Server, ServerFailed, running
from .workloads import WORKLOADS, Workload

CLIENT: Final = BENCHMARKS / "wsload"
TOKENS: Final = 5001
OPEN_FILES: Final = 20000
TIMEOUT: Final = 60
DISTURBED: Final = 0.05
TRIES: Final = 4
QUIET: Final = 0.1


class ClientFailed(Exception):
    """The load client gave up; the text says why."""


def main() -> int:
    """Return 0 if every run ended without a loss."""
    arguments = parse_arguments()
    signal.signal(
        signal.SIGTERM, lambda *_: sys.exit("ended by a signal")
    )  # runs every `finally`, which stops the servers
    prepare_machine()
    build_client()
    workloads = [workload for workload in WORKLOADS if is_chosen(workload.name, arguments.only)]
    asked = [peer for peer in PEERS.values() if is_chosen(peer.name, arguments.peers)]
    peers = [OURS, *variants(arguments), *(peer for peer in asked if check_installed(peer))]
    results = Results()
    with minted_tokens() as tokens:
        for repeat in range(arguments.repeat):
            for workload in workloads:
                for peer in rotated(peers, repeat):
                    take_turn(results, workload, peer, tokens, arguments.seconds, arguments.quiet_timeout)
    print_results(results, workloads, peers, markdown=arguments.markdown, with_details=arguments.details)
    return 1 if results.failures else 0


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("--only", type=names, default=[], help="workloads, by the beginnings of their names")
    parser.add_argument("--peers", type=names, default=[], help="peers, by the beginnings of their names")
    parser.add_argument("--against", type=Path, help="another checkout of flask_presence, as another peer")
    parser.add_argument(
        "--message-guards", type=int, help="another peer: with that many message guards of other channels"
    )
    parser.add_argument("--repeat", type=int, default=3, help="runs of every workload on every server")
    parser.add_argument("--seconds", type=float, default=2, help="measured in each run, after a warm-up of one")
    parser.add_argument(
        "--quiet-timeout", type=float, default=20, help="seconds to wait for a quiet machine before each run"
    )
    parser.add_argument("--markdown", action="store_true", help="print tables in Markdown")
    parser.add_argument("--details", action="store_true", help="also print every metric with its spread")
    parser.add_argument("--list", action="store_true", help="print the names of the workloads and of the peers")
    arguments = parser.parse_args()
    if arguments.list:
        print(format_text([[workload.name, workload.title] for workload in WORKLOADS]))
        print(format_text([[peer.name, peer.title] for peer in PEERS.values()]))
        sys.exit(0)
    if not 1 <= arguments.repeat <= 100 or not 0.1 <= arguments.seconds <= 30:
        parser.error("--repeat is 1 to 100, --seconds 0.1 to 30")
    return arguments


def variants(arguments: argparse.Namespace) -> list[Peer]:
    """flask_presence again: another checkout, and the same one with message guards of other channels."""
    chosen = []
    if arguments.against is not None:
        chosen.append(against(arguments.against))
    if arguments.message_guards is not None:
        command = ("env", f"FLASK_MESSAGE_GUARDS={arguments.message_guards}", *OURS.command)
        title = f"with {arguments.message_guards} message guards"
        chosen.append(replace(OURS, name="message-guards", title=title, command=command))
    return chosen


def against(checkout: Path) -> Peer:
    """flask_presence in another checkout."""
    return replace(OURS, name="against", title="the other checkout", directory=checkout.resolve())


def names(text: str) -> list[str]:
    """The names in a list that is separated by commas."""
    return [name for name in text.split(",") if name]


def is_chosen(name: str, beginnings: Sequence[str]) -> bool:
    """Whether a name is asked for. Without `beginnings` every name is."""
    return not beginnings or name.startswith(tuple(beginnings))


def check_installed(peer: Peer) -> bool:
    """Whether the peer is installed. If it is not, print how to install it."""
    if not peer.installed:
        print(f"left out: {peer.name} (python -m benchmarks.peers install {peer.name})", file=sys.stderr)
    return peer.installed


def prepare_machine() -> None:
    """Raise the limit of open files for this process and its children. Exits if the machine has one core."""
    if len(os.sched_getaffinity(0)) < 2:
        sys.exit("the server and the load client need a core each")
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def build_client() -> None:
    """Compile the load client if its source is newer."""
    source = BENCHMARKS / "wsload.c"
    if not CLIENT.exists() or CLIENT.stat().st_mtime < source.stat().st_mtime:
        compile_c(source, CLIENT)


@contextmanager
def minted_tokens() -> Iterator[Path]:
    """A file with a token in each line. The server that makes them is not measured."""
    with tempfile.NamedTemporaryFile(prefix="wsload-tokens-") as file:
        with running(OURS) as server:
            url = f"http://127.0.0.1:{server.port}/tokens?count={TOKENS}"
            with urllib.request.urlopen(url, timeout=TIMEOUT) as response:
                file.write(response.read())
        file.flush()
        yield Path(file.name)


def rotated(peers: Sequence[Peer], by: int) -> list[Peer]:
    """The peers, with another one first in each repeat."""
    first = by % len(peers)
    return [*peers[first:], *peers[:first]]


def takes_part(workload: Workload, peer: Peer) -> bool:
    """Whether the server can run the workload."""
    if peer.name == "bare":
        return workload.bare_too and not workload.presence_only
    return peer.has_presence or not workload.presence_only


def take_turn(
    results: Results, workload: Workload, peer: Peer, tokens: Path, seconds: float, quiet_timeout: float
) -> None:
    """Run one workload on one server once."""
    if not takes_part(workload, peer):
        return
    print(f"{workload.name:20} {peer.name:16}", end="", file=sys.stderr, flush=True)
    try:
        report = measure_undisturbed(peer, workload, tokens, seconds, quiet_timeout)
    except (ServerFailed, ClientFailed) as problem:
        results.failures.append(f"{workload.name}, {peer.name}: {problem}")
        print(" failed", file=sys.stderr)
        return
    results.add(workload, peer, report)
    print("".join(f" {metric.key} {report[metric.key]:.6g}" for metric in workload.metrics), file=sys.stderr)


def measure_undisturbed(
    peer: Peer, workload: Workload, tokens: Path, seconds: float, quiet_timeout: float
) -> dict[str, Any]:
    """The report of the first run that no other program disturbed, or else of the least disturbed run."""
    reports: list[dict[str, Any]] = []
    while len(reports) < TRIES:
        wait_until_quiet(quiet_timeout)
        with running(peer) as server:
            reports.append(measure(server, workload, tokens, seconds))
        if disturbance(reports[-1]) <= DISTURBED:
            break
        print(f" (disturbed: {disturbance(reports[-1]):.0%})", end="", file=sys.stderr, flush=True)
    return min(reports, key=disturbance)


def wait_until_quiet(quiet_timeout: float) -> None:
    """Return as soon as the machine is nearly idle, or after `quiet_timeout` seconds."""
    deadline = time.monotonic() + quiet_timeout
    while time.monotonic() < deadline:
        before = processor_times()
        time.sleep(0.3)
        busy, idle = (now - then for now, then in zip(processor_times(), before, strict=True))
        if busy <= QUIET * (busy + idle):
            return


def processor_times() -> tuple[int, int]:
    """The ticks in which the processors were busy, and those in which they were idle."""
    fields = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    idle = fields[3] + fields[4]
    return sum(fields) - idle, idle


def disturbance(report: dict[str, Any]) -> float:
    """The share of a core that other programs used: the server's core or the client's, whichever is larger."""
    return max(float(report.get("server_disturbed", 0)), float(report.get("client_disturbed", 0)))


def measure(server: Server, workload: Workload, tokens: Path, seconds: float) -> dict[str, Any]:
    """Run the load client, and return its report. Raises `ClientFailed`."""
    if workload.name.startswith("memory"):
        # The first connections make a server load modules, which is not memory of a connection.
        load(server, ["--mode", "idle", "--connections", "50", "--seconds", "0.2", "--channel", "warm-up"], None)
    return load(server, workload.command(seconds), tokens if workload.tokens else None)


def load(server: Server, arguments: Sequence[str], tokens: Path | None) -> dict[str, Any]:
    """Run the load client once, and return its report. Raises `ClientFailed`."""
    peer = server.peer
    command = ["taskset", "-c", str(CLIENT_CORE), str(CLIENT), "--port", str(server.port)]
    command += ["--path", peer.path, "--dialect", peer.dialect, "--timeout", str(TIMEOUT), *arguments]
    command += [part for pid in server.pids for part in ("--pid", str(pid))]
    if tokens is not None and peer.has_presence:
        command += ["--tokens", str(tokens)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIMEOUT + 10)
    if done.returncode != 0:
        raise ClientFailed(done.stderr.strip() or f"the load client ended with {done.returncode}")
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def print_results(
    results: Results, workloads: Sequence[Workload], peers: Sequence[Peer], *, markdown: bool, with_details: bool
) -> None:
    """Print the tables and the failures."""
    show = format_markdown if markdown else format_text
    print(show(comparison(results, workloads, peers)))
    if with_details:
        print()
        print(show(details(results, workloads, peers)))
    if results.disturbed:
        print(f"other programs used more than a tenth of a core: {', '.join(results.disturbed)}", file=sys.stderr)
    for failure in results.failures:
        print(f"FAILED: {failure}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
