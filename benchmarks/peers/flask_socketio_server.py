"""Flask-SocketIO on gevent, with its rooms. Run under `GeventWebSocketWorker`."""

from __future__ import annotations

from typing import Any

from flask import Flask
from flask_socketio import SocketIO, emit, join_room

app = Flask(__name__)
socketio = SocketIO(app, async_mode="gevent", cors_allowed_origins="*")


@socketio.on("join")  # type: ignore[untyped-decorator]
def join(message: dict[str, Any]) -> None:
    join_room(message["channel"])
    emit("joined", {"requestId": message["requestId"]})


@socketio.on("ping")  # type: ignore[untyped-decorator]
def ping(message: dict[str, Any]) -> None:
    emit("pong", {"requestId": message["requestId"]})


@socketio.on("message")  # type: ignore[untyped-decorator]
def message(sent: dict[str, Any]) -> None:
    emit("message", sent, to=sent["channel"], include_self=False)
    emit("sent", {"requestId": sent["requestId"]})
