"""A worker's estimate of the time in Redis."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_presence.backends.redis.worker.redis_clock import RedisClock
from flask_presence.domain.errors import BackendUnavailable


def test_the_fastest_answer_counts() -> None:
    """The time of an answer is in the middle between request and reply."""
    clock = RedisClock()
    assert clock.at(5) == 0
    clock.sample(0, 4, 9_000)
    assert clock.at(4) == 11_000
    clock.sample(5, 5.5, 12_250)
    assert clock.at(6) == 13_000
    clock.sample(7, 9, 50_000)
    assert clock.at(9) == 16_000
    clock.clear()
    assert clock.at(9) == 0


@given(
    st.lists(
        st.tuples(st.floats(0, 5), st.floats(0, 5), st.floats(0, 2)),
        min_size=1,
        max_size=30,
    ),
    st.lists(st.floats(0, 400), min_size=2, max_size=30),
)
def test_the_clock_never_goes_back(answers: list[tuple[float, float, float]], moments: list[float]) -> None:
    """Moments that were asked about before keep their order with later ones, however slow the answers are."""
    clock, moment, shown = RedisClock(), 0.0, list[tuple[float, int]]()
    for there, back, pause in answers:
        received_at = moment + there + back
        clock.sample(moment, received_at, (moment + there) * 1000 + 1_000_000)
        shown.append((received_at, clock.at(received_at)))
        moment = received_at + pause
        shown.append((moment, clock.at(moment)))
    assert [time for _, time in shown] == sorted(time for _, time in shown)
    later = [(one, clock.at(one)) for one in sorted(moments)]
    assert [time for _, time in later] == sorted(time for _, time in later)


def test_what_waits_for_the_first_answer_fails_if_there_is_none() -> None:
    """It is settled by the next answer after that."""
    clock = RedisClock()
    failed, known = list[Callable[[], str]](), list[Callable[[], str]]()
    clock.known.map(lambda _: "known").when(failed.append)
    clock.give_up(BackendUnavailable("away"))
    clock.known.map(lambda _: "known").when(known.append)
    clock.sample(0, 1, 5)
    with pytest.raises(BackendUnavailable):
        failed[0]()
    assert known[0]() == "known"
