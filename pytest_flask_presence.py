"""A pytest plugin with the fixture `presence_client`.

Rule: nothing but pytest is imported before the fixture is used, so that a test suite can still patch the standard
library for gevent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from flask import Flask

    from flask_presence import TestClient


@pytest.fixture
def presence_client(app: Flask) -> Iterator[Callable[..., TestClient]]:
    """A function like `Presence.test_client`, whose clients are connected, and disconnect when the test ends. It needs
    a fixture `app`."""
    with ExitStack() as stack:

        def connect(user: object = None, http: object = None) -> TestClient:
            presence = app.extensions["presence"]
            client: TestClient = stack.enter_context(presence.test_client(user, app, http))
            return client

        yield connect
