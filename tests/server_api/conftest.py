"""An app with tokens, its extension, and two test clients in a channel."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask
from flask_jwt_extended import JWTManager

from flask_presence import Presence

from ..support.flask_app import make_app


@pytest.fixture
def app() -> Flask:
    return make_app()


@pytest.fixture
def presence(app: Flask) -> Presence:
    JWTManager(app)
    return Presence(app)


@pytest.fixture
def room(app: Flask, presence: Presence) -> Iterator[tuple[Any, Any]]:
    """Ann and Bob in a room."""
    with presence.test_client(user="ann", app=app) as ann, presence.test_client(user="bob", app=app) as bob:
        ann.join("presence-room-1", user_info={"name": "Ann"})
        bob.join("presence-room-1")
        ann.receive()
        yield ann, bob
