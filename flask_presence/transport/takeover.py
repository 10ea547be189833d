"""Takes a socket over from the server that accepted it.

Rule: no library is patched, and other routes are not affected. Only the WSGI environ of one request changes. Neither
flask-sock nor gevent-websocket reads or writes the socket after the handshake.

| server                                  | handshake by     | afterwards, the socket                        |
|-----------------------------------------|------------------|-----------------------------------------------|
| gunicorn -k gevent, gevent's pywsgi     | flask-sock       | is detached, and driven by gevent's hub       |
| GeventWebSocketWorker, WebSocketHandler | gevent-websocket | is detached, and driven by gevent's hub       |
| any of these with TLS                   | either           | stays the server's, driven by gevent's hub    |
| flask run, gunicorn -k gthread          | flask-sock       | stays the server's, driven by a thread        |

The request of a detached socket ends at once. If the socket stays the server's, the request lasts as long as the
connection.
"""

from __future__ import annotations

import base64
import binascii
import io
import logging
import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from functools import cache
from typing import Any, Final

from ..loops.base import Loop
from ..loops.gevent_loop import GeventLoop, is_gevent_socket
from ..loops.thread_loop import ThreadLoop
from .connection import Connection, FrameReceiver
from .group import ConnectionGroup

Environ = MutableMapping[str, Any]

log = logging.getLogger("flask_presence")

VERSION: Final = "13"


class BadHandshake(Exception):
    """The request is not a valid WebSocket handshake (RFC 6455, section 4.2.1). `status` is the HTTP status for it."""

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        self.message = message
        super().__init__(message)


def check_handshake(environ: Environ) -> None:
    """Raise `BadHandshake` if the request is not a WebSocket handshake that flask-sock can accept."""
    if environ.get("REQUEST_METHOD") != "GET":
        raise BadHandshake(400, "A WebSocket handshake is a GET request")
    if environ.get("SERVER_PROTOCOL") not in (None, "HTTP/1.1"):
        raise BadHandshake(400, "A WebSocket handshake needs HTTP/1.1")
    if "upgrade" not in (token.strip().lower() for token in environ.get("HTTP_CONNECTION", "").split(",")):
        raise BadHandshake(400, "The Connection header must contain 'Upgrade'")
    if environ.get("CONTENT_LENGTH", "").strip() not in ("", "0") or "HTTP_TRANSFER_ENCODING" in environ:
        raise BadHandshake(400, "A WebSocket handshake has no body")
    if environ.get("HTTP_SEC_WEBSOCKET_VERSION", "").strip() != VERSION:
        raise BadHandshake(426, f"Sec-WebSocket-Version must be {VERSION}")
    if not environ.get("HTTP_HOST"):
        raise BadHandshake(400, "The Host header is missing")
    try:
        key = base64.b64decode(environ.get("HTTP_SEC_WEBSOCKET_KEY", "").strip(), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != 16:
        raise BadHandshake(400, "Sec-WebSocket-Key must be 16 bytes in base64")


def offered_protocols(environ: Environ) -> list[str]:
    """The subprotocols that a client offers, in its order."""
    return [name.strip() for name in environ.get("HTTP_SEC_WEBSOCKET_PROTOCOL", "").split(",") if name.strip()]


def allows_hop_by_hop(environ: Environ) -> bool:
    """Whether the server lets an app set the headers `Connection` and `Upgrade`, which PEP 3333 forbids."""
    return any(key in environ for key in _SOCKET_KEYS) or _is_pywsgi(environ)


class HandshakeSent(Exception):
    """flask-sock has sent the handshake. Raised through it, so that it does not start a thread that reads the socket,
    or write a close frame."""


class Takeover:
    """The socket of one request, before and after the handshake.

    `already_open` says that gevent-websocket sent the handshake before the app was called. `possible` says that the
    server gives access to the socket through the environ. `opened` says that the socket has been taken over, so that
    nothing else may use it.
    """

    def __init__(self, environ: Environ) -> None:
        self._environ = environ
        self._stand_in: _HandshakeSocket | None = None
        self._websocket: Any = environ.get("wsgi.websocket")
        self.already_open = self._websocket is not None
        sock: Any = _find_socket(environ) if self._websocket is None else self._websocket.handler.socket
        self._sock: Any = sock
        self.possible = sock is not None
        self.opened = False

    @property
    def needs_handshake(self) -> bool:
        """Whether flask-sock has to send the handshake."""
        return not self.already_open

    @property
    def served(self) -> bool:
        """Whether a server received the request. A test client's request names no server software."""
        return "SERVER_SOFTWARE" in self._environ or "uwsgi.version" in self._environ

    @property
    def from_gunicorn(self) -> bool:
        return "gunicorn.socket" in self._environ

    @property
    def multithread(self) -> bool:
        """Whether this process handles other requests at the same time."""
        return bool(self._environ.get("wsgi.multithread"))

    @property
    def multiprocess(self) -> bool:
        """Whether other processes serve this app too."""
        return bool(self._environ.get("wsgi.multiprocess"))

    @property
    def on_gevent(self) -> bool:
        """Whether gevent's hub must drive the socket."""
        return is_gevent_socket(self._sock)

    def new_loop(self) -> Loop:
        """Create an event loop of the kind that can drive this server's sockets."""
        return GeventLoop() if self.on_gevent else ThreadLoop()

    def empty_body(self) -> None:
        """Make the request's body empty. For an upgrade, pywsgi puts the socket there, which must not be read."""
        self._environ["wsgi.input"] = io.BytesIO()

    def prepare_handshake(self, protocol: str | None) -> None:
        """Give flask-sock a stand-in for the socket, which sends the handshake and then raises `HandshakeSent`. The
        handshake selects a subprotocol that the client offers, or `None`."""
        self._stand_in = _HandshakeSocket(self._sock, protocol)
        for key in _SOCKET_KEYS:
            if key in self._environ:
                self._environ[key] = self._stand_in
                return
        self._environ["wsgi.input"] = _Input(self._stand_in)

    @contextmanager
    def only_handshake_headers(self) -> Iterator[None]:
        """Hide all headers that are not the handshake's, which flask-sock would parse again. The extensions and
        subprotocols that the client offers are hidden too, so that flask-sock accepts none."""
        environ = self._environ
        hidden = {key: environ[key] for key in environ if key.startswith("HTTP_") and key not in _HANDSHAKE_KEYS}
        for key in hidden:
            del environ[key]
        try:
            yield
        finally:
            environ.update(hidden)

    def open(self, group: ConnectionGroup, receiver: FrameReceiver) -> tuple[Connection, Callable[[], None]]:
        """Take the socket over, after the handshake. Returns the connection, and a function that the view must call
        before it returns: if the socket stays the server's, it waits until the connection has ended."""
        if self._stand_in is not None:
            self._stand_in.finish()
        if self._websocket is not None:
            self._websocket.closed = True  # otherwise gevent-websocket sends a close frame of its own
        if self._detachable:
            sock, ended = _detach(self._sock), None
        else:
            sock, ended = self._sock, _new_event(group.loop)
        self.opened = True
        sock.setblocking(False)
        _set_options(sock)
        connection = group.loop.run(lambda: Connection(group, sock, receiver, ended.set if ended else None))
        return connection, ended.wait if ended else lambda: None

    @property
    def answers_as_http_1_0(self) -> bool:
        """Whether the server answers with HTTP/1.0, which WebSocket clients do not accept (RFC 6455, section 4.1).
        Werkzeug's server without threads does."""
        environ = self._environ
        return "werkzeug.socket" in environ and not (environ["wsgi.multithread"] or environ["wsgi.multiprocess"])

    def send_response(self, head: str, body: bytes) -> None:
        """Send a response in place of the server, and shut the socket down so that the server's own response fails."""
        try:
            self._sock.sendall(f"HTTP/1.1 {head}\r\n\r\n".encode("latin-1") + body)
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            log.debug("a client disconnected before it was refused")

    def refuse(self, frames: bytes) -> None:
        """Refuse with frames, of which the last is a close frame, because the handshake has been sent already."""
        if self._stand_in is not None:
            self._stand_in.finish()
        if self._websocket is not None:
            self._websocket.closed = True
        try:
            self._sock.sendall(frames)
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            log.debug("a client disconnected before it was refused")

    @property
    def _detachable(self) -> bool:
        return self.on_gevent and not isinstance(self._sock, ssl.SSLSocket) and "werkzeug.socket" not in self._environ


_HANDSHAKE_KEYS: Final = frozenset(
    ("HTTP_HOST", "HTTP_UPGRADE", "HTTP_CONNECTION", "HTTP_SEC_WEBSOCKET_KEY", "HTTP_SEC_WEBSOCKET_VERSION")
)
_SOCKET_KEYS: Final = ("werkzeug.socket", "gunicorn.socket")


def _is_pywsgi(environ: Environ) -> bool:
    return str(environ.get("SERVER_SOFTWARE", "")).startswith("gevent")


def _find_socket(environ: Environ) -> Any:
    for key in _SOCKET_KEYS:
        if key in environ:
            return environ[key]
    if _is_pywsgi(environ):
        stream = environ["wsgi.input"]  # for an upgrade, the buffered reader itself; otherwise, a wrapper of it
        return getattr(getattr(getattr(stream, "rfile", stream), "raw", None), "_sock", None)
    return None


def _detach(sock: Any) -> socket.socket:
    """Move the file descriptor of a gevent socket to a plain socket, which gevent does not know.

    `sock` gets the descriptor of a socket whose peer is closed. So the response that the server still sends to it fails
    as if the client had disconnected, which servers do not log.
    """
    from gevent.monkey import get_original

    family, kind, protocol = sock.family, sock.type, sock.proto
    # Not `dup`: the old number would stay in libev's epoll set, which libev then rebuilds at every event.
    plain: socket.socket = get_original("socket", "socket")(family, kind, protocol, sock.detach())
    type(sock).__init__(sock, socket.AF_UNIX, socket.SOCK_STREAM, 0, os.dup(_disconnected_socket().fileno()))
    return plain


@cache
def _disconnected_socket() -> socket.socket:
    """A socket whose peer is closed."""
    ours, theirs = socket.socketpair()
    theirs.close()
    return ours


def _new_event(loop: Loop) -> Any:
    """An event that a view can wait for without blocking the loop."""
    if isinstance(loop, GeventLoop):
        import gevent.event

        return gevent.event.Event()
    return threading.Event()


def _set_options(sock: socket.socket) -> None:
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except OSError:
        log.debug("a client disconnected before its socket options were set")


class _HandshakeSocket:
    """The stand-in that flask-sock gets for the socket: it sends the handshake, and then raises `HandshakeSent`. If
    flask-sock goes on all the same, it reports end-of-file.

    It adds the `selected` subprotocol to the handshake. flask-sock's own option would apply to all routes of the app.
    """

    def __init__(self, sock: Any, selected: str | None) -> None:
        self._sock = sock
        self._selected = selected

    def send(self, data: bytes) -> int:
        sock, self._sock = self._sock, None
        if sock is not None:
            head = data
            if self._selected is not None:
                head = data.replace(b"\r\n\r\n", f"\r\nSec-WebSocket-Protocol: {self._selected}\r\n\r\n".encode(), 1)
            try:
                sock.sendall(head)
            except OSError:
                log.debug("a client disconnected before the handshake was sent")
            raise HandshakeSent
        return len(data)

    def recv(self, _size: int) -> bytes:
        return b""

    def fileno(self) -> int:
        return -1  # so that no selector watches the socket, which is about to be taken over

    def close(self) -> None:
        self.finish()

    def dup(self) -> _HandshakeSocket:
        return self

    def finish(self) -> None:
        """Drop whatever is written from now on."""
        self._sock = None


class _Input:
    """A `wsgi.input` in which flask-sock finds the stand-in, at the place at which pywsgi keeps the socket."""

    def __init__(self, sock: _HandshakeSocket) -> None:
        self.raw = self
        self._sock = sock

    def read(self, _size: int = -1) -> bytes:
        return b""
