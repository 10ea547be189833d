"""Faults in the server: answered with their codes, and nothing is left half done."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
from flask import Flask

from flask_presence import BackendUnavailable, Presence, User
from flask_presence.app import service
from flask_presence.app.log_throttle import LogThrottle
from flask_presence.backends.memory import MemoryBackend
from flask_presence.domain.channels import ChannelName
from flask_presence.domain.events import Reason
from flask_presence.domain.roster import Change


class FaultyBackend(MemoryBackend):
    """The memory backend, with a problem when it is told to have one."""

    problem: Exception | None = None

    def _check(self) -> None:
        if self.problem is not None:
            raise self.problem

    def join(self, *arguments: Any) -> Any:
        self._check()
        return super().join(*arguments)

    def leave(
        self, channel: ChannelName, client_id: str, now: datetime, reason: Reason, *, grace: float = 0
    ) -> Change | None:
        self._check()
        return super().leave(channel, client_id, now, reason, grace=grace)

    def update(self, *arguments: Any) -> Any:
        self._check()
        return super().update(*arguments)

    def publish(self, *arguments: Any) -> int:
        self._check()
        return super().publish(*arguments)


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Any, FaultyBackend]]:
    """A client in `presence-room`, and the backend that it is in."""
    app = Flask("presence-faulty")
    backend = FaultyBackend(1000)
    monkeypatch.setattr(service, "open_backend", lambda _url, **_options: backend)
    presence = Presence(app)
    with presence.test_client(user=User("ann"), app=app) as ann:
        ann.join("presence-room")
        yield ann, backend
        backend.problem = None


REQUESTS: list[tuple[dict[str, Any], str, str | None]] = [
    ({"type": "join", "channel": "presence-other"}, "JOIN_FAILED", "JOIN_FAILED"),
    ({"type": "leave", "channel": "presence-room"}, "LEAVE_FAILED", None),
    ({"type": "channel:update", "channel": "presence-room", "userInfo": {}}, "UPDATE_FAILED", "UPDATE_FAILED"),
    ({"type": "channel:message", "channel": "presence-room", "data": 1}, "INTERNAL_ERROR", "SEND_FAILED"),
]


@pytest.mark.parametrize(("request_", "fault", "_away"), REQUESTS, ids=[str(row[0]["type"]) for row in REQUESTS])
def test_fault(
    faulty: tuple[Any, FaultyBackend], caplog: pytest.LogCaptureFixture, request_: Any, fault: str, _away: str | None
) -> None:
    """A fault is `Internal error`, its text goes to the log alone, and afterwards all is as before."""
    ann, backend = faulty
    backend.problem = RuntimeError("a secret")
    assert ann.request(request_) == {"type": "error", "code": fault, "message": "Internal error"}
    assert "a secret" in caplog.text
    assert ann.client_id in caplog.text
    backend.problem = None
    assert ann.send("presence-room", data=1)["delivered"] == 0
    assert ann.request({"type": "leave", "channel": "presence-room"})["type"] == "channel:left"


@pytest.mark.parametrize(("request_", "_fault", "away"), REQUESTS, ids=[str(row[0]["type"]) for row in REQUESTS])
def test_backend_away(faulty: tuple[Any, FaultyBackend], request_: Any, _fault: str, away: str | None) -> None:
    """A state store that is away is `Temporarily unavailable`, and worth another try; a leave succeeds."""
    ann, backend = faulty
    backend.problem = BackendUnavailable("gone")
    answer = ann.request(request_)
    if away is None:
        assert answer == {"type": "channel:left", "channel": "presence-room"}
        return
    assert answer == {"type": "error", "code": away, "message": "Temporarily unavailable", "retryable": True}


def test_complaints_are_counted(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same complaint is logged once a minute, with the number of those in between."""
    clock = [100.0]
    monkeypatch.setattr("flask_presence.app.log_throttle.time.monotonic", lambda: clock[0])
    throttle = LogThrottle()
    for _ in range(5):
        throttle.log("a", logging.WARNING, "about %r", "x\ny")
    throttle.log("b", logging.WARNING, "another")
    clock[0] += 61
    throttle.log("a", logging.WARNING, "about %r", "z")
    assert [record.getMessage() for record in caplog.records] == [
        "about 'x\\ny'",
        "another",
        "about 'z' (and 4 more like this since the last line)",
    ]
