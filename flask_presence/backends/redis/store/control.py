"""Control messages: what every worker of the service is told to do with its connections.

Rule: sans IO. Every worker gets every message, even if its subscription is being renewed, and carries it out once.
"""

from __future__ import annotations

import secrets
import time
from typing import Any, Final, Literal

import msgspec

from .calls import Call, Operation
from .keys import Keys

KEPT_FOR: Final = 600.0
"""Seconds for which a message is kept for workers that did not hear it. A worker that was cut off for longer asks the
application about all of its connections instead."""


class ControlMessage(msgspec.Struct, omit_defaults=True):
    """What to do with the connections of `user`, with the client id `client`, and in `channel` (`None` matches any).

    `disconnect` closes them with `text`; `remove` takes them out of the channel with `text`; `recheck` verifies their
    logins and asks their guards again. `origin` is the worker that sent it, and `sent_at` is when, in epoch seconds.
    `again` says that it was sent once more, because Redis has lost its data.
    """

    id: str
    origin: str
    text: str
    sent_at: float
    user: str | None = None
    client: str | None = None
    channel: str | None = None
    kind: Literal["disconnect", "remove", "recheck"] = "disconnect"
    again: bool = False

    @property
    def ends_graces(self) -> bool:
        """Whether it ends grace periods too: it is about certain users, not about everybody in a channel."""
        return self.user is not None or self.client is not None


decode = msgspec.json.Decoder(ControlMessage).decode


def new_message(origin: str, text: str = "", **what: Any) -> ControlMessage:
    return ControlMessage(secrets.token_urlsafe(16), origin, text, time.time(), **what)


def again(message: ControlMessage) -> ControlMessage:
    """The message, to be sent once more."""
    return msgspec.structs.replace(message, again=True)


def send(keys: Keys, message: ControlMessage) -> Operation[int]:
    """Send a message to every worker. Returns how many heard it at once."""
    arguments = (keys.control, msgspec.json.encode(message), str(int(KEPT_FOR * 1000)))
    (heard,) = yield Call("control", (keys.control_log,), arguments)
    return int(heard)


def reply(keys: Keys, message: ControlMessage, count: int) -> Operation[None]:
    """Tell the sender of a message how many connections it concerned here."""
    replies = keys.replies(message.id)
    yield [Call("RPUSH", (replies,), (str(count),)), Call("EXPIRE", (replies,), ("10",))]


def sent_since(keys: Keys, moment: float) -> Operation[list[ControlMessage]]:
    """The messages sent since `moment`, in seconds of the monotonic clock of this process."""
    seconds, micros = yield Call("TIME", ())
    since = (int(seconds) - (time.monotonic() - moment)) * 1000 + int(micros) / 1000
    return [decode(data) for data in (yield Call("ZRANGEBYSCORE", (keys.control_log,), (str(int(since)), "+inf")))]
