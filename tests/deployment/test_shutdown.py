"""The end of a worker: goodbyes first, for everybody, and then it goes."""

from __future__ import annotations

import itertools
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from ..support.client import Client, client
from ..support.handshake import UPGRADE, raw_status
from ..support.raw import greet
from ..support.server import DEADLINE, Server, running, wait_until


@contextmanager
def many(server: Server, count: int) -> Iterator[list[Client]]:
    """That many connections."""
    with ExitStack() as stack:
        yield [stack.enter_context(client(server)) for _ in range(count)]


def collect(clients: list[Client]) -> list[tuple[int, str]]:
    """How each connection ended."""
    return [one.wait_closed() for one in clients]


GUNICORNS = ["gunicorn-gevent", "gunicorn-gthread"]


@pytest.mark.parametrize("arguments", [(), ("--preload",)])
@pytest.mark.parametrize("kind", GUNICORNS)
def test_term(kind: str, arguments: tuple[str, ...], tmp_path: Path) -> None:
    """SIGTERM: 1001 to everybody, handlers run, worker gone, also with a client that ignores the close."""
    heard = tmp_path / "heard"
    app = "tests.support.goodbye:create_app()"
    options: dict[str, Any] = {"app": app, "kind": kind, "arguments": arguments, "HEARD": str(heard)}
    with running(**options) as server, many(server, 20) as opened:
        for one in opened:
            one.join("public-room")
        with socket.create_connection(("127.0.0.1", server.port)) as deaf:
            greet(deaf, server.port)
            server.process.send_signal(signal.SIGTERM)
            assert collect(opened) == [(1001, "Server shutting down")] * 20
            server.process.wait(DEADLINE)  # gunicorn would wait for thirty seconds
        events = [json.loads(line) for line in heard.read_text().splitlines()]
        assert sorted(events) == sorted(
            [["channel.left", "shutdown"]] * 20 + [["client.disconnected", "shutdown"]] * 21
        )
        assert "Traceback" not in server.log()


def test_draining_refuses() -> None:
    """Between SIGTERM and the end of the listener, health and upgrades are 503."""
    with running() as server, client(server) as one:
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
def test_reload(kind: str) -> None:
    """SIGHUP: everybody gets 1001, and whoever comes back at once finds the new worker."""
    with running(kind=kind) as server, many(server, 5) as opened:
        server.process.send_signal(signal.SIGHUP)
        assert {code for code, _ in collect(opened)} == {1001}
        with client(server) as again:
            assert again.request("ping")["type"] == "pong"


@pytest.mark.parametrize("kind", GUNICORNS)
def test_max_requests(kind: str) -> None:
    """A worker that gunicorn replaces after so many requests says goodbye too, and another takes over."""
    with running(kind=kind, arguments=("--max-requests", "12")) as server, many(server, 5) as opened:

        def use_up() -> bool:
            try:
                server.get("/ready")
            except OSError:
                return False
            return any(_is_closed(one) for one in opened)

        wait_until(use_up)
        assert {code for code, _ in collect(opened)} == {1001}
        with client(server) as again:
            assert again.request("ping")["type"] == "pong"


@pytest.mark.parametrize("kind", GUNICORNS)
def test_reload_of_changed_code(kind: str, tmp_path: Path) -> None:
    """`--reload`: who is connected when the code changes gets 1001, and the new worker serves."""
    watched = tmp_path / "watched.txt"
    watched.write_text("before")
    arguments = ("--reload", "--reload-engine", "poll", "--reload-extra-file", str(watched))
    with running(kind=kind, arguments=arguments) as server, client(server) as one:
        before = server.worker_pids()
        moments = itertools.count(int(time.time()) + 1)

        def change() -> bool:
            """Change the file once more: gunicorn misses a change that comes before it first looks."""
            os.utime(watched, (moment := next(moments), moment))
            return _is_closed(one)

        wait_until(change)
        wait_until(lambda: server.worker_pids() not in (before, []))
        with client(server) as again:
            assert again.request("ping")["type"] == "pong"


@pytest.mark.parametrize(("kind", "number"), [("flask-run", signal.SIGINT), ("pywsgi", signal.SIGTERM)])
def test_end_of_other_servers(kind: str, number: signal.Signals) -> None:
    """A server that ends in good order says goodbye, whatever it is."""
    with running(kind=kind) as server, many(server, 3) as opened:
        server.process.send_signal(number)
        assert collect(opened) == [(1001, "Server shutting down")] * 3
        server.process.wait(DEADLINE)


@pytest.mark.parametrize("kind", GUNICORNS)
def test_quick_stop(kind: str) -> None:
    """SIGQUIT: the same, only at once."""
    with running(kind=kind) as server, many(server, 5) as opened:
        server.process.send_signal(signal.SIGQUIT)
        assert {code for code, _ in collect(opened)} == {1001}
        server.process.wait(DEADLINE)


def _is_closed(one: Client) -> bool:
    try:
        one.socket.recv(timeout=0.01)
    except TimeoutError:
        return False
    except ConnectionClosed as closed:
        assert closed.rcvd is not None
        return closed.rcvd.code == 1001
    return False


def test_drain_on_other_servers() -> None:
    """`presence.drain()` does the same where no gunicorn is."""
    with running(kind="pywsgi") as server:
        with client(server) as one, client(server) as other:
            answers: list[Any] = []
            caller = threading.Thread(target=lambda: answers.append(server.json("/call/drain")))
            caller.start()
            assert collect([one, other]) == [(1001, "Server shutting down")] * 2
            caller.join(10)
            assert answers == [None]
        assert server.get("/presence/health")[0] == 503
