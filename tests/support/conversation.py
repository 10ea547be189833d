"""A conversation in a channel that keeps messages: some write, and others come and go, whatever happens to the servers.

Rule: a listener that recovers has missed nothing, heard nothing twice, and heard everything in order. What a writer
sends again with its `messageId` goes out once, unless Redis has lost its data in between, or another server has taken
over, which may lack the latest.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.sync.client import ClientConnection, connect

from flask_presence.domain.history import Position, parse_position

from .server import DEADLINE, Server

HISTORY = {"kept-*": (300, 60)}
WRITERS, LISTENERS = 2, 3
LEAP = 1_000_000_000
"""By how much the numbers grow in one step when another server may lack the latest messages."""
PAUSE = 0.02
"""Seconds between two messages of a writer."""
FAILURES = (OSError, EOFError, TimeoutError, ConnectionClosed, WebSocketException)
"""What a connection raises if the server is being killed, or is not there."""


class Stretch:
    """What one listener has heard without a gap, as far as the server says."""

    def __init__(self, begin: Position) -> None:
        self.begin = self.end = begin
        self.heard: list[tuple[Position, str]] = []


class Conversation:
    """Runs in threads between `start` and `stop`, in a channel that `HISTORY` lets keep messages. `problems` are what
    must not have happened."""

    def __init__(self, seed: int, servers: list[Server], tokens: dict[str, str], channel: str) -> None:
        self._random = random.Random(seed)
        self._servers = servers
        self._channel = channel
        self._tokens = list(tokens.values())
        self._stopped = threading.Event()
        self._threads: list[threading.Thread] = []
        self._wrong: list[str] = []
        self._confirmed: dict[str, Position] = {}
        self._stretches: list[Stretch] = []
        self.counts: Counter[str] = Counter()

    def start(self) -> None:
        for number in range(WRITERS):
            self._spawn(self._write, f"writer {number}")
        for _ in range(LISTENERS):
            self._spawn(self._listen)

    def stop(self) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join(3 * DEADLINE)
            assert not thread.is_alive(), "a conversation does not end"

    def problems(self) -> Iterator[str]:
        """What is wrong. Call it after `stop`."""
        yield from self._wrong
        ids: dict[str, set[Position]] = {}
        for stretch in self._stretches:
            positions = [position for position, _ in stretch.heard]
            for earlier, later in itertools.pairwise([stretch.begin, *positions]):
                if not earlier < later or earlier.epoch != later.epoch:
                    yield f"{later} was heard after {earlier}"
            for position, what in stretch.heard:
                ids.setdefault(what, set()).add(position)
            missed = [
                f"{what} at {position}"
                for what, position in self._confirmed.items()
                if stretch.begin < position <= stretch.end and position not in positions
            ]
            if missed:
                yield f"between {stretch.begin} and {stretch.end}, missed: {missed[:5]}"
        for what, found in ids.items():
            if len({(position.epoch, position.number // LEAP) for position in found}) < len(found):
                yield f"{what} went out more than once: {sorted(found)}"

    def _spawn(self, function: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=function, args=(random.Random(self._random.random()), *arguments), daemon=True)
        self._threads.append(thread)
        thread.start()

    def _write(self, chance: random.Random, name: str) -> None:
        numbers = itertools.count()
        number = next(numbers)
        token = chance.choice(self._tokens)  # a `messageId` belongs to its user
        while not self._stopped.is_set():
            with contextlib.suppress(*FAILURES), self._connection(chance, token) as socket:
                if self._ask(socket, "join", channel=self._channel)["type"] != "channel:joined":
                    continue
                while not self._stopped.is_set():
                    what = f"{name} {number}"
                    answer = self._ask(socket, "channel:message", channel=self._channel, data=what, messageId=what)
                    if answer["type"] == "channel:sent":
                        self._confirmed[what] = self._position(answer["id"])
                        self.counts["message confirmed"] += 1
                        number = next(numbers)
                    else:
                        self.counts[f"message: {answer['message']}"] += 1
                        if answer["code"] == "NOT_IN_CHANNEL":
                            break
                    self._stopped.wait(PAUSE)

    def _listen(self, chance: random.Random) -> None:
        seen: str | None = None
        stretch: Stretch | None = None
        while not self._stopped.is_set():
            with contextlib.suppress(*FAILURES), self._connection(chance, chance.choice(self._tokens)) as socket:
                fields = {} if seen is None else {"since": seen}
                answer = self._ask(socket, "join", channel=self._channel, **fields)
                if answer["type"] != "channel:joined":
                    continue
                if stretch is None or not answer.get("recovered"):
                    self.counts["listener did not recover"] += stretch is not None
                    stretch = Stretch(self._position(answer["position"]))
                    self._stretches.append(stretch)
                else:
                    self.counts["listener recovered"] += 1
                    for message in answer["messages"]:
                        self._hear(stretch, message)
                seen = answer["position"]
                stretch.end = self._position(seen)
                until = time.monotonic() + chance.uniform(0.05, 1.5)
                while time.monotonic() < until:
                    try:
                        frame = json.loads(socket.recv(0.1))
                    except TimeoutError:
                        continue
                    if frame["type"] == "channel:message":
                        self._hear(stretch, frame)
                        seen = frame["id"]
                        stretch.end = self._position(seen)

    def _hear(self, stretch: Stretch, message: dict[str, Any]) -> None:
        stretch.heard.append((self._position(message["id"]), message["data"]))
        self.counts["message heard"] += 1

    def _position(self, text: str) -> Position:
        position = parse_position(text)
        assert position is not None
        return position

    @contextlib.contextmanager
    def _connection(self, chance: random.Random, token: str) -> Iterator[ClientConnection]:
        """A connection to one of the servers."""
        url = f"ws://{chance.choice(self._servers).host}/presence/ws?token={token}"
        try:
            with connect(url, open_timeout=DEADLINE, ping_interval=None, compression=None, max_queue=None) as socket:
                socket.recv(DEADLINE)
                yield socket
        finally:
            self._stopped.wait(PAUSE)

    def _ask(self, socket: ClientConnection, type: str, **fields: Any) -> dict[str, Any]:
        """Send a request, and return its answer. Events before it are about other channels, or come before a join."""
        socket.send(json.dumps({"type": type, "requestId": 1, **fields}))
        while True:
            frame: dict[str, Any] = json.loads(socket.recv(DEADLINE))
            if "requestId" in frame:
                return frame
            if type == "join":
                self._wrong.append(f"an event before the answer to a join: {frame}")
