"""What all processes of the service are told to do: close connections, take them out of a channel, ask the app again.

Law: an order reaches every process, those too whose subscription is being made anew; each obeys it once.
"""

from __future__ import annotations

import secrets
from typing import Any, Final, Literal

import msgspec

from .calls import Call, Operation
from .keys import Keys

LASTS: Final = 60.0
"""Seconds for which an order is kept for those who did not hear it."""


class Order(msgspec.Struct, omit_defaults=True):
    """What to do with the connections of `user`, with the id `client`, and in `channel` (`None` stands for any).

    `disconnect` closes them and says `text`; `remove` takes them out of the channel and says `text`; `recheck` has
    their credentials verified, and their guards asked, again.
    """

    id: str
    origin: str
    text: str
    user: str | None = None
    client: str | None = None
    channel: str | None = None
    kind: Literal["disconnect", "remove", "recheck"] = "disconnect"


_decode = msgspec.json.Decoder(Order).decode


def parse_order(data: bytes) -> Order:
    return _decode(data)


def new_order(origin: str, text: str = "", **what: Any) -> Order:
    return Order(secrets.token_urlsafe(16), origin, text, **what)


def give(keys: Keys, order: Order) -> Operation[int]:
    """Tell every node; how many have heard it."""
    arguments = (keys.control, msgspec.json.encode(order), str(int(LASTS * 1000)))
    (heard,) = yield Call("order", (keys.orders,), arguments)
    return int(heard)


def report(keys: Keys, order: Order, closed: int) -> Operation[None]:
    """Tell whoever gave the order what came of it."""
    replies = keys.replies(order.id)
    yield [Call("RPUSH", (replies,), (str(closed),)), Call("EXPIRE", (replies,), ("10",))]


def missed(keys: Keys, since: int) -> Operation[list[Order]]:
    """The orders that were given at `since`, in ms, or later."""
    return [parse_order(data) for data in (yield Call("ZRANGEBYSCORE", (keys.orders,), (str(since), "+inf")))]
