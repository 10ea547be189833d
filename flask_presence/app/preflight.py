"""Whether this process can carry sockets as the app is configured, and what to change if it cannot.

Law: whatever would make sockets fail later, or members disagree, refuses them now, with one sentence for the client,
for the log and for `/health`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from flask import Flask

from ..domain.origins import allows_unknown_pages
from ..settings import Settings
from ..transport.takeover import Takeover
from .auth import UserLoader, takes_cookies
from .gunicorn import find_worker, threads_of

NO_SOCKET: Final = (
    "This server shows its sockets to nobody; run the app with gunicorn -k gevent, gevent.pywsgi, "
    "gunicorn --threads 8 or flask run"
)
ONE_AT_A_TIME: Final = (
    "This server works on one request at a time, and a socket would keep it from everything else; run the app with "
    "gunicorn -k gevent, or with more threads: gunicorn --threads 8, flask run without --without-threads"
)

log = logging.getLogger("flask_presence")


class Preflight:
    """The checks of one app. The first problem that is found is logged, once."""

    def __init__(self, app: Flask, settings: Settings, loader: Callable[[], UserLoader | None]) -> None:
        self._app = app
        self._settings = settings
        self._loader = loader
        self._log_next = True

    def problem(self, takeover: Takeover) -> str | None:
        """Why no socket can be opened in the process that serves this request, as a sentence that says what to
        change."""
        problem = (
            self.origin_problem()
            or self._server_problem(takeover)
            or self._backend_problem(takeover)
            or self._patch_problem(takeover)
        )
        return problem and self._logged(problem)

    def socket_problem(self, takeover: Takeover) -> str | None:
        """The same where there is no socket to be had. Asked last, as who is refused for a reason of their own should
        hear that."""
        return None if takeover.possible else self._logged(NO_SOCKET)

    def origin_problem(self) -> str | None:
        """Whether any page could act as the visitors of this app."""
        open_to_all = [origin for origin in self._settings.allowed_origins if allows_unknown_pages(origin)]
        if open_to_all and (self._loader() is not None or takes_cookies(self._app)):
            return (
                f"PRESENCE_ALLOWED_ORIGINS has {open_to_all[0]!r} while credentials may come from cookies, so any page "
                "could act as its visitors: list the origins, or take tokens from headers only (JWT_TOKEN_LOCATION) "
                "and have no user_loader"
            )
        return None

    @staticmethod
    def _server_problem(takeover: Takeover) -> str | None:
        if takeover.on_gevent or not takeover.possible:
            return None
        alone = not takeover.multithread and (takeover.from_gunicorn or not takeover.multiprocess)
        return ONE_AT_A_TIME if alone or threads_of(find_worker()) == 1 else None

    def _backend_problem(self, takeover: Takeover) -> str | None:
        if self._settings.isolated_workers or not self._settings.in_memory or not takeover.multiprocess:
            return None
        return (
            "PRESENCE_BACKEND is 'memory://' and there are several workers, which would not know of each other's "
            "members: run one worker, or set PRESENCE_ISOLATED_WORKERS = True if that is meant"
        )

    def _patch_problem(self, takeover: Takeover) -> str | None:
        if self._settings.in_memory or not takeover.on_gevent:
            return None
        from gevent.monkey import is_module_patched

        if is_module_patched("socket"):
            return None
        return (
            "PRESENCE_BACKEND is not 'memory://', and gevent serves the sockets without having patched the standard "
            "library, so every question to the state store would hold up everybody: run gunicorn -k gevent, or call "
            "gevent.monkey.patch_all() before anything else is imported"
        )

    def _logged(self, problem: str) -> str:
        if self._log_next:
            self._log_next = False
            log.error("every WebSocket is refused: %s", problem)
        return problem
