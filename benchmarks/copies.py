"""What it costs a worker to know the members that are connected to other workers.

Rule: the other worker is pretended: its members are only in Redis.
"""

from __future__ import annotations

from contextlib import ExitStack, closing
from datetime import datetime, timezone
from typing import Final

from flask_presence import User
from flask_presence.backends.redis.client.address import parse_address
from flask_presence.backends.redis.client.client import Client
from flask_presence.backends.redis.store.calls import Call, Operation
from flask_presence.backends.redis.store.keys import Keys
from flask_presence.backends.redis.store.store import Store
from flask_presence.domain.channels import ChannelName
from flask_presence.domain.roster import Joiner

from .sharded_service import ShardedService

MEMBERS: Final = 50
"""Members of each channel who are elsewhere."""
CHANNELS: Final = 1000
CHANNELS_OF_ONE: Final = 50
"""Channels of each connection here."""


def memory_of_a_member(program: str, tokens: list[str]) -> float:
    """The bytes by which a worker grows for each member that it knows from Redis. The worker has one connection in each
    channel, and the memory of that is a part of it."""
    with ShardedService(program, ("a",), servers=1) as service, ExitStack() as stack:
        (url,) = service.urls.values()
        client = stack.enter_context(closing(Client(parse_address(url))))
        for number in range(CHANNELS):
            client.run(_fill(f"presence-copied-{number}"))
        count = CHANNELS // CHANNELS_OF_ONE
        connections = [stack.enter_context(service.connected(0, token)) for token in tokens[:count]]
        before = service.worker_memory()
        for number in range(CHANNELS):
            connection = connections[number // CHANNELS_OF_ONE]
            connection.send({"type": "join", "channel": f"presence-copied-{number}"})
            connection.wait(1, "channel:joined")
        return (service.worker_memory() - before) / CHANNELS / MEMBERS


def _fill(channel: str) -> Operation[None]:
    operations = Store(Keys("fp"), lease=60, max_info=4096).channels("nowhere")
    calls = []
    for number in range(MEMBERS):
        user = User(f"{channel}-{number}", name=f"User {number}")
        joiner = Joiner(ChannelName(channel), f"client-{number}", user, {}, datetime.now(timezone.utc))
        joining = next(operations.join(joiner, with_list=False))
        calls += joining if isinstance(joining, list) else [joining]
    yield calls
    yield Call("SADD", (Keys("fp").worker_channels("nowhere"),), (channel,))
