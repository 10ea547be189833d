"""When a worker compares its copies with Redis, by a pretended clock."""

from __future__ import annotations

import itertools
from collections import defaultdict

import pytest

from flask_presence.backends.redis.worker.comparisons import LONGEST, RATE, SHORTEST, SOON_AFTER, Comparisons

TICK = 0.1


class Clock:
    """Calls `due` ten times a second, and notes the times of each channel's turns."""

    def __init__(self) -> None:
        self.comparisons = Comparisons()
        self.now = 1000.0
        self.turns: dict[str, list[float]] = defaultdict(list)

    def pass_time(self, seconds: float) -> list[int]:
        """Returns how many turns there were in each second."""
        counts = []
        for tick in range(round(seconds / TICK)):
            self.now += TICK
            due = self.comparisons.due(self.now)
            for channel in due:
                self.turns[channel].append(self.now)
            if tick % round(1 / TICK) == 0:
                counts.append(0)
            counts[-1] += len(due)
        return counts

    def add(self, count: int) -> None:
        for number in range(count):
            self.comparisons.add(str(number), self.now)


@pytest.mark.parametrize(("count", "most", "longest"), [(1, 1, SHORTEST), (600, RATE, SHORTEST), (3000, RATE, 150.0)])
def test_the_more_copies_there_are_the_longer_each_waits_for_its_turn(count: int, most: int, longest: float) -> None:
    clock = Clock()
    clock.add(count)
    assert max(clock.pass_time(4 * longest)) <= most + 2
    assert len(clock.turns) == count
    gaps = [later - earlier for turns in clock.turns.values() for earlier, later in itertools.pairwise(turns)]
    assert min(gaps) > longest - 1
    assert max(gaps) < longest + 1


def test_no_copy_waits_longer_than_five_minutes() -> None:
    clock = Clock()
    clock.add(12_000)
    assert max(clock.pass_time(2 * LONGEST + 2 * SHORTEST)) <= 2 * RATE + 5
    gaps = [later - earlier for turns in clock.turns.values() for earlier, later in itertools.pairwise(turns)]
    assert len(gaps) >= 12_000
    assert max(gaps) < LONGEST + 1


def test_a_few_copies_are_compared_at_once_after_an_outage_and_many_one_after_another() -> None:
    """No copy is compared too soon for the commands that Redis may still carry out."""
    for count, within in ((1, 2 * SOON_AFTER), (20, 2 * SOON_AFTER + 0.2), (2000, SOON_AFTER + 2000 / RATE)):
        clock = Clock()
        clock.add(count)
        clock.pass_time(100)
        clock.turns.clear()
        clock.comparisons.begin_soon(clock.now)
        assert max(clock.pass_time(SOON_AFTER - TICK)) == 0
        assert max(clock.pass_time(within - SOON_AFTER + 2 * TICK)) <= RATE + 2
        assert len(clock.turns) == count


def test_a_process_that_stood_still_does_not_make_up_for_all_turns_at_once() -> None:
    clock = Clock()
    clock.add(3000)
    clock.pass_time(60)
    clock.now += 120
    assert max(clock.pass_time(10)) <= 2 * RATE + 2


def test_a_closed_channel_has_no_turn() -> None:
    clock = Clock()
    clock.add(2)
    clock.comparisons.remove("0")
    clock.pass_time(4 * SHORTEST)
    clock.comparisons.remove("1")
    clock.pass_time(4 * SHORTEST)
    assert list(clock.turns) == ["1"]
    clock.add(1)  # long after its last turn was due
    assert max(clock.pass_time(SHORTEST / 2 - 1)) == 0
