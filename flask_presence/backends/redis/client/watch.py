"""The member lists as they change, heard from Redis by who has no part in them.

Law: reads only, on a connection of its own; what is published while it is cut off is missed. A connection on which
nothing comes is asked for a sign of life, as something between may have forgotten it.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Any, Final

from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeout

from ....domain.channels import ChannelName
from ....domain.errors import BackendUnavailable
from ....domain.roster import Change
from ..store.entries import parse_entry
from ..store.events import parse_event
from ..store.keys import Keys
from .client import Client, Subscription

READ_TIMEOUT: Final = 1.0
ASK_AFTER: Final = 10.0
"""Seconds of silence after which Redis is asked whether it is there; after twice as many it is not."""
KINDS: Final = {"joined", "updated", "left"}


def watch(client: Client, keys: Keys, name: str | None) -> Generator[tuple[ChannelName, Change] | None, None, None]:
    """See `Backend.watch`. `BackendUnavailable` where Redis goes away."""
    subscription = client.subscription(READ_TIMEOUT)
    try:
        if name is None:
            subscription.send("PSUBSCRIBE", keys.all_topics)
        else:
            subscription.send("SUBSCRIBE", keys.topic(name))
        _read(subscription)  # Redis has acknowledged it: from here on nothing is missed
        yield None
        heard_at, asked = time.monotonic(), False
        while True:
            reply = _read(subscription)
            silence = time.monotonic() - heard_at
            if reply is not None:
                heard_at, asked = time.monotonic(), False
            elif silence > 2 * ASK_AFTER:
                raise BackendUnavailable("Redis does not answer")
            elif silence > ASK_AFTER and not asked:
                subscription.send("PING")
                asked = True
            yield _change(reply, keys)
    except (RedisError, OSError) as problem:
        raise BackendUnavailable(f"Redis does not answer: {problem}") from problem
    finally:
        subscription.close()


def _read(subscription: Subscription) -> Any:
    """What comes next, or `None` where nothing comes for a while."""
    try:
        return subscription.read()
    except RedisTimeout:
        return None


def _change(reply: Any, keys: Keys) -> tuple[ChannelName, Change] | None:
    """The change of a list that Redis has told of, if it has."""
    if reply is None or reply[0] not in (b"message", b"pmessage"):
        return None
    *_, topic, data = reply
    channel = keys.channel_of(topic.decode())
    if channel is None:
        return None
    event = parse_event(data)
    if event.kind not in KINDS:
        return None
    change = Change(event.kind, parse_entry(event.body).member, event.reason)  # type: ignore[arg-type]
    return ChannelName(channel), change
