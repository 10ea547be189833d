"""The end of a worker: it closes every connection with 1001, then stops."""

from __future__ import annotations

import itertools
import json
import os
import signal
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from ..support.client import Client, client
from ..support.handshake import UPGRADE, raw_status
from ..support.raw import greet
from ..support.server import DEADLINE, Server, running, wait_until


@contextmanager
def many(server: Server, count: int) -> Iterator[list[Client]]:
    """A number of connections."""
    with ExitStack() as stack:
        yield [stack.enter_context(client(server)) for _ in range(count)]


def collect(clients: list[Client]) -> list[tuple[int, str]]:
    """The close code and the reason of each connection."""
    return [one.wait_closed() for one in clients]


GUNICORNS = ["gunicorn-gevent", "gunicorn-gthread"]


@pytest.mark.parametrize("arguments", [(), ("--preload",)])
@pytest.mark.parametrize("kind", GUNICORNS)
def test_sigterm_closes_every_connection_with_1001(kind: str, arguments: tuple[str, ...], tmp_path: Path) -> None:
    """The handlers run, and the worker stops even if a client ignores the close. It can still read it afterwards."""
    heard = tmp_path / "heard"
    app = "tests.support.shutdown_app:create_app()"
    options: dict[str, Any] = {"app": app, "kind": kind, "arguments": arguments, "HEARD": str(heard)}
    with running(**options) as server, many(server, 20) as opened:
        for one in opened:
            one.join("public-room")
        with socket.create_connection(("127.0.0.1", server.port)) as unresponsive:
            greet(unresponsive, server.port)
            server.process.send_signal(signal.SIGTERM)
            assert collect(opened) == [(1001, "Server shutting down")] * 20
            server.process.wait(DEADLINE)  # gunicorn would wait for thirty seconds
            assert struct.pack("!H", 1001) + b"Server shutting down" in b"".join(
                iter(lambda: unresponsive.recv(4096), b"")
            )
        events = [json.loads(line) for line in heard.read_text().splitlines()]
        assert sorted(events) == sorted(
            [["channel.left", "shutdown"]] * 20 + [["client.disconnected", "shutdown"]] * 21
        )
        assert "Traceback" not in server.log()


def test_a_draining_worker_answers_health_and_upgrades_with_503() -> None:
    with running(kind="gunicorn-gevent") as server, client(server) as one:
        workers = server.worker_pids()
        for worker in workers:
            os.kill(worker, signal.SIGTERM)
        seen: set[tuple[int, int]] = set()

        def ask() -> bool:
            try:
                seen.add((server.get("/presence/health")[0], raw_status(server, UPGRADE)))
            except OSError:
                return True
            return (503, 503) in seen

        wait_until(ask)
        assert (503, 503) in seen
        assert one.wait_closed()[0] == 1001


@pytest.mark.parametrize("kind", GUNICORNS)
def test_sighup_closes_with_1001_and_a_new_worker_serves(kind: str) -> None:
    with running(kind=kind) as server, many(server, 5) as opened:
        server.process.send_signal(signal.SIGHUP)
        assert {code for code, _ in collect(opened)} == {1001}
        with client(server) as again:
            assert again.request("ping")["type"] == "pong"


@pytest.mark.parametrize("kind", GUNICORNS)
def test_a_worker_replaced_by_max_requests_closes_with_1001(kind: str) -> None:
    """Another worker takes over."""
    with running(kind=kind, arguments=("--max-requests", "12")) as server, many(server, 5) as opened:

        def use_up() -> bool:
            try:
                server.get("/ready")
            except OSError:
                return False
            return any(_is_closed(one) for one in opened)

        wait_until(use_up)
        assert {code for code, _ in collect(opened)} == {1001}
        wait_until(lambda: _serves(server))


@pytest.mark.parametrize("kind", GUNICORNS)
def test_changed_code_closes_with_1001_and_a_new_worker_serves(kind: str, tmp_path: Path) -> None:
    """This is gunicorn's option `--reload`."""
    watched = tmp_path / "watched.txt"
    watched.write_text("before")
    arguments = ("--reload", "--reload-engine", "poll", "--reload-extra-file", str(watched))
    with running(kind=kind, arguments=arguments) as server, client(server) as one:
        before = server.worker_pids()
        moments = itertools.count(int(time.time()) + 1)

        def change() -> bool:
            """Change the file again, because gunicorn misses a change before its first look."""
            os.utime(watched, (moment := next(moments), moment))
            return _is_closed(one)

        wait_until(change)
        wait_until(lambda: server.worker_pids() not in (before, []))
        with client(server) as again:
            assert again.request("ping")["type"] == "pong"


@pytest.mark.parametrize(("kind", "number"), [("flask-run", signal.SIGINT), ("pywsgi", signal.SIGTERM)])
def test_other_servers_close_with_1001_when_they_stop(kind: str, number: signal.Signals) -> None:
    with running(kind=kind) as server, many(server, 3) as opened:
        server.process.send_signal(number)
        assert collect(opened) == [(1001, "Server shutting down")] * 3
        server.process.wait(DEADLINE)


@pytest.mark.parametrize("kind", GUNICORNS)
def test_sigquit_closes_with_1001_at_once(kind: str) -> None:
    with running(kind=kind) as server, many(server, 5) as opened:
        server.process.send_signal(signal.SIGQUIT)
        assert {code for code, _ in collect(opened)} == {1001}
        server.process.wait(DEADLINE)


def _serves(server: Server) -> bool:
    """Whether a new connection works. The worker that ends may still refuse it with 503."""
    try:
        with client(server) as one:
            return bool(one.request("ping")["type"] == "pong")
    except InvalidStatus as refused:
        assert refused.response.status_code == 503
        return False


def _is_closed(one: Client) -> bool:
    try:
        one.socket.recv(timeout=0.01)
    except TimeoutError:
        return False
    except ConnectionClosed as closed:
        assert closed.rcvd is not None
        return closed.rcvd.code == 1001
    return False


def test_drain_closes_every_connection_without_gunicorn() -> None:
    """Afterwards `/health` is 503."""
    with running(kind="pywsgi") as server:
        with client(server) as one, client(server) as other:
            answers: list[Any] = []
            caller = threading.Thread(target=lambda: answers.append(server.call("drain")))
            caller.start()
            assert collect([one, other]) == [(1001, "Server shutting down")] * 2
            caller.join(10)
            assert answers == [None]
        assert server.get("/presence/health")[0] == 503
