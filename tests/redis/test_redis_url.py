"""The URL of Redis: accepted options, overruled options, and errors that contain no password."""

from __future__ import annotations

import traceback
from typing import Any

import pytest
from flask import Flask

from flask_presence import BackendUnavailable, ConfigurationError, Presence
from flask_presence.backends.redis.client.address import MAX_IDLE, parse_address
from flask_presence.backends.redis.client.cluster import parse_cluster_addresses
from flask_presence.backends.redis.client.sentinel import parse_sentinel_address
from flask_presence.backends.redis.client.server import Server

from ..support.redis_server import RedisServer, running_redis
from ..support.store import Client

OVERRULED = [
    *("decode_responses=True", "protocol=3", "encoding=latin-1", "encoding_errors=replace"),
    *("retry_on_timeout=True", "retry_on_error=1"),
]
TAKEN = ["timeout=20", "max_connections=3", "socket_timeout=2", "socket_connect_timeout=2", "client_name=presence"]
TAKEN += ["health_check_interval=15", "socket_keepalive=True", "db=2"]


@pytest.mark.parametrize("option", OVERRULED + TAKEN)
def test_redis_answers_in_bytes_with_any_option(redis_server: RedisServer, option: str) -> None:
    store = Client(f"redis://127.0.0.1:{redis_server.port}/0?{option}")
    try:
        assert store.ask("ECHO", "\xe4") == "\xe4".encode()
    finally:
        store.close()


def test_the_options_of_the_pool_take_effect() -> None:
    address = parse_address("redis://localhost/4?timeout=20&max_connections=3&health_check_interval=15")
    assert (address.db, address.max_connections, address.pool_timeout, address.max_idle) == (4, 3, 20, 15)
    assert parse_address("unix:///run/redis.sock?db=5").db == 5
    assert parse_address("redis://localhost").max_idle == MAX_IDLE
    assert parse_address("redis://localhost/1?db=2").db == 2


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("redis+other://:s3cret@10.0.0.1:7000/", "redis+other://"),
        ("https://user:s3cret@db.example", "https://"),
        ("postgres://s3cret/x@h", "postgres://"),
        ("s3cret@localhost", "is not a URL"),
        ("redis:s3cret@localhost", "is not a URL"),
        ("redis://:s3cret#x@h:6379/0", "percent-encoded"),
        ("redis://:s3cret/x@h:6379/0", "percent-encoded"),
        ("redis://:s3cret?x@h:6379/0", "percent-encoded"),
        ("redis://user:1234#s3cret@h:6379/0", "percent-encoded"),
        ("redis://user:1234/s3cret@h:6379/0", "percent-encoded"),
        ("redis://user:1234?s3cret@h:6379/0", "percent-encoded"),
        ("redis://user:1234[s3cret@h:6379/0", "'['"),
        ("redis://:1234]s3cret@h:6379/0", "']'"),
        ("redis+sentinel://:[s3cret]@h:6379/service", "'['"),
        ("redis+cluster://:[s3cret@h,[::1]/", "'['"),
        ("redis://:s3cret@h:port/0", "no valid port"),
        ("redis://:s3cret@h/name", "number of a database"),
        ("redis://:s3cret@h/0?colour=red", "'colour'"),
        ("redis://:s3cret@h/0?ssl_cert_reqs=none", "rediss://"),
        ("rediss://:s3cret@h/0?ssl_cert_reqs=perhaps", "options"),
        ("redis://:s3cret@h/0?socket_timeout=soon", "socket_timeout"),
        ("redis://:s3cret@h/0?max_connections=0", "max_connections"),
        ("redis://:s3cret@h/0?db=-1", "db"),
        ("unix://?db=1", "socket"),
    ],
)
def test_an_error_names_the_mistake_and_only_the_scheme_of_the_url(url: str, told: str) -> None:
    app = Flask("address")
    app.config["PRESENCE_BACKEND"] = url
    with pytest.raises(ConfigurationError) as caught:
        Presence(app)
    assert told in str(caught.value)
    assert "s3cret" not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_several_hosts_may_be_ipv6_addresses() -> None:
    """New versions of Python find brackets behind another host wrong."""
    servers = (Server("one", 7000), Server("::1", 7001), Server("fe80::2", 7000))
    text = "u:p%40@one:7000,[::1]:7001,[fe80::2]:7000"
    assert parse_sentinel_address(f"redis+sentinel://{text}/service/2").sentinels.servers == servers
    (address,) = parse_cluster_addresses(f"redis+cluster://{text}/?shards=1").values()
    assert address.cluster.seeds == servers
    assert address.options["password"] == "p@"


def test_a_server_that_repeats_the_password_does_not_bring_it_into_errors(program: str) -> None:
    """A server, or a proxy in front of it, that does not know AUTH tells what it was sent."""
    with running_redis(program, "--rename-command", "AUTH", "") as server:
        where = f"127.0.0.1:{server.port}"
        for url in (
            f"redis://user:s3cret@{where}/0",
            f"redis+sentinel://{where}/service?sentinel_password=s3cret",
            f"redis+cluster://:s3cret@{where}/?shards=1",
        ):
            app = Flask("repeated")
            presence: Any = Presence(app, backend=url)
            with app.app_context(), pytest.raises(BackendUnavailable, match="unknown command 'AUTH'") as caught:
                presence.publish("room", "event", 1)
            assert "s3cret" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("value", [b"redis://:s3cret@h", ["redis://:s3cret@h"], "", None, 5])
def test_a_backend_that_is_not_a_string_raises(value: object) -> None:
    app = Flask("address")
    app.config["PRESENCE_BACKEND"] = value
    with pytest.raises(ConfigurationError, match="must be a URL") as caught:
        Presence(app)
    assert "s3cret" not in str(caught.value)


def test_the_repr_of_the_settings_has_no_password() -> None:
    from flask_presence.settings import load_settings

    assert "s3cret" not in repr(load_settings({"PRESENCE_BACKEND": "redis://:s3cret@localhost"}, {}))
