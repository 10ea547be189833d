"""Watches the changes to member lists, for a process that need not be a worker.

Rule: it only reads, on a connection of its own. It misses what is published while it is not connected. If a connection
is silent, it sends a ping, because a firewall may have dropped the connection.
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
"""Seconds to wait for a change before `None` is yielded."""
PING_AFTER: Final = 10.0
"""Seconds of silence after which a ping is sent. After twice as many, the connection counts as lost."""
KINDS: Final = {"joined", "updated", "left"}


def watch(client: Client, keys: Keys, name: str | None) -> Generator[tuple[ChannelName, Change] | None, None, None]:
    """See `Directory.watch`. Raises `BackendUnavailable` if the connection is lost."""
    subscription = client.subscription(READ_TIMEOUT)
    try:
        if name is not None:
            subscription.subscribe(keys.topic(name))
        elif client.in_cluster:
            subscription.subscribe(keys.changes)
        else:
            subscription.send("PSUBSCRIBE", keys.all_topics)
        _read(subscription)  # the acknowledgement: from now on, no change is missed
        yield None
        heard_at, pinged = time.monotonic(), False
        while True:
            reply = _read(subscription)
            silence = time.monotonic() - heard_at
            if reply is not None:
                heard_at, pinged = time.monotonic(), False
            elif silence > 2 * PING_AFTER:
                raise BackendUnavailable("Redis does not answer")
            elif silence > PING_AFTER and not pinged:
                subscription.send("PING")
                pinged = True
            yield _change(reply, keys)
    except (RedisError, OSError) as problem:
        raise BackendUnavailable(f"Redis does not answer: {problem}") from problem
    finally:
        subscription.close()


def _read(subscription: Subscription) -> Any:
    """The next reply, or `None` if there is none in time."""
    try:
        return subscription.read()
    except RedisTimeout:
        return None


def _change(reply: Any, keys: Keys) -> tuple[ChannelName, Change] | None:
    """The change that a reply tells of, if it does."""
    if reply is not None and reply[0] == b"sunsubscribe":
        raise BackendUnavailable("another server of the cluster has the topics now")
    if reply is None or reply[0] not in (b"message", b"pmessage", b"smessage"):
        return None
    *_, topic, data = reply
    if topic.decode() == keys.changes:
        topic, _, data = data.partition(b"\0")
    channel = keys.channel_of(topic.decode())
    if channel is None:
        return None
    event = parse_event(data)
    if event.kind not in KINDS:
        return None
    change = Change(event.kind, parse_entry(event.body).member, event.reason)  # type: ignore[arg-type]
    return ChannelName(channel), change
