"""A back end that webhooks are sent to: an HTTP server in a thread, which remembers what it was sent."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from .server import DEADLINE, wait_until


@dataclass(frozen=True)
class Delivery:
    """One POST. The names of `headers` are in lower case."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def events(self) -> list[dict[str, Any]]:
        events: list[dict[str, Any]] = json.loads(self.body)["events"]
        return events


class Receiver:
    """Answers with what `answer` returns: a status, and perhaps headers. `answer` may block.

    `deliveries` are all POSTs, and `accepted` those that were answered with a 2xx.
    """

    def __init__(self, answer: Callable[[Delivery], tuple[int, dict[str, str]]], port: int = 0) -> None:
        self.answer = answer
        self.deliveries: list[Delivery] = []
        self.accepted: list[Delivery] = []
        self.is_closing = threading.Event()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                delivery = Delivery(self.path, headers, body)
                receiver.deliveries.append(delivery)
                status, extra = receiver.answer(delivery)
                if 200 <= status < 300:
                    receiver.accepted.append(delivery)
                self.send_response(status)
                for name, value in extra.items():
                    self.send_header(name, value)
                self.end_headers()

            def log_message(self, *_arguments: Any) -> None:
                """Print nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def url(self, path: str = "/") -> str:
        return f"http://127.0.0.1:{self._server.server_port}{path}"

    @property
    def events(self) -> list[dict[str, Any]]:
        """What was accepted, in order."""
        return [event for delivery in list(self.accepted) for event in delivery.events]

    def wait_for(self, count: int) -> list[dict[str, Any]]:
        """Wait until so many events have been accepted, and return them."""
        wait_until(lambda: len(self.events) >= count)
        return self.events

    def hang(self, _delivery: Delivery) -> tuple[int, dict[str, str]]:
        """An answer that does not come before the test ends."""
        self.is_closing.wait(2 * DEADLINE)
        return 200, {}

    def close(self) -> None:
        self.is_closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(DEADLINE)


@contextmanager
def receiving(
    answer: Callable[[Delivery], tuple[int, dict[str, str]]] = lambda _delivery: (200, {}), port: int = 0
) -> Iterator[Receiver]:
    """A receiver for a `with` block."""
    receiver = Receiver(answer, port)
    try:
        yield receiver
    finally:
        receiver.close()
