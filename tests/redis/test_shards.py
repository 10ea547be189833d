"""A service with shards: what goes where, and what is left if one of them fails."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest
import redis
from flask import Flask
from hypothesis import given
from hypothesis import strategies as st
from websockets.exceptions import InvalidStatus

from flask_presence import Presence
from flask_presence.backends.redis.client.address import SOCKET_TIMEOUT
from flask_presence.backends.redis.shards.sharding import Sharding
from flask_presence.domain.errors import ConfigurationError
from flask_presence.settings import load_settings

from ..conftest import on_redis
from ..server_api.test_cli import run, succeed
from ..stats.test_stats_page import LIVE
from ..support.browser import Browser, expect
from ..support.client import Client, client
from ..support.metrics import scrape, value
from ..support.redis_server import RedisServer, running_redis
from ..support.server import DEADLINE, Server, running, wait_until
from ..support.shards import (
    LABELS,
    ShardedService,
    channel_in,
    empty,
    kill,
    pause,
    running_shards,
    user_in,
)
from .test_several_workers import pid_of, settled

LEASE = 2.0
PREFIX = "fp"
PASSWORD = "p@ss/w0rd?#"
LABEL = st.from_regex(r"[A-Za-z0-9_.-]{1,32}", fullmatch=True)


# Which shard


@pytest.mark.parametrize("labels", [["a", "b", "c", "d"], ["0", "1", "2", "3"], ["redis-1", "redis-2", "redis-3", "x"]])
def test_channels_spread_evenly(labels: list[str]) -> None:
    names = Counter(Sharding(labels).of_channel(f"presence-room-{number}") for number in range(10_000))
    assert max(names.values()) <= 3000
    assert len(names) == 4


@given(st.sets(LABEL, min_size=1, max_size=6), st.lists(st.text(min_size=1), max_size=20), st.randoms())
def test_the_order_of_the_labels_does_not_matter(labels: set[str], names: list[str], random: Any) -> None:
    shuffled = list(labels)
    random.shuffle(shuffled)
    one, other = Sharding(labels), Sharding(shuffled)
    assert one.control == other.control in labels
    for name in names:
        assert one.of_channel(name) == other.of_channel(name) in labels
        assert one.of_user(name) == other.of_user(name) == one.home("any client", name)
        assert one.home(name, None) == other.home(name, None)


@given(st.sets(LABEL, min_size=1, max_size=6), LABEL, st.lists(st.text(min_size=1), max_size=50))
def test_a_new_label_only_takes_and_never_moves_anything_between_the_others(
    labels: set[str], new: str, names: list[str]
) -> None:
    before, after = Sharding(labels), Sharding({*labels, new})
    for name in names:
        assert after.of_channel(name) in (before.of_channel(name), new)
        assert after.of_user(name) in (before.of_user(name), new)


def test_a_fifth_shard_takes_about_a_fifth() -> None:
    names = [f"presence-room-{number}" for number in range(10_000)]
    four, five = Sharding("abcd"), Sharding("abcde")
    moved = sum(four.of_channel(name) != five.of_channel(name) for name in names)
    assert 1600 < moved < 2400


# Settings

URL = "redis://:p%40ss%2Fw0rd%3F%23@127.0.0.1:1/0"


@pytest.mark.parametrize(
    ("backend", "text"),
    [
        ({}, "is an empty mapping"),
        ({"": URL}, "label"),
        ({"a b": URL}, "label"),
        ({"x" * 33: URL}, "label"),
        ({1: URL}, "label"),
        ({URL: "a"}, "label"),
        ({"a": ""}, "PRESENCE_BACKEND['a'] must be a URL"),
        ({"a": URL, "b": None}, "PRESENCE_BACKEND['b'] must be a URL"),
        ({"a": URL, "b": "memory://"}, "PRESENCE_BACKEND['b'] is 'memory://'"),
        ({"a": URL, "b": URL.replace("redis", "http", 1)}, "PRESENCE_BACKEND['b'] begins with http://"),
        ({"a": URL, "b": URL.removeprefix("redis://")}, "PRESENCE_BACKEND['b'] is not a URL"),
        ({"a": URL, "b": "redis://:p@ss/w0rd?#@127.0.0.1:1/0"}, "PRESENCE_BACKEND['b'] (redis://…) is not valid"),
        ({"a": URL, "b": f"{URL}?db=0"}, "the shards 'a' and 'b' the same database"),
        ({"a": URL, "b": URL.replace("127.0.0.1", "LOCALHOST")}, "the shards 'a' and 'b' the same database"),
        ({"a": "unix:///run/r.sock", "b": "unix:///run/r.sock?db=0"}, "the same database"),
        ({"a": "redis+sentinel://h,i/s/0", "b": "redis+sentinel://i:26379,h/s/0"}, "the same database"),
        ([URL], "mapping of labels"),
    ],
)
def test_wrong_shards_say_what_is_wrong_and_show_no_password(backend: Any, text: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        Presence(Flask("wrong"), backend=backend)
    assert text in str(raised.value)
    for part in (PASSWORD, "p%40ss", "w0rd"):
        assert part not in str(raised.value)


def test_nothing_connects_when_the_app_is_created_and_settings_show_no_url() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        urls = {"a": f"redis://:secret@127.0.0.1:{port}/0", "b": f"redis+sentinel://:secret@127.0.0.1:{port}/s/0"}
        Presence(Flask("lazy"), backend=urls)
        listener.settimeout(0.0)
        with pytest.raises(BlockingIOError):
            listener.accept()
    shown = repr(load_settings({}, {"backend": urls}))
    assert "secret" not in shown
    assert str(port) not in shown


# What goes where


@pytest.fixture(scope="module")
def running_service(program: str) -> Iterator[ShardedService]:
    with running_shards(program, PRESENCE_LEASE=LEASE, PRESENCE_GRACE=60, PRESENCE_GRACE_ABRUPT=0) as service:
        yield service


@pytest.fixture
def service(running_service: ShardedService) -> Iterator[ShardedService]:
    with running_service.used():
        yield running_service


def test_a_channel_is_in_its_own_shard_only(service: ShardedService, name: str) -> None:
    """Every server lists the channels of all shards, in one order, and counts each connection once."""
    ann, bob = service.enter(0, "ann"), service.enter(1, "bob")
    channels = [channel_in(label, name) for label in LABELS]
    for channel in channels:
        ann.join(channel)
        assert [member["id"] for member in bob.join(channel)["members"]] == ["ann", "bob"]
        assert ann.event()["member"]["id"] == "bob"
        assert ann.say(channel, "hello")["delivered"] == 1
        assert bob.event()["data"] == "hello"
    for label, channel in zip(LABELS, channels, strict=True):
        there = [other for other in LABELS if service.admin(other).exists(f"{PREFIX}:channel:{{{channel}}}:members")]
        assert there == [label]
    for server in service.servers:
        listed = server.json("/presence/channels")
        assert [one["name"] for one in listed["channels"]] == channels
        assert "unavailable" not in listed
        stats = server.json("/presence/stats")
        assert (stats["connections"], stats["totalMembers"], stats["channels"]) == (2, 6, 3)
        assert server.json(f"/presence/channels/{channels[2]}")["memberCount"] == 2
        assert server.json("/presence/activity")["workers"] == 2


def test_a_message_costs_nothing_in_the_other_shards(service: ShardedService, name: str) -> None:
    """There, the workers only tell that they are alive."""
    ann, bob = service.enter(0, "ann"), service.enter(1, "bob")
    channel = channel_in("b", name)
    ann.join(channel)
    bob.join(channel)

    def scripts() -> dict[str, int]:
        stats = {label: service.admin(label).info("commandstats") for label in LABELS}
        return {label: found["cmdstat_evalsha"]["calls"] for label, found in stats.items()}

    before = scripts()
    for number in range(150):
        ann.say(channel, number)
    used = {label: count - before[label] for label, count in scripts().items()}
    assert used["b"] >= 150
    assert max(used["a"], used["c"]) < 75


def test_a_user_is_found_wherever_they_are(service: ShardedService, name: str) -> None:
    """An anonymous connection that logs in is counted, and found, as one of its user."""
    for label in LABELS:
        user = user_in(label, name)
        one = service.enter(0)
        one.join(channel_in("a", name, ""))
        assert service.servers[1].call("is_online", user_id=user) is False
        assert one.request("auth", token=service.servers[0].token(user))["type"] == "auth:ok"
        wait_until(lambda user=user: service.servers[1].call("is_online", user_id=user))  # type: ignore[misc]
        assert service.servers[1].call("send_to_user", user_id=user, event="news", data=1) == 1
        assert one.event()["data"] == 1
        assert service.servers[1].json("/presence/stats")["connections"] == LABELS.index(label) + 1
        for other in LABELS:
            where = service.admin(other)
            found = [one.id.encode() in where.hkeys(key) for key in where.scan_iter(f"{PREFIX}:worker:*:clients")]
            assert any(found) == (other == label)


def test_the_server_reaches_connections_in_every_shard(service: ShardedService, name: str) -> None:
    """`disconnect` by user and by client, `remove`, and `recheck` count each connection once."""
    for label in LABELS:
        user, channel = user_in(label, name), channel_in(label, name)
        first, second = service.enter(0, user), service.enter(1, user)
        for one in (first, second):
            one.join(channel)
        for arguments in ({"user_id": user}, {"channel": channel}, {"user_id": user, "channel": channel}):
            assert service.servers[0].call("recheck", **arguments) == 2
        assert service.servers[1].call("remove", name=channel, user_id=user) == 2
        assert {one.event()["type"] for one in (first, second)} == {"channel:removed"}
        first.join(channel)
        assert service.servers[1].call("disconnect", client_id=first.id) == 1
        assert service.servers[0].call("disconnect", user_id=user) == 1
        assert [one.wait_closed()[0] for one in (first, second)] == [4403, 4403]


def test_watching_shows_the_changes_of_all_shards(service: ShardedService, name: str) -> None:
    presence, app = app_of(service)
    with app.app_context():
        changes = presence._hub.directory.watch()
        assert next(changes) is None
        ann = service.enter(0, "ann")
        for label in LABELS:
            ann.join(channel_in(label, name))
        seen: set[str] = set()
        while len(seen) < len(LABELS):
            change = next(changes)
            seen |= {str(change[0])} if change is not None else set()
        assert seen == {channel_in(label, name) for label in LABELS}
        changes.close()


def app_of(service: ShardedService, **more: Any) -> tuple[Any, Flask]:
    """An app in this process that belongs to the service."""
    app = Flask("another")
    app.config.update(service.config | more)
    return Presence(app), app


# Shards that fail

WAYS = [kill, pause]


@pytest.mark.parametrize("harm", WAYS)
@pytest.mark.parametrize("label", ["a", "c"], ids=["the control shard", "another shard"])
def test_a_shard_that_fails_takes_only_its_channels_with_it(
    service: ShardedService, name: str, label: str, harm: Callable[[RedisServer], None]
) -> None:
    """Nobody hears anything of it, except by asking about a channel of that shard."""
    channels = {other: channel_in(other, name) for other in LABELS}
    people = [service.enter(0, user_in("a", name)), service.enter(1, user_in("b", name))]
    for one in people:
        for channel in channels.values():
            one.join(channel)
    settled(people[0], [("member_joined", people[1].connected["user"]["id"])] * 3)
    harm(service.shards[label])
    says_so(service, label)
    kept = [other for other in LABELS if other != label]
    for other in kept:
        for sender, reader in (people, people[::-1]):
            assert sender.say(channels[other], "still here")["delivered"] == 1
            assert reader.event()["data"] == "still here"
    late = service.enter(0, user_in(label, f"late-{name}"))
    for other in kept:
        assert len(late.join(channels[other])["members"]) == 3
        late.request("leave", channel=channels[other])
    for one in (*people, late):
        answer = one.request("join", channel=channel_in(label, f"new-{name}"))
        assert (answer["type"], answer["code"]) == ("error", "JOIN_FAILED")
        assert answer["retryable"]
    assert people[0].request("channel:message", channel=channels[label], data=1)["code"] == "SEND_FAILED"
    for one, expected in zip(people, (2, 2), strict=True):
        heard = [(event["type"], event["channel"]) for event in one.events()]
        assert len(heard) == 2 * expected, heard
        assert {channel for _, channel in heard} == {channels[other] for other in kept}
    for server in service.servers:
        check_what_is_left(server, label, channels)
    service.mend()
    for one in people:
        wait_until(lambda one=one: one.request("channel:message", channel=channels[label], data=1)["type"] != "error")  # type: ignore[misc]
    assert [change for one in people for change in changes_of(one)] == []
    for server in service.servers:
        wait_until(lambda server=server: server.json("/presence/stats")["connections"] == 3)  # type: ignore[misc]


def changes_of(one: Client) -> list[tuple[str, str]]:
    return [(event["type"], event["channel"]) for event in one.events() if "member" in event]


def says_so(service: ShardedService, label: str) -> None:
    """Wait until `/health` of every server names the shard, and only that one."""
    for server in service.servers:

        def is_known(server: Server = server) -> bool:
            status, _, body = server.get("/presence/health")
            states = json.loads(body).get("shards", {})
            return status == 503 and {other for other, state in states.items() if state != "ok"} == {label}

        wait_until(is_known)
        health = json.loads(server.get("/presence/health")[2])
        assert health["status"] == "unavailable"
        assert f"Shard {label!r}" in health["message"]


def check_what_is_left(server: Server, label: str, channels: dict[str, str]) -> None:
    """Lists, pages and metrics give what is left, and name the shard. A question about a channel of it fails."""
    listed = server.json("/presence/channels")
    assert listed["unavailable"] == [label]
    assert {one["name"] for one in listed["channels"]} == {name for other, name in channels.items() if other != label}
    stats = server.json("/presence/stats")
    assert (stats["unavailable"], stats["channels"]) == ([label], 2)
    assert server.json("/presence/activity")["unavailable"] == [label]
    assert f"Shards that do not answer: {label}." in server.get("/presence/")[2]
    for other, channel in channels.items():
        assert server.get(f"/presence/channels/{channel}")[0] == (503 if other == label else 200)
        assert server.call("get_channel", name=channel).get("raised") == (
            "BackendUnavailable" if other == label else None
        )
    samples = scrape(server)
    assert value(samples, "backend_up") == 0
    assert {other: value(samples, "shard_up", shard=other) for other in LABELS} == {
        other: float(other != label) for other in LABELS
    }
    assert value(samples, "channels", type="presence") == 2


def test_questions_to_a_shard_that_hangs_fail_at_once(service: ShardedService, name: str) -> None:
    """They do not wait until it has timed out, or they would occupy the threads of a server that has few."""
    service.enter(0, "ann")
    pause(service.shards["c"])
    says_so(service, "c")
    channel, user = channel_in("c", name), user_in("c", name)
    questions: list[tuple[str, dict[str, Any]]] = [
        ("get_channel", {"name": channel}),
        ("get_channel_members", {"name": channel}),
        ("publish", {"name": channel, "event": "e", "data": 1}),
        ("remove", {"name": channel, "user_id": "ann"}),
        ("recheck", {"channel": channel}),
        ("disconnect", {"user_id": user}),
        ("is_online", {"user_id": user}),
        ("send_to_user", {"user_id": user, "event": "e", "data": 1}),
    ]
    began_at = time.monotonic()
    for method, arguments in questions:
        assert service.servers[0].call(method, **arguments).get("raised") == "BackendUnavailable", method
    assert time.monotonic() - began_at < len(questions) * SOCKET_TIMEOUT / 2


def test_an_emptied_shard_is_restored_and_nobody_notices(service: ShardedService, name: str) -> None:
    channels = [channel_in(label, name) for label in LABELS]
    people = [service.enter(0, "ann"), service.enter(1, "bob")]
    for one in people:
        for channel in channels:
            one.join(channel)
    settled(people[0], [("member_joined", "bob")] * 3)
    empty(service.shards["b"])
    for one in people:
        for channel in (channels[0], channels[2]):
            assert one.say(channel, "hello")["delivered"] == 1
    for server in service.servers:
        wait_until(lambda server=server: server.json("/presence/stats")["totalMembers"] == 6)  # type: ignore[misc]
        wait_until(lambda server=server: server.json("/presence/stats")["connections"] == 2)  # type: ignore[misc]
    for one in people:
        wait_until(lambda one=one: one.say(channels[1], "hello")["delivered"] == 1)  # type: ignore[misc]
        assert {event["type"] for event in one.events()} == {"channel:message"}


def test_the_pages_fail_only_if_no_shard_answers(service: ShardedService) -> None:
    for shard in service.shards.values():
        kill(shard)
    server = service.servers[0]
    wait_until(lambda: server.get("/presence/stats")[0] == 503)
    status, _, body = server.get("/presence/health")
    assert status == 503
    assert set(json.loads(body)["shards"]) == set(LABELS)
    one = service.enter(0)
    assert one.request("ping")["type"] == "pong"


def test_disconnect_ends_grace_periods_in_every_shard(service: ShardedService, name: str) -> None:
    """It does so in a shard that is away once that is back, and nothing of the user is left."""
    user, channels = user_in("a", name), [channel_in(label, name) for label in LABELS]
    watcher = service.enter(1, "watcher")
    with running(**service.config) as leaving, client(leaving, user) as one:
        for channel in channels:
            watcher.join(channel)
            one.join(channel)
        settled(watcher, [("member_joined", user)] * 3)
        leaving.process.send_signal(signal.SIGTERM)
        assert one.wait_closed()[0] == 1001
        leaving.process.wait(DEADLINE)
    assert changes_of(watcher) == []
    kill(service.shards["b"])
    says_so(service, "b")
    assert service.servers[0].call("disconnect", user_id=user) == 0
    settled(watcher, [("member_left", user)] * 2)
    service.mend()
    settled(watcher, [("member_left", user)])
    assert watcher.silent()


def test_the_connections_of_a_killed_worker_end_once(service: ShardedService, name: str) -> None:
    """Each leaves the channels of every shard, with its user, and its end is announced by its home alone."""
    channels = [channel_in(label, name, kind) for label in LABELS for kind in ("presence-", "private-", "")]
    watcher = service.enter(0, "watcher")
    for channel in channels:
        watcher.join(channel)
    with running(**service.config) as doomed, ExitStack() as stack:
        lost = {user: stack.enter_context(client(doomed, user)) for user in (user_in(label, name) for label in LABELS)}
        anonymous = stack.enter_context(client(doomed))
        for one in lost.values():
            for channel in channels:
                one.join(channel)
        anonymous.join(channel_in("a", name, ""))
        settled(watcher, [("member_joined", user) for user in lost for _ in LABELS])
        os.kill(pid_of(anonymous), signal.SIGKILL)
        settled(watcher, [("member_left", user) for user in lost for _ in LABELS])
        for user, one in [*lost.items(), (None, anonymous)]:
            wanted = {"channel.left": 9, "member.left": 3} if user else {"channel.left": 1}

            def heard(one: Client = one) -> list[Any]:
                return [event for server in service.servers for event in server.json(f"/heard/{one.id}")]

            def is_over(heard: Any = heard, wanted: Any = wanted) -> bool:
                return bool(Counter(event["name"] for event in heard()) == {**wanted, "client.disconnected": 1})

            wait_until(is_over)
            assert {event["user"] for event in heard()} == {user}
        for server in service.servers:
            wait_until(lambda server=server: server.json("/presence/stats")["connections"] == 1)  # type: ignore[misc]
        assert_nothing_left(service)


def assert_nothing_left(service: ShardedService) -> None:
    """Only the two running workers have keys."""
    for label in LABELS:
        where = service.admin(label)
        wait_until(lambda where=where: where.scard(f"{PREFIX}:workers") == 2)  # type: ignore[misc]
        alive = {worker.decode() for worker in where.smembers(f"{PREFIX}:workers")}
        owned = {key.decode().split(":")[2] for key in where.scan_iter(f"{PREFIX}:worker:*")}
        assert owned <= alive


# The layout


def refusal(server: Server) -> str:
    """What the server tells a client that it refuses."""
    with pytest.raises(InvalidStatus) as refused, client(server):
        pass
    assert refused.value.response.status_code == 503
    return str(json.loads(refused.value.response.body)["error"]["message"])


def test_a_worker_with_other_labels_is_refused_while_one_with_the_old_ones_lives(program: str) -> None:
    """When the last one has ended, the new list counts; then the old one is refused."""
    with running_shards(program, PRESENCE_LEASE=LEASE) as service, running_redis(program) as fourth:
        more = service.config | {"PRESENCE_BACKEND": service.config["PRESENCE_BACKEND"] | {"d": fourth.url}}
        ann = service.enter(0, "ann")
        ann.join("presence-room")
        with running(**more) as newer:
            with ThreadPoolExecutor(8) as crowd:
                (text,) = set(crowd.map(lambda _: refusal(newer), range(24)))
            assert "'a', 'b', 'c', 'd' here" in text
            assert "'a', 'b', 'c' for workers that are alive" in text
            status, _, body = newer.get("/presence/health")
            assert (status, json.loads(body)["status"], json.loads(body)["message"]) == (503, "refusing", text)
            with redis.Redis(port=fourth.port) as admin:
                assert admin.zcard(f"{PREFIX}:leases") == 0, "a refused worker keeps others out"
            ann.say("presence-room", "undisturbed")
            for label in "abcd":  # the workers do not know 'd', so nobody would hear what is sent there
                channel = next(name for name in map(str, range(1000)) if Sharding("abcd").of_channel(name) == label)
                published = run("publish", channel, "x", "1", **more)
                assert published.exit_code == 1, label
                assert "'a', 'b', 'c' for workers that are alive" in published.stderr
            for server in service.servers:
                server.kill()

            wait_until(lambda: not is_refused(newer))
            with client(newer, "bob"), running(**service.config) as older:
                assert "'a', 'b', 'c' here" in refusal(older)
                shards = json.loads(succeed("layout", "--json", **more))["shards"]
                assert [(one["label"], one["workers"]) for one in shards] == [(label, 1) for label in "abcd"]


def test_one_database_under_two_names_is_noticed(redis_server: RedisServer) -> None:
    urls = {"a": redis_server.url, "b": redis_server.url.replace("127.0.0.1", "127.1")}
    with running(**on_redis(redis_server) | {"PRESENCE_BACKEND": urls, "PRESENCE_LEASE": LEASE}) as server:
        assert "the database that is shard" in refusal(server)


@pytest.mark.parametrize("first", ["a single URL", "shards"])
def test_a_single_url_and_shards_do_not_meet_on_one_database(program: str, first: str) -> None:
    with running_redis(program) as one, running_redis(program) as two:
        kinds: dict[str, Any] = {"a single URL": one.url, "shards": {"a": one.url, "b": two.url}}
        (second,) = set(kinds) - {first}
        with (
            running(PRESENCE_BACKEND=kinds[first]) as server,
            client(server),
            running(PRESENCE_BACKEND=kinds[second]) as late,
        ):
            wait_until(lambda: is_refused(late))
            text = json.loads(late.get("/presence/health")[2])["message"]
            assert "is a single URL" in text
            assert "the shards 'a', 'b'" in text
            published = run("publish", "room", "x", "1", PRESENCE_BACKEND=kinds[second])
            assert published.exit_code == 1
            assert "is a single URL" in published.stderr


def is_refused(server: Server) -> bool:
    try:
        with client(server):
            return False
    except InvalidStatus:
        return True


def test_the_layout_command_lists_the_shards(service: ShardedService, name: str) -> None:
    ann = service.enter(0, "ann")
    for label in LABELS:
        ann.join(channel_in(label, name))
    kill(service.shards["c"])
    says_so(service, "c")
    lines = [line.split() for line in succeed("layout", **service.config).splitlines()]
    assert lines[0][:4] == ["SHARD", "STATE", "CHANNELS", "WORKERS"]
    assert lines[1][:4] == ["a", "answers", "1", "2"]
    assert lines[2][:4] == ["b", "answers", "1", "2"]
    assert lines[3][0] == "c"
    assert lines[3][-2:] == ["-", "-"]
    shards = json.loads(succeed("layout", "--json", **service.config))["shards"]
    assert [one["control"] for one in shards] == [True, False, False]
    assert shards[2]["problem"] == "The state store is unreachable"
    assert "shard c" in succeed("stats", **service.config)
    assert "shard c" in succeed("channels", **service.config)
    assert run("members", channel_in("c", name), **service.config).exit_code == 1


def test_the_page_names_a_shard_that_does_not_answer(service: ShardedService, browser: Browser, name: str) -> None:
    """A page that was open, and one that is opened then. A channel of that shard is unknown, the others are listed."""
    server, ann = service.servers[0], service.enter(0, "ann")
    channels = {label: channel_in(label, name) for label in LABELS}
    for channel in channels.values():
        ann.join(channel)
    with browser.new_context() as early_context, browser.new_context() as late_context:
        early, late = early_context.new_page(), late_context.new_page()
        early.goto(f"{server.origin}/presence/?channel={channels['c']}")
        expect(early.locator("[data-summary]")).to_have_text("1 members", timeout=LIVE)
        expect(early.locator("#unavailable")).to_be_hidden()
        kill(service.shards["c"])
        says_so(service, "c")
        late.goto(f"{server.origin}/presence/?channel={channels['c']}")
        for page in (early, late):
            expect(page.locator("#unavailable")).to_contain_text("Shards that do not answer: c.", timeout=LIVE)
            expect(page.locator("[data-summary]")).to_have_text("Unknown: its shard does not answer.", timeout=LIVE)
            expect(page.get_by_role("status")).to_have_text("Live", timeout=LIVE)
            expect(page.locator("#channels > tr")).to_have_count(2, timeout=LIVE)
        service.mend()
        for page in (early, late):
            expect(page.locator("#unavailable")).to_be_hidden(timeout=LIVE)
            expect(page.locator("[data-summary]")).to_have_text("1 members", timeout=LIVE)


def test_the_layout_command_needs_shards(redis_server: RedisServer) -> None:
    for config, text in (({}, "memory://"), (on_redis(redis_server), "single Redis")):
        result = run("layout", **config)
        assert result.exit_code == 1
        assert text in result.stderr
