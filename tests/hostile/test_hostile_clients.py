"""Hostile clients: two other users talk as if the attacker were not there."""

from __future__ import annotations

import pytest

from ..conftest import Share
from ..support.client import client
from ..support.hostile import ATTACKS, attacked
from ..support.server import wait_until

ENDINGS = {
    "messages": "closed with 1008",
    "joins": "closed with 1008",
    "pings": "closed with 1008",
    "fragments": "closed with 1008",
    "garbage": "closed with 1002",
    "giants": "closed with 1009",
}
"""How the server ends these attacks. It survives the others without closing their connections."""


@pytest.mark.parametrize("kind", ATTACKS)
def test_nobody_else_notices_a_hostile_client(shared: Share, kind: str) -> None:
    """Every message reaches the right users once, in order. Afterwards the attacker leaves nothing behind."""
    server, room = shared(PRESENCE_MAX_OUTBOX=131072, PRESENCE_RATE_LIMIT=[100, 300]), f"presence-{kind}"
    with client(server, "ann") as ann, client(server, "bob") as bob:
        bob.join(room)
        ann.join(room, name="Ann")
        assert bob.event()["type"] == "presence:member_joined"
        with attacked(server, kind) as outcome:
            for number in range(100):
                assert ann.say(room, number)["delivered"] == 1
                heard = bob.event()
                assert (heard["type"], heard["data"], heard["from"]["userId"]) == ("channel:message", number, "ann")
            ann.update(room, status="unimpressed")
            assert bob.event()["member"]["status"] == "unimpressed"
            assert [member["id"] for member in ann.join(room)["members"]] == ["bob", "ann"]
            assert ann.silent()
            assert bob.silent()
        if kind in ENDINGS:
            assert ENDINGS[kind] in outcome
        wait_until(lambda: server.json("/presence/stats")["connections"] == 2)
        assert [channel["name"] for channel in server.json("/presence/channels")["channels"]] == [room]
        assert "Traceback" not in server.log()
