"""Pending outcomes: they are settled once and passed on in the same step, errors included."""

from __future__ import annotations

from typing import Any

import pytest

from flask_presence.loops.pending import Outcome, Pending, then, when_all


def fail() -> int:
    raise ValueError("no")


def test_callbacks_run_in_the_step_that_settles_the_outcome() -> None:
    """They run in the order in which they were added."""
    log: list[Any] = []
    pending: Pending[int] = Pending()

    def double(outcome: Outcome[int]) -> int:
        log.append(outcome())
        return outcome() * 2

    doubled = pending.then(double)
    pending.when(lambda outcome: log.append(-outcome()))
    assert log == []
    pending.settle(lambda: 3)
    assert log == [3, -3]
    doubled.when(lambda outcome: log.append(outcome()))
    assert log == [3, -3, 6]


def test_an_error_reaches_the_end_of_the_chain_unless_it_is_caught() -> None:
    pending: Pending[int] = Pending()
    chain = pending.then(lambda outcome: outcome() + 1).then(lambda outcome: outcome() + 1)

    def caught(outcome: Any) -> str:
        try:
            return str(outcome())
        except ValueError as problem:
            return f"caught {problem}"

    end = chain.then(caught)
    pending.settle(fail)
    with pytest.raises(ValueError, match="no"):
        chain.when(lambda outcome: outcome())
    end.when(lambda outcome: outcome() == "caught no" or pytest.fail("it was not caught"))


def test_a_callback_that_raises_stops_no_other(caplog: pytest.LogCaptureFixture) -> None:
    """It does not disturb the code that settles the outcome either."""
    pending: Pending[int] = Pending()
    heard: list[int] = []
    pending.when(lambda outcome: [][outcome()])
    pending.when(lambda outcome: heard.append(outcome()))
    pending.settle(lambda: 1)
    assert heard == [1]
    assert "IndexError" in caplog.text


def test_a_step_that_returns_a_pending_outcome_is_waited_for() -> None:
    first: Pending[int] = Pending()
    second: Pending[int] = Pending()

    def add(outcome: Outcome[int]) -> Pending[int]:
        return second.then(lambda other: outcome() + other())

    both: Pending[int] = first.then(add)
    first.settle(lambda: 1)
    seen: list[int] = []
    both.when(lambda outcome: seen.append(outcome()))
    assert seen == []
    second.settle(lambda: 2)
    assert seen == [3]


def test_a_value_is_passed_on_at_once() -> None:
    """Its errors are raised at once."""
    assert then(2, lambda outcome: outcome() + 1) == 3
    with pytest.raises(ValueError, match="no"):
        then(2, lambda _: fail())


def test_when_all_waits_for_every_pending_outcome() -> None:
    """Failures count as settled. If nothing is pending, it calls back at once."""
    seen: list[str] = []
    when_all([None, 3], lambda: seen.append("at once"))
    first: Pending[int] = Pending()
    second: Pending[int] = Pending()
    when_all([first, None, second], lambda: seen.append("later"))
    first.settle(fail)
    assert seen == ["at once"]
    second.settle(lambda: 1)
    assert seen == ["at once", "later"]
