"""Servers with the Pusher dialect, and connections to them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, Protocol

import pytest

from ..conftest import Share
from ..support.pusher import SETTINGS, PusherClient, pusher_client
from ..support.server import Server


class ConnectPusher(Protocol):
    """Opens a connection of the Pusher protocol that ends with the test."""

    def __call__(self, **options: Any) -> PusherClient: ...


@pytest.fixture(scope="session", params=["memory", "redis"])
def server(request: pytest.FixtureRequest, shared_by_all: Share) -> Server:
    """A server with the dialect that tests share, once with each backend."""
    backend = request.getfixturevalue("shared_service") if request.param == "redis" else {}
    return shared_by_all(PRESENCE_HISTORY={"*kept-*": (20, 60)}, **SETTINGS, **backend)


@pytest.fixture
def connect_pusher(server: Server) -> Iterator[ConnectPusher]:
    """Connections to the shared server."""
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(pusher_client(server, **options))
