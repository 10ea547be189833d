"""Redis fails and comes back, in every way: connections stay open, and members who never left cause no events."""

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

from flask_presence.backends.redis.client.client import PasswordRefused
from flask_presence.backends.redis.store.calls import Refused
from flask_presence.backends.redis.store.keys import Keys
from flask_presence.backends.redis.worker.breaker import CircuitBreaker
from flask_presence.domain.channels import ChannelName
from flask_presence.domain.errors import BackendUnavailable, OutcomeUnknown
from flask_presence.domain.members import User
from flask_presence.domain.roster import Joiner

from ..support.client import Client, client
from ..support.proxy import running_proxy
from ..support.redis_server import RedisServer, running_redis
from ..support.server import Server, running, wait_until
from ..support.store import Client as RedisClient
from ..support.store import store_of
from .test_several_workers import settled

LEASE = 2.0


class Service:
    """A Redis of its own, two servers, and three members of a channel."""

    def __init__(self, redis_server: RedisServer, servers: list[Server], stack: ExitStack) -> None:
        self.redis_server = redis_server
        self.servers = servers
        self.stack = stack
        self.members = [self.enter(0, "ann"), self.enter(0, "bob"), self.enter(1, "eve")]
        for one in self.members:
            one.join("presence-room", name=one.connected["user"]["id"].title())
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
        """Wait until every server lists every member again, and a message reaches all of them."""

        def is_known() -> bool:
            answers = [server.get("/presence/channels/presence-room") for server in self.servers]
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


@pytest.fixture(scope="module")
def own_redis(program: str) -> Iterator[RedisServer]:
    with running_redis(program) as redis_server:
        yield redis_server


@pytest.fixture(scope="module")
def servers(own_redis: RedisServer) -> Iterator[list[Server]]:
    config = {"PRESENCE_BACKEND": own_redis.url, "PRESENCE_LEASE": LEASE}
    with running(**config) as one, running(**config) as other:
        yield [one, other]


def is_empty(server: Server) -> bool:
    status, _, body = server.get("/presence/stats")
    return status == 200 and json.loads(body)["connections"] == json.loads(body)["totalMembers"] == 0


@pytest.fixture
def service(own_redis: RedisServer, servers: list[Server]) -> Iterator[Service]:
    """It is as each test needs it, whatever the test before did to Redis."""
    for server in servers:
        wait_until(lambda server=server: is_empty(server))  # type: ignore[misc]
    with ExitStack() as stack:
        yield Service(own_redis, servers, stack)


def refused(one: Client, type: str, **fields: Any) -> dict[str, Any]:
    """The error that answers a request."""
    answer = one.request(type, **fields)
    assert answer["type"] == "error", answer
    assert (answer["message"], answer["retryable"]) == ("Temporarily unavailable", True)
    return answer


def test_an_empty_restart_of_redis_restores_every_member_silently(service: Service) -> None:
    """While Redis is down, requests fail at once with a retryable error, leaves succeed, and `/health` is 503.
    Afterwards everybody is a member again, and nobody got an event."""
    ann, bob, eve = service.members
    before = service.servers[0].json("/presence/channels/presence-room")
    service.redis_server.stop()
    wait_until(lambda: ann.request("join", channel="other")["type"] == "error")
    for _ in range(3):
        assert refused(ann, "join", channel="presence-other")["code"] == "JOIN_FAILED"
        assert refused(ann, "channel:update", channel="presence-room", userInfo={"x": 1})["code"] == "UPDATE_FAILED"
        assert refused(ann, "channel:message", channel="lobby", data=1)["code"] == "SEND_FAILED"
    assert bob.request("leave", channel="lobby")["type"] == "channel:left"
    late = service.enter(1, "late")
    assert refused(late, "join", channel="presence-room")["code"] == "JOIN_FAILED"
    status, _, body = service.servers[0].get("/presence/health")
    assert (status, json.loads(body)) == (503, {"status": "unavailable", "message": "The state store is unreachable"})
    status, _, body = service.servers[0].get("/presence/stats")
    assert (status, json.loads(body)["error"]["code"]) == (503, "SERVICE_UNAVAILABLE")
    answer = service.servers[0].call("publish", name="lobby", event="e", data=1)
    assert answer["raised"] == "BackendUnavailable"
    assert ann.request("ping")["type"] == "pong"
    late.socket.close()
    service.redis_server.start()
    wait_until(lambda: bob.request("join", channel="lobby")["type"] == "channel:joined")
    service.until_healed()
    assert service.servers[0].get("/presence/health")[0] == 200
    assert service.servers[1].json("/presence/channels/presence-room")["members"] == before["members"]
    service.assert_no_events()
    assert eve.update("presence-room", status="back")["member"]["status"] == "back"
    settled(ann, [("member_updated", "eve")])


def test_requests_are_refused_without_contacting_redis_while_it_is_down(program: str) -> None:
    """Only the worker itself tries to reach it, now and then."""
    with running_redis(program) as redis_server, running_proxy(redis_server.port) as proxy:
        url = f"redis://127.0.0.1:{proxy.port}/0"
        with running(PRESENCE_BACKEND=url, PRESENCE_RATE_LIMIT=None) as server, client(server, "ann") as ann:
            ann.join("presence-room")
            proxy.cut()
            wait_until(lambda: ann.request("join", channel="presence-other")["type"] == "error")
            before = proxy.refused
            for _ in range(500):
                assert refused(ann, "join", channel="presence-other")["code"] == "JOIN_FAILED"
                assert refused(ann, "channel:message", channel="presence-room", data=1)["code"] == "SEND_FAILED"
            assert proxy.refused - before < 500


def test_an_outage_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """It begins with a lost connection, and then none can be made. A refused password is news."""
    breaker = CircuitBreaker(10)
    for problem in (OutcomeUnknown("lost"), BackendUnavailable("refused"), OutcomeUnknown("lost again")):
        breaker.failed(problem)
    assert [record.message.partition(";")[0] for record in caplog.records] == ["Redis is down"]
    breaker.failed(PasswordRefused("wrong"))
    assert len(caplog.records) == 2


@pytest.mark.parametrize(
    ("problem", "kind"),
    [(Refused("no permission"), Refused), (PasswordRefused("wrong"), PasswordRefused)]
    + [(problem("away"), BackendUnavailable) for problem in (BackendUnavailable, OutcomeUnknown)],
)
def test_what_fails_later_says_why_and_has_not_happened(problem: BackendUnavailable, kind: type) -> None:
    breaker = CircuitBreaker(10)
    breaker.failed(problem)
    with pytest.raises(BackendUnavailable, match=str(problem)) as raised:
        breaker.check()
    assert raised.type is kind


def flush(service: Service) -> None:
    service.admin.flushall()


def cut_subscriptions(service: Service) -> None:
    service.admin.client_kill_filter(_type="pubsub")


def cut_commands(service: Service) -> None:
    admin = service.admin
    for one in admin.client_list(_type="normal"):
        if int(one["id"]) != admin.client_id():
            admin.client_kill_filter(_id=one["id"])


def stop_for_a_while(service: Service) -> None:
    """Stop Redis for longer than the lease of a worker."""
    service.redis_server.process.send_signal(signal.SIGSTOP)
    end = time.monotonic() + LEASE * 1.5
    wait_until(lambda: time.monotonic() > end)
    service.redis_server.process.send_signal(signal.SIGCONT)


@pytest.mark.parametrize("fault", [flush, cut_subscriptions, cut_commands, stop_for_a_while])
def test_members_who_never_left_get_no_events(service: Service, fault: Callable[[Service], None]) -> None:
    """After any fault of Redis the state heals from the open connections."""
    fault(service)
    service.until_healed()
    end = time.monotonic() + LEASE  # after this time a missing member would have left
    wait_until(lambda: time.monotonic() > end)
    service.assert_no_events()
    new = service.enter(1, "new")
    assert [member["id"] for member in new.join("presence-room")["members"]] == ["ann", "bob", "eve", "new"]
    for one in service.members:
        settled(one, [("member_joined", "new")])


def test_a_member_who_leaves_during_an_outage_is_announced_once(service: Service) -> None:
    ann, bob, eve = service.members
    service.redis_server.stop()
    bob.socket.close()
    assert eve.request("leave", channel="presence-room")["type"] == "channel:left"
    service.redis_server.start()
    settled(ann, [("member_left", "bob"), ("member_left", "eve")])
    assert ann.silent()
    wait_until(lambda: service.servers[1].json("/presence/channels/presence-room")["memberCount"] == 1)


def test_a_silent_subscription_is_noticed_and_replaced(program: str) -> None:
    with running_redis(program) as redis_server, running_proxy(redis_server.port) as proxy:
        near = {"PRESENCE_BACKEND": redis_server.url, "PRESENCE_LEASE": LEASE}
        far = near | {"PRESENCE_BACKEND": f"redis://127.0.0.1:{proxy.port}/0"}
        with running(**near) as one, running(**far) as other, ExitStack() as stack:
            ann, bob = stack.enter_context(client(one, "ann")), stack.enter_context(client(other, "bob"))
            bob.join("presence-room")
            assert proxy.mute() >= 2  # commands and subscriptions
            ann.join("presence-room")
            settled(bob, [("member_joined", "ann")])
            wait_until(lambda: ann.say("presence-room", "hello")["delivered"] == 1)


def test_a_worker_removes_connections_that_it_does_not_have(service: Service) -> None:
    """They may come from old data after a restart, or from a late command. The worker may have left the channel long
    ago."""
    keys, store = Keys("fp"), RedisClient(service.redis_server.url)
    worker_id = service.admin.srandmember(keys.workers).decode()
    ghost, now = User("ghost"), datetime.now(timezone.utc)
    store.run(store_of("fp").workers.add_connections(worker_id, {"nobody": ghost}))
    for name in ("presence-gone", "gone"):
        store.run(
            store_of(keys.prefix, max_info=1000)
            .channels(worker_id)
            .join(Joiner(ChannelName(name), "nobody", ghost, None, now))
        )
    assert service.servers[0].json("/presence/channels/presence-gone")["memberCount"] == 1
    assert service.servers[0].json("/presence/stats")["connections"] == 4
    cut_subscriptions(service)
    for name in ("presence-gone", "gone"):
        wait_until(lambda name=name: service.servers[1].get(f"/presence/channels/{name}")[0] == 404)  # type: ignore[misc]
    wait_until(lambda: service.servers[1].json("/presence/stats")["connections"] == 3)
    store.close()


def test_a_connection_that_is_lost_during_an_outage_has_its_grace(program: str) -> None:
    with running_redis(program) as redis_server, ExitStack() as stack:
        config = {"PRESENCE_BACKEND": redis_server.url, "PRESENCE_GRACE_ABRUPT": 60}
        one, other = (stack.enter_context(running(**config)) for _ in range(2))
        eve = stack.enter_context(client(other, "eve"))
        eve.join("presence-room")
        ann, bob = (stack.enter_context(client(one, user)) for user in ("ann", "bob"))
        ann.join("presence-room")
        settled(eve, [("member_joined", "ann")])
        redis_server.process.send_signal(signal.SIGSTOP)
        wait_until(lambda: bob.request("join", channel="other")["type"] == "error")
        ann.cut()
        wait_until(lambda: one.json(f"/heard/{ann.id}")[-1]["name"] == "client.disconnected")
        redis_server.process.send_signal(signal.SIGCONT)

        def is_known() -> bool:
            answer = eve.request("channel:message", channel="presence-room", data="anybody?")
            return answer.get("delivered") == 0

        wait_until(is_known)
        assert other.json("/presence/channels/presence-room")["memberCount"] == 2
        assert eve.silent()


def test_the_app_hears_of_a_member_who_left_during_an_outage(service: Service) -> None:
    bob = service.members[1]
    service.redis_server.process.send_signal(signal.SIGSTOP)
    wait_until(lambda: service.members[0].request("join", channel="other")["type"] == "error")
    assert bob.request("leave", channel="presence-room")["type"] == "channel:left"
    service.redis_server.process.send_signal(signal.SIGCONT)
    settled(service.members[0], [("member_left", "bob")])
    names: list[str] = []

    def is_told() -> bool:
        names[:] = [event["name"] for event in service.servers[0].json(f"/heard/{bob.id}")]
        return "member.left" in names

    wait_until(is_told)
    assert names.count("member.left") == 1


def test_a_server_that_starts_without_redis_works_as_soon_as_it_is_up(program: str) -> None:
    with running_redis(program) as redis_server:
        redis_server.stop()
        with running(PRESENCE_BACKEND=redis_server.url) as server, client(server, "ann") as ann:
            assert ann.request("join", channel="presence-room")["code"] == "JOIN_FAILED"
            redis_server.start()
            wait_until(lambda: ann.request("join", channel="presence-room")["type"] == "channel:joined")
            wait_until(lambda: server.json("/presence/stats")["connections"] == 1)
