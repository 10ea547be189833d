"""The rate limit: how many frames a client may send."""

from __future__ import annotations

from contextlib import suppress

from hypothesis import given
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed

from flask_presence.domain.limits import RateLimit

from ..support.client import client
from ..support.server import running


@given(st.lists(st.floats(0, 3), min_size=1, max_size=400))
def test_no_span_of_time_admits_more_than_the_rate_and_the_burst(gaps: list[float]) -> None:
    limit, now, admitted = RateLimit(5, 10, 0.0), 0.0, 0
    for gap in gaps:
        now += gap
        admitted += limit.admit(now)
    assert admitted <= 10 + 5 * now + 1e-6


def test_101_refused_frames_within_ten_seconds_exhaust_the_limit() -> None:
    """Neither 100 frames do so, nor 101 over a longer time."""
    quick = RateLimit(0.001, 1, 0.0)
    quick.admit(0.0)
    for _ in range(100):
        assert not quick.admit(1.0)
    assert not quick.exhausted
    quick.admit(1.0)
    assert quick.exhausted
    slow = RateLimit(0.001, 1, 0.0)
    slow.admit(0.0)
    for number in range(150):
        slow.admit(number * 0.2)
        assert not slow.exhausted


def test_requests_over_the_limit_are_refused_until_the_server_closes() -> None:
    """The refusal repeats the request's id, the close code is 1008, and pings over the limit get no pong."""
    with running(PRESENCE_RATE_LIMIT=[0.01, 5]) as server, client(server) as one, client(server) as pinger:
        answers = [one.request("ping") for _ in range(8)]
        assert [answer["type"] for answer in answers] == ["pong"] * 5 + ["error"] * 3
        assert answers[-1] == {"type": "error", "code": "RATE_LIMIT_EXCEEDED", "message": "Too many requests"}
        with suppress(ConnectionClosed):  # the server may close before the last of them is sent
            for _ in range(110):
                one.send({"type": "ping"})
        assert one.wait_closed() == (1008, "Too many requests")
        pongs = [pinger.socket.ping() for _ in range(8)]
        assert all(pong.wait(10) for pong in pongs[:5])
        assert not any(pong.is_set() for pong in pongs[5:])
