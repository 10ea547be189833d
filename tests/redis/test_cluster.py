"""A Redis Cluster: slots move, masters are lost, and the clients notice nothing but a pause in one shard."""

from __future__ import annotations

import json
import secrets
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import redis
from flask import Flask

from flask_presence import Presence
from flask_presence.backends.redis.client.cluster import MAX_SHARDS, slot_of, tags
from flask_presence.backends.redis.shards.sharding import Sharding
from flask_presence.domain.errors import ConfigurationError
from flask_presence.settings import load_settings

from ..deployment.test_redis_deployment import ACL, make_certificate, talk
from ..server_api.test_cli import succeed
from ..support.client import Client, client
from ..support.cluster import FAILOVER_DEADLINE, MASTERS, SLOTS, Cluster, ClusterNode, running_cluster
from ..support.ports import free_port
from ..support.redis_server import RedisServer, running_redis
from ..support.server import Server, running, wait_until
from .test_shards import refusal

LEASE = 2.0
PASSWORD = "p@ss/w0rd?#"
TAGS = tags(16)
SHARDING = Sharding(TAGS)


# Slots


@pytest.mark.parametrize("number", [1 << bits for bits in range(8)])
def test_the_slots_of_the_shards_are_spread_evenly(number: int) -> None:
    """Each of `number` equal ranges of slots has one."""
    assert {slot_of(tag) * number // SLOTS for tag in tags(number)} == set(range(number))


def test_the_tags_of_fewer_shards_are_among_those_of_more() -> None:
    """They are part of the names in Redis, so they never change."""
    assert tags(MAX_SHARDS)[:16] == TAGS
    assert " ".join(TAGS) == "108 16 15 717 69 177 174 202 131 247 244 132 50 752 678 53"


# A cluster that works, and one that changes


class Service:
    """Two servers on the cluster, and two members of a channel on each of its masters."""

    def __init__(self, cluster: Cluster, servers: list[Server], stack: ExitStack, name: str) -> None:
        self.cluster = cluster
        self.servers = servers
        self._stack = stack
        self._name = name
        self.ann, self.bob = self.enter(0, "ann"), self.enter(1, "bob")
        owners = {tag: cluster.owner(tag) for tag in TAGS}
        self.channels: dict[ClusterNode, str] = {}
        for node in dict.fromkeys(owners.values()):
            self.channels[node] = self.channel_in([tag for tag in TAGS if owners[tag] is node])
            self.ann.join(self.channels[node])
            assert [member["id"] for member in self.bob.join(self.channels[node])["members"]] == ["ann", "bob"]
            assert self.ann.event()["member"]["id"] == "bob"

    def enter(self, server: int, user: str) -> Client:
        return self._stack.enter_context(client(self.servers[server], user))

    def channel_in(self, wanted: list[str]) -> str:
        names = (f"presence-{self._name}-{number}" for number in range(1000))
        return next(name for name in names if SHARDING.of_channel(name) in wanted)

    def until_healed(self) -> None:
        """Wait until the servers list the members of all channels, and messages reach both of them."""
        for channel in self.channels.values():
            wait_until(lambda channel=channel: self._is_whole(channel), FAILOVER_DEADLINE)  # type: ignore[misc]
        for server in self.servers:
            wait_until(lambda server=server: server.get("/presence/health")[0] == 200)  # type: ignore[misc]

    def assert_no_events(self) -> None:
        for one in (self.ann, self.bob):
            assert [event for event in one.events() if event["type"] != "channel:message"] == []

    def is_listed(self, channel: str) -> bool:
        """Whether both servers list both members."""
        answers = [server.get(f"/presence/channels/{channel}") for server in self.servers]
        return all(status == 200 and json.loads(body)["memberCount"] == 2 for status, _, body in answers)

    def _is_whole(self, channel: str) -> bool:
        if not self.is_listed(channel):
            return False
        answers = [one.request("channel:message", channel=channel, data="?") for one in (self.ann, self.bob)]
        return [answer.get("delivered") for answer in answers] == [1, 1]


@pytest.fixture(scope="module")
def whole_cluster(cluster_program: str) -> Iterator[Cluster]:
    with running_cluster(cluster_program, PASSWORD) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def config(whole_cluster: Cluster) -> dict[str, Any]:
    return {"PRESENCE_BACKEND": whole_cluster.url, "PRESENCE_LEASE": LEASE, "PRESENCE_RATE_LIMIT": None}


@pytest.fixture(scope="module")
def servers(config: dict[str, Any]) -> Iterator[list[Server]]:
    with running(**config) as one, running(**config) as other:
        yield [one, other]


@pytest.fixture
def cluster(whole_cluster: Cluster) -> Cluster:
    whole_cluster.until_whole()
    return whole_cluster


@pytest.fixture
def service(cluster: Cluster, servers: list[Server], name: str) -> Iterator[Service]:
    for server in servers:
        wait_until(lambda server=server: is_empty(server))  # type: ignore[misc]
    with ExitStack() as stack:
        yield Service(cluster, servers, stack, name)


def is_empty(server: Server) -> bool:
    status, _, body = server.get("/presence/stats")
    stats = json.loads(body)
    return status == 200 and "unavailable" not in stats and stats["connections"] == stats["totalMembers"] == 0


def test_two_workers_on_a_cluster_are_one_service(service: Service) -> None:
    """Lists, messages, control messages and counts are those of both. All names of a shard are in its slot."""
    assert len(service.channels) == MASTERS
    for node, channel in service.channels.items():
        for number in range(20):
            assert service.ann.say(channel, number)["delivered"] == 1
        assert [service.bob.event()["data"] for _ in range(20)] == list(range(20))
        tag = SHARDING.of_channel(channel)
        prefix = f"fp:{{{tag}}}:"
        assert int(node.ask("CLUSTER", "KEYSLOT", prefix)) == slot_of(tag)
        assert f"{prefix}channel:{{{channel}}}:members" in node.ask("KEYS", "*")
        topics = node.ask("PUBSUB", "SHARDCHANNELS", f"{prefix}*")
        assert f"{prefix}0:channel:{{{channel}}}:events" in topics
        assert node.ask("PUBSUB", "CHANNELS") == []
        assert all(key.startswith("fp:{") for key in node.ask("KEYS", "*"))
    one, other = service.servers
    for server in service.servers:
        assert sorted(found["name"] for found in server.json("/presence/channels")["channels"]) == sorted(
            service.channels.values()
        )
        assert server.json("/presence/stats")["connections"] == 2
        assert server.json("/presence/activity")["workers"] == 2
    assert other.call("is_online", user_id="ann") is True
    assert other.call("send_to_user", user_id="ann", event="news", data=1) == 1
    assert service.ann.event()["data"] == 1
    channel = next(iter(service.channels.values()))
    assert one.call("recheck", user_id="bob") == 1
    assert one.call("remove", name=channel, user_id="bob") == 1
    assert service.bob.event()["type"] == "channel:removed"
    assert service.ann.event()["type"] == "presence:member_left"
    assert other.call("disconnect", user_id="ann") == 1
    assert service.ann.wait_closed()[0] == 4403


def test_watching_shows_the_changes_of_all_channels_or_of_one(service: Service, config: dict[str, Any]) -> None:
    """Nobody can subscribe to a pattern of a cluster's topics."""
    channels = list(service.channels.values())
    app = Flask("watching")
    presence: Any = Presence(app, backend=config["PRESENCE_BACKEND"])
    with app.app_context():
        everything, one = presence._hub.directory.watch(), presence._hub.directory.watch(channels[0])
        assert next(everything) is next(one) is None
        eve = service.enter(0, "eve")
        for channel in channels:
            eve.join(channel)
        seen: set[str] = set()
        while len(seen) < len(channels):
            change = next(everything)
            seen |= {str(change[0])} if change is not None else set()
        assert seen == set(channels)
        change = next(found for found in one if found is not None)
        assert (change[0], change[1].kind, change[1].member.id) == (channels[0], "joined", "eve")
        everything.close()
        one.close()


class Talk:
    """Ann says numbers in a channel for as long as the block lasts. Bob must hear them in order, and each once."""

    def __init__(self, service: Service, channel: str) -> None:
        self._service, self._channel = service, channel
        self._ended = threading.Event()
        self.failed = self.sent = 0
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Talk:
        self._thread.start()
        wait_until(lambda: self.sent > 5)
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        events: list[dict[str, Any]] = []
        end = secrets.token_hex(4)

        def has_heard_the_end() -> bool:
            self._service.ann.request("channel:message", channel=self._channel, data=end)
            events.extend(self._service.bob.events())
            return end in [event.get("data") for event in events]

        wait_until(has_heard_the_end)
        heard = [event["data"] for event in events if isinstance(event.get("data"), int)]
        assert heard == sorted(set(heard))
        assert len(heard) <= self.sent + self.failed
        assert [event for event in events if event["type"] != "channel:message"] == []
        self.heard = len(heard)

    def _run(self) -> None:
        number = 0
        while not self._ended.is_set():
            number += 1
            answer = self._service.ann.request("channel:message", channel=self._channel, data=number)
            if answer["type"] == "channel:sent":
                self.sent += 1
            else:
                self.failed += 1

    def until_it_goes_on(self) -> None:
        before = self.sent
        wait_until(lambda: self.sent > before + 5, FAILOVER_DEADLINE)


def test_a_slot_moves_to_another_master_while_messages_flow(service: Service) -> None:
    """There and back, to a server that has just joined too. Nobody leaves, and the other shards go on."""
    source, *others = service.channels
    channel, undisturbed = service.channels[source], service.channels[others[0]]
    tag = SHARDING.of_channel(channel)
    for target in (others[0], service.cluster.enlarge(), source):
        with Talk(service, channel) as talk:
            service.cluster.move(tag, target)
            talk.until_it_goes_on()
            assert service.cluster.owner(tag) is target
            assert service.bob.say(undisturbed, "?")["delivered"] == 1
    service.until_healed()
    service.assert_no_events()


def end_politely(service: Service, old: ClusterNode, tag: str) -> None:
    """The replica asks for the place of its master, which becomes its replica."""
    service.cluster.fail_over(old, tag)


def kill(service: Service, old: ClusterNode, tag: str) -> None:
    service.cluster.kill(old, tag)


def pause(service: Service, old: ClusterNode, tag: str) -> None:
    """It stands still until another one is the master, and goes on as if nothing had happened."""
    replica = service.cluster.replica_of(old)
    old.process.send_signal(signal.SIGSTOP)
    try:
        wait_until(lambda: f"{replica.id} " in masters(replica), FAILOVER_DEADLINE)
    finally:
        old.process.send_signal(signal.SIGCONT)
    wait_until(lambda: service.cluster.owner(tag) is replica, FAILOVER_DEADLINE)


def masters(node: ClusterNode) -> str:
    return "".join(line for line in node.ask("CLUSTER", "NODES").splitlines(True) if "master" in line)


@pytest.mark.parametrize("way", [kill, pause, end_politely])
def test_a_replica_takes_over_and_only_its_shards_pause(
    service: Service, way: Callable[[Service, ClusterNode, str], None]
) -> None:
    """Members of its channels stay listed and hear each other again. The other shards see no error meanwhile."""
    old, *others = service.channels
    tag = SHARDING.of_channel(service.channels[old])
    with Talk(service, service.channels[others[0]]) as talk:
        way(service, old, tag)
        wait_until(lambda: service.is_listed(service.channels[old]), FAILOVER_DEADLINE)
        talk.until_it_goes_on()
    assert (talk.failed, talk.heard) == (0, talk.sent)
    service.until_healed()
    service.assert_no_events()


def test_a_worker_with_another_number_of_shards_is_refused(service: Service, config: dict[str, Any]) -> None:
    more = config | {"PRESENCE_BACKEND": f"{config['PRESENCE_BACKEND']}?shards=4"}
    with running(**more) as server:
        text = refusal(server)
    assert text.startswith(
        "PRESENCE_BACKEND has the shards '108', '15', '16', '717' here, and has the shards '108', '131'"
    )
    assert service.ann.say(next(iter(service.channels.values())), "?")["delivered"] == 1


def test_the_layout_command_lists_the_slots(service: Service, config: dict[str, Any]) -> None:
    shards = json.loads(succeed("layout", "--json", **config))["shards"]
    assert sorted(shard["label"] for shard in shards) == sorted(TAGS)
    assert sum(shard["channels"] for shard in shards) == len(service.channels)
    assert {(shard["problem"], shard["workers"]) for shard in shards} == {(None, 2)}


def test_the_log_says_if_one_lost_server_would_stop_everything(cluster: Cluster, config: dict[str, Any]) -> None:
    def configure(value: str) -> None:
        for node in cluster.nodes:
            node.ask("CONFIG", "SET", "cluster-require-full-coverage", value)

    configure("yes")
    try:
        with running(**config | {"PRESENCE_REDIS_PREFIX": "coverage"}) as server, client(server):
            wait_until(lambda: "cluster-require-full-coverage yes" in server.log())
            assert server.log().count("cluster-require-full-coverage yes") == 1
    finally:
        configure("no")


# A cluster of one server


def cluster_options() -> tuple[str, ...]:
    return "--cluster-enabled", "yes", "--cluster-port", str(free_port())


def test_the_documented_permissions_are_enough(program: str, tmp_path: Path) -> None:
    """`docs/scaling.md` names them."""
    users = tmp_path / "users.acl"
    permissions = f"{ACL} +cluster|info +cluster|slots"
    users.write_text(
        f"user default on nopass ~* &* +@all\nuser app on >secret resetchannels ~shop:* &shop:* {permissions}\n"
    )
    with running_redis(program, "--aclfile", str(users), *cluster_options()) as server:
        with redis.Redis(port=server.port) as admin:
            admin.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, SLOTS - 1)
            wait_until(lambda: is_up(admin))
        url = f"redis+cluster://app:secret@127.0.0.1:{server.port}/?shards=2"
        log = talk(PRESENCE_BACKEND=url, PRESENCE_REDIS_PREFIX="shop", PRESENCE_HISTORY={"room": (5, 60)})
        assert "Redis answers with an error" not in log
        assert "fail until" not in log


def is_up(admin: Any) -> bool:
    return bool(admin.cluster("INFO")["cluster_state"] == "ok")


def test_tls_checks_the_certificates_of_the_servers(program: str, tmp_path: Path) -> None:
    certificate, files = make_certificate(tmp_path)
    options = (*files, "--tls-ca-cert-file", str(certificate), "--tls-cluster", "yes", *cluster_options())
    with running_redis(program, *options, tls=True) as server:
        with redis.Redis(port=server.port, ssl=True, ssl_ca_certs=str(certificate)) as admin:
            admin.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, SLOTS - 1)
            wait_until(lambda: is_up(admin))
        url = f"rediss+cluster://127.0.0.1:{server.port}/?shards=2"
        assert "Traceback" not in talk(PRESENCE_BACKEND=f"{url}&ssl_ca_certs={certificate}", arguments=("--preload",))
        with running(PRESENCE_BACKEND=url) as without_certificate, client(without_certificate) as one:
            assert one.request("join", channel="room")["code"] == "JOIN_FAILED"


# What is wrong


def test_a_single_redis_given_as_a_cluster_shows_in_health_and_in_the_log(redis_server: RedisServer) -> None:
    with running(PRESENCE_BACKEND=f"redis+cluster://127.0.0.1:{redis_server.port}/?shards=2") as server:
        status, _, body = server.get("/presence/health")
        expected = "The Redis in PRESENCE_BACKEND is not a cluster"
        assert (status, json.loads(body)["shards"]) == (503, {"108": expected, "16": expected})
        with client(server, "ann") as ann:
            assert ann.request("join", channel="lobby")["code"] == "JOIN_FAILED"
            wait_until(lambda: "cluster support disabled" in server.log())


@pytest.mark.parametrize("has_slots", [True, False])
def test_a_cluster_given_as_a_single_redis_shows_in_health_and_in_the_log(program: str, has_slots: bool) -> None:
    """Before the first client connects, and after that."""
    with running_redis(program, *cluster_options()) as server:
        if has_slots:
            with redis.Redis(port=server.port) as admin:
                admin.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, SLOTS - 1)
                wait_until(lambda: is_up(admin))
        with running(PRESENCE_BACKEND=server.url) as single:
            for _ in range(2):
                status, _, body = single.get("/presence/health")
                assert status == 503
                assert "a server of a cluster, which needs a redis+cluster:// URL" in json.loads(body)["message"]
                with client(single, "ann") as ann:
                    assert ann.request("join", channel="lobby")["code"] == "JOIN_FAILED"
            wait_until(lambda: "Give PRESENCE_BACKEND the URL of the cluster" in single.log())


@pytest.mark.parametrize("wrong", [":wr0ng@", ""])
def test_a_wrong_password_shows_in_health_and_in_the_log(cluster: Cluster, wrong: str) -> None:
    hosts = cluster.url.rpartition("@")[2]
    with running(PRESENCE_BACKEND=f"redis+cluster://{wrong}{hosts}?shards=1") as server:
        status, _, body = server.get("/presence/health")
        assert (status, json.loads(body)["shards"]) == (503, {"108": "Redis refuses the password"})
        with client(server, "ann") as ann:
            assert ann.request("join", channel="lobby")["code"] == "JOIN_FAILED"
        wait_until(lambda: "refuses the password" in server.log())
        assert "wr0ng" not in server.log()


@pytest.mark.parametrize(
    "backend",
    [
        "redis+cluster://:secret@/",
        "redis+cluster://:secret@host:notaport/",
        "redis+cluster://:secret@host:99999/",
        "redis+cluster://:secret@host,,other/",
        "redis+cluster://:secret@host/1",
        "redis+cluster://:secret@host/?db=1",
        "redis+cluster://:secret@host/?shards=0",
        "redis+cluster://:secret@host/?shards=3",
        "redis+cluster://:secret@host/?shards=256",
        "redis+cluster://:secret@host/?shards=secret",
        "redis+cluster://:secret@host/?unknown=1",
        "redis+cluster://:se/cret@host/",
        "redis+cluster://:secret@host/#fragment",
        {"a": "redis+cluster://:secret@host/", "b": "redis://host/"},
    ],
)
def test_a_wrong_url_is_refused_without_its_password(backend: Any) -> None:
    with pytest.raises(ConfigurationError, match="PRESENCE_BACKEND") as problem:
        Presence(Flask(__name__), backend=backend)
    assert "secret" not in str(problem.value)
    assert "cret@" not in str(problem.value)


def test_nothing_connects_when_the_app_is_created_and_settings_show_no_url() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"redis+cluster://:secret@127.0.0.1:{listener.getsockname()[1]}/?shards=128"
        Presence(Flask("lazy"), backend=url)
        listener.settimeout(0.0)
        with pytest.raises(BlockingIOError):
            listener.accept()
    assert "secret" not in repr(load_settings({}, {"backend": url}))
