"""Signatures that were made before a recheck: they let nobody in, and a new connection gets new ones."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_presence.hub.pusher import stale_signatures
from flask_presence.hub.pusher.stale_signatures import StaleSignatures

from ..conftest import Connect
from ..support.pusher import PusherClient
from ..support.server import Server
from .conftest import ConnectPusher

USERS = st.sampled_from(["ann", "bob"])
CHANNELS = st.sampled_from(["presence-a", "private-b"])


@given(
    rechecks=st.lists(st.tuples(st.none() | USERS, st.none() | CHANNELS), max_size=8),
    opened_after=st.integers(0, 8),
    user=st.none() | USERS,
    channel=st.none() | CHANNELS,
)
def test_a_signature_is_stale_if_a_later_recheck_concerns_it(
    rechecks: list[tuple[str | None, str | None]], opened_after: int, user: str | None, channel: str | None
) -> None:
    stale = StaleSignatures()
    for at, recheck in enumerate(rechecks, 1):
        stale.recheck(*recheck, float(at))

    def concerns(recheck: tuple[str | None, str | None]) -> bool:
        whom, where = recheck
        if user is None and channel is not None and where is not None:
            return where == channel  # it may be anybody's
        return whom in (None, user) and where in (None, channel)

    expected = any(concerns(recheck) for recheck in rechecks[opened_after:])
    assert stale.may_be_stale(opened_after + 0.5, user, channel) == expected


def test_more_rechecks_than_are_remembered_make_old_connections_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is forgotten in favour of the client."""
    monkeypatch.setattr(stale_signatures, "MAX_RECHECKS", 3)
    stale = StaleSignatures()
    for at in range(1, 6):
        stale.recheck(f"user-{at}", f"private-{at}", float(at))
    assert stale.may_be_stale(1.5, "user-1", None)
    assert stale.may_be_stale(1.5, "somebody else", "private-elsewhere")
    assert not stale.may_be_stale(2.5, "user-1", "private-1")
    assert stale.may_be_stale(2.5, None, "private-5")
    assert len(stale._in_channel) == 3


def presence_auth(one: PusherClient, channel: str, user: str) -> dict[str, str]:
    return one.auth(channel, json.dumps({"user_id": user}))


def test_a_signature_from_before_a_recheck_lets_nobody_in(
    server: Server, connect_pusher: ConnectPusher, name: str
) -> None:
    """The connection has no user yet, so the recheck cannot find it."""
    channel = f"presence-{name}"
    one, other, late = connect_pusher(), connect_pusher(), connect_pusher()
    signed = presence_auth(one, channel, name)
    server.call("recheck", user_id=name)
    one.send("pusher:subscribe", {"channel": channel, **signed})
    assert one.last_words() == (4200, 4200)
    assert list(other.members(channel, f"other-{name}")) == [f"other-{name}"]
    data = json.dumps({"id": name})
    late.send("pusher:signin", {"auth": late.auth(":user:", data)["auth"], "user_data": data})
    assert late.last_words() == (4200, 4200)
    assert name in connect_pusher().members(channel, name)


def test_a_recheck_of_a_private_channel_concerns_signatures_that_name_nobody(
    server: Server, connect_pusher: ConnectPusher, connect: Connect, name: str
) -> None:
    channel = f"private-{name}"
    one, elsewhere = connect_pusher(), connect_pusher()
    server.call("recheck", user_id=name, channel=channel)
    one.send("pusher:subscribe", {"channel": channel, **one.auth(channel)})
    assert one.last_words() == (4200, 4200)
    elsewhere.subscribe(f"{channel}-2")
    connect_pusher().subscribe(channel)
    connect(name).join(channel)
