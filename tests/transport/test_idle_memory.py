"""How much memory an idle connection takes."""

from __future__ import annotations

import json
import socket
from contextlib import ExitStack

import pytest

from ..support.raw import masked, split_frames, upgraded
from ..support.server import Server, running, wait_until

MANY = 200
WARM_UP = 60
MEMBERS = 20


def enter(server: Server, stack: ExitStack, first: int, count: int, *, with_tokens: bool) -> None:
    """Open connections, and join a channel with each. They are open until `stack` ends."""
    sockets = []
    for number in range(first, first + count):
        token = server.token(f"user-{number}") if with_tokens else None
        raw = stack.enter_context(upgraded(server.port, token))
        channel = f"presence-{number // MEMBERS}" if with_tokens else "lobby"
        raw.sendall(masked(json.dumps({"type": "join", "channel": channel}).encode()))
        sockets.append(raw)
    for raw in sockets:
        read_until_joined(raw)


def read_until_joined(raw: socket.socket) -> None:
    data = b""
    while not any(b'"channel:joined"' in payload for _, payload in split_frames(data)[0]):
        part = raw.recv(65536)
        assert part, data
        data += part


@pytest.mark.parametrize(("with_tokens", "bound"), [(False, 2000), (True, 4300)])
def test_an_idle_connection_takes_little_memory(*, with_tokens: bool, bound: int) -> None:
    """Without a login in a public channel, and with a token in a presence channel.

    The bounds, in bytes that Python has allocated, are a few hundred above what it takes: less than an empty `deque`,
    and enough for what differs between versions of Python. An upgrade that has just ended still has memory, so the test
    waits until that is free.
    """
    with running(app="tests.support.memory_app:create_app()", kind="gunicorn-gevent") as server, ExitStack() as stack:
        server.json("/memory")
        enter(server, stack, 0, WARM_UP, with_tokens=with_tokens)
        before = server.json("/memory")
        enter(server, stack, WARM_UP, MANY, with_tokens=with_tokens)
        taken = [0.0]

        def is_little() -> bool:
            taken.append((server.json("/memory") - before) / MANY)
            return taken[-1] <= bound

        try:
            wait_until(is_little)
        finally:
            print(f"{taken[-1]:.0f} bytes per connection")
