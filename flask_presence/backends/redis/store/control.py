"""Control messages: what every worker of the service is told to do with its connections.

Rule: sans IO. Every worker gets every message, even if its subscription is being renewed, and carries it out once.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Sequence
from typing import Any, Final, Literal

import msgspec

from .calls import Call, Operation
from .keys import Keys

KEPT_FOR: Final = 600.0
"""Seconds for which a message is kept for workers that did not hear it. A worker that was cut off for longer asks the
application about all of its connections instead."""
BATCH: Final = 200
"""The maximum number of messages sent again in one round trip."""


class ControlMessage(msgspec.Struct, omit_defaults=True):
    """What to do with the connections of `user`, with the client id `client`, and in `channel` (`None` matches any).

    `disconnect` closes them with `text`; `remove` takes them out of the channel with `text`; `recheck` verifies their
    logins and asks their guards again. `origin` is the worker that sent it, and `sent_at` is when, in epoch seconds.
    `again` says that it was sent once more, because Redis has lost its data. `is_copy` says that another shard has the
    message itself: the copy only ends grace periods in this one.
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
    is_copy: bool = False

    @property
    def ends_graces(self) -> bool:
        """Whether it ends grace periods too: it is about certain users, not about everybody in a channel."""
        return self.user is not None or self.client is not None

    def is_about(self, user: str | None, client: str | None, channel: str | None) -> bool:
        """Whether it is about a connection of a user in a channel."""
        return all(
            mine in (None, its) for mine, its in ((self.user, user), (self.client, client), (self.channel, channel))
        )


decode = msgspec.json.Decoder(ControlMessage).decode


def new_message(origin: str, text: str = "", **what: Any) -> ControlMessage:
    return ControlMessage(secrets.token_urlsafe(16), origin, text, time.time(), **what)


def copy_of(message: ControlMessage) -> ControlMessage:
    """The same message for another shard."""
    return msgspec.structs.replace(message, again=False, is_copy=True)


def send(keys: Keys, message: ControlMessage) -> Operation[int]:
    """Send a message to every worker. Returns how many heard it at once."""
    (heard,) = yield _send(keys, message)
    return int(heard)


def send_again(keys: Keys, messages: Sequence[ControlMessage]) -> Operation[None]:
    """Send messages once more, except those that Redis still keeps."""
    for at in range(0, len(messages), BATCH):
        yield [_send(keys, message, again=True) for message in messages[at : at + BATCH]]


def _send(keys: Keys, message: ControlMessage, *, again: bool = False) -> Call:
    """The call that sends a message."""
    kept = msgspec.structs.replace(message, again=False)
    published = msgspec.json.encode(msgspec.structs.replace(message, again=True)) if again else b""
    arguments = (keys.control, msgspec.json.encode(kept), str(int(KEPT_FOR * 1000)), published)
    return Call("control", (keys.control_log,), arguments)


def reply(keys: Keys, message: ControlMessage, count: int) -> Operation[None]:
    """Tell the sender of a message how many connections it concerned here."""
    replies = keys.replies(message.id)
    yield [Call("RPUSH", (replies,), (str(count),)), Call("EXPIRE", (replies,), ("10",))]


def ended_graces(messages: Iterable[ControlMessage]) -> list[tuple[str | None, str | None, str | None]]:
    """The grace periods that messages end, as `Graces.end_all_matching` takes them."""
    return [(message.user, message.client, message.channel) for message in messages if message.ends_graces]


def kept(keys: Keys) -> Operation[list[ControlMessage]]:
    """The messages that are kept, oldest first."""
    return [decode(data) for data in (yield Call("ZRANGE", (keys.control_log,), ("0", "-1")))]


def sent_since(keys: Keys, moment: int) -> Operation[list[ControlMessage]]:
    """The messages that were sent since `moment`, in ms by Redis's clock, oldest first."""
    return [decode(data) for data in (yield Call("ZRANGEBYSCORE", (keys.control_log,), (str(moment), "+inf")))]
