"""Repeated log lines are counted."""

from __future__ import annotations

import logging

import pytest

from flask_presence.app.log_throttle import LogThrottle


def test_the_same_line_is_logged_once_a_minute_with_a_count(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [100.0]
    monkeypatch.setattr("flask_presence.app.log_throttle.time.monotonic", lambda: clock[0])
    complaints = LogThrottle()
    for _ in range(5):
        complaints.log("a", logging.WARNING, "about %r", "x\ny")
    complaints.log("b", logging.WARNING, "another")
    clock[0] += 61
    complaints.log("a", logging.WARNING, "about %r", "z")
    assert [record.getMessage() for record in caplog.records] == [
        "about 'x\\ny'",
        "another",
        "about 'z' (and 4 more like this since the last line)",
    ]
