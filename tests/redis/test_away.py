"""Redis goes away and comes back, in every way: sockets stay open, and who never left causes no events."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import datetime, timezone
from typing import Any

import pytest
import redis

from flask_presence.backends.redis.store.keys import Keys
from flask_presence.domain.channels import ChannelName
from flask_presence.domain.members import User

from ..support.client import Client, client
from ..support.proxy import running_proxy
from ..support.redis_server import RedisServer, running_redis
from ..support.server import DEADLINE, running, wait_until
from ..support.store import Client as RedisClient
from ..support.store import store_of
from .test_workers import settled

LEASE = 2.0


class Place:
    """A Redis of its own, two servers, and three members of a local who stay where they are."""

    def __init__(self, redis_server: RedisServer, stack: ExitStack) -> None:
        self.redis_server = redis_server
        self.stack = stack
        config = {"PRESENCE_BACKEND": redis_server.url, "PRESENCE_LEASE": LEASE}
        self.servers = [stack.enter_context(running(**config)) for _ in range(2)]
        self.members = [self.enter(0, "ann"), self.enter(0, "bob"), self.enter(1, "eve")]
        for one in self.members:
            one.join("presence-local", name=one.connected["user"]["id"].title())
            one.join("lobby")
        wait_until(lambda: self.members[0].say("lobby", "hello")["delivered"] == 2)
        settled(self.members[0], [("member_joined", "bob"), ("member_joined", "eve")])
        settled(self.members[1], [("member_joined", "eve")])
        self.heard = [self._hear(one, "hello") for one in self.members[1:]]

    def enter(self, server: int, user: str) -> Client:
        return self.stack.enter_context(client(self.servers[server], user))

    @property
    def admin(self) -> Any:
        return redis.Redis(port=self.redis_server.port, socket_timeout=5)

    def until_healed(self) -> None:
        """Wait until everybody is known again everywhere, and hears everybody."""

        def is_known() -> bool:
            answers = [server.get("/presence/channels/presence-local") for server in self.servers]
            lobbies = [server.get("/presence/channels/lobby") for server in self.servers]
            counts = [json.loads(body).get("memberCount") for _, _, body in [*answers, *lobbies]]
            stats = [server.get("/presence/stats") for server in self.servers]
            return counts == [3] * 4 and all(
                status == 200 and json.loads(body)["connections"] == 3 for status, _, body in stats
            )

        wait_until(is_known)

        def is_heard() -> bool:
            answer = self.members[0].request("channel:message", channel="lobby", data="again")
            return answer.get("delivered") == 2 and all(self._hear(one, "again") for one in self.members[1:])

        wait_until(is_heard)

    def assert_no_events(self) -> None:
        for one in self.members:
            assert [event for event in one.events() if event["type"] != "channel:message"] == []

    def _hear(self, one: Client, what: str) -> bool:
        return what in [event.get("data") for event in one.events()]


@pytest.fixture
def place(program: str) -> Iterator[Place]:
    with running_redis(program) as redis_server, ExitStack() as stack:
        yield Place(redis_server, stack)


def refused(one: Client, type: str, **fields: Any) -> dict[str, Any]:
    """The error that answers a request."""
    answer = one.request(type, **fields)
    assert answer["type"] == "error", answer
    assert (answer["message"], answer["retryable"]) == ("Temporarily unavailable", True)
    return answer


def test_away_and_back_empty(place: Place) -> None:
    """Redis ends: requests fail at once and say that they may be tried again, leaves succeed, health says so. It comes
    back with nothing in it: everybody is there again, and nobody has heard of anything."""
    ann, bob, eve = place.members
    before = place.servers[0].json("/presence/channels/presence-local")
    place.redis_server.stop()
    wait_until(lambda: ann.request("join", channel="other")["type"] == "error")
    for _ in range(3):
        assert refused(ann, "join", channel="presence-other")["code"] == "JOIN_FAILED"
        assert refused(ann, "channel:update", channel="presence-local", userInfo={"x": 1})["code"] == "UPDATE_FAILED"
        assert refused(ann, "channel:message", channel="lobby", data=1)["code"] == "SEND_FAILED"
    assert bob.request("leave", channel="lobby")["type"] == "channel:left"
    late = place.enter(1, "late")
    assert refused(late, "join", channel="presence-local")["code"] == "JOIN_FAILED"
    status, _, body = place.servers[0].get("/presence/health")
    assert (status, json.loads(body)) == (503, {"status": "unavailable", "message": "The state store is unreachable"})
    status, _, body = place.servers[0].get("/presence/stats")
    assert (status, json.loads(body)["error"]["code"]) == (503, "SERVICE_UNAVAILABLE")
    status, _, body = place.servers[0].get('/call/publish?arguments={"name":"lobby","event":"e","data":1}')
    assert json.loads(body)["raised"] == "BackendUnavailable"
    assert ann.request("ping")["type"] == "pong"
    late.socket.close()
    place.redis_server.start()
    wait_until(lambda: bob.request("join", channel="lobby")["type"] == "channel:joined")
    place.until_healed()
    assert place.servers[0].get("/presence/health")[0] == 200
    assert place.servers[1].json("/presence/channels/presence-local")["members"] == before["members"]
    place.assert_no_events()
    assert eve.update("presence-local", status="back")["member"]["status"] == "back"
    settled(ann, [("member_updated", "eve")])


def test_refused_at_once(program: str) -> None:
    """While Redis is away no request waits for it or tries to reach it: only the process itself does, now and then."""
    with running_redis(program) as redis_server, running_proxy(redis_server.port) as proxy:
        url = f"redis://127.0.0.1:{proxy.port}/0"
        with running(PRESENCE_BACKEND=url, PRESENCE_RATE_LIMIT=None) as server, client(server, "ann") as ann:
            ann.join("presence-local")
            proxy.cut()
            wait_until(lambda: ann.request("join", channel="presence-other")["type"] == "error")
            before = proxy.refused
            for _ in range(500):
                assert refused(ann, "join", channel="presence-other")["code"] == "JOIN_FAILED"
                assert refused(ann, "channel:message", channel="presence-local", data=1)["code"] == "SEND_FAILED"
            assert proxy.refused - before < 500


def flush(place: Place) -> None:
    place.admin.flushall()


def cut_subscriptions(place: Place) -> None:
    place.admin.client_kill_filter(_type="pubsub")


def cut_commands(place: Place) -> None:
    admin = place.admin
    for one in admin.client_list(_type="normal"):
        if int(one["id"]) != admin.client_id():
            admin.client_kill_filter(_id=one["id"])


def stop_for_a_while(place: Place) -> None:
    """For longer than anybody's lease."""
    place.redis_server.process.send_signal(signal.SIGSTOP)
    end = time.monotonic() + LEASE * 1.5
    wait_until(lambda: time.monotonic() > end)
    place.redis_server.process.send_signal(signal.SIGCONT)


@pytest.mark.parametrize("fault", [flush, cut_subscriptions, cut_commands, stop_for_a_while])
def test_no_events(place: Place, fault: Callable[[Place], None]) -> None:
    """Whatever happens to Redis: state heals from the live sockets, and members who never left see no events."""
    fault(place)
    place.until_healed()
    end = time.monotonic() + LEASE  # past the time for which the missing are waited for
    wait_until(lambda: time.monotonic() > end)
    place.assert_no_events()
    new = place.enter(1, "new")
    assert [member["id"] for member in new.join("presence-local")["members"]] == ["ann", "bob", "eve", "new"]
    for one in place.members:
        settled(one, [("member_joined", "new")])


def test_left_meanwhile(place: Place) -> None:
    """Who really leaves while Redis is away has left for everybody once it is back, each once."""
    ann, bob, eve = place.members
    place.redis_server.stop()
    bob.socket.close()
    assert eve.request("leave", channel="presence-local")["type"] == "channel:left"
    place.redis_server.start()
    settled(ann, [("member_left", "bob"), ("member_left", "eve")])
    assert ann.silent()
    wait_until(lambda: place.servers[1].json("/presence/channels/presence-local")["memberCount"] == 1)


def test_silent_subscription(program: str) -> None:
    """A subscription that is open and says nothing is noticed, and made anew."""
    with running_redis(program) as redis_server, running_proxy(redis_server.port) as proxy:
        near = {"PRESENCE_BACKEND": redis_server.url, "PRESENCE_LEASE": LEASE}
        far = near | {"PRESENCE_BACKEND": f"redis://127.0.0.1:{proxy.port}/0"}
        with running(**near) as one, running(**far) as other, ExitStack() as stack:
            ann, bob = stack.enter_context(client(one, "ann")), stack.enter_context(client(other, "bob"))
            bob.join("presence-local")
            assert proxy.mute() >= 2  # commands and subscriptions
            ann.join("presence-local")
            settled(bob, [("member_joined", "ann")])
            wait_until(lambda: ann.say("presence-local", "hello")["delivered"] == 1)


def test_order_given_while_deaf(place: Place) -> None:
    """Who is to be disconnected is, even if the process that has them did not hear it when it was said."""
    eve = place.members[2]
    for _ in range(3):
        cut_subscriptions(place)
    place.servers[0].json('/call/disconnect?arguments={"user_id":"eve"}')
    assert eve.wait_closed()[0] == 4403


def test_order_given_in_silence(program: str) -> None:
    """Nor does it help that the subscription was open, and silent, when it was said."""
    with running_redis(program) as redis_server, running_proxy(redis_server.port) as proxy:
        near = {"PRESENCE_BACKEND": redis_server.url, "PRESENCE_LEASE": LEASE}
        far = near | {"PRESENCE_BACKEND": f"redis://127.0.0.1:{proxy.port}/0"}
        with running(**near) as one, running(**far) as other, client(other, "eve") as eve:
            eve.join("presence-local")
            proxy.mute()
            assert one.json('/call/disconnect?arguments={"user_id":"eve"}') == 0
            assert eve.wait_closed()[0] == 4403


def test_order_given_while_cut_off(program: str) -> None:
    """Nor that the process was cut off from Redis altogether, and has tried in vain to come back."""
    with running_redis(program) as redis_server, running_proxy(redis_server.port) as proxy:
        near = {"PRESENCE_BACKEND": redis_server.url, "PRESENCE_LEASE": 3 * DEADLINE}
        far = near | {"PRESENCE_BACKEND": f"redis://127.0.0.1:{proxy.port}/0"}
        with running(**near) as one, running(**far) as other, client(other, "eve") as eve:
            eve.join("presence-local")
            proxy.cut()
            wait_until(lambda: eve.request("join", channel="presence-local")["type"] == "error")
            assert one.json('/call/disconnect?arguments={"user_id":"eve"}') == 0
            assert eve.request("ping")["type"] == "pong"
            proxy.mend()
            assert eve.wait_closed()[0] == 4403


def test_connections_that_nobody_has(place: Place) -> None:
    """What Redis says of a live process that is not so, in a channel that this has long left, is put right: an old copy
    of its data may say so after a restart, or a command that was given up and came late."""
    keys, store = Keys("fp"), RedisClient(place.redis_server.url)
    worker_id = place.admin.srandmember(keys.workers).decode()
    ghost, now = User("ghost"), datetime.now(timezone.utc)
    store.run(store_of("fp").workers.add_connections(worker_id, {"nobody": ghost}))
    for name in ("presence-gone", "gone"):
        store.run(
            store_of(keys.prefix, max_info=1000).channels(worker_id).join(ChannelName(name), "nobody", ghost, None, now)
        )
    assert place.servers[0].json("/presence/channels/presence-gone")["memberCount"] == 1
    assert place.servers[0].json("/presence/stats")["connections"] == 4
    cut_subscriptions(place)
    for name in ("presence-gone", "gone"):
        wait_until(lambda name=name: place.servers[1].get(f"/presence/channels/{name}")[0] == 404)  # type: ignore[misc]
    wait_until(lambda: place.servers[1].json("/presence/stats")["connections"] == 3)
    store.close()


def test_lost_meanwhile_with_grace(program: str) -> None:
    """Whose connection is lost while Redis is away has the same grace as ever."""
    with running_redis(program) as redis_server, ExitStack() as stack:
        config = {"PRESENCE_BACKEND": redis_server.url, "PRESENCE_GRACE_ABRUPT": 60}
        one, other = (stack.enter_context(running(**config)) for _ in range(2))
        eve = stack.enter_context(client(other, "eve"))
        eve.join("presence-local")
        ann, bob = (stack.enter_context(client(one, user)) for user in ("ann", "bob"))
        ann.join("presence-local")
        settled(eve, [("member_joined", "ann")])
        redis_server.process.send_signal(signal.SIGSTOP)
        wait_until(lambda: bob.request("join", channel="other")["type"] == "error")
        ann.socket.socket.close()
        wait_until(lambda: one.json(f"/heard/{ann.id}")[-1]["name"] == "client.disconnected")
        redis_server.process.send_signal(signal.SIGCONT)

        def is_known() -> bool:
            answer = eve.request("channel:message", channel="presence-local", data="anybody?")
            return answer.get("delivered") == 0

        wait_until(is_known)
        assert other.json("/presence/channels/presence-local")["memberCount"] == 2
        assert eve.silent()


def test_left_meanwhile_is_told(place: Place) -> None:
    """The application hears that a member left although Redis was away when they did."""
    bob = place.members[1]
    place.redis_server.process.send_signal(signal.SIGSTOP)
    wait_until(lambda: place.members[0].request("join", channel="other")["type"] == "error")
    assert bob.request("leave", channel="presence-local")["type"] == "channel:left"
    place.redis_server.process.send_signal(signal.SIGCONT)
    settled(place.members[0], [("member_left", "bob")])
    names: list[str] = []

    def is_told() -> bool:
        names[:] = [event["name"] for event in place.servers[0].json(f"/heard/{bob.id}")]
        return "member.left" in names

    wait_until(is_told)
    assert names.count("member.left") == 1
