"""Streams of who joins, changes and leaves, as one JSON object per line, until the reader disconnects.

Rule: a stream occupies a request, so a process serves a few at a time. It ends when its reader has gone or has lost the
permission, and when the server stops. It is then no longer counted.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

from flask import Response

from ..app.service import Service
from ..domain.errors import BackendUnavailable
from ..loops.gevent_loop import has_hub
from ..stats.payloads import change_payloads
from .responses import STORE_UNREACHABLE, error_payload, harden

MAX_STREAMS: Final = 20
MAX_STREAMS_IN_THREADS: Final = 2
"""The limit if each stream occupies a thread, because a server may have only four threads."""
POLL_INTERVAL: Final = 0.2
"""Seconds between two polls of a backend that does not block until something changes."""
QUIET_POLLS: Final = 5
"""Polls without a change after which an empty line is sent, to find out whether the reader is still connected."""


class TooManyStreams(Exception):
    """This process serves as many streams as it may."""


class Streams:
    """The streams of one app in this process."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._lock = threading.Lock()
        self._open = 0

    def stream(self, name: str | None, may_go_on: Callable[[], bool]) -> Response:
        """A response with the changes in one channel, or in all, while `may_go_on()` is true. It is called as often as
        logins are checked again. Raises `TooManyStreams` or `BackendUnavailable`."""
        limit = MAX_STREAMS if has_hub() else MAX_STREAMS_IN_THREADS
        with self._lock:
            if self._open >= limit:
                raise TooManyStreams(f"{limit} streams are open already")
            self._open += 1
        try:
            changes = change_payloads(self._service.hub.directory.watch(name))
            next(changes)  # raises if the state store is unreachable; every later change is seen
        except BaseException:
            self._release()
            raise
        response = Response(self._lines(changes, may_go_on), mimetype="application/x-ndjson")
        response.headers["X-Accel-Buffering"] = "no"  # a proxy that buffers would delay lines for minutes
        response.call_on_close(changes.close)
        response.call_on_close(self._release)
        return harden(response)

    def _lines(self, changes: Iterator[dict[str, Any] | None], may_go_on: Callable[[], bool]) -> Iterator[str]:
        yield "\n"
        quiet_polls, checked_at = 0, time.monotonic()
        try:
            for change in changes:
                if time.monotonic() - checked_at >= self._service.settings.token_recheck:
                    checked_at = time.monotonic()
                    if not may_go_on():
                        return
                if self._service.draining:
                    return
                quiet_polls = 0 if change is not None else quiet_polls + 1
                if change is not None:
                    yield json.dumps(change) + "\n"
                elif quiet_polls % QUIET_POLLS == 0:
                    yield "\n"
                if change is None and not self._service.hub.directory.blocking:
                    self._service.process.sleep(POLL_INTERVAL)
        except BackendUnavailable:
            yield json.dumps(error_payload("SERVICE_UNAVAILABLE", STORE_UNREACHABLE)) + "\n"

    def _release(self) -> None:
        with self._lock:
            self._open -= 1
