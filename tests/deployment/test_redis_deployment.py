"""The ways in which Redis, and the server that uses it, may be set up."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import redis
from flask import Flask
from websockets.exceptions import InvalidStatus

from flask_presence import ConfigurationError, Presence
from flask_presence.backends.redis.client.watch import watch
from flask_presence.backends.redis.store.keys import Keys

from ..support.client import client
from ..support.redis_server import RedisServer, running_redis
from ..support.server import running, wait_until
from ..support.store import Client

ACL = "+@read +@write +@scripting +@pubsub +@connection +time -@dangerous +info"


def talk(**options: Any) -> str:
    """Talk on a server with these options, and return its log."""
    with running(**{"kind": "gunicorn-gevent"} | options) as server, ExitStack() as stack:
        ann, bob = stack.enter_context(client(server, "ann")), stack.enter_context(client(server, "bob"))
        ann.join("presence-room")
        assert len(bob.join("presence-room")["members"]) == 2
        assert ann.say("presence-room", "hello")["delivered"] == 1
        assert bob.event()["data"] == "hello"
        assert server.json("/presence/stats")["connections"] == 2
        assert server.call("disconnect", user_id="bob") == 1
        assert ann.event()["type"] == "presence:member_joined"
        assert ann.event()["type"] == "presence:member_left"
        return server.log()


@pytest.mark.parametrize(
    "options",
    [
        {"arguments": ("--preload", "-w", "3")},
        {"kind": "gunicorn-gthread"},
        {"kind": "gunicorn-gevent-websocket"},
        {"kind": "flask-run"},
        {"kind": "pywsgi"},
    ],
    ids=lambda options: str(options.get("kind", "preload")),
)
def test_every_server_works_with_redis(redis_server: RedisServer, prefix: str, options: dict[str, Any]) -> None:
    """This includes several workers whose app was made before the fork."""
    log = talk(**options, PRESENCE_BACKEND=redis_server.url, PRESENCE_REDIS_PREFIX=prefix)
    assert "Traceback" not in log


def test_gevent_without_patches_is_refused_with_redis(redis_server: RedisServer, prefix: str) -> None:
    """Every command to Redis would stop the loop. The refusal and the log say what to do."""
    options = {"PRESENCE_BACKEND": redis_server.url, "PRESENCE_REDIS_PREFIX": prefix}
    with running(kind="pywsgi-unpatched", **options) as server:
        with pytest.raises(InvalidStatus) as refusal, client(server):
            pass
        assert refusal.value.response.status_code == 503
        assert b"monkey.patch_all()" in (refusal.value.response.body or b"")
        assert "monkey.patch_all()" in server.log()


@pytest.fixture
def restricted(program: str, tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis in which the app is a user with few permissions."""
    users = tmp_path / "users.acl"
    users.write_text(f"user default on nopass ~* &* +@all\nuser app on >secret resetchannels ~shop:* &shop:* {ACL}\n")
    with running_redis(program, "--aclfile", str(users)) as server:
        yield server


def test_the_documented_permissions_of_redis_are_enough(restricted: RedisServer) -> None:
    """`docs/scaling.md` names them."""
    url = restricted.url.replace("redis://", "redis://app:secret@")
    log = talk(PRESENCE_BACKEND=url, PRESENCE_REDIS_PREFIX="shop", PRESENCE_HISTORY={"room": (5, 60)})
    assert "Redis answers with an error" not in log
    changes = watch(Client(url), Keys("shop"), None)
    assert next(changes) is None, "the app may subscribe to all channels"
    changes.close()
    keys = [key.decode() for key in redis.Redis(port=restricted.port).scan_iter()]
    assert "shop:histories" in keys
    assert all(key.startswith("shop:") for key in keys)
    with running(PRESENCE_BACKEND=url, PRESENCE_REDIS_PREFIX="other") as server, client(server, "ann") as ann:
        answer = ann.request("join", channel="room")
        assert (answer["code"], answer["retryable"]) == ("JOIN_FAILED", True)
        wait_until(lambda: "Redis" in server.log() and "ermission" in server.log())


def make_certificate(tmp_path: Path) -> tuple[Path, tuple[str, ...]]:
    """A certificate for this machine, and the options with which Redis uses it."""
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-out", str(certificate), "-keyout", str(key)]
    subprocess.run(command, check=True, capture_output=True)
    files = ("--tls-cert-file", str(certificate), "--tls-key-file", str(key), "--tls-auth-clients", "no")
    return certificate, files


def test_rediss_checks_the_certificate_of_the_server(program: str, tmp_path: Path) -> None:
    certificate, files = make_certificate(tmp_path)
    with running_redis(program, *files, tls=True) as server:
        url = f"rediss://127.0.0.1:{server.port}/0?ssl_ca_certs={certificate}"
        log = talk(PRESENCE_BACKEND=url, arguments=("--preload",))
        assert "Traceback" not in log
        with running(PRESENCE_BACKEND=f"rediss://127.0.0.1:{server.port}/0") as without_certificate:
            with client(without_certificate) as one:
                assert one.request("join", channel="room")["code"] == "JOIN_FAILED"


def test_a_unix_url_names_the_socket_file(program: str, tmp_path: Path) -> None:
    path = f"/tmp/redis-{os.getpid()}.sock"
    with running_redis(program, "--unixsocket", path):
        talk(PRESENCE_BACKEND=f"unix://{path}")


def test_a_redis_that_evicts_keys_causes_a_warning(program: str) -> None:
    with running_redis(program, "--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru") as server:
        assert "maxmemory-policy allkeys-lru" in talk(PRESENCE_BACKEND=server.url)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"PRESENCE_BACKEND": "redis://localhost:port/0"}, "no valid port"),
        ({"PRESENCE_BACKEND": "postgres://localhost"}, "the backends are"),
        ({"PRESENCE_REDIS_PREFIX": "a:b"}, "1 to 32 letters"),
        ({"PRESENCE_LEASE": 0.5}, "1 or more"),
    ],
)
def test_a_wrong_setting_of_redis_raises_at_start(settings: dict[str, Any], text: str) -> None:
    app = Flask("bad")
    app.config.update(settings)
    with pytest.raises(ConfigurationError, match=text):
        Presence(app)
