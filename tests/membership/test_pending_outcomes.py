"""Pending outcomes: settled once, passed on in the same step, problems included."""

from __future__ import annotations

from typing import Any

import pytest

from flask_presence.loops.pending import Outcome, Pending, then, when_all


def fail() -> int:
    raise ValueError("no")


def test_then_runs_in_the_step_that_settles() -> None:
    """Whoever settles an outcome has everything done that waited for it, in order."""
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


def test_problems_pass_on() -> None:
    """A problem reaches the end of the chain, or who catches it."""
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


def test_a_fault_is_nobody_elses(caplog: pytest.LogCaptureFixture) -> None:
    """One that waits and fails keeps neither the others nor whoever brought the outcome."""
    pending: Pending[int] = Pending()
    heard: list[int] = []
    pending.when(lambda outcome: [][outcome()])
    pending.when(lambda outcome: heard.append(outcome()))
    pending.settle(lambda: 1)
    assert heard == [1]
    assert "IndexError" in caplog.text


def test_pending_of_pending() -> None:
    """What gives another pending outcome waits for that one."""
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


def test_then_of_a_value() -> None:
    """A value that is there is used at once, and its problems are raised at once."""
    assert then(2, lambda outcome: outcome() + 1) == 3
    with pytest.raises(ValueError, match="no"):
        then(2, lambda _: fail())


def test_when_all() -> None:
    """All that is pending is waited for, failures included; nothing, if nothing is."""
    seen: list[str] = []
    when_all([None, 3], lambda: seen.append("at once"))
    first: Pending[int] = Pending()
    second: Pending[int] = Pending()
    when_all([first, None, second], lambda: seen.append("later"))
    first.settle(fail)
    assert seen == ["at once"]
    second.settle(lambda: 1)
    assert seen == ["at once", "later"]
