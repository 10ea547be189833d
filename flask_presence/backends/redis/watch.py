"""The member lists as they change, heard from Redis by who has no part in them.

Law: reads only, on a connection of its own; what is published while it is cut off is missed.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Final

from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeout

from ...domain.channels import ChannelName
from ...domain.errors import BackendUnavailable
from ...domain.roster import Change
from .client import Client
from .documents import parse_entry
from .keys import Keys
from .replica import parse_event

PATIENCE: Final = 1.0
KINDS: Final = {"joined", "updated", "left"}


def watch(client: Client, keys: Keys, name: str | None) -> Generator[tuple[ChannelName, Change] | None, None, None]:
    """See `Backend.watch`. `BackendUnavailable` where Redis goes away."""
    pubsub = client.listener(PATIENCE)
    try:
        if name is None:
            pubsub.psubscribe(keys.all_topics)
        else:
            pubsub.subscribe(keys.topic(name))
        _next(pubsub, keys)  # Redis has acknowledged it: from here on nothing is missed
        yield None
        while True:
            yield _next(pubsub, keys)
    except (RedisError, OSError) as problem:
        raise BackendUnavailable(f"Redis does not answer: {problem}") from problem
    finally:
        pubsub.close()
        pubsub.connection_pool.disconnect()


def _next(pubsub: Any, keys: Keys) -> tuple[ChannelName, Change] | None:
    """The next change, or `None` where nothing or something else came."""
    try:
        kind, *_, topic, data = pubsub.connection.read_response(disconnect_on_error=False)
    except RedisTimeout:
        return None
    channel = keys.channel_of(topic.decode()) if kind in (b"message", b"pmessage") else None
    if channel is None:
        return None
    event = parse_event(data)
    if event.kind not in KINDS:
        return None
    change = Change(event.kind, parse_entry(event.body).member)  # type: ignore[arg-type]
    return ChannelName(channel), change
