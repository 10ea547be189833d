"""What talks to the tests' Redis."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from flask_presence.backends.redis.client import Client

from ..support.redis_server import RedisServer


@pytest.fixture(scope="session")
def redis_client(redis_server: RedisServer) -> Iterator[Client]:
    client = Client(redis_server.url)
    yield client
    client.close()
