"""What talks to the tests' Redis."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ..support.redis_server import RedisServer
from ..support.store import Client


@pytest.fixture(scope="session")
def redis_client(redis_server: RedisServer) -> Iterator[Client]:
    client = Client(redis_server.url)
    yield client
    client.close()
