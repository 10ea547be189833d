"""Counts add up over workers, and stay bounded whatever clients do."""

from __future__ import annotations

import math

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from flask_presence.domain.meter import BOUNDS, Histogram, Meter, add, by_label, histogram, subtract
from flask_presence.domain.readings import (
    BUSY_SLOTS,
    SLOT,
    SLOTS,
    Backlog,
    Blocked,
    BusyChannels,
    Reading,
    Survey,
    Traffic,
    WorstLag,
)

counts = st.dictionaries(st.sampled_from(["a", "b|1", "b|2", "c"]), st.integers(0, 10**9))
seconds = st.floats(0, 100)


@given(st.lists(counts))
def test_counts_add_up_and_subtract_by_name(several: list[dict[str, int]]) -> None:
    total = add(*several)
    for name in {name for each in several for name in each}:
        assert total[name] == sum(each.get(name, 0) for each in several)
    for each in several:
        assert add(each, subtract(total, each)) == {**dict.fromkeys(each, 0), **total}


@given(st.lists(st.one_of(st.integers(1000, 4999), st.integers())))
def test_an_unknown_close_code_makes_no_new_label(codes: list[int]) -> None:
    """Every close is counted."""
    meter, labels = Meter(), set(Meter().closed)
    for code in codes:
        meter.count_close(code)
        meter.count_refusal(code)
    assert set(meter.closed) == labels
    assert sum(meter.closed.values()) == sum(meter.refused.values()) == len(codes)
    assert meter.counts().keys() == Meter().counts().keys()


@given(st.lists(seconds), st.lists(seconds))
def test_the_sum_of_two_histograms_is_the_histogram_of_all_values(some: list[float], others: list[float]) -> None:
    meters = [Meter(), Meter()]
    for meter, times in zip(meters, (some, others), strict=True):
        for time in times:
            meter.guards["denied"].observe(time)
    both = histogram(add(*(meter.counts() for meter in meters)), "guards|denied")
    expected = Histogram()
    for time in (*some, *others):
        expected.observe(time)
    assert both.buckets == expected.buckets
    assert math.isclose(both.total, expected.total, abs_tol=1e-9)
    assert both.count == len(some) + len(others)
    for bound, seen in zip(BOUNDS, both.buckets, strict=False):
        assert seen <= sum(time <= bound for time in (*some, *others))


@given(st.integers(0, 50), st.integers(0, 50), st.integers(0, 50))
def test_a_reading_and_what_was_counted_since_add_up_to_the_next_reading(before: int, posted: int, after: int) -> None:
    """This holds for each slot too."""
    earlier = Reading({"received": before}, {7: (before, 0)})
    later = Reading({"received": before + posted + after}, {7: (before + posted, 0), 8: (after, after)})
    rest = later.since(earlier)
    assert rest.counts == {"received": posted + after}
    assert rest.slots == {7: (posted, 0), 8: (after, after)}


def test_a_reading_survives_json() -> None:
    outbox = Backlog(5, 3, 1, (Blocked("c", None, 3),))
    reading = Reading(Meter().counts(), {884: (1, 2)}, {"presence-ä": 0.5}, outbox, 0.25)
    assert msgspec.json.decode(msgspec.json.encode(reading), type=Reading) == reading


def test_a_survey_sums_counts_and_takes_the_worst_lag() -> None:
    one = Reading({"received": 2}, {}, {"a": 3.0}, Backlog(5, 3, 1, (Blocked("c", "ann", 3),)), 0.2)
    two = Reading({"received": 3}, {}, {"a": 4.0, "b": 1.0}, Backlog(9, 9, 1, (Blocked("d", None, 9),)), 0.1)
    dead = Reading({"received": 7}, {}, {"z": 9.0}, Backlog(99, 99, 1), 9.0)
    survey = Survey((one, two), {"received": 10}, {}, (dead,))
    assert survey.counts["received"] == 22
    assert survey.counts["closed|1006"] == 0
    assert survey.busy == {"a": 4.0, "b": 1.0}
    assert survey.lag == 0.2
    assert survey.outbox == Backlog(14, 9, 2, (Blocked("d", None, 9), Blocked("c", "ann", 3)))


@given(st.lists(st.tuples(st.floats(0.05, 5), st.integers(0, 20), st.integers(0, 20)), max_size=40))
def test_every_message_is_in_exactly_one_slot(steps: list[tuple[float, int, int]]) -> None:
    """When all slots are complete, the rates add up to the counts."""
    traffic, now, received, sent = Traffic(), 1_000_000.0, 0, 0
    for wait, came, went in steps:
        now, received, sent = now + wait, received + came, sent + went
        traffic.record(now, received, sent)
    survey = Survey((Reading(slots=traffic.slots),), {}, {})
    come, gone = survey.rates(now + 2 * SLOT + 2)
    assert len(come) == len(gone) == SLOTS
    assert (round(sum(come) * SLOT), round(sum(gone) * SLOT)) == (received, sent)
    traffic.record(now + 3 * SLOT * SLOTS, received, sent)
    assert traffic.slots == {}


def test_the_rate_of_a_channel_is_the_mean_of_the_last_slots() -> None:
    """A quiet channel is forgotten."""
    busy, now = BusyChannels(), 1_000_000.0
    for step in range(BUSY_SLOTS + 1):
        busy.advance(now + step * SLOT)
        busy.current["loud"] = 20
        if not step:
            busy.current["soft"] = 2
    busy.advance(now + (BUSY_SLOTS + 1) * SLOT)
    assert busy.rates() == {"loud": 10.0}
    for step in range(BUSY_SLOTS + 1):
        busy.advance(now + (step + BUSY_SLOTS + 2) * SLOT)
    assert busy.rates() == {}


def test_the_worst_lag_is_kept_for_a_while() -> None:
    lag = WorstLag()
    lag.record(100.0, 0.5)
    lag.record(111.0, 0.1)
    assert lag.worst == 0.5
    lag.record(122.0, 0.2)
    assert lag.worst == 0.2


def test_counts_with_labels_come_back_by_label() -> None:
    meter = Meter()
    meter.joins["presence"] = 3
    assert by_label(meter.counts(), "joins") == {"public": 0, "private": 0, "presence": 3}
