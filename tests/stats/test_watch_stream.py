"""The stream of changes at `/watch`."""

from __future__ import annotations

import http.client
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from ..conftest import on_redis
from ..support.redis_server import RedisServer
from ..support.server import DEADLINE, running, wait_until


@pytest.mark.parametrize(("kind", "most"), [("gunicorn-gevent", 20), ("gunicorn-gthread", 2)])
def test_a_worker_has_a_limited_number_of_streams(redis_server: RedisServer, kind: str, most: int) -> None:
    """A stream that closes makes room for another."""
    with running(kind=kind, **on_redis(redis_server)) as server, ExitStack() as stack, ThreadPoolExecutor(30) as crowd:

        def watch(_: int = 0) -> http.client.HTTPResponse:
            """Open a stream that ends its connection when it is closed. Any other answer is read to its end."""
            connection = http.client.HTTPConnection(server.host, timeout=DEADLINE)
            connection.request("GET", "/presence/watch", headers={"Connection": "close"})
            response = stack.enter_context(connection.getresponse())
            if response.status != 200:
                response.read()
            return response

        streams = list(crowd.map(watch, range(30)))
        open_streams = [stream for stream in streams if stream.status == 200]
        assert len(open_streams) == most
        assert {stream.status for stream in streams} == {200, 503}
        assert server.get("/ready")[0] == 200
        open_streams[0].close()
        wait_until(lambda: watch().status == 200)


def test_a_stream_ends_when_its_reader_loses_the_permission(redis_server: RedisServer) -> None:
    """The stats guard is asked again as often as logins are checked."""
    options = {"PRESENCE_STATS_PUBLIC": False, "PRESENCE_TOKEN_RECHECK": 0.5, "VARIATION": "guarded_pages"}
    with running(app="tests.support.variations:create_app()", **options, **on_redis(redis_server)) as server:
        connection = http.client.HTTPConnection(server.host, timeout=DEADLINE)
        connection.request("GET", "/presence/watch?key=open")
        stream = connection.getresponse()
        assert stream.status == 200
        for _ in range(3):
            assert stream.readline() == b"\n"
        assert server.get("/close")[0] == 200
        assert stream.read().strip() == b""
        connection.close()
        assert server.get("/presence/watch?key=open")[0] == 403


def test_a_stream_does_not_delay_a_server_that_stops() -> None:
    """This holds for a server that never had a socket."""
    with running() as server:
        connection = http.client.HTTPConnection(server.host, timeout=DEADLINE)
        connection.request("GET", "/presence/watch")
        stream = connection.getresponse()
        assert stream.readline() == b"\n"
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(DEADLINE)  # gunicorn would wait for it for thirty seconds
        assert stream.read().strip() == b""
        connection.close()
