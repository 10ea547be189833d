"""Who may see the pages.

Rule: access is denied unless the app allows it. An error denies it too.
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

HOW_TO_ALLOW: Final = (
    "Access to this page is denied. To allow it, register a function with @presence.stats_guard that returns True for "
    "those who may see it, or set PRESENCE_STATS_PUBLIC = True. In debug mode everybody has access"
)


class PageAccess:
    """Decides about the current request. `find_guard` returns the app's stats guard, if there is one."""

    def __init__(self, app: Flask, service: Service, find_guard: Callable[[], StatsGuard | None]) -> None:
        self._app = app
        self._service = service
        self._find_guard = find_guard

    def refusal(self) -> str | None:
        """Why access is denied, as a sentence. `None` if access is allowed.

        Raises the `HTTPException` of an `abort` in the stats guard, so that the guard can ask for a login.
        """
        if self._service.settings.stats_public or self._app.debug:
            return None
        guard = self._find_guard()
        verdict = self._ask(guard) if guard is not None else Verdict(False)
        return None if verdict.allowed else verdict.reason or HOW_TO_ALLOW

    def _ask(self, guard: StatsGuard) -> Verdict:
        log_throttled = self._service.log_throttle.log
        try:
            verdict = read_verdict(guard())
        except HTTPException:
            raise
        except BaseException as problem:  # the app's code may raise anything
            log_throttled("stats_guard", logging.ERROR, "the stats_guard failed; access is denied", problem=problem)
            return Verdict(False)
        if verdict.mistake:
            log_throttled("stats_guard", logging.ERROR, "the stats_guard gave no valid answer: %s", verdict.mistake)
        return verdict
