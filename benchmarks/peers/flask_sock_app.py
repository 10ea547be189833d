"""flask-sock as its documentation suggests: a loop per connection, and a broadcast that calls `send` in a loop."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from itertools import count
from typing import Any

from flask import Flask
from flask_sock import Sock

app = Flask(__name__)
sock = Sock(app)
channels: defaultdict[str, dict[str, Any]] = defaultdict(dict)
numbers = count()


@app.get("/ready")
def ready() -> str:
    """The runner asks for this until the server answers."""
    return "yes"


@sock.route("/ws")  # type: ignore[untyped-decorator, unused-ignore]
def talk(ws: Any) -> None:
    """Serve one connection, from its first frame to its end."""
    client_id = f"client-{next(numbers)}"
    ws.send(encode({"type": "connected", "clientId": client_id, "user": None, "timestamp": timestamp()}))
    try:
        while True:
            handle(ws, client_id, json.loads(ws.receive()))
    finally:
        for members in channels.values():
            members.pop(client_id, None)


def handle(ws: Any, client_id: str, request: dict[str, Any]) -> None:
    """Answer one request."""
    if request["type"] == "ping":
        ws.send(encode({"type": "pong", "timestamp": int(time.time() * 1000)}))
        return
    name = request["channel"]
    members = channels[name]
    if request["type"] == "join":
        members[client_id] = ws
        ws.send(encode({"type": "channel:joined", "channel": name, "channelType": "public"}))
    elif request["type"] == "channel:message":
        message = {
            "type": "channel:message",
            "channel": name,
            "event": "message",
            "data": request["data"],
            "from": {"clientId": client_id},
            "timestamp": timestamp(),
        }
        text = encode(message)
        for member in list(members.values()):
            if member is not ws:
                member.send(text)
        ws.send(encode({"type": "channel:sent", "channel": name, "delivered": len(members) - 1}))


def encode(message: dict[str, Any]) -> str:
    """JSON without spaces, so that it has as many bytes as that of the other servers."""
    return json.dumps(message, separators=(",", ":"))


def timestamp() -> str:
    """The time as the protocol writes it."""
    return time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime())
