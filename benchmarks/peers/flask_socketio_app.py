"""Flask-SocketIO with its own rooms. The events have the names of the protocol's types.

If `BENCHMARK_REDIS` is set, the servers share its `message_queue`.
"""

from __future__ import annotations

import os
import time
from typing import Any

from flask import Flask, request
from flask_socketio import SocketIO, emit, join_room  # type: ignore[import-untyped, import-not-found, unused-ignore]

app = Flask(__name__)
socketio = SocketIO(app, async_mode="gevent", message_queue=os.environ.get("BENCHMARK_REDIS"))


@app.get("/ready")
def ready() -> str:
    """The runner asks for this until the server answers."""
    return "yes"


def join(data: dict[str, Any]) -> None:
    """Enter a room, and send the answer."""
    join_room(data["channel"])
    emit("channel:joined", {"type": "channel:joined", "channel": data["channel"], "channelType": "public"})


def publish(data: dict[str, Any]) -> None:
    """Send to everybody else in the room, then send the answer."""
    channel = data["channel"]
    message = {
        "type": "channel:message",
        "channel": channel,
        "event": "message",
        "data": data["data"],
        "from": {"clientId": getattr(request, "sid", "")},
        "timestamp": time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime()),
    }
    emit("channel:message", message, to=channel, include_self=False)
    emit("channel:sent", {"type": "channel:sent", "channel": channel})


def pong(_data: dict[str, Any]) -> None:
    """Answer the ping of the application, which is not that of Engine.IO."""
    emit("pong", {"type": "pong", "timestamp": int(time.time() * 1000)})


socketio.on_event("join", join)
socketio.on_event("channel:message", publish)
socketio.on_event("ping", pong)
