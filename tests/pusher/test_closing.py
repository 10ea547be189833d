"""How the server ends Pusher connections and subscriptions: with which codes, and what the others hear."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import redis

from flask_presence.hub.pusher.reconnects import CLOSES_AT_ONCE
from flask_presence.hub.pusher.requests import USER_REQUIRED_AFTER

from ..conftest import Connect
from ..support.client import client
from ..support.flask_app import make_presence_app
from ..support.pusher import SETTINGS, Frame, PusherClient, PusherTab, pusher_client
from ..support.redis_server import running_redis
from ..support.server import DEADLINE, Server, running, wait_until
from .conftest import ConnectPusher


def removed_of(one: PusherClient) -> list[str]:
    """The users that have left, as far as this connection knows by now."""
    return [frame["data"]["user_id"] for frame in one.frames() if frame["event"] == "pusher_internal:member_removed"]


def test_a_disconnected_user_stays_away(
    server: Server, connect_pusher: ConnectPusher, connect: Connect, name: str
) -> None:
    """By user id, whichever way the connection got its user, in both dialects."""
    listed, signed_in, nobody, native = connect_pusher(), connect_pusher(), connect_pusher(), connect(name)
    listed.members(f"presence-{name}", name)
    signed_in.sign_in(name)
    signed_in.frames()
    assert server.call("disconnect", user_id=name, reason="Enough") == 3
    for one in (listed, signed_in):
        frame = one.until(lambda frame: frame["event"] == "pusher:error")
        assert frame["data"] == {"code": 4009, "message": "Enough"}
        assert one.wait_closed() == 4009
    assert native.wait_closed() == (4403, "Enough")
    assert nobody.frames() == []
    assert server.call("get_channel_members", name=f"presence-{name}") == []


def test_a_connection_is_disconnected_by_its_socket_id(server: Server, connect_pusher: ConnectPusher) -> None:
    one, other = connect_pusher(), connect_pusher()
    assert server.call("disconnect", client_id=one.id) == 1
    assert one.last_words() == (4009, 4009)
    assert other.frames() == []


def test_a_removed_user_hears_it_for_the_channel(
    server: Server, connect_pusher: ConnectPusher, connect: Connect, name: str
) -> None:
    """And may subscribe again, because the signer has the say."""
    channel, other = f"presence-{name}", f"private-{name}"
    one, tab, native, bob = connect_pusher(), connect_pusher(), connect("ann"), connect_pusher()
    for each in (one, tab):
        each.members(channel, "ann")
        each.subscribe(other)
    native.join(channel)
    bob.members(channel, "bob")
    one.frames()
    tab.frames()
    assert server.call("remove", name=channel, user_id="ann", reason="Calm down") == 3
    for each in (one, tab):
        frame = each.until(lambda frame: frame["event"] == "pusher:subscription_error")
        assert frame["channel"] == channel
        assert frame["data"] == '{"type":"Removed","error":"Calm down","status":403}'
    assert "channel:removed" in [event["type"] for event in native.events()]
    wait_until(lambda: removed_of(bob) == ["ann"])
    one.send("client-x", 1, channel)
    assert one.until(lambda frame: frame["event"] == "pusher:error")["data"]["code"] == 4301
    assert list(one.members(channel, "ann")) == ["bob", "ann"]


def test_a_recheck_lets_connections_come_back(
    server: Server, connect_pusher: ConnectPusher, connect: Connect, name: str
) -> None:
    """Those that match, and native ones are only asked about."""
    channel = f"presence-{name}"
    one, elsewhere, bob, native = connect_pusher(), connect_pusher(), connect_pusher(), connect(name)
    one.members(channel, name)
    elsewhere.members(f"{channel}-2", name)
    bob.members(channel, f"bob-{name}")
    native.join(channel)
    bob.frames()
    assert server.call("recheck", user_id=name, channel=channel) == 2
    assert one.last_words() == (4200, 4200)
    assert elsewhere.frames() == []
    assert server.call("recheck", user_id=name) == 2
    assert elsewhere.last_words() == (4200, 4200)
    assert server.call("recheck", channel=channel) == 2
    assert bob.last_words() == (4200, 4200)
    assert native.request("ping")["type"] == "pong"


@pytest.mark.parametrize("kind", ["gunicorn-gevent", "gunicorn-gthread"])
def test_a_shutdown_is_spread_over_the_drain(kind: str) -> None:
    """Every connection hears 4200, in the frame and in the close."""
    with running(kind=kind, PRESENCE_DRAIN=0.5, **SETTINGS) as server, ExitStack() as stack:
        several = [stack.enter_context(pusher_client(server)) for _ in range(10)]
        for one in several:
            one.subscribe("lobby")
        server.process.send_signal(signal.SIGTERM)
        assert [one.last_words() for one in several] == [(4200, 4200)] * 10
        server.process.wait(DEADLINE)
        assert "Traceback" not in server.log()


def test_a_user_who_comes_back_within_the_grace_has_never_left() -> None:
    """A connection that is lost; one that is closed leaves at once."""
    with running(PRESENCE_GRACE_ABRUPT=20, **SETTINGS) as server, pusher_client(server) as watcher:
        watcher.members("presence-room", "watcher")
        with pusher_client(server) as ann:
            ann.members("presence-room", "ann", {"name": "Ann"})
            lose(server, ann)
        assert server.json("/presence/channels/presence-room")["memberCount"] == 2
        with pusher_client(server) as again:
            listed = again.members("presence-room", "ann", {"name": "Ann"})
            assert list(listed.items()) == [("watcher", {}), ("ann", {"name": "Ann"})]
            assert [frame["event"] for frame in watcher.frames()] == ["pusher_internal:member_added"]
        assert watcher.event()["event"] == "pusher_internal:member_removed"


def test_a_user_may_come_back_in_the_other_dialect() -> None:
    with running(PRESENCE_GRACE_ABRUPT=20, **SETTINGS) as server, pusher_client(server) as watcher:
        watcher.members("presence-room", "watcher")
        with pusher_client(server) as ann:
            ann.members("presence-room", "ann", {"name": "Ann"})
            lose(server, ann)
        with client(server, "ann") as again:
            assert again.join("presence-room")["me"]["name"] == "Ann"
            assert removed_of(watcher) == []
        assert watcher.event()["event"] == "pusher_internal:member_removed"


def lose(server: Server, one: PusherClient) -> None:
    """Cut a connection without a close frame, and wait until the server has noticed."""
    before = server.json("/presence/stats")["connections"]
    one.socket.socket.shutdown(2)
    wait_until(lambda: server.json("/presence/stats")["connections"] < before)


class Outage:
    """A server whose Redis can stop and start, and two users in a channel."""

    def __init__(self, program: str, stack: ExitStack) -> None:
        self._redis_server = stack.enter_context(running_redis(program))
        options: dict[str, Any] = {"PRESENCE_BACKEND": self._redis_server.url, "PRESENCE_PUSHER_CLIENT_EVENTS": None}
        self.server = stack.enter_context(running(**options, **SETTINGS))
        self.ann, self.bob = (stack.enter_context(pusher_client(self.server)) for _ in range(2))
        self.ann.members("presence-room", "ann")
        self.bob.members("presence-room", "bob")
        self.ann.frames()

    def begin(self, *, data_is_saved: bool) -> None:
        if data_is_saved:
            with redis.Redis(port=self._redis_server.port, socket_timeout=5) as admin:
                admin.save()
        self._redis_server.stop()

    def end(self) -> None:
        self._redis_server.start()


@pytest.fixture
def outage(program: str) -> Iterator[Outage]:
    with ExitStack() as stack:
        yield Outage(program, stack)


def test_while_the_state_store_is_away_a_subscription_ends_the_connection(outage: Outage) -> None:
    """Client events are refused, and the connection stays open. When the store is back, they arrive again."""
    ann, bob = outage.ann, outage.bob
    outage.begin(data_is_saved=True)
    bob.send("client-x", 1, "presence-room")
    assert bob.error() == 4301
    bob.send("pusher:unsubscribe", {"channel": "never"})
    assert bob.frames() == []
    with pusher_client(outage.server) as late:
        late.send("pusher:subscribe", {"channel": "lobby"})
        assert late.last_words() == (4100, 4100)
    outage.end()

    heard: list[Frame] = []

    def is_back() -> bool:
        """What is sent before the server hears Redis again may be lost."""
        bob.send("client-x", 2, "presence-room")
        bob.frames()
        heard.extend(ann.frames())
        return any(frame["event"] == "client-x" for frame in heard)

    wait_until(is_back)
    with pusher_client(outage.server) as again:
        assert list(again.members("presence-room", "zoe")) == ["ann", "bob", "zoe"]
        ann.until(lambda frame: "zoe" in frame["data"])
    assert removed_of(ann) in ([], ["zoe"])
    assert "pusher_internal:member_removed" not in [frame["event"] for frame in heard]


def test_a_state_store_that_has_lost_its_data_closes_no_connection(outage: Outage) -> None:
    """Signers have not changed their minds, and the lists are restored from the connections: nobody hears anything."""
    outage.begin(data_is_saved=False)
    outage.end()
    heard: list[Frame] = []

    def is_back() -> bool:
        outage.bob.send("client-x", 1, "presence-room")
        assert {frame["data"]["code"] for frame in outage.bob.frames() if frame["event"] == "pusher:error"} <= {4301}
        heard.extend(outage.ann.frames())
        return any(frame["event"] == "client-x" for frame in heard)

    wait_until(is_back)
    with pusher_client(outage.server) as again:
        assert list(again.members("presence-room", "zoe")) == ["ann", "bob", "zoe"]
    assert {frame["event"] for frame in heard} == {"client-x"}


def test_a_recheck_of_a_public_channel_leaves_alone_whom_no_signer_has_let_in(
    server: Server, connect_pusher: ConnectPusher, name: str
) -> None:
    one, signed_in = connect_pusher(), connect_pusher()
    one.subscribe(name)
    signed_in.sign_in(name)
    signed_in.subscribe(name)
    server.call("recheck", channel=name)
    assert signed_in.last_words() == (4200, 4200)
    assert one.frames() == []


def test_a_recheck_of_many_connections_closes_all_of_them(
    server: Server, connect_pusher: ConnectPusher, name: str
) -> None:
    """A few at a time, so that the others do not wait."""
    several = [connect_pusher() for _ in range(2 * CLOSES_AT_ONCE + 1)]
    for one in several:
        one.subscribe(f"private-{name}")
    assert server.call("recheck", channel=f"private-{name}") == len(several)
    assert [one.last_words() for one in several] == [(4200, 4200)] * len(several)


@pytest.mark.parametrize("lossy", [signal.SIGKILL, signal.SIGTERM])
def test_a_worker_that_ends_takes_its_users_with_it(redis_server: Any, prefix: str, lossy: int) -> None:
    """Everybody elsewhere hears it once, and lists agree."""
    options: dict[str, Any] = {
        "PRESENCE_BACKEND": redis_server.url,
        "PRESENCE_REDIS_PREFIX": prefix,
        "PRESENCE_LEASE": 2,
        "PRESENCE_GRACE": 0,
        **SETTINGS,
    }
    with running(**options) as near, running(**options) as far, ExitStack() as stack:
        watcher, native = stack.enter_context(pusher_client(near)), stack.enter_context(client(near, "eve"))
        watcher.members("presence-room", "watcher")
        native.join("presence-room")
        ann = stack.enter_context(pusher_client(far))
        both = [stack.enter_context(pusher_client(where)) for where in (near, far)]
        ann.members("presence-room", "ann")
        for one in both:
            one.members("presence-room", "bob")
        wait_until(lambda: native.say("presence-room", "all here")["delivered"] == 4)
        watcher.until(lambda frame: frame["data"] == "all here")
        watcher.frames()
        for pid in [far.process.pid, *far.worker_pids()] if lossy == signal.SIGKILL else [far.process.pid]:
            os.kill(pid, lossy)
        removed = watcher.until(lambda frame: frame["event"] == "pusher_internal:member_removed")
        assert removed["data"] == '{"user_id":"ann"}'
        assert list(watcher.members("presence-room", "watcher")) == ["watcher", "eve", "bob"]
        assert [member["id"] for member in native.join("presence-room")["members"]] == ["watcher", "eve", "bob"]
        assert removed_of(watcher) == []


@pytest.fixture
def tab() -> Iterator[PusherTab]:
    """A connection to an app in this process, whose clock can be put forward."""
    _, app = make_presence_app(PRESENCE_AUTH_REQUIRED=True, **SETTINGS)
    with PusherTab(app) as opened:
        yield opened


def test_where_a_user_is_required_a_connection_has_half_a_minute_to_name_one(tab: PusherTab) -> None:
    tab.advance(USER_REQUIRED_AFTER - 1)
    assert tab.end is None
    tab.advance(1)
    assert tab.end == (4009, "Connection not authorized within timeout")
    assert tab.frames()[-1]["data"]["code"] == 4009


@pytest.mark.parametrize("way", ["sign-in", "subscription"])
def test_a_connection_that_has_named_its_user_stays(tab: PusherTab, way: str) -> None:
    if way == "sign-in":
        tab.sign_in("ann")
    else:
        tab.subscribe("presence-room", "ann")
    tab.subscribe("lobby")
    tab.advance(10 * USER_REQUIRED_AFTER)
    assert tab.end is None


def test_a_subscription_to_a_private_channel_names_no_user(tab: PusherTab) -> None:
    tab.subscribe("private-a")
    tab.advance(USER_REQUIRED_AFTER)
    assert tab.end is not None


def test_without_the_setting_a_connection_needs_no_user() -> None:
    _, app = make_presence_app(**SETTINGS)
    with PusherTab(app) as one:
        one.advance(10 * USER_REQUIRED_AFTER)
        assert one.end is None


def test_connections_that_come_later_have_their_own_half_minute(tab: PusherTab) -> None:
    """A connection that has left by then is no trouble."""
    with PusherTab(tab.app) as gone:
        gone.close()
    tab.advance(20)
    with PusherTab(tab.app) as later:
        tab.advance(10)
        assert (tab.end is None, later.end is None) == (False, True)
        later.advance(20)
        assert later.end is not None
