"""Servers other than gunicorn, on a listening socket of the test: `python -m tests.support.serve KIND FD APP`."""

from __future__ import annotations

import importlib
import socket
import sys
from typing import Any


def main(kind: str, fd: int, app_path: str) -> None:
    if kind in ("pywsgi", "pywsgi-handler"):
        from gevent import monkey

        monkey.patch_all()
    module, _, factory = app_path.partition(":")
    app = getattr(importlib.import_module(module), factory.removesuffix("()"))()
    if kind.startswith("werkzeug"):
        _serve_werkzeug(app, fd, threaded=kind == "werkzeug")
    elif kind == "waitress":
        from waitress import serve

        serve(app, sockets=[socket.socket(fileno=fd)])
    elif kind == "wsgiref":
        _serve_wsgiref(app, fd)
    else:
        _serve_gevent(app, fd, with_handler=kind == "pywsgi-handler")


def _serve_werkzeug(app: Any, fd: int, *, threaded: bool) -> None:
    from werkzeug.serving import make_server

    listener = socket.socket(fileno=fd)
    host, port = listener.getsockname()
    make_server(host, port, app, threaded=threaded, fd=fd).serve_forever()


def _serve_wsgiref(app: Any, fd: int) -> None:
    from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

    listener = socket.socket(fileno=fd)
    server = WSGIServer(listener.getsockname(), WSGIRequestHandler, bind_and_activate=False)
    server.socket.close()
    server.socket = listener
    server.server_name, server.server_port = listener.getsockname()
    server.setup_environ()
    server.set_app(app)
    server.serve_forever()


def _serve_gevent(app: Any, fd: int, *, with_handler: bool) -> None:
    import gevent
    from gevent.pywsgi import WSGIServer
    from gevent.socket import socket as gevent_socket

    listener = gevent_socket(fileno=fd)
    listener.setblocking(False)
    options: dict[str, Any] = {}
    if with_handler:
        from geventwebsocket.handler import WebSocketHandler

        options["handler_class"] = WebSocketHandler
    server = WSGIServer(listener, app, **options)
    gevent.signal_handler(15, server.stop)
    server.serve_forever()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
