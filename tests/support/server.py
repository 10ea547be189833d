"""A real server in a process of its own, on a port that was free."""

from __future__ import annotations

import atexit
import errno
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from packaging.version import Version

from .fork_server import ForkedProcess, ForkServer
from .ports import free_port

ROOT = Path(__file__).parents[2]
DEADLINE = 20.0

HAS_CONTROL_SOCKET = Version(version("gunicorn")) >= Version("25.1")
GUNICORN_MODULE = [sys.executable, "-m", "gunicorn"]
GUNICORN = [*GUNICORN_MODULE, "--bind", "fd://{fd}"]
if HAS_CONTROL_SOCKET:
    GUNICORN.append("--no-control-socket")
GUNICORN_GEVENT = "gunicorn-gevent"
COMMANDS = {
    GUNICORN_GEVENT: [*GUNICORN, "-k", "gevent", "{app}"],
    "gunicorn-gevent-websocket": [*GUNICORN, "-k", "geventwebsocket.gunicorn.workers.GeventWebSocketWorker", "{app}"],
    "gunicorn-gthread": [*GUNICORN, "-k", "gthread", "--threads", "40", "{app}"],
    "flask-run": [sys.executable, "-m", "tests.support.serve", "werkzeug", "{fd}", "{app}"],
    "pywsgi": [sys.executable, "-m", "tests.support.serve", "pywsgi", "{fd}", "{app}"],
    "pywsgi-unpatched": [sys.executable, "-m", "tests.support.serve", "pywsgi-unpatched", "{fd}", "{app}"],
    "pywsgi-gevent-websocket": [sys.executable, "-m", "tests.support.serve", "pywsgi-handler", "{fd}", "{app}"],
}


UNFIT = {
    "gunicorn-sync": [*GUNICORN, "{app}"],
    "gunicorn-one-thread": [*GUNICORN, "-k", "gthread", "--threads", "1", "{app}"],
    "flask-run-without-threads": [sys.executable, "-m", "tests.support.serve", "werkzeug-alone", "{fd}", "{app}"],
    "waitress": [sys.executable, "-m", "tests.support.serve", "waitress", "{fd}", "{app}"],
    "wsgiref": [sys.executable, "-m", "tests.support.serve", "wsgiref", "{fd}", "{app}"],
}
"""Servers that cannot serve WebSockets."""


@cache
def fork_server() -> ForkServer:
    """The one of this process."""
    server = ForkServer()
    atexit.register(server.close)
    return server


class Server:
    """A running server. `config` are Flask settings; `arguments` go to its command. With `send_buffer`, in bytes, the
    server soon notices if a client does not read.

    `kind` is one of `COMMANDS` or `UNFIT`. Without it the server is a `gunicorn -k gevent` of the fork server, which
    starts in a fraction of the time.
    """

    def __init__(
        self,
        app: str = "tests.support.apps:create_app()",
        kind: str | None = None,
        arguments: tuple[str, ...] = (),
        scheme: str = "http",
        send_buffer: int | None = None,
        **config: Any,
    ) -> None:
        self.scheme = scheme
        self._send_buffer = send_buffer
        self.port = free_port()
        self._kind, self._app, self._arguments, self._config = kind, app, arguments, config
        self._log = tempfile.TemporaryFile()  # noqa: SIM115
        self.process: ForkedProcess | subprocess.Popen[bytes]
        self.start()

    def start(self) -> None:
        """Start the process. Every start uses the same port."""
        wait_until(self._listen)  # a process that was just killed may still have the port
        fd = self._listener.fileno()
        command = [part.format(fd=fd, app=self._app) for part in (COMMANDS | UNFIT)[self._kind or GUNICORN_GEVENT]]
        command += self._arguments
        environ = os.environ | {f"FLASK_{key}": json.dumps(value) for key, value in self._config.items()}
        environ["PYTHONUNBUFFERED"] = "1"
        if self._kind is None:
            arguments = command[len(GUNICORN_MODULE) :]
            self.process = fork_server().start(arguments, environ, self._listener, self._log.fileno())
            return
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environ,
            pass_fds=[fd],
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def _listen(self) -> bool:
        try:
            self._listener = socket.create_server(("127.0.0.1", self.port), backlog=512)
        except OSError as problem:
            if problem.errno != errno.EADDRINUSE:
                raise
            return False
        if self._send_buffer is not None:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self._send_buffer)
        return True

    def kill(self) -> None:
        """Kill the process and its workers."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(DEADLINE)

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def origin(self) -> str:
        return f"{self.scheme}://{self.host}"

    def get(self, path: str, headers: dict[str, str] | None = None) -> tuple[int, dict[str, str], str]:
        """The status, the headers and the body of a GET."""
        request = urllib.request.Request(f"{self.origin}{path}", headers=headers or {})
        try:
            with urllib.request.urlopen(request, timeout=DEADLINE) as response:
                return response.status, dict(response.headers), response.read().decode()
        except urllib.error.HTTPError as problem:
            with problem:
                return problem.code, dict(problem.headers), problem.read().decode()

    def json(self, path: str) -> Any:
        status, _, body = self.get(path)
        assert status == 200, (status, body)
        return json.loads(body)

    def call(self, method: str, place: str = "view", /, **arguments: Any) -> Any:
        """The result of a method of `Presence` that the app's route `/call` calls; see `in_place` in `apps.py`."""
        return self.json(
            f"/call/{method}?{urllib.parse.urlencode({'place': place, 'arguments': json.dumps(arguments)})}"
        )

    def post(self, path: str, body: Any) -> None:
        """Send JSON with a POST, which must succeed."""
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.origin}{path}", json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request, timeout=DEADLINE) as response:
            assert response.status == 200

    def token(self, user: str, **claims: Any) -> str:
        """A token of the server's app, from its route `/token`."""
        return str(self.json(f"/token?{urllib.parse.urlencode({'user': user, 'claims': json.dumps(claims)})}"))

    def worker_pids(self) -> list[int]:
        """The processes that gunicorn's arbiter has started."""
        pid = self.process.pid
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def log(self) -> str:
        """Everything that the server has printed."""
        self._log.flush()
        return Path(f"/proc/{os.getpid()}/fd/{self._log.fileno()}").read_text(errors="replace")

    def wait_until_ready(self) -> None:
        def answers() -> bool:
            assert self.process.poll() is None, f"the server has ended:\n{self.log()}"
            with socket.create_connection(("127.0.0.1", self.port), timeout=DEADLINE) as probe:
                # This process shares the listener, which accepts connections even after the server has ended.
                probe.settimeout(1)
                probe.sendall(b"GET /ready HTTP/1.0\r\n\r\n")
                try:
                    return bool(probe.recv(1))
                except TimeoutError:
                    return False

        wait_until(answers)
        self._listener.close()
        if self._kind is None or self._kind.startswith("gunicorn"):
            # A signal that reaches a worker before this is lost, and gunicorn repeats SIGTERM only after 30 seconds.
            wait_until(lambda: all(map(handles_signals, self.worker_pids())))

    def stop(self) -> None:
        """End the process with SIGTERM; kill it if it does not stop."""
        self._listener.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(DEADLINE)
            except subprocess.TimeoutExpired:
                self.kill()

    def close(self) -> None:
        """Kill the process, because ending it takes gunicorn a second."""
        self._listener.close()
        with suppress(ProcessLookupError):  # it has ended
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(DEADLINE)
        self._log.close()


def handles_signals(worker_pid: int) -> bool:
    """Whether a gunicorn's worker has its own signal handlers. Those for SIGABRT its arbiter does not have."""
    try:
        status = Path(f"/proc/{worker_pid}/status").read_text()
    except FileNotFoundError:
        return False
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(caught.split()[1], 16) >> (signal.SIGABRT - 1) & 1)


@contextmanager
def running(**options: Any) -> Iterator[Server]:
    """A server for a `with` block. If the block fails, the server's log is printed."""
    server = Server(**options)
    try:
        server.wait_until_ready()
        yield server
    except BaseException:
        print(server.log())
        raise
    finally:
        server.close()


def wait_until(condition: Callable[[], object], deadline: float = DEADLINE) -> None:
    """Return once `condition()` is true; fail after `deadline` seconds. The longer it takes, the less often it asks."""
    start = time.monotonic()
    while not condition():
        waited = time.monotonic() - start
        assert waited < deadline, f"waited {deadline} s for {getattr(condition, '__qualname__', condition)}"
        time.sleep(min(max(waited / 10, 0.01), 0.1))
