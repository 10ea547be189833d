"""Starts gunicorns quickly: a process that has imported what they import, and forks.

Importing is most of what a server of a short test does. What a fork runs is gunicorn itself, as its command does. The
one difference is the one that `--preload` makes: the modules are there before gevent patches the standard library. None
of flask_presence's own has taken a name that gevent patches. Of the others, Jinja, Werkzeug and the metrics have taken
locks, which they hold without waiting for anything, and redis-py the delay between attempts, of which there is one.
"""

from __future__ import annotations

import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).parents[2]
MAX_ORDER: Final = 1 << 20
"""Bytes of the arguments and the environment of a server."""
GUNICORN: Final = "gunicorn.app.wsgiapp"
IMPORTS: Final = (
    GUNICORN,
    "gunicorn.glogging",
    "gunicorn.workers.ggevent",
    "flask_jwt_extended",
    "flask_presence",
    "flask_presence.backends.redis.backend",
)


class Order(NamedTuple):
    """A server that is to be started."""

    arguments: list[str]
    environ: dict[str, str]
    listener: int
    """The file descriptor that the server expects its listening socket to have."""


class ForkedProcess:
    """A server that was forked, with the methods of `subprocess.Popen` that the tests use."""

    def __init__(self, status: socket.socket) -> None:
        self._status = status
        self.pid = int(status.recv(MAX_ORDER))
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The exit status, negative for a signal; `None` while the process runs."""
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the exit status, or raise `subprocess.TimeoutExpired` after `timeout` seconds."""
        if self.returncode is None:
            if not select.select([self._status], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("gunicorn", timeout or 0)
            with self._status:
                self.returncode = int(self._status.recv(MAX_ORDER))
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)


class ForkServer:
    """The process that forks, as the tests see it."""

    def __init__(self) -> None:
        self._orders, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(theirs.fileno())],
                cwd=ROOT,
                env=os.environ | {"PYTHONUNBUFFERED": "1"},
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )

    def start(self, arguments: list[str], environ: dict[str, str], listener: socket.socket, log: int) -> ForkedProcess:
        """Start a gunicorn that inherits the listener, and writes to the file descriptor `log`."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        order = json.dumps(Order(arguments, environ, listener.fileno())).encode()
        with theirs:
            socket.send_fds(self._orders, [order], [listener.fileno(), log, theirs.fileno()])
        return ForkedProcess(ours)

    def close(self) -> None:
        """End the process. The servers go on, but end with the process that has started them."""
        self._orders.close()
        self._process.wait()


def main() -> None:
    """Start servers until the tests close their end of the socket."""
    orders = socket.socket(fileno=int(sys.argv[1]))
    for module in IMPORTS:
        importlib.import_module(module)
    warnings.filterwarnings("ignore", "Monkey-patching ssl")
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the watchers
    while True:
        order, descriptors, _, _ = socket.recv_fds(orders, MAX_ORDER, 3)
        if not order:
            break
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            orders.close()
            watch(Order(*json.loads(order)), *descriptors)
            break
        for descriptor in descriptors:
            os.close(descriptor)


def watch(order: Order, listener: int, log: int, status: int) -> None:
    """Start a server, and report how it ends."""
    pid = os.fork()
    if pid == 0:
        os.close(status)
        serve(order, listener, log)
        return
    os.close(listener)
    os.close(log)
    with socket.socket(fileno=status) as reports:
        reports.send(str(pid).encode())
        ready, _, _ = select.select([os.pidfd_open(pid), reports.fileno()], [], [])
        if reports.fileno() in ready:  # the tests have ended without ending it
            os.killpg(pid, signal.SIGKILL)
        ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        assert ended is not None
        exited = ended.si_code == os.CLD_EXITED
        with suppress(BrokenPipeError):  # nobody wants to know
            reports.send(str(ended.si_status if exited else -ended.si_status).encode())
            reports.recv(1)  # until the report was read, no other process gets the id
    os._exit(0)


def serve(order: Order, listener: int, log: int) -> None:
    """Run gunicorn, as `python -m gunicorn` does."""
    os.setsid()
    os.dup2(log, sys.stdout.fileno())
    os.dup2(log, sys.stderr.fileno())
    os.close(log)
    if listener != order.listener:
        os.dup2(listener, order.listener)
        os.close(listener)
    os.environ.clear()
    os.environ.update(order.environ)
    sys.argv = ["gunicorn", *order.arguments]
    importlib.import_module(GUNICORN).run()


if __name__ == "__main__":
    main()
