"""Changed permissions reach open connections by `recheck` and `remove`, and a message for a user reaches all of the
user's connections."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from ..conftest import Connect, on_redis
from ..support.client import Client, client
from ..support.redis_server import RedisServer
from ..support.server import Server, running, wait_until
from .test_owned_info_and_message_guards import own, shown


def until_event(one: Client, kind: str) -> dict[str, Any]:
    """Skip events until one of that kind, and return it."""
    while (event := one.event())["type"] != kind:
        continue
    return event


class Service:
    """Two servers on one Redis, or one server in memory."""

    def __init__(self, servers: list[Server], stack: ExitStack) -> None:
        self.servers = servers
        self._stack = stack

    def connect(self, where: int, user: str | None, **options: Any) -> Client:
        return self._stack.enter_context(client(self.servers[where % len(self.servers)], user, **options))


@pytest.fixture(scope="module")
def servers(redis_server: RedisServer) -> Iterator[list[Server]]:
    options = on_redis(redis_server)
    with running(**options) as one, running(**options) as other:
        yield [one, other]


@pytest.fixture(scope="module")
def alone() -> Iterator[list[Server]]:
    with running() as server:
        yield [server]


@pytest.fixture(params=["alone", "servers"], ids=["one in memory", "two on Redis"])
def service(request: pytest.FixtureRequest) -> Iterator[Service]:
    with ExitStack() as stack:
        yield Service(request.getfixturevalue(request.param), stack)


def test_a_recheck_that_denies_takes_the_user_out_of_the_channel(service: Service, name: str) -> None:
    """The user is told why, and gets nothing more from the channel. Other users stay."""
    channel, other = f"presence-closing-{name}", f"presence-open-{name}"
    ann, tab, bob = service.connect(0, "ann"), service.connect(1, "ann"), service.connect(1, "bob")
    for one in (ann, tab, bob):
        one.join(channel)
        one.join(other)
    for server in service.servers:
        server.get(f"/close/{channel}")
    assert service.servers[0].call("recheck", user_id="ann", channel=channel) == 2
    for one in (ann, tab):
        assert until_event(one, "channel:removed") == {
            "type": "channel:removed",
            "channel": channel,
            "code": "FORBIDDEN",
            "message": "It is closed",
        }
    event = until_event(bob, "presence:member_left")
    assert (event["member"]["id"], event["reason"]) == ("ann", "denied")
    assert bob.say(channel, "to nobody")["delivered"] == 0
    assert ann.request("channel:message", channel=channel, data=1)["code"] == "NOT_IN_CHANNEL"
    assert ann.say(other, "still here")["delivered"] == 2
    assert service.servers[-1].call("recheck", channel=channel) == 1
    assert until_event(bob, "channel:removed")["channel"] == channel


def test_a_recheck_announces_changed_owned_info_once(service: Service, name: str) -> None:
    """The user's own connections get it too."""
    channel = f"presence-owned-{name}"
    for server in service.servers:
        own(server, channel, role="guest")
    ann, bob = service.connect(0, "ann"), service.connect(1, "bob")
    ann.join(channel, x=1)
    bob.join(channel)
    until_event(ann, "presence:member_joined")
    for server in service.servers:
        own(server, channel, role="staff")
    assert service.servers[0].call("recheck", user_id="ann") == 1
    for one in (ann, bob):
        event = until_event(one, "presence:member_updated")
        assert shown(event["member"]) == {"name": "Anonymous", "role": "staff", "x": 1}
    for server in service.servers:
        server.post(f"/own/{channel}", True)
    assert service.servers[0].call("recheck", channel=channel) == 2
    seen = [until_event(bob, "presence:member_updated")["member"] for _ in range(2)]
    assert sorted((member["id"], member.get("role")) for member in seen) == [("ann", None), ("bob", None)]


def test_a_recheck_ends_a_revoked_login(service: Service, name: str) -> None:
    user = f"user-{name}"
    ann = service.connect(0, user)
    ann.join("news")
    for server in service.servers:
        server.get(f"/revoke/{user}")
    assert service.servers[-1].call("recheck", user_id=user) == 1
    assert ann.wait_closed() == (4401, "Token revoked")


def test_a_recheck_asks_again_about_a_join_under_way(service: Service, name: str) -> None:
    """The guard allowed that join before."""
    channel = f"presence-waiting-{name}"
    ann = service.connect(0, "ann")
    ann.send({"type": "join", "channel": channel})
    assert ann.socket.ping().wait(20)
    server = service.servers[0]
    wait_until(lambda: server.call("recheck", user_id="ann") == 1)
    server.get(f"/close/{channel}")
    server.call("recheck", channel=channel)
    server.get(f"/open/{channel}")
    assert ann.event()["code"] == "FORBIDDEN"


def test_remove_takes_a_user_out_of_one_channel(service: Service, name: str) -> None:
    """This holds for all of the user's connections. The user may join again if the guard allows it."""
    channel = f"presence-room-{name}"
    ann, tab, bob = service.connect(0, "ann"), service.connect(1, "ann"), service.connect(1, "bob")
    for one in (ann, tab, bob):
        one.join(channel)
    assert service.servers[0].call("remove", name=channel, user_id="ann", reason="Calm down") == 2
    for one in (ann, tab):
        event = until_event(one, "channel:removed")
        assert (event["code"], event["message"]) == ("REMOVED", "Calm down")
    event = until_event(bob, "presence:member_left")
    assert (event["member"]["id"], event["reason"]) == ("ann", "removed")
    assert bob.say(channel, "hello")["delivered"] == 0
    assert ann.silent()
    heard = [event for event in service.servers[0].json(f"/heard/{ann.id}") if event["name"] == "channel.left"]
    assert [event["reason"] for event in heard] == ["removed"]
    ann.join(channel)
    assert service.servers[0].call("remove", name=channel, user_id="ann") == 1
    assert until_event(ann, "channel:removed")["message"] == "Removed by the server"


def test_a_call_about_an_unknown_user_or_channel_reaches_nobody(service: Service, name: str) -> None:
    """Invalid arguments raise."""
    server = service.servers[0]
    nobody, nowhere = f"nobody-{name}", f"nowhere-{name}"
    assert server.call("recheck", user_id=nobody) == server.call("recheck", channel=nowhere) == 0
    assert server.call("remove", name=nowhere, user_id=nobody) == 0
    assert server.call("send_to_user", user_id=nobody, event="e", data=1) == 0
    assert server.call("is_online", user_id=nobody) is False
    assert server.call("recheck")["raised"] == "ValueError"
    assert server.call("remove", name="a b", user_id="x")["raised"] == "ValueError"
    assert server.call("remove", name="x", user_id="x", reason=5)["raised"] == "TypeError"
    assert server.call("send_to_user", user_id="x", event=5, data=1)["raised"] == "TypeError"
    assert server.call("send_to_user", user_id=None, event="e", data=1)["raised"] == "TypeError"


def test_a_message_for_a_user_reaches_all_connections_of_the_user(service: Service, name: str) -> None:
    """It reaches nobody else."""
    user = f"us{{er %\u00e4-{name}"
    ann, tab, bob = service.connect(0, user), service.connect(1, user), service.connect(1, "bob")
    tab.join("news")
    server = service.servers[0]
    wait_until(lambda: server.call("send_to_user", user_id=user, event="ready", data=None) == 2)
    for one in (ann, tab):
        until_event(one, "user:message")
    assert server.call("send_to_user", user_id=user, event="invited", data={"to": "tea"}) == 2
    for one in (ann, tab):
        while (event := until_event(one, "user:message"))["event"] == "ready":
            continue
        assert event.keys() == {"type", "event", "data", "timestamp"}
        assert (event["event"], event["data"]) == ("invited", {"to": "tea"})
    assert bob.silent()
    assert [place.call("is_online", user_id=user) for place in service.servers] == [True] * len(service.servers)
    ann.socket.close()
    wait_until(lambda: server.call("send_to_user", user_id=user, event="again", data=1) == 1)
    tab.socket.close()
    wait_until(lambda: not any(place.call("is_online", user_id=user) for place in service.servers))


def test_a_recheck_of_many_connections_delays_nobody(connect: Connect, server: Server, name: str) -> None:
    channel = f"presence-slow-{name}"
    crowd = [connect(f"user-{number}") for number in range(12)]
    for one in crowd:
        one.join(channel, seconds=0.05)
    assert server.call("recheck", channel=channel) == 12
    probe = connect()
    for _ in range(20):
        assert probe.request("ping")["type"] == "pong"
    assert crowd[0].say(channel, "done")["delivered"] == 11


@pytest.mark.parametrize("method", ["remove", "recheck"])
def test_a_user_who_joins_during_a_removal_is_in_or_out(service: Service, name: str, method: str) -> None:
    """The member list, the messages and the events agree."""
    channel = f"presence-closing-{name}"
    eve, bob = service.connect(0, "eve"), service.connect(1, "bob")
    bob.join(channel)
    server = service.servers[0]
    eve.join(channel)
    for _ in range(1 if method == "recheck" else 3):
        for at in range(20):  # three times two frames of each, which is within the rate limit
            eve.send({"type": "join", "channel": channel, "userInfo": {"n": at}})
            eve.send({"type": "channel:message", "channel": channel, "data": at})
        if method == "recheck":
            for one in service.servers:
                one.get(f"/close/{channel}")
            server.call("recheck", user_id="eve")
        else:
            server.call("remove", name=channel, user_id="eve")
    answer = eve.request("channel:message", channel=channel, data="still here?")
    inside = answer["type"] == "channel:sent"
    assert inside or answer["code"] == "NOT_IN_CHANNEL"
    members = {"bob", "eve"} if inside else {"bob"}
    path = f"/presence/channels/{channel}"
    wait_until(lambda: {member["id"] for member in server.json(path)["members"]} == members)
    assert bob.say(channel, "hello")["delivered"] == len(members) - 1
    eve.socket.close()
    wait_until(lambda: [member["id"] for member in server.json(path)["members"]] == ["bob"])
    server.call("publish", name=channel, event="the end", data=None)
    listed = {"bob"}
    while (event := bob.event()).get("event") != "the end":
        if event["type"] == "presence:member_joined":
            assert event["member"]["id"] not in listed
            listed.add(event["member"]["id"])
        elif event["type"] == "presence:member_left":
            listed.remove(event["member"]["id"])
        elif event["type"] == "channel:message":
            assert event["from"]["userId"] in listed
    assert listed == {"bob"}
