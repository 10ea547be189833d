"""A Redis for the tests, and names in it that no other test uses."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest

from flask_presence.backends.redis.client import Client

from ..conftest import missing
from ..support.redis_server import RedisServer, find, running_redis


@pytest.fixture(scope="session")
def program() -> str:
    """The server's program."""
    found = find()
    if found is None:
        missing("A Redis server")
        raise AssertionError
    return found


@pytest.fixture(scope="session")
def redis_server(program: str) -> Iterator[RedisServer]:
    """One for all tests that neither stop nor empty it."""
    with running_redis(program) as server:
        yield server


@pytest.fixture(scope="session")
def redis_client(redis_server: RedisServer) -> Iterator[Client]:
    client = Client(redis_server.url)
    yield client
    client.close()


@pytest.fixture
def prefix() -> str:
    return f"test-{secrets.token_hex(8)}"
