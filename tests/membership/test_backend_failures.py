"""A backend that fails: every request gets its error code, and no request is left half done."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
from flask import Flask

from flask_presence import BackendUnavailable, Presence, User
from flask_presence.app import service
from flask_presence.backends.memory import MemoryBackend
from flask_presence.domain.channels import ChannelName
from flask_presence.domain.events import Reason
from flask_presence.domain.roster import Change, Joiner


class FaultyBackend(MemoryBackend):
    """The memory backend, which raises `problem` if that is set."""

    problem: Exception | None = None

    def _check(self) -> None:
        if self.problem is not None:
            raise self.problem

    def join(self, joiner: Joiner) -> Any:
        self._check()
        return super().join(joiner)

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
    """A client in `presence-room`, and its backend."""
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


@pytest.mark.parametrize(("request_", "fault", "_unavailable"), REQUESTS, ids=[str(row[0]["type"]) for row in REQUESTS])
def test_a_fault_is_answered_with_internal_error(
    faulty: tuple[Any, FaultyBackend],
    caplog: pytest.LogCaptureFixture,
    request_: Any,
    fault: str,
    _unavailable: str | None,
) -> None:
    """Only the log has the text of the fault, and afterwards everything is as before."""
    ann, backend = faulty
    backend.problem = RuntimeError("a secret")
    assert ann.request(request_) == {"type": "error", "code": fault, "message": "Internal error"}
    assert "a secret" in caplog.text
    assert ann.client_id in caplog.text
    backend.problem = None
    assert ann.send("presence-room", data=1)["delivered"] == 0
    assert ann.request({"type": "leave", "channel": "presence-room"})["type"] == "channel:left"


@pytest.mark.parametrize(("request_", "_fault", "unavailable"), REQUESTS, ids=[str(row[0]["type"]) for row in REQUESTS])
def test_an_unavailable_backend_is_answered_with_a_retryable_error(
    faulty: tuple[Any, FaultyBackend], request_: Any, _fault: str, unavailable: str | None
) -> None:
    """A leave succeeds."""
    ann, backend = faulty
    backend.problem = BackendUnavailable("unreachable")
    answer = ann.request(request_)
    if unavailable is None:
        assert answer == {"type": "channel:left", "channel": "presence-room"}
        return
    assert answer == {"type": "error", "code": unavailable, "message": "Temporarily unavailable", "retryable": True}
