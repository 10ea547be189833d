"""Witnesses: members of channels in shards that no fault touches. They talk throughout, and must notice nothing.

Rule: what they hear is compared exactly. Every message arrives at every other witness, once, in one order for all;
nobody is said to have joined or left; no request is refused; no connection is closed. How long it all took is for the
caller to judge, and not for a test on a busy machine.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

from ..server import Server, wait_until
from .participants import Participant

PAUSE = 0.05
"""Seconds between two messages of a witness."""
ASK_EVERY = 0.25
"""Seconds between two questions to a server about a channel."""


class Figures(NamedTuple):
    """How much witnesses have seen, and the longest times in seconds: of a message, an answer, and a page."""

    messages: int = 0
    delivery: float = 0.0
    answer: float = 0.0
    page: float = 0.0

    @property
    def longest(self) -> float:
        return max(self.delivery, self.answer, self.page)

    def with_(self, other: Figures) -> Figures:
        return Figures(
            self.messages + other.messages,
            max(self.delivery, other.delivery),
            max(self.answer, other.answer),
            max(self.page, other.page),
        )


class Heard(NamedTuple):
    """A message: who said it, which of theirs it was, and how many seconds it was on its way."""

    user: str
    number: int
    delay: float


class Witness(Participant):
    """One of the witnesses. `said` and `told` are the numbers of its messages, and what it has heard, by channel."""

    def __init__(self, server: Server, user: str, token: str) -> None:
        self.said: dict[str, list[int]] = {}
        self.told: dict[str, list[Heard]] = {}
        self.changes: list[str] = []
        self.slowest = 0.0
        super().__init__(server, user, token)

    def talk(self, channels: Sequence[str], audience: int, stopped: threading.Event) -> None:
        """Send messages to the channels in turn, each of which goes to so many others."""
        for number, channel in zip(itertools.count(1), itertools.cycle(channels)):
            if stopped.wait(PAUSE):
                return
            self.said[channel].append(number)
            data = [self.user, number, time.monotonic()]
            answer, seconds = self.request("channel:message", channel=channel, data=data)
            self.slowest = max(self.slowest, seconds)
            if answer is None or answer["type"] != "channel:sent" or answer["delivered"] != audience:
                self.wrong.append(f"{self.user} in {channel}: the answer to message {number} was {answer}")
                if answer is None:
                    return

    def _hear(self, channel: str, frame: dict[str, Any]) -> None:
        user, number, sent_at = frame["data"]
        self.told[channel].append(Heard(user, number, time.monotonic() - sent_at))

    def _replay(self, kind: str, channel: str, member: dict[str, Any]) -> None:
        super()._replay(kind, channel, member)
        self.changes.append(f"{self.user} got {kind} of {member['id']} in {channel}")


class Witnesses:
    """Witnesses in `channels`, and questions to the servers about these. Everything runs until `stop`."""

    def __init__(self, witnesses: list[Witness], servers: Sequence[Server], channels: Sequence[str]) -> None:
        self._witnesses = witnesses
        self._channels = channels
        self._stopped = threading.Event()
        self._wrong: list[str] = []
        self._pages: list[float] = [0.0]
        audience = len(witnesses) - 1
        for one in witnesses:
            one.said = {channel: [] for channel in channels}
            one.told = {channel: [] for channel in channels}
            for channel in channels:
                answer = one.request("join", channel=channel).frame
                assert answer is not None, "a witness lost its connection without a fault"
                assert answer["type"] == "channel:joined", answer
        wait_until(lambda: all(len(one.views[channel]) == len(witnesses) for one in witnesses for channel in channels))
        for one in witnesses:
            one.changes.clear()
        self._threads = [self._spawn(one.talk, channels, audience, self._stopped) for one in witnesses]
        self._threads += [self._spawn(self._ask, server) for server in servers]

    def __len__(self) -> int:
        return len(self._witnesses)

    def stop(self) -> tuple[list[str], Figures]:
        """End the talk. Returns what is wrong, and the figures."""
        self._stopped.set()
        for thread in self._threads:
            thread.join()
        with contextlib.suppress(AssertionError):  # what is missing is reported below
            wait_until(self._have_heard_all)
        return list(self._problems()), self._figures()

    def close(self) -> None:
        self._stopped.set()
        for one in self._witnesses:
            one.close()

    def _spawn(self, function: Callable[..., None], *arguments: Any) -> threading.Thread:
        thread = threading.Thread(target=function, args=arguments, daemon=True)
        thread.start()
        return thread

    def _ask(self, server: Server) -> None:
        """Ask a server about the channels, in turn."""
        for channel in itertools.cycle(self._channels):
            if self._stopped.wait(ASK_EVERY):
                return
            began = time.monotonic()
            try:
                status, _, body = server.get(f"/presence/channels/{channel}")
            except OSError as problem:
                self._wrong.append(f"{server.port} about {channel}: {problem}")
                continue
            self._pages.append(time.monotonic() - began)
            if status != 200 or json.loads(body)["memberCount"] != len(self._witnesses):
                self._wrong.append(f"{server.port} about {channel}: {status} {body}")

    def _have_heard_all(self) -> bool:
        said = sum(len(numbers) for one in self._witnesses for numbers in one.said.values())
        told = sum(len(heard) for one in self._witnesses for heard in one.told.values())
        return told >= said * (len(self._witnesses) - 1)

    def _problems(self) -> Iterator[str]:
        yield from self._wrong
        for one in self._witnesses:
            yield from one.wrong
            yield from one.changes
            if not one.open:
                yield f"the connection of {one.user} was closed"
            for other in self._witnesses:
                if other is not one:
                    yield from self._differences(one, other)

    def _differences(self, one: Witness, other: Witness) -> Iterator[str]:
        """What `one` has missed of what `other` said, and where both have heard the others in different orders."""
        for channel in self._channels:
            heard = [message.number for message in one.told[channel] if message.user == other.user]
            said = other.said[channel]
            if heard != said:
                missed, twice = sorted({*said} - {*heard}), len(heard) - len({*heard})
                yield (
                    f"{one.user} in {channel}: of {len(said)} messages of {other.user} it missed {missed}, and heard "
                    f"{twice} twice; {'in order' if heard == sorted(heard) else 'not in order'}"
                )
            if one.user < other.user and _order(one, channel, other.user) != _order(other, channel, one.user):
                yield f"{one.user} and {other.user} heard the others in different orders in {channel}"

    def _figures(self) -> Figures:
        heard = [message for one in self._witnesses for told in one.told.values() for message in told]
        return Figures(
            len(heard),
            max((message.delay for message in heard), default=0.0),
            max(one.slowest for one in self._witnesses),
            max(self._pages),
        )


def _order(one: Witness, channel: str, without: str) -> list[tuple[str, int]]:
    return [(user, number) for user, number, _ in one.told[channel] if user != without]


@contextlib.contextmanager
def witnessing(servers: Sequence[Server], tokens: Mapping[str, str], channels: Sequence[str]) -> Iterator[Witnesses]:
    """Witnesses for a `with` block: one for each token, by user, at the servers in turn."""
    with ExitStack() as stack:
        present = []
        for (user, token), server in zip(tokens.items(), itertools.cycle(servers)):
            present.append(Witness(server, user, token))
            stack.callback(present[-1].close)
        witnesses = Witnesses(present, servers, channels)
        stack.callback(witnesses.close)
        yield witnesses
