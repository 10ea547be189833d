"""Hostile clients, in a process of their own: `python -m tests.support.hostile KIND PORT TOKEN`.

A client starts its attack, prints a line, goes on until its standard input is closed or a minute is over, and prints
the outcomes as JSON. It attacks only servers on this host.
"""

from __future__ import annotations

import itertools
import json
import random
import select
import socket
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from .raw import masked, split_frames, upgrade_request, upgraded
from .server import ROOT, Server

LIFETIME = 60.0
MANY = 100
CLOSE = 8

Attack = Callable[[int, str], Iterator[str]]
"""Takes a port and a token. Each step attacks a little, and yields its outcome."""


def hammer(port: int, token: str, first: bytes, again: Callable[[], bytes]) -> Iterator[str]:
    """Send `first`, then what `again` returns, without a pause. Connect again whenever the server closes."""
    while True:
        with upgraded(port, token) as raw:
            waiting, heard = first, b""
            raw.settimeout(0.05)
            try:
                while True:
                    waiting = waiting or again()
                    with suppress(TimeoutError):
                        waiting = waiting[raw.send(waiting) :]
                    yield "sent"
                    if not select.select([raw], [], [], 0)[0]:
                        continue
                    frames, heard = split_frames(heard + raw.recv(65536))
                    closed = [payload for opcode, payload in frames if opcode == CLOSE]
                    if closed:
                        yield f"closed with {int.from_bytes(closed[0][:2], 'big')}"
                        break
            except OSError:
                yield "reset"


def messages(port: int, token: str) -> Iterator[str]:
    """Floods a channel with messages."""
    text = masked(b'{"type":"channel:message","channel":"flooded","data":"' + b"x" * 100 + b'"}')
    return hammer(port, token, masked(b'{"type":"join","channel":"flooded"}'), lambda: text * 200)


def joins(port: int, token: str) -> Iterator[str]:
    """Joins channel after channel, never the same twice."""
    numbers = itertools.count()

    def many() -> bytes:
        return b"".join(masked(b'{"type":"join","channel":"presence-%d"}' % next(numbers)) for _ in range(200))

    return hammer(port, token, b"", many)


def pings(port: int, token: str) -> Iterator[str]:
    """Floods with pings, of WebSocket and of the protocol."""
    return hammer(port, token, b"", lambda: masked(b"x" * 125, 9) * 200 + masked(b'{"type":"ping"}') * 200)


def fragments(port: int, token: str) -> Iterator[str]:
    """Sends a message that never ends, in fragments of one byte with pings between them."""
    return hammer(
        port, token, masked(b'"', 1, final=False), lambda: (masked(b"x", 0, final=False) * 9 + masked(b"", 9)) * 20
    )


def garbage(port: int, token: str) -> Iterator[str]:
    """Sends random bytes in place of frames."""
    noise = random.Random(20)
    return hammer(port, token, b"", lambda: noise.randbytes(2000))


def giants(port: int, token: str) -> Iterator[str]:
    """Announces messages of four exabytes."""
    return hammer(port, token, b"\x81\xff" + (1 << 62).to_bytes(8, "big") + bytes(4), lambda: b"x" * 60000)


def handshakes(port: int, _token: str) -> Iterator[str]:
    """Opens connections, and resets them before or after the handshake."""
    for number in itertools.count():
        with socket.create_connection(("127.0.0.1", port), timeout=10) as raw:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            try:
                raw.sendall(upgrade_request(port))
                if number % 2:
                    raw.recv(4096)
            except OSError:
                yield "reset"
            yield "opened"


def halves(port: int, token: str) -> Iterator[str]:
    """Opens many connections, and sends half a frame on each."""
    crowd = [upgraded(port, token) for _ in range(MANY)]
    for raw in crowd:
        raw.sendall(masked(b'{"type":"join","channel":"presence-room"}')[:20])
    while True:
        time.sleep(0.01)
        yield "waited"


def drips(port: int, token: str) -> Iterator[str]:
    """Opens many connections that send their requests one byte at a time."""
    crowd = [upgraded(port, token) for _ in range(MANY)]
    text = masked(b'{"type":"ping"}')
    for position in itertools.count():
        for raw in crowd:
            raw.setblocking(False)
            with suppress(BlockingIOError):
                raw.send(text[position % len(text) :][:1])
        time.sleep(0.001)
        yield "dripped"


def unread(port: int, token: str) -> Iterator[str]:
    """Opens many connections that read nothing, in a channel whose sender is as fast as the rate limit allows."""
    crowd = [upgraded(port) for _ in range(20)]
    for raw in crowd:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.sendall(masked(b'{"type":"join","channel":"loud"}'))
    text = masked(b'{"type":"channel:message","channel":"loud","data":"' + b"x" * 30000 + b'"}')
    with upgraded(port, token) as loud:
        loud.sendall(masked(b'{"type":"join","channel":"loud"}'))
        while True:
            loud.sendall(text)
            loud.recv(65536)
            time.sleep(0.015)
            yield "spoke"


ATTACKS: dict[str, Attack] = {
    attack.__name__: attack
    for attack in (messages, joins, pings, fragments, garbage, giants, handshakes, halves, drips, unread)
}


@contextmanager
def attacked(server: Server, kind: str, *, niceness: int = 0) -> Iterator[Counter[str]]:
    """Attack `server` during the block. Afterwards the counter has the outcomes."""
    outcome: Counter[str] = Counter()
    command = ["nice", "-n", str(niceness), sys.executable, "-m", __name__]
    command += [kind, str(server.port), server.token("mallory")]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "begun\n"
            yield outcome
            process.stdin.close()
            outcome.update(json.loads(process.stdout.readline()))
        finally:
            process.kill()


def main(kind: str, port: str, token: str) -> None:
    """Attack until standard input ends."""
    outcomes: Counter[str] = Counter()
    end = time.monotonic() + LIFETIME
    steps = ATTACKS[kind](int(port), token)
    while time.monotonic() < end:
        outcomes[next(steps)] += 1
        if outcomes.total() == 1:
            print("begun", flush=True)
        if select.select([sys.stdin], [], [], 0)[0]:
            break
    print(json.dumps(outcomes), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
