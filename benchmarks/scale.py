"""Several workers on one Redis, compared with Node and with Flask-SocketIO: `python -m benchmarks.scale`.

Servers of one worker each and the Redis share core 0, and the load client has core 1. So compare the figures per CPU
second, which include Redis. In each repeat both kinds of server take turns. The exit status is 1 if a message was lost
or came twice.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime, timezone
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

import redis
from websockets.sync.client import connect

from flask_presence import User
from flask_presence.backends.redis.client.address import parse_address
from flask_presence.backends.redis.client.client import Client
from flask_presence.backends.redis.store.calls import Call, Operation
from flask_presence.backends.redis.store.keys import Keys
from flask_presence.backends.redis.store.store import Store
from flask_presence.domain.channels import ChannelName
from flask_presence.domain.roster import Joiner
from tests.support import client as ws
from tests.support.redis_server import RedisServer, running_redis
from tests.support.server import Server as TestServer
from tests.support.server import running as running_test_server

from .peers import OURS, REDIS_PEERS, Peer
from .report import format_markdown, format_text
from .run import CLIENT, against, build_client, check_installed, is_chosen, minted_tokens, names, prepare_machine
from .servers import CLIENT_CORE, SERVER_CORE, Server, redis_program, running

TIMEOUT: Final = 60
MESSAGES: Final = (
    ("fan-out to 10, one message in flight", ("--mode", "fanout", "--connections", "10", "--window", "1")),
    ("fan-out to 10, 64 in flight", ("--mode", "fanout", "--connections", "10", "--window", "64")),
    ("fan-out to 100, 64 in flight", ("--mode", "fanout", "--connections", "100", "--window", "64")),
)
LATENCY: Final = ("--mode", "rate", "--connections", "20", "--rate", "500")
STORM: Final = ("--mode", "storm", "--connections", "1000")
IDLE: Final = 5000
LONG_LISTS: Final = (10_000, 100_000)
KILLED: Final = 500

Rows = dict[str, dict[str, list[float]]]


def main() -> int:
    options = _parse()
    program = redis_program()
    prepare_machine()
    build_client()
    others = [peer for peer in REDIS_PEERS.values() if is_chosen(peer.name, options.peers)]
    peers = [OURS, *([against(options.against)] if options.against else [])]
    peers += [peer for peer in others if check_installed(peer)]
    rows: Rows = {}
    failures: list[str] = []
    with minted_tokens() as tokens:
        for repeat in range(options.repeat):
            for count in options.workers:
                for peer in peers[:: -1 if repeat % 2 else 1]:
                    _take_turn(rows, failures, program, peer, count, tokens, options.seconds)
            if not options.messages_only:
                _measure_redis(rows, program, tokens)
                _measure_kill(rows, program)
    _print(rows, peers, markdown=options.markdown)
    print("\n".join(failures))
    return 1 if failures else 0


def _take_turn(
    rows: Rows, failures: list[str], program: str, peer: Peer, count: int, tokens: Path, seconds: float
) -> None:
    """Run all loads on `count` workers of one kind."""
    with running_redis(program) as redis_server, servers_on(redis_server, peer, count) as servers:
        workers = f"{count} worker{'s' * (count > 1)}"
        for title, arguments in MESSAGES:
            report = load(servers, redis_server, [*arguments, "--seconds", str(seconds)], tokens)
            per_cpu = report["published_per_s"] / report["server_cpu"]
            _note(rows, f"{title}: messages per CPU s, {workers}", peer, per_cpu)
            _note(rows, f"{title}: messages/s, {workers}", peer, report["published_per_s"])
            failures += _check(report, peer, title)
        report = load(servers, redis_server, [*LATENCY, "--seconds", str(2 * seconds)], tokens)
        failures += _check(report, peer, "latency")
        for share in ("p50_ms", "p99_ms"):
            _note(rows, f"500 messages/s to 20: {share.replace('_', ', ')}, {workers}", peer, report[share])
        if peer.has_presence:
            report = load(servers, redis_server, STORM, tokens)
            _note(rows, f"1000 users join one channel at once: joins/s, {workers}", peer, 1000 / report["joined_s"])


def _measure_redis(rows: Rows, program: str, tokens: Path) -> None:
    """Measure the memory of a connection in Redis, and a join that returns a long list."""
    with running_redis(program) as redis_server, servers_on(redis_server, OURS, 2) as servers:
        admin = redis.Redis(port=redis_server.port)
        before = admin.info("memory")["used_memory"]
        command = ["--mode", "idle", "--connections", str(IDLE), "--members", "50", "--seconds", "3"]
        process = _start(servers, redis_server, command, tokens)
        most = before
        while process.poll() is None:
            most = max(most, admin.info("memory")["used_memory"])
            time.sleep(0.1)
        _finish(process)
        _note(rows, "Redis memory per connection, in presence channels of 50: bytes", OURS, (most - before) / IDLE)
    for count in LONG_LISTS:
        _measure_long_list(rows, program, count)


def _measure_long_list(rows: Rows, program: str, count: int) -> None:
    """Measure joins of a channel of very many members, on a worker that has no copy of the list and on one that has,
    and how long others on that worker wait meanwhile."""
    config = {"PRESENCE_MAX_MEMBERS": None, "PRESENCE_RATE_LIMIT": None}
    with running_redis(program) as redis_server, test_servers(redis_server, 1, **config) as (server,):
        _fill(redis_server, count)
        for user, manner in (("ann", "cold"), ("bob", "warm")):
            with longest_wait(server) as waited, ws.client(server, user, max_size=None) as one:
                one.send({"type": "join", "channel": "presence-full"})
                began = time.perf_counter()
                frame = one.socket.recv(timeout=TIMEOUT, decode=False)
                took = (time.perf_counter() - began) * 1e3
            assert frame.count(b'"clientId"') > count, frame[:300]
            title = f"join a channel of {count:,} members, {manner}"
            _note(rows, f"{title}: ms", OURS, took)
            _note(rows, f"{title}: longest wait of others, ms", OURS, waited() * 1e3)


@contextmanager
def longest_wait(server: TestServer) -> Iterator[Callable[[], float]]:
    """Another process that sends one ping after another to the server. The function, called after the block, returns
    the longest time until an answer, in seconds."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_ping, args=(server.port, theirs), daemon=True)
    process.start()
    assert ours.recv() == "ready"
    longest: list[float] = []
    try:
        yield lambda: longest[0]
    finally:
        ours.send("stop")
        longest.append(ours.recv())
        process.join(TIMEOUT)


def _ping(port: int, pipe: Connection) -> None:
    longest = 0.0
    with connect(f"ws://127.0.0.1:{port}/presence/ws") as socket:
        socket.recv()
        pipe.send("ready")
        while not pipe.poll():
            began = time.perf_counter()
            socket.send('{"type":"ping"}')
            socket.recv()
            longest = max(longest, time.perf_counter() - began)
    pipe.send(longest)


def _measure_kill(rows: Rows, program: str) -> None:
    """Measure the seconds from `kill -9` of a worker until a client of another knows that all its members have left."""
    with running_redis(program) as redis_server, test_servers(redis_server, 2) as (doomed, other), ExitStack() as stack:
        watcher = stack.enter_context(ws.client(other, "watcher"))
        watcher.join("presence-room")
        for number in range(KILLED):
            stack.enter_context(ws.client(doomed, f"user-{number}")).join("presence-room")
        began = time.monotonic()
        os.kill(doomed.worker_pids()[0], signal.SIGKILL)
        left = 0
        while left < KILLED:
            left += watcher.event()["type"] == "presence:member_left"
        _note(
            rows, f"kill -9 of a worker with {KILLED} members, until all have left: s", OURS, time.monotonic() - began
        )


def _fill(redis_server: RedisServer, count: int) -> None:
    """Fill a channel with the members of a worker that does not exist."""
    client, keys = Client(parse_address(redis_server.url)), Keys("fp")
    operations = Store(keys, lease=60, max_info=4096).channels("nowhere")
    channel = ChannelName("presence-full")
    now = datetime.now(timezone.utc)

    def join(number: int) -> list[Call]:
        user = User(f"user-{number}", name=f"User {number}")
        joining = operations.join(Joiner(channel, f"client-{number}", user, {"n": number}, now), with_list=False)
        calls = next(joining)
        assert isinstance(calls, list)
        return calls

    def fill() -> Operation[None]:
        for first in range(0, count, 500):
            yield [call for number in range(first, first + 500) for call in join(number)]
        yield Call("SADD", (keys.worker_channels("nowhere"),), (channel,))

    client.run(fill())
    client.close()


@contextmanager
def servers_on(redis_server: RedisServer, peer: Peer, count: int, **settings: str) -> Iterator[list[Server]]:
    """Servers of one worker each that share a Redis."""
    url = redis_server.url
    os.sched_setaffinity(redis_server.process.pid, {SERVER_CORE})
    with ExitStack() as stack:
        environment = {"FLASK_PRESENCE_BACKEND": json.dumps(url), "BENCHMARK_REDIS": url, **settings}
        yield [stack.enter_context(running(peer, **environment)) for _ in range(count)]


@contextmanager
def test_servers(redis_server: RedisServer, count: int, **settings: Any) -> Iterator[list[TestServer]]:
    """Servers for the tests' client."""
    config = {"PRESENCE_BACKEND": redis_server.url, **settings}
    with ExitStack() as stack:
        yield [stack.enter_context(running_test_server(**config)) for _ in range(count)]


def _start(
    servers: list[Server], redis_server: RedisServer | None, arguments: Any, tokens: Path
) -> subprocess.Popen[str]:
    peer = servers[0].peer
    command = ["taskset", "-c", str(CLIENT_CORE), str(CLIENT), "--path", peer.path, "--dialect", peer.dialect]
    command += ["--timeout", str(TIMEOUT), *arguments]
    if redis_server is not None:
        command += ["--pid", str(redis_server.process.pid)]
    for server in servers:
        command += ["--port", str(server.port), *(part for pid in server.pids for part in ("--pid", str(pid)))]
    if peer.has_presence:
        command += ["--tokens", str(tokens)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _finish(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, problem = process.communicate(timeout=TIMEOUT + 10)
    if process.returncode:
        raise RuntimeError(f"the load client failed: {problem}")
    report: dict[str, Any] = json.loads(out)
    return report


def load(servers: list[Server], redis_server: RedisServer | None, arguments: Any, tokens: Path) -> dict[str, Any]:
    """The load client's report. The CPU time of the servers and of Redis, if there is one, is in it."""
    return _finish(_start(servers, redis_server, arguments, tokens))


def _check(report: dict[str, Any], peer: Peer, title: str) -> list[str]:
    wrong = report["gaps"] or report["errors"]
    return [f"{peer.name}, {title}: {report['gaps']} gaps, {report['errors']} errors"] if wrong else []


def _note(rows: Rows, title: str, peer: Peer, value: float) -> None:
    rows.setdefault(title, {}).setdefault(peer.name, []).append(value)
    print(f"{title:80} {peer.name:16} {value:.4g}", file=sys.stderr, flush=True)


def _print(rows: Rows, peers: list[Peer], *, markdown: bool) -> None:
    table = [["", *(peer.title for peer in peers)]]
    for title, values in rows.items():
        middle = {name: statistics.median(found) for name, found in values.items()}
        ours = middle[OURS.name]
        cells = [f"{ours:,.4g}" if ours < 1000 else f"{ours:,.0f}"]
        for peer in peers[1:]:
            theirs = middle.get(peer.name)
            cells.append("-" if theirs is None else f"{theirs:,.4g} ({ours / theirs:.2f}x)")
        table.append([title, *cells])
    print((format_markdown if markdown else format_text)(table))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--peers", type=names, default=[], help="peers, by the beginnings of their names")
    parser.add_argument("--against", type=Path, help="another checkout of flask_presence, as another peer")
    parser.add_argument("--messages-only", action="store_true", help="measure only what all peers can do, and joins")
    parser.add_argument("--markdown", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
