"""Streams of who joins and leaves, a line of JSON each, for as long as somebody reads.

Law: a stream holds a request, so there are few; it ends when its reader has gone or the server stops, and loses no
place of another.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any, Final

from flask import Response

from ..app.service import Service
from ..domain.errors import BackendUnavailable
from ..loops.gevent_loop import has_hub
from ..stats.payloads import change_payloads
from .responses import error_payload, harden

MAX_STREAMS: Final = 20
MAX_STREAMS_IN_THREADS: Final = 2
"""Where each holds a thread, of which a server may have four."""
GLANCE: Final = 0.2
"""Seconds between two looks for changes, where nothing wakes up who waits for them."""
SIGN_OF_LIFE: Final = 5
"""Looks without a change after which an empty line shows whether the reader is still there."""


class TooManyStreams(Exception):
    """No place is left."""


class Streams:
    """The streams of one app in this process."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._lock = threading.Lock()
        self._open = 0

    def stream(self, name: str | None) -> Response:
        """The changes in one channel, or in all. Raises `TooManyStreams`, or `BackendUnavailable`."""
        most = MAX_STREAMS if has_hub() else MAX_STREAMS_IN_THREADS
        with self._lock:
            if self._open >= most:
                raise TooManyStreams(f"{most} are watching already")
            self._open += 1
        try:
            changes = change_payloads(self._service.hub.directory.watch(name))
            next(changes)  # raises here where the state store is away, and nothing is missed from here on
        except BaseException:
            self._release()
            raise
        response = Response(self._lines(changes), mimetype="application/x-ndjson")
        response.headers["X-Accel-Buffering"] = "no"  # a proxy that collects lines shows nothing for minutes
        response.call_on_close(changes.close)
        response.call_on_close(self._release)
        return harden(response)

    def _lines(self, changes: Iterator[dict[str, Any] | None]) -> Iterator[str]:
        yield "\n"
        quiet = 0
        try:
            for change in changes:
                if self._service.draining:
                    return
                quiet = 0 if change is not None else quiet + 1
                if change is not None:
                    yield json.dumps(change) + "\n"
                elif quiet % SIGN_OF_LIFE == 0:
                    yield "\n"
                if change is None and not self._service.hub.directory.blocking:
                    self._service.process.sleep(GLANCE)
        except BackendUnavailable:
            yield json.dumps(error_payload("SERVICE_UNAVAILABLE", "The state store is away")) + "\n"

    def _release(self) -> None:
        with self._lock:
            self._open -= 1
