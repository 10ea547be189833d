"""The package's client of Redis, with redis-py's own for changes that the package does not know about."""

from __future__ import annotations

from typing import Any

import redis

from flask_presence.backends.redis.client.address import parse_address
from flask_presence.backends.redis.client.client import Client as ProductClient
from flask_presence.backends.redis.store.keys import Keys
from flask_presence.backends.redis.store.store import Store


class Client(ProductClient):
    def __init__(self, url: str) -> None:
        super().__init__(parse_address(url))
        self.redis: Any = redis.Redis.from_url(url)

    def close(self) -> None:
        super().close()
        self.redis.close()


def store_of(
    prefix: str, *, max_info: int = 1000, max_members: int | None = None, lease: float = 60, grace: float = 0
) -> Store:
    """The store under a prefix."""
    return Store(Keys(prefix), lease=lease, max_info=max_info, max_members=max_members, grace=grace)
