"""Announces something in a room, with Pusher's SDK for Python (`pip install pusher`), from any computer.

python -m example.announce "Lunch is ready" [ROOM]
"""

import os
import sys

import pusher  # type: ignore[import-untyped]

if __name__ == "__main__":
    text, room = sys.argv[1], (*sys.argv[2:], "general")[0]
    secret = os.environ.get("PUSHER_SECRET", "only for development, because everybody can read it")
    host, port = os.environ.get("PUSHER_HOST", "127.0.0.1:8000").split(":")
    client = pusher.Pusher(app_id="1", key="example", secret=secret, host=host, port=int(port), ssl=False)
    client.trigger(f"presence-room-{room}", "announcement", {"text": text})
