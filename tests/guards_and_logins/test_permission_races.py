"""Permissions that change while guards, logins and joins run: the newest answer counts."""

from __future__ import annotations

import json
import threading
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import redis

from ..conftest import on_redis
from ..support.client import Client, client
from ..support.redis_server import RedisServer, running_redis
from ..support.server import Server, running, wait_until

APP = "tests.support.permissions_app:create_app()"
CLOCK_ERROR = 1.0
"""Seconds by which two busy workers may disagree about the time in Redis."""
ADMIN = {"authorized": True, "userInfo": {"role": "admin"}}


class Service:
    """One server in memory, or two on one Redis. Their guards give the answers that a test plans."""

    def __init__(self, servers: list[Server], stack: ExitStack) -> None:
        self.servers = servers
        self._stack = stack

    def connect(self, user: str | None, where: int = 0, **options: Any) -> Client:
        return self._stack.enter_context(client(self.servers[where % len(self.servers)], user, **options))

    def ask(self, path: str, **arguments: str) -> None:
        for server in self.servers:
            assert server.get(f"{path}?{urllib.parse.urlencode(arguments)}")[0] == 200

    def plan(self, user: str, *steps: Any) -> None:
        """Plan the answers of the guards. A step `(answer, gate)` answers when the gate is open."""
        planned = [{"answer": one[0], "gate": one[1]} if isinstance(one, tuple) else {"answer": one} for one in steps]
        self.ask("/plan", user=user, steps=json.dumps(planned))

    def open(self, gate: str) -> None:
        self.ask("/gate", name=gate)

    def asked(self, user: str) -> int:
        """The number of times that guards were asked about the user."""
        return sum(server.json("/asked").get(user, 0) for server in self.servers)

    def call(self, method: str, where: int = 0, **arguments: Any) -> Any:
        return self.servers[where % len(self.servers)].call(method, **arguments)

    def roles(self, channel: str) -> dict[str, str | None]:
        """The role of each member."""
        status, _, body = self.servers[-1].get(f"/presence/channels/{channel}")
        members = json.loads(body)["members"] if status == 200 else []
        return {member["id"]: member.get("role") for member in members}


@pytest.fixture(scope="module")
def servers(redis_server: RedisServer) -> Iterator[list[Server]]:
    options = on_redis(redis_server) | {"PRESENCE_STATS_PUBLIC": True}
    with running(app=APP, **options) as one, running(app=APP, **options) as other:
        yield [one, other]


@pytest.fixture(scope="module")
def alone() -> Iterator[list[Server]]:
    with running(app=APP, PRESENCE_STATS_PUBLIC=True) as server:
        yield [server]


@pytest.fixture(scope="module")
def with_loader() -> Iterator[list[Server]]:
    with running(app=APP, LOADER=True, PRESENCE_STATS_PUBLIC=True) as server:
        yield [server]


@pytest.fixture
def loading(with_loader: list[Server]) -> Iterator[Service]:
    """One server whose `user_loader` believes the header `X-User`."""
    with ExitStack() as stack:
        yield Service(with_loader, stack)


@pytest.fixture(params=["alone", "servers"], ids=["one in memory", "two on Redis"])
def service(request: pytest.FixtureRequest) -> Iterator[Service]:
    with ExitStack() as stack:
        yield Service(request.getfixturevalue(request.param), stack)


@pytest.fixture
def user(name: str) -> str:
    return f"user-{name}"


@pytest.fixture
def channel(name: str) -> str:
    return f"presence-planned-{name}"


def test_each_tab_is_removed_by_its_own_answer(service: Service, user: str, channel: str) -> None:
    """The order in which the answers arrive does not matter."""
    tabs = [service.connect(user, where) for where in range(2)]
    for tab in tabs:
        tab.join(channel)
    service.plan(user, (False, user), False)
    assert service.call("recheck", user_id=user) == 2
    wait_until(lambda: service.asked(user) == 4)
    service.open(user)
    for tab in tabs:
        assert tab.event()["type"] == "channel:removed"
        assert tab.request("channel:message", channel=channel, data=1)["code"] == "NOT_IN_CHANNEL"


def test_an_older_answer_does_not_give_a_role_back(service: Service, user: str, channel: str) -> None:
    """The answer to the newest question counts for all tabs, even if an older one arrives after it."""
    service.plan(user, (ADMIN, user), True)
    slow, fast = service.connect(user), service.connect(user, 1)
    slow.send({"type": "join", "channel": channel})
    wait_until(lambda: service.asked(user) == 1)
    service.plan(user, True)
    asked_at = time.monotonic()
    wait_until(lambda: time.monotonic() - asked_at > CLOCK_ERROR)
    fast.join(channel)
    service.open(user)
    assert slow.event()["type"] == "channel:joined"
    assert service.roles(channel) == {user: None}


def test_an_older_answer_does_not_give_a_listed_member_a_role(service: Service, user: str, channel: str) -> None:
    """The newer answer gave nothing, and left no trace at the member."""
    service.plan(user, True, (ADMIN, user), True)
    first, slow, fast = service.connect(user), service.connect(user), service.connect(user, 1)
    first.join(channel)
    slow.send({"type": "join", "channel": channel})
    wait_until(lambda: service.asked(user) == 2)
    service.plan(user, True)
    fast.join(channel)
    service.open(user)
    while slow.event()["type"] != "channel:joined":
        continue
    wait_until(lambda: service.roles(channel) == {user: None})
    assert service.call("recheck", user_id=user) >= 2
    wait_until(lambda: service.roles(channel) == {user: None})


def test_a_repeated_join_that_fails_does_not_keep_a_role(service: Service, user: str, channel: str) -> None:
    """The guard's answer takes effect even if the new `userInfo` is too large."""
    service.plan(user, ADMIN, True)
    tab = service.connect(user)
    tab.join(channel, a="x" * 3000)
    wait_until(lambda: service.roles(channel) == {user: "admin"})
    assert tab.request("join", channel=channel, userInfo={"b": "x" * 3000})["code"] == "JOIN_FAILED"
    wait_until(lambda: service.roles(channel) == {user: None})


def test_a_recheck_goes_on_with_a_new_token(service: Service, user: str, channel: str) -> None:
    """The guards of all channels are asked about the new token."""
    other = f"{channel}-2"
    tab = service.connect(user)
    tab.join(channel)
    tab.join(other)
    service.plan(user, (False, user), False)
    service.call("recheck", user_id=user)
    wait_until(lambda: service.asked(user) == 3)
    assert tab.request("auth", token=service.servers[0].token(user))["type"] == "auth:ok"
    service.open(user)
    assert [tab.event()["channel"] for _ in range(2)] == [channel, other]


def test_a_revoked_login_ends_with_any_token(service: Service, user: str) -> None:
    """A recheck that finds a replaced token revoked verifies the new token too."""
    tab = service.connect(user)
    token = service.servers[0].token(user)
    for gate in ("new", "old"):
        service.ask("/slow_login", user=user, gate=f"{gate} {user}")
    tab.send({"type": "auth", "token": token})
    wait_until(lambda: service.asked(f"login of {user}") == 1)
    service.ask("/revoke", user=user)
    assert service.call("recheck", user_id=user) == 1
    wait_until(lambda: service.asked(f"login of {user}") == 2)
    service.open(f"new {user}")
    assert tab.event()["type"] == "auth:ok"
    service.open(f"old {user}")
    assert tab.wait_closed()[0] == 4401


def test_a_login_that_is_revoked_during_the_upgrade_ends(service: Service, user: str) -> None:
    """A recheck reaches a connection whose token is being verified."""
    token = service.servers[0].token(user)
    service.ask("/slow_login", user=user, gate=user)
    opened: list[Client] = []
    opening = threading.Thread(target=lambda: opened.append(service.connect(None, token=token)))
    opening.start()
    wait_until(lambda: service.asked(f"login of {user}") == 1)
    service.ask("/revoke", user=user)
    assert service.call("recheck", where=1, user_id=user) == 0
    service.open(user)
    opening.join()
    assert opened[0].wait_closed()[0] == 4401


def test_a_removal_asks_again_about_a_join_under_way(service: Service, user: str, channel: str) -> None:
    """If the guard denies now, a join that it allowed before does not bring the member back."""
    tab = service.connect(user)
    tab.join(channel)
    service.plan(user, (True, user), False)
    tab.send({"type": "join", "channel": channel})
    wait_until(lambda: service.asked(user) == 2)
    assert service.call("remove", where=1, name=channel, user_id=user) == 1
    service.open(user)
    assert [tab.event().get("code") for _ in range(2)] == ["REMOVED", "FORBIDDEN"]
    assert service.roles(channel) == {}


def test_a_slow_guard_delays_only_its_own_user(service: Service, user: str, channel: str) -> None:
    """Other users are rechecked while the guards of a few members do not answer."""
    slow = [service.connect(f"{user}-slow-{number}") for number in range(6)]
    for number, one in enumerate(slow):
        one.join(channel)
        service.plan(f"{user}-slow-{number}", (True, user))
    tab = service.connect(user)
    tab.join(channel)
    service.plan(user, False)
    service.call("recheck", channel=channel)
    assert tab.event()["type"] == "channel:removed"
    service.open(user)


def test_an_answer_without_a_truth_value_denies(service: Service, user: str, channel: str) -> None:
    """This holds at a repeated join, and the connection leaves the channel."""
    tab = service.connect(user)
    tab.join(channel)
    service.plan(user, "no truth")
    assert tab.request("join", channel=channel)["code"] == "FORBIDDEN"
    assert tab.request("channel:message", channel=channel, data=1)["code"] == "NOT_IN_CHANNEL"


def test_a_role_goes_even_if_the_tab_that_was_asked_about_closes(service: Service, user: str, channel: str) -> None:
    """An older answer that gives a role is confirmed with the user's other tabs, on whichever worker they are."""
    kept, closing = service.connect(user, 1), service.connect(user)
    kept.join(channel)
    service.plan(user, (ADMIN, user))
    closing.send({"type": "join", "channel": channel})
    wait_until(lambda: service.asked(user) == 2)
    service.plan(user, True)
    kept.join(channel)
    service.plan(user, (True, f"again {user}"))
    service.open(user)
    while closing.event()["type"] != "channel:joined":
        continue
    wait_until(lambda: service.asked(user) == 4)
    closing.socket.close()
    service.open(f"again {user}")
    wait_until(lambda: service.roles(channel) == {user: None})


def test_an_older_answer_of_a_user_loader_does_not_replace_a_newer_one(
    loading: Service, user: str, channel: str
) -> None:
    """Guards are asked about the user as the newest call of the loader returned them."""
    loading.ask("/role", user=user, role="admin")
    loading.plan(user, "role")
    watcher = loading.connect(None, headers={"X-User": f"watcher of {user}"})
    watcher.join(channel)
    loading.connect(None, headers={"X-User": user}).join(channel)
    loading.ask("/slow_login", user=user, gate=user)
    loading.call("recheck", user_id=user)
    wait_until(lambda: loading.asked(f"login of {user}") == 1)
    loading.ask("/role", user=user)
    loading.call("recheck", user_id=user)
    wait_until(lambda: loading.roles(channel)[user] is None)
    asked = loading.asked(user)
    loading.open(user)
    wait_until(lambda: loading.asked(user) > asked)
    loading.call("recheck", user_id=user)
    wait_until(lambda: loading.asked(user) > asked + 1)
    loading.call("publish", name=channel, event="end", data=None)
    events = [watcher.event()["type"] for _ in range(3)]
    assert events == ["presence:member_joined", "presence:member_updated", "channel:message"]


def test_a_join_under_way_is_decided_with_the_newest_user(loading: Service, user: str, channel: str) -> None:
    """During a recheck, the loader is asked before the guard of a join is asked again."""
    loading.ask("/role", user=user, role="admin")
    loading.plan(user, ("role", f"one {user}"), ("role", f"two {user}"), "role")
    tab = loading.connect(None, headers={"X-User": user})
    tab.send({"type": "join", "channel": channel})
    wait_until(lambda: loading.asked(user) == 1)
    loading.ask("/role", user=user)
    loading.ask("/slow_login", user=user, gate=user)
    loading.call("recheck", user_id=user)
    wait_until(lambda: loading.asked(f"login of {user}") == 1)
    loading.open(f"one {user}")
    wait_until(lambda: loading.asked(user) == 2)
    loading.open(user)
    loading.open(f"two {user}")
    assert tab.event()["me"].get("role") is None
    assert loading.roles(channel) == {user: None}


def test_auth_is_refused_if_a_user_loader_decides(loading: Service, user: str) -> None:
    """A token of the app's API does not log in an anonymous connection."""
    visitor = loading.connect(None)
    assert visitor.request("auth", token=loading.servers[0].token(user))["code"] == "UNAUTHORIZED"
    assert visitor.request("join", channel="presence-planned-boss")["code"] == "FORBIDDEN"


def test_a_role_that_was_taken_away_does_not_come_back_after_a_loss(program: str, user: str, channel: str) -> None:
    """The guards are asked again about everything that a worker restores in an emptied Redis."""
    with running_redis(program) as redis_server, ExitStack() as stack:
        server = stack.enter_context(running(app=APP, **on_redis(redis_server), PRESENCE_STATS_PUBLIC=True))
        service = Service([server], stack)
        service.plan(user, ADMIN, True)
        service.connect(user).join(channel)
        assert service.roles(channel) == {user: "admin"}
        with redis.Redis(port=redis_server.port) as admin:
            admin.flushall()
        wait_until(lambda: service.roles(channel) == {user: None})
