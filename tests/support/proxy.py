"""A TCP proxy that can swallow what the server sends, or close connections, at one end or both."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class Proxy:
    """A proxy in front of a server on a local port. `refused` counts the connections that came while it was cut."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.refused = 0
        self._mended = threading.Event()
        self._mended.set()
        self._pairs: list[tuple[socket.socket, socket.socket, threading.Event]] = []
        self._abandoned: set[socket.socket] = set()
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()

    def mute(self) -> int:
        """Swallow what the server sends on the connections that are open now, and return their number."""
        for _, _, muted in self._pairs:
            muted.set()
        return len(self._pairs)

    def cut(self) -> None:
        """Close every connection, and each new one, until `mend` is called."""
        self._mended.clear()
        for pair in self._pairs:
            for end in pair[:2]:
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        self._mended.set()

    def abandon(self) -> None:
        """Close the client's end of every connection. The server does not notice, as if the network had changed."""
        for client, _, _ in self._pairs:
            self._abandoned.add(client)
            with suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)  # otherwise it might accept one more connection
        self._acceptor.join()
        self._listener.close()
        for client, server, _ in self._pairs:
            client.close()
            server.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                if not self._mended.is_set():
                    self.refused += 1
                    client.close()
                    continue
                try:
                    server = socket.create_connection(("127.0.0.1", self._target))
                except OSError:  # it is down
                    client.close()
                    continue
                muted = threading.Event()
                self._pairs.append((client, server, muted))
                threading.Thread(target=self._pass_on, args=(client, server, None), daemon=True).start()
                threading.Thread(target=self._pass_on, args=(server, client, muted), daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket, muted: threading.Event | None) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if muted is None or not muted.is_set():
                    sink.sendall(data)
        if source not in self._abandoned:
            with suppress(OSError):
                sink.shutdown(socket.SHUT_WR)


@contextmanager
def running_proxy(target: int) -> Iterator[Proxy]:
    """A proxy for a `with` block."""
    proxy = Proxy(target)
    try:
        yield proxy
    finally:
        proxy.close()
