"""Code around the extension: middleware, body readers, error reporters and child processes."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from ..support.client import client
from ..support.server import COMMANDS, Server, wait_until
from ..support.variations import variation

APP = "tests.support.variations:create_app()"


def lines_of_trouble(server: Server) -> list[str]:
    return [line for line in server.log().splitlines() if "Traceback" in line or "Error" in line or "SENTRY" in line]


@pytest.mark.parametrize("kind", COMMANDS)
def test_a_connection_to_a_wrapped_app_is_not_reported_as_an_error(kind: str) -> None:
    """The log has no error, and the error reporter gets none. An app that reads every body finds an empty one."""
    with variation("wrapped", kind) as server:
        with ExitStack() as stack:
            ann, bob, _ = (stack.enter_context(client(server)) for _ in range(3))
            for one in (ann, bob):
                one.join("news")
            assert ann.say("news", "hello")["delivered"] == 1
        wait_until(lambda: server.json("/presence/stats")["connections"] == 0)
        assert server.get("/ready")[0] == 200
        server.stop()
        assert lines_of_trouble(server) == []


@pytest.mark.parametrize("kind", ["gunicorn-gthread", "flask-run"])
def test_a_child_process_publishes_and_leaves_the_sockets_alone(kind: str, request: pytest.FixtureRequest) -> None:
    """This holds for servers with threads. A child of a gevent worker runs the greenlets of its parent, which this
    package cannot repair."""
    redis_server = request.getfixturevalue("redis_server")
    backend = {"PRESENCE_BACKEND": redis_server.url, "PRESENCE_REDIS_PREFIX": f"test-child-{kind}"}
    with variation("children", kind, **backend) as server, client(server) as one:
        one.join("news")
        for _ in range(3):
            assert server.json("/publish") is True
            assert one.event()["event"] == "from-a-child"
        assert one.request("ping")["type"] == "pong"
        assert lines_of_trouble(server) == []
