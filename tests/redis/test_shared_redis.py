"""Services that share a Redis: the prefix and the number of the database keep them apart."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from ..support.client import client
from ..support.redis_server import RedisServer, running_redis
from ..support.server import running, wait_until


@pytest.fixture(params=["redis://…/N", "redis://…?db=N", "unix://…?db=N"])
def urls(request: pytest.FixtureRequest, program: str, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """Two databases of one Redis."""
    path = tmp_path / "redis.sock"
    with running_redis(program, "--unixsocket", str(path)) as store:
        form = {
            "redis://…/N": f"redis://127.0.0.1:{store.port}/{{}}",
            "redis://…?db=N": f"redis://127.0.0.1:{store.port}?db={{}}",
            "unix://…?db=N": f"unix://{path}?db={{}}",
        }[request.param]
        yield form.format(0), form.format(1)


def test_services_in_two_databases_never_meet(urls: tuple[str, str]) -> None:
    """Each gets all of its own members, messages and control messages."""
    with ExitStack() as stack:
        one, other = (stack.enter_context(running(PRESENCE_BACKEND=url, PRESENCE_LEASE=2)) for url in urls)
        ann, al = (stack.enter_context(client(one, user)) for user in ("ann", "al"))
        also_ann = stack.enter_context(client(other, "ann"))
        for connection in (ann, al, also_ann):
            connection.join("presence-room")
        for number in range(5):
            assert also_ann.say("presence-room", number)["delivered"] == 0
            assert ann.say("presence-room", number)["delivered"] == 1
        assert [al.event()["data"] for _ in range(5)] == [0, 1, 2, 3, 4]
        assert al.silent()
        assert also_ann.silent()
        assert other.json("/presence/stats")["connections"] == 1
        assert other.call("disconnect", user_id="ann") == 1
        assert also_ann.wait_closed()[0] == 4403
        assert ann.say("presence-room", "still here")["delivered"] == 1
        wait_until(lambda: one.call("get_channel_stats")["totalMembers"] == 2)


def test_two_urls_of_one_database_are_one_service(redis_server: RedisServer) -> None:
    prefix = {"PRESENCE_REDIS_PREFIX": "test-same-database"}
    with ExitStack() as stack:
        forms = (f"redis://127.0.0.1:{redis_server.port}/3", f"redis://127.0.0.1:{redis_server.port}?db=3")
        one, other = (stack.enter_context(running(PRESENCE_BACKEND=url, **prefix)) for url in forms)
        ann, bob = stack.enter_context(client(one, "ann")), stack.enter_context(client(other, "bob"))
        ann.join("presence-room")
        bob.join("presence-room")
        assert ann.say("presence-room", "hello")["delivered"] == 1


def test_services_with_two_prefixes_never_meet(redis_server: RedisServer, prefix: str) -> None:
    with ExitStack() as stack:
        servers = [
            stack.enter_context(
                running(PRESENCE_BACKEND=redis_server.url, PRESENCE_REDIS_PREFIX=f"{prefix[:30]}{number}")
            )
            for number in range(2)
        ]
        ann, bob = (
            stack.enter_context(client(server, user)) for server, user in zip(servers, ("ann", "bob"), strict=True)
        )
        ann.join("presence-room")
        assert len(bob.join("presence-room")["members"]) == 1
        assert bob.say("presence-room", "hello")["delivered"] == 0
        assert ann.silent()
        assert servers[0].call("disconnect", user_id="bob") == 0
        assert servers[0].json("/presence/stats")["connections"] == 1
