"""The participants of the chaos together: they come and go, join, leave, update and send at random.

Rule: while no worker is harmed, no connection is lost or refused, and requests about untouched shards succeed in time.
"""

from __future__ import annotations

import itertools
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from websockets.exceptions import WebSocketException

from flask_presence.backends.redis.shards.sharding import Sharding

from ..server import Server
from .participants import Answer, Participant

PARTICIPANTS = 12
UNAVAILABLE = ("Temporarily unavailable", "Delivery unknown")
"""The messages of errors that are due to Redis."""


class Crowd:
    """Participants with `tokens`, by user, at random `servers`, in random `channels`. What they do is counted in
    `done`. `numbers` are what they send; `slowest` is the longest time of an answer about an untouched shard."""

    def __init__(
        self,
        chance: random.Random,
        servers: Sequence[Server],
        tokens: Mapping[str, str],
        channels: Sequence[str],
        sharding: Sharding,
        done: Counter[str],
    ) -> None:
        self.numbers = itertools.count(1)
        self.slowest = 0.0
        self._chance = chance
        self._servers = servers
        self._tokens = tokens
        self._channels = channels
        self._sharding = sharding
        self._done = done
        self._participants: list[Participant] = []
        self._wrong: list[str] = []
        self._is_calm = False
        self._untouched: Sequence[str] = ()
        self._pool = ThreadPoolExecutor(8)

    def expect_calm(self, untouched: Sequence[str]) -> None:
        """From now on no worker is harmed, and no shard with one of these labels."""
        self._is_calm, self._untouched = True, untouched

    def expect_anything(self) -> None:
        self._is_calm, self._untouched = False, ()

    def problems(self) -> list[str]:
        """What was impossible."""
        return self._wrong + [text for one in self.connected() for text in one.wrong]

    def close(self) -> None:
        """Close every connection."""
        for one in list(self._participants):
            one.close()
        self.connected()

    def connected(self) -> list[Participant]:
        """The participants whose connections are open; the others are removed."""
        for closed in [one for one in self._participants if not one.open]:
            self._participants.remove(closed)
            self._wrong += closed.wrong
            if self._is_calm and not closed.has_left:
                self._wrong.append(f"a connection of {closed.user} was closed, although no worker was harmed")
        return self._participants

    def _add(self) -> Participant | None:
        """Connect another participant; `None` if the server refuses."""
        server, user = self._chance.choice(self._servers), self._chance.choice(list(self._tokens))
        try:
            one = Participant(server, user, self._tokens[user])
        except (OSError, EOFError, WebSocketException) as problem:
            self._done["connect failed"] += 1
            if self._is_calm:
                self._wrong.append(f"a server refused a connection, although no worker was harmed: {problem!r}")
            return None
        self._participants.append(one)
        self._done["connect"] += 1
        return one

    def act(self, count: int) -> None:
        """Send requests of random participants at the same time."""
        connected = self.connected()
        while len(connected) < PARTICIPANTS:
            if self._add() is None:
                time.sleep(0.05)  # gunicorn replaces a worker
        chosen = [self._chance.choice(connected) for _ in range(count)]
        requests = [self._plan(one) for one in chosen]
        list(self._pool.map(lambda request: request(), requests))

    def _plan(self, one: Participant) -> Callable[[], None]:
        what, channel, number = self._chance.random(), self._chance.choice(self._channels), next(self.numbers)
        ask = partial(self._request, one, channel)
        if what < 0.35 or (channel not in one.views and what < 0.9):
            return partial(ask, "join", userInfo={"n": number} if self._chance.random() < 0.3 else {})
        if what < 0.55:
            return partial(ask, "leave")
        if what < 0.7 and channel.startswith("presence-"):
            return partial(ask, "channel:update", userInfo={"n": number})
        if what < 0.92:
            return partial(ask, "channel:message", data=number)
        return partial(self._close, one)

    def _close(self, one: Participant) -> None:
        one.close()
        self._done["close"] += 1

    def _request(self, one: Participant, channel: str, type: str, **fields: Any) -> None:
        answer = one.request(type, channel=channel, **fields)
        what = type.removeprefix("channel:")
        frame = answer.frame
        if frame is None:
            self._done[f"{what} unanswered"] += 1
        elif frame["type"] != "error":
            self._done[what] += 1
        else:
            self._done[f"{what} {frame['code']}"] += 1
            if what == "leave" and frame["code"] not in ("NOT_MEMBER", "NOT_FOUND", "LEAVE_FAILED"):
                self._wrong.append(f"leave failed: {frame}")
            if frame["message"] == "Internal error":
                self._wrong.append(f"an internal error: {frame}")
        if self._sharding.of_channel(channel) in self._untouched:
            self._check_undisturbed(channel, what, answer)

    def _check_undisturbed(self, channel: str, what: str, answer: Answer) -> None:
        """No fault touches the channel, so the answer says nothing of one."""
        self.slowest = max(self.slowest, answer.seconds)
        if answer.frame is not None and answer.frame.get("message") in UNAVAILABLE:
            self._wrong.append(f"{what} in {channel}, whose shard no fault had touched: {answer.frame}")
