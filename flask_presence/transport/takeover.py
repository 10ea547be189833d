"""Taking a socket over from the server that accepted it.

Law: the libraries stay stock and other routes untouched: what flask-sock and gevent-websocket see of this
is in the WSGI environ of one request. Neither reads or writes a byte after the handshake.

| server                                      | handshake by     | afterwards the socket is          |
|---------------------------------------------|------------------|-----------------------------------|
| gunicorn -k gevent, gevent's pywsgi         | flask-sock       | detached, driven by gevent's hub  |
| GeventWebSocketWorker, WebSocketHandler     | gevent-websocket | detached, driven by gevent's hub  |
| any of these with TLS                       | either           | lent by the server, gevent's hub  |
| flask run, gunicorn -k gthread              | flask-sock       | lent by the server, a thread      |
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
from collections.abc import Callable, MutableMapping
from functools import cache
from typing import Any, Final

from ..loops.base import SocketLoop
from ..loops.gevent_loop import GeventLoop, is_gevent_socket
from ..loops.thread_loop import ThreadLoop
from .connection import Connection, FrameReceiver
from .group import ConnectionGroup

Environ = MutableMapping[str, Any]

log = logging.getLogger("flask_presence")

VERSION: Final = "13"
BEARER: Final = "bearer"
"""The subprotocol behind which a client may offer its token; the only one that is ever selected."""


class BadHandshake(Exception):
    """A request that is no WebSocket handshake (RFC 6455, section 4.2.1): the HTTP status, and why."""

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        self.message = message
        super().__init__(message)


def check_handshake(environ: Environ) -> None:
    """Raise `BadHandshake` unless flask-sock can answer the request with 101."""
    if environ.get("REQUEST_METHOD") != "GET":
        raise BadHandshake(400, "A WebSocket handshake is a GET request")
    if environ.get("SERVER_PROTOCOL") not in (None, "HTTP/1.1"):
        raise BadHandshake(400, "A WebSocket handshake needs HTTP/1.1")
    if "upgrade" not in (token.strip().lower() for token in environ.get("HTTP_CONNECTION", "").split(",")):
        raise BadHandshake(400, "The Connection header must have the token 'Upgrade'")
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
    """Whether the server lets an application set `Connection` and `Upgrade`, which PEP 3333 keeps for servers."""
    return any(key in environ for key in _SOCKET_KEYS) or _is_pywsgi(environ)


class Takeover:
    """A request's socket, before and after the handshake.

    `already_open` is whether gevent-websocket has answered 101 before the application was asked; `possible`
    whether the server shows its socket in the environ at all. `opened`: nobody else may use the socket any more.
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
    def served(self) -> bool:
        """Whether the request came through a server: test clients make theirs up, and say of no software."""
        return "SERVER_SOFTWARE" in self._environ or "uwsgi.version" in self._environ

    @property
    def from_gunicorn(self) -> bool:
        return "gunicorn.socket" in self._environ

    @property
    def multithread(self) -> bool:
        """Whether the server works on other requests meanwhile, in this process."""
        return bool(self._environ.get("wsgi.multithread"))

    @property
    def multiprocess(self) -> bool:
        """Whether other processes serve this application too."""
        return bool(self._environ.get("wsgi.multiprocess"))

    @property
    def on_gevent(self) -> bool:
        """Whether gevent's hub must drive the socket."""
        return is_gevent_socket(self._sock)

    def new_loop(self) -> SocketLoop:
        """An event loop of the kind that drives this server's sockets."""
        return GeventLoop() if self.on_gevent else ThreadLoop()

    def empty_body(self) -> None:
        """Have whoever reads the request's body find none: for an upgrade, pywsgi shows the socket in its place."""
        self._environ["wsgi.input"] = io.BytesIO()

    def prepare_handshake(self) -> None:
        """Let flask-sock see a socket that passes the handshake through, then reports end-of-file, and
        no extension and no subprotocol that it could agree to."""
        self._environ.pop("HTTP_SEC_WEBSOCKET_EXTENSIONS", None)
        selected = BEARER if BEARER in offered_protocols(self._environ) else None
        self._environ.pop("HTTP_SEC_WEBSOCKET_PROTOCOL", None)
        self._stand_in = _HandshakeSocket(self._sock, selected)
        for key in _SOCKET_KEYS:
            if key in self._environ:
                self._environ[key] = self._stand_in
                return
        self._environ["wsgi.input"] = _Input(self._stand_in)

    def open(self, group: ConnectionGroup, handler: FrameReceiver) -> tuple[Connection, Callable[[], None]]:
        """The connection on the socket, and what the view must call before it returns: it waits where
        the socket is only lent."""
        if self._stand_in is not None:
            self._stand_in.finish()
        if self._websocket is not None:
            self._websocket.closed = True  # or the handler would send a close frame of its own
        if self._detachable:
            sock, gone = _detach(self._sock), None
        else:
            sock, gone = self._sock, _new_event(group.loop)
        self.opened = True
        sock.setblocking(False)
        _set_options(sock)
        connection = group.loop.run(lambda: Connection(group, sock, handler, gone.set if gone else None))
        return connection, gone.wait if gone else lambda: None

    @property
    def answers_as_http_1_0(self) -> bool:
        """Whether this server, Werkzeug's for one request at a time, would answer a handshake as HTTP/1.0, which no
        WebSocket client reads (RFC 6455, section 4.1)."""
        environ = self._environ
        return "werkzeug.socket" in environ and not (environ["wsgi.multithread"] or environ["wsgi.multiprocess"])

    def send_response(self, head: str, body: bytes) -> None:
        """Answer in the server's place, and let it find that its own answer cannot be sent."""
        try:
            self._sock.sendall(f"HTTP/1.1 {head}\r\n\r\n".encode("latin-1") + body)
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            log.debug("a refused client was gone before it was told")

    def refuse(self, close_frame: bytes) -> None:
        """Where the 101 is out already: a close frame is the refusal."""
        self._websocket.closed = True
        try:
            self._sock.sendall(close_frame)
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            log.debug("a refused client was gone before it was told")

    @property
    def _detachable(self) -> bool:
        return self.on_gevent and not isinstance(self._sock, ssl.SSLSocket) and "werkzeug.socket" not in self._environ


_SOCKET_KEYS: Final = ("werkzeug.socket", "gunicorn.socket")


def _is_pywsgi(environ: Environ) -> bool:
    return str(environ.get("SERVER_SOFTWARE", "")).startswith("gevent")


def _find_socket(environ: Environ) -> Any:
    for key in _SOCKET_KEYS:
        if key in environ:
            return environ[key]
    if _is_pywsgi(environ):
        stream = environ["wsgi.input"]  # for an upgrade the buffered reader itself, else a wrapper of it
        return getattr(getattr(getattr(stream, "rfile", stream), "raw", None), "_sock", None)
    return None


def _detach(sock: Any) -> socket.socket:
    """The file descriptor of a gevent socket, in a plain socket that gevent knows nothing of.

    Never `dup`: the old number would stay in libev's epoll set, which is then built anew at every event. What the
    server then writes to `sock`, believing that there is a response to send, fails as if the client had gone: servers
    take that without a word.
    """
    from gevent.monkey import get_original

    family, kind, protocol = sock.family, sock.type, sock.proto
    plain: socket.socket = get_original("socket", "socket")(family, kind, protocol, sock.detach())
    type(sock).__init__(sock, socket.AF_UNIX, socket.SOCK_STREAM, 0, os.dup(_dead_end().fileno()))
    return plain


@cache
def _dead_end() -> socket.socket:
    """A socket whose peer is gone."""
    ours, theirs = socket.socketpair()
    theirs.close()
    return ours


def _new_event(loop: SocketLoop) -> Any:
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
        log.debug("a client was gone before its socket options were set")


class _HandshakeSocket:
    """What flask-sock sees of the socket: it may write the handshake, then reads end-of-file. The handshake has the
    `selected` subprotocol, which the library is not asked for, as its options are for all routes of the app."""

    def __init__(self, sock: Any, selected: str | None) -> None:
        self._sock = sock
        self._selected = selected

    def send(self, data: bytes) -> int:
        if self._sock is not None:
            head = data
            if self._selected is not None:
                head = data.replace(b"\r\n\r\n", f"\r\nSec-WebSocket-Protocol: {self._selected}\r\n\r\n".encode(), 1)
            try:
                self._sock.sendall(head)
            except OSError:
                log.debug("a client was gone before the handshake was")
        return len(data)

    def recv(self, _size: int) -> bytes:
        return b""

    def fileno(self) -> int:
        return -1  # a selector must not watch what is about to be somebody else's

    def close(self) -> None:
        self.finish()

    def dup(self) -> _HandshakeSocket:
        return self

    def finish(self) -> None:
        """From now on what is written is dropped."""
        self._sock = None


class _Input:
    """A `wsgi.input` in which flask-sock finds the stand-in where pywsgi keeps its socket."""

    def __init__(self, sock: _HandshakeSocket) -> None:
        self.raw = self
        self._sock = sock

    def read(self, _size: int = -1) -> bytes:
        return b""
