"""Grace: a connection that was lost without a close may come back without having left."""

from __future__ import annotations

import time

from ..support.client import Client, client
from ..support.server import Server, running, wait_until


def lose(server: Server, one: Client) -> None:
    """Cut a connection without a close frame, and wait until the server has noticed."""
    before = server.json("/presence/stats")["connections"]
    one.cut()
    wait_until(lambda: server.json("/presence/stats")["connections"] < before)


def test_a_user_who_comes_back_within_the_grace_has_never_left() -> None:
    """Until then the user is a member, but gets no messages."""
    with running(PRESENCE_GRACE_ABRUPT=20) as server, client(server, "watcher") as watcher:
        watcher.join("presence-room")
        with client(server, "ann") as ann:
            me = ann.join("presence-room", name="Ann")["me"]
            lose(server, ann)
        assert server.json("/presence/channels/presence-room")["memberCount"] == 2
        assert watcher.say("presence-room", 1)["delivered"] == 0
        with client(server, "ann") as again:
            assert again.join("presence-room")["me"] == me
            assert [event["type"] for event in watcher.events()] == ["presence:member_joined"]
        assert watcher.event()["type"] == "presence:member_left"


def test_a_member_leaves_when_the_grace_ends() -> None:
    """If the channel has no other members, it no longer exists."""
    with running(PRESENCE_GRACE_ABRUPT=0.5) as server, client(server, "watcher") as watcher:
        watcher.join("presence-room")
        with client(server, "ann") as ann:
            ann.join("presence-room")
            ann.join("presence-alone")
            began = time.monotonic()
            lose(server, ann)
        assert watcher.event()["type"] == "presence:member_joined"
        left = watcher.event()
        assert (left["type"], left["member"]["id"]) == ("presence:member_left", "ann")
        assert time.monotonic() - began >= 0.5
        assert server.get("/presence/channels/presence-alone")[0] == 404


def test_disconnect_ends_a_grace_at_once() -> None:
    """A clean close has no grace period."""
    with running(PRESENCE_GRACE_ABRUPT=30) as server, client(server, "watcher") as watcher:
        watcher.join("presence-room")
        with client(server, "ann") as ann:
            ann.join("presence-room")
            lose(server, ann)
        assert server.call("disconnect", user_id="ann") == 0
        assert [watcher.event()["type"] for _ in range(2)] == ["presence:member_joined", "presence:member_left"]
        with client(server, "bob") as bob:
            bob.join("presence-room")
        assert [watcher.event()["type"] for _ in range(2)] == ["presence:member_joined", "presence:member_left"]
