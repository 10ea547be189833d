"""Checks whether this process can serve WebSockets with its server and settings, and says what to change if not.

Rule: if WebSockets would fail later, or workers would list different members, every WebSocket is refused at once.
Clients, the log and `/health` get the same sentence.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from flask import Flask

from ..domain.origins import allows_unknown_pages
from ..settings import Settings
from ..transport.takeover import Takeover
from .auth import UserLoader
from .gunicorn import worker_threads
from .tokens import takes_cookies

NO_SOCKET: Final = (
    "This server does not give an app access to its sockets; run the app with gunicorn -k gevent, gevent.pywsgi, "
    "gunicorn --threads 8 or flask run"
)
ONE_AT_A_TIME: Final = (
    "This server handles one request at a time, so a WebSocket would block all other requests; run the app with "
    "gunicorn -k gevent, or with more threads: gunicorn --threads 8, flask run without --without-threads"
)

log = logging.getLogger("flask_presence")


class Preflight:
    """The checks of one app. It logs only the first problem. `find_loader` returns the app's `user_loader`, if any."""

    def __init__(self, app: Flask, settings: Settings, find_loader: Callable[[], UserLoader | None]) -> None:
        self._app = app
        self._settings = settings
        self._find_loader = find_loader
        self._has_logged = False

    def problem(self, takeover: Takeover) -> str | None:
        """Why this process cannot serve WebSockets, as a sentence that says what to change; or `None`."""
        problem = (
            self.origin_problem()
            or self._server_problem(takeover)
            or self._backend_problem(takeover)
            or self._patch_problem(takeover)
        )
        return problem and self._log_first(problem)

    def socket_problem(self, takeover: Takeover) -> str | None:
        """Why the server cannot give an app its sockets; or `None`. Called last, so that a client who is refused for
        another reason is told that reason."""
        return None if takeover.possible else self._log_first(NO_SOCKET)

    def origin_problem(self) -> str | None:
        """Why the allowed origins are not safe; or `None`. Any page could use the cookies of the app's visitors."""
        open_to_all = [origin for origin in self._settings.allowed_origins if allows_unknown_pages(origin)]
        if open_to_all and (self._find_loader() is not None or takes_cookies(self._app.config)):
            return (
                f"PRESENCE_ALLOWED_ORIGINS has {open_to_all[0]!r} while credentials may come from cookies, so any page "
                "could act as the app's visitors: list the origins, or take tokens from headers only "
                "(JWT_TOKEN_LOCATION) and register no user_loader"
            )
        return None

    @staticmethod
    def _server_problem(takeover: Takeover) -> str | None:
        if takeover.on_gevent or not takeover.possible:
            return None
        has_one_thread = not takeover.multithread and (takeover.from_gunicorn or not takeover.multiprocess)
        return ONE_AT_A_TIME if has_one_thread or worker_threads() == 1 else None

    def _backend_problem(self, takeover: Takeover) -> str | None:
        if self._settings.isolated_workers or not self._settings.in_memory or not takeover.multiprocess:
            return None
        return (
            "PRESENCE_BACKEND is 'memory://' and there are several workers, which would not see each other's members: "
            "run one worker, use Redis, or set PRESENCE_ISOLATED_WORKERS = True if this is intended"
        )

    def _patch_problem(self, takeover: Takeover) -> str | None:
        if self._settings.in_memory or not takeover.on_gevent:
            return None
        from gevent.monkey import is_module_patched

        if is_module_patched("socket"):
            return None
        return (
            "PRESENCE_BACKEND is not 'memory://', and gevent serves the WebSockets without having patched the standard "
            "library, so every request to the state store would block all connections: run gunicorn -k gevent, or "
            "call gevent.monkey.patch_all() before anything else is imported"
        )

    def _log_first(self, problem: str) -> str:
        if not self._has_logged:
            self._has_logged = True
            log.error("every WebSocket is refused: %s", problem)
        return problem
