"""flask-sock as its documentation shows it: each message is sent to each client in a loop."""

from __future__ import annotations

import json
from typing import Any

from flask import Flask
from flask_sock import Sock

app = Flask(__name__)
sock = Sock(app)
rooms: dict[str, list[Any]] = {}


@sock.route("/ws")  # type: ignore[untyped-decorator]
def ws(ws: Any) -> None:
    ws.send(json.dumps({"type": "connected"}))
    joined: list[str] = []
    try:
        while True:
            message = json.loads(ws.receive())
            if message["type"] == "join":
                rooms.setdefault(message["channel"], []).append(ws)
                joined.append(message["channel"])
                ws.send(json.dumps({"type": "channel:joined", "requestId": message["requestId"]}))
            elif message["type"] == "ping":
                ws.send(json.dumps({"type": "pong", "requestId": message.get("requestId")}))
            else:
                room = rooms[message["channel"]]
                text = json.dumps({key: message[key] for key in ("type", "channel", "event", "data")})
                for other in list(room):
                    if other is not ws:
                        other.send(text)
                ws.send(json.dumps({"type": "channel:sent", "requestId": message["requestId"], "delivered": len(room)}))
    finally:
        for channel in joined:
            rooms[channel].remove(ws)
