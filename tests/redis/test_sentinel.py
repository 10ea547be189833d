"""Redis behind Sentinel: another master takes over, and the clients notice nothing but a pause."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from flask import Flask

from flask_presence import Presence
from flask_presence.backends.redis.client.sentinel import parse_sentinel_address
from flask_presence.backends.redis.shards.sharding import Sharding
from flask_presence.domain.errors import ConfigurationError

from ..support.chaos.witnesses import witnessing
from ..support.client import Client, client
from ..support.redis_server import RedisServer
from ..support.sentinel import FAILOVER_DEADLINE, SERVICE, SentinelTrio, running_sentinels
from ..support.server import Server, running, wait_until
from .test_redis_outage import Service

LEASE = 6.0
PASSWORD = "p@ss/w0rd?#"


@pytest.fixture(scope="module")
def sentinels(program: str) -> Iterator[SentinelTrio]:
    with running_sentinels(program, password=PASSWORD) as trio:
        yield trio


@pytest.fixture(scope="module")
def servers(sentinels: SentinelTrio) -> Iterator[list[Server]]:
    config = {"PRESENCE_BACKEND": sentinels.url, "PRESENCE_LEASE": LEASE}
    with running(**config) as one, running(**config) as other:
        yield [one, other]


@pytest.fixture
def service(sentinels: SentinelTrio, servers: list[Server]) -> Iterator[Service]:
    sentinels.restore()
    for server in servers:
        wait_until(lambda server=server: is_empty(server))  # type: ignore[misc]
        wait_until(lambda server=server: lists_nobody(server))  # type: ignore[misc]
    with ExitStack() as stack:
        yield Service(sentinels.master, servers, stack)


def is_empty(server: Server) -> bool:
    status, _, body = server.get("/presence/stats")
    return status == 200 and json.loads(body)["connections"] == json.loads(body)["totalMembers"] == 0


def lists_nobody(server: Server) -> bool:
    """Whether the server's copy of the channel is empty. After a failover it keeps members whose leave it has not heard
    for half a lease, because another worker could still bring them back. They may be from the previous test."""
    with client(server, "newcomer") as one:
        members = one.join("presence-room")["members"]
        one.request("leave", channel="presence-room")
    return [member["id"] for member in members] == ["newcomer"]


def member_count(server: Server, channel: str) -> int | None:
    """`None` if nobody is in the channel."""
    _, _, body = server.get(f"/presence/channels/{channel}")
    count: int | None = json.loads(body).get("memberCount")
    return count


def await_another_master(sentinels: SentinelTrio, old: RedisServer) -> None:
    wait_until(lambda: sentinels.master_port != old.port, FAILOVER_DEADLINE)


def test_a_killed_master_is_replaced_and_nobody_gets_an_event(service: Service, sentinels: SentinelTrio) -> None:
    old = sentinels.master
    old.stop()
    await_another_master(sentinels, old)
    service.until_healed()
    service.assert_no_events()


def test_a_planned_failover_moves_the_workers_to_the_new_master(service: Service, sentinels: SentinelTrio) -> None:
    """The old master still runs, as a replica: no worker stays connected to it."""
    old = sentinels.master
    sentinels.fail_over()
    service.until_healed()
    service.assert_no_events()

    def has_no_workers() -> bool:
        with sentinels.client(old) as client:
            subscribers = [one["name"] for one in client.client_list() if one["sub"] != "0"]
            return all(name.startswith("sentinel-") for name in subscribers)

    wait_until(has_no_workers)


def test_an_old_master_that_wakes_up_is_not_taken_for_the_truth(service: Service, sentinels: SentinelTrio) -> None:
    """It stood still while the Sentinels chose another one, and goes on as if it were the master."""
    old = sentinels.master
    old.process.send_signal(signal.SIGSTOP)
    try:
        await_another_master(sentinels, old)
        service.until_healed()
    finally:
        old.process.send_signal(signal.SIGCONT)
    service.members[0].join("presence-after")
    with sentinels.client(old) as client:
        wait_until(client.ping)
    service.until_healed()
    service.assert_no_events()
    assert member_count(service.servers[1], "presence-after") == 1


def test_a_replica_that_lagged_behind_becomes_master_and_numbers_are_not_used_twice(
    service: Service, sentinels: SentinelTrio
) -> None:
    """What the new master does not know is restored from the connections, and later messages still arrive."""
    old, replica = sentinels.master, sentinels.replica
    replica.process.send_signal(signal.SIGSTOP)
    for at in range(20):
        service.members[0].say("lobby", f"unknown to the replica {at}")
    service.members[0].join("presence-late")
    old.stop()
    replica.process.send_signal(signal.SIGCONT)
    await_another_master(sentinels, old)
    service.until_healed()
    wait_until(lambda: member_count(service.servers[1], "presence-late") == 1)
    service.assert_no_events()


def test_a_sentinel_that_knows_an_older_master_is_not_believed_alone(program: str) -> None:
    """It has lost its configuration, and the old master does not know either. If most Sentinels agree, it is true."""
    with running_sentinels(program) as trio:
        old = trio.master
        known = parse_sentinel_address(trio.url).sentinels
        assert known.look_up().port == old.port
        trio.fail_over()
        new = trio.master_port
        wait_until(lambda: known.look_up().port == new)
        trio.stop_sentinels()
        with trio.client(old) as admin:
            admin.replicaof("NO", "ONE")
        trio.start_anew(0)
        assert known.look_up().port == new
        trio.start_anew(1)
        assert known.look_up().port == old.port


def kill(sentinels: SentinelTrio) -> None:
    old = sentinels.master
    old.stop()
    await_another_master(sentinels, old)


@pytest.mark.parametrize("way", [kill, SentinelTrio.fail_over])
def test_a_shard_that_fails_over_heals_and_the_other_one_notices_nothing(
    sentinels: SentinelTrio, redis_server: RedisServer, prefix: str, way: Callable[[SentinelTrio], None]
) -> None:
    """One value of a mapping is a URL of Sentinels. Witnesses talk in the other shard."""
    sentinels.restore()
    urls = {"watched": sentinels.url, "alone": redis_server.url}
    config = {"PRESENCE_BACKEND": urls, "PRESENCE_REDIS_PREFIX": prefix, "PRESENCE_LEASE": 2.0}
    watched, alone = (first_in(label, Sharding(urls)) for label in urls)
    with (
        running(**config) as one,
        running(**config) as other,
        client(one, "ann") as ann,
        client(other, "bob") as bob,
        witnessing([one, other], {user: one.token(user) for user in ("eve", "joe", "mia")}, [alone]) as witnesses,
    ):
        ann.join(watched)
        assert [member["id"] for member in bob.join(watched)["members"]] == ["ann", "bob"]
        assert ann.event()["member"]["id"] == "bob"
        way(sentinels)

        def is_healed() -> bool:
            answers = [person.request("channel:message", channel=watched, data="?") for person in (ann, bob)]
            counts = [member_count(server, watched) for server in (one, other)]
            return [answer.get("delivered") for answer in answers] == [1, 1] and counts == [2, 2]

        wait_until(is_healed)
        for sender, reader in ((ann, bob), (bob, ann)):

            def is_heard(sender: Client = sender, reader: Client = reader) -> bool:
                sender.say(watched, "healed")
                return "healed" in [event["data"] for event in messages(reader)]

            wait_until(is_heard)
        wrong, figures = witnesses.stop()
        assert wrong == []
        assert figures.messages > 0


def first_in(label: str, sharding: Sharding) -> str:
    names = (f"presence-{number}" for number in range(1000))
    return next(name for name in names if sharding.of_channel(name) == label)


def messages(one: Client) -> list[dict[str, Any]]:
    """What has come, which must be messages only."""
    events = one.events()
    assert {event["type"] for event in events} <= {"channel:message"}
    return events


def test_health_and_the_log_say_that_no_sentinel_knows_the_service(sentinels: SentinelTrio) -> None:
    with running(PRESENCE_BACKEND=sentinels.url.replace(f"/{SERVICE}/", "/other/")) as server:
        status, _, body = server.get("/presence/health")
        expected = {"status": "unavailable", "message": "No Sentinel knows the service in PRESENCE_BACKEND"}
        assert (status, json.loads(body)) == (503, expected)
        with client(server, "ann") as ann:
            assert ann.request("join", channel="lobby")["code"] == "JOIN_FAILED"
            wait_until(lambda: "no Sentinel names a master of 'other'" in server.log())
        assert "s/w0rd" not in server.log()


def test_members_go_on_without_sentinels_and_the_log_warns(program: str) -> None:
    with running_sentinels(program) as trio, running(PRESENCE_BACKEND=trio.url) as server, client(server, "ann") as ann:
        ann.join("presence-room")
        trio.stop_sentinels()
        wait_until(lambda: "nobody says which Redis is the master" in server.log())
        ann.join("presence-other")
        ann.say("presence-room", "still here")


def test_a_server_that_is_no_sentinel_is_not_taken_for_one_that_lacks_the_service(redis_server: RedisServer) -> None:
    """Neither is a Sentinel that lets the user ask nothing."""
    with running(PRESENCE_BACKEND=f"redis+sentinel://127.0.0.1:{redis_server.port}/{SERVICE}") as server:
        status, _, body = server.get("/presence/health")
        assert (status, json.loads(body)["message"]) == (503, "Redis refuses the connection; the log says why")
        with client(server, "ann") as ann:
            assert ann.request("join", channel="lobby")["code"] == "JOIN_FAILED"
            wait_until(lambda: f"127.0.0.1:{redis_server.port} refuses: unknown command" in server.log())
        assert "Correct the name" not in server.log()


@pytest.mark.parametrize(
    "url",
    [
        "redis+sentinel://:secret@host:26379",
        "redis+sentinel://:secret@host:26379/",
        "redis+sentinel://:secret@host:notaport/service",
        "redis+sentinel://:secret@host:99999/service",
        "redis+sentinel://:secret@/service",
        "redis+sentinel://:secret@host,,other/service",
        "redis+sentinel://:secret@host/service/notadb",
        "redis+sentinel://:secret@host/service/0/1",
        "redis+sentinel://:secret@host/service?unknown=1",
        "redis+sentinel://:se/cret@host/service",
        "redis+sentinel://:secret@host/service#fragment",
    ],
)
def test_a_wrong_url_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(ConfigurationError, match="PRESENCE_BACKEND") as problem:
        Presence(Flask(__name__), backend=url)
    assert "secret" not in str(problem.value)
    assert "cret@" not in str(problem.value)


def test_the_sentinels_have_a_password_of_their_own(program: str) -> None:
    with running_sentinels(program, sentinel_password="theirs") as trio:
        for options, status, message in (
            ("?sentinel_password=theirs", 200, None),
            ("?sentinel_password=wrong", 503, "Redis refuses the password"),
            ("", 503, "Redis refuses the password"),
        ):
            with running(PRESENCE_BACKEND=f"{trio.url}{options}") as server:
                found, _, body = server.get("/presence/health")
                assert (found, json.loads(body).get("message")) == (status, message)
