"""Who may see the pages.

Law: closed unless the app has opened them, and whatever goes wrong keeps them closed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from flask import Flask
from werkzeug.exceptions import HTTPException

from ..app.service import Service
from ..domain.guards import Verdict, read_verdict

StatsGuard = Callable[[], object]

HOW_TO_OPEN: Final = (
    "This page is closed. To open it, register a function with @presence.stats_guard that returns True for those "
    "who may see it, or set PRESENCE_STATS_PUBLIC = True; in debug mode it is open"
)


class Admission:
    """Decides about the current request. `guard` gives the app's function, if it has registered one."""

    def __init__(self, app: Flask, service: Service, guard: Callable[[], StatsGuard | None]) -> None:
        self._app = app
        self._service = service
        self._guard = guard

    def refusal(self) -> str | None:
        """Why the page is closed, as a sentence; `None` where it is open.

        An `abort` in the app's function is let through, so that it can ask for a login.
        """
        if self._service.settings.stats_public or self._app.debug:
            return None
        guard = self._guard()
        verdict = self._ask(guard) if guard is not None else Verdict(False)
        return None if verdict.allowed else verdict.reason or HOW_TO_OPEN

    def _ask(self, guard: StatsGuard) -> Verdict:
        complain = self._service.log_throttle.log
        try:
            verdict = read_verdict(guard())
        except HTTPException:
            raise
        except BaseException as problem:  # as with the other guards
            complain("stats_guard", logging.ERROR, "the stats_guard failed; the pages stay closed", problem=problem)
            return Verdict(False)
        if verdict.mistake:
            complain("stats_guard", logging.ERROR, "the stats_guard keeps the pages closed: %s", verdict.mistake)
        return verdict
