"""Playwright's names for the tests of pages. If Playwright is missing, a module that imports them is skipped."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from .server import DEADLINE, wait_until

try:
    from playwright.sync_api import (
        Browser,
        BrowserContext,
        ConsoleMessage,
        Dialog,
        Error,
        Locator,
        Page,
        Request,
        Route,
        WebSocket,
        WebSocketRoute,
        expect,
        sync_playwright,
    )
except ImportError:
    if os.environ.get("CI") == "true":
        raise
    pytest.skip("Playwright is missing on this machine", allow_module_level=True)

expect.set_options(timeout=DEADLINE * 1000)

__all__ = [
    "Browser",
    "BrowserContext",
    "ConsoleMessage",
    "Dialog",
    "Error",
    "Locator",
    "Page",
    "Request",
    "Route",
    "WebSocket",
    "WebSocketRoute",
    "expect",
    "lose_network",
    "sync_playwright",
]

PROBE = 5_000
"""Milliseconds that a client waits for an answer after the browser has told it that the network is lost."""


def lose_network(page: Page, is_noticed: Callable[[], object]) -> None:
    """Take the network away from a page whose clock is installed, and move the clock on until the page notices.

    Chromium keeps a core busy while a page without a network waits, so the tests do not let it wait.
    """
    page.context.set_offline(True)

    def moves_on() -> object:
        page.clock.fast_forward(PROBE)
        return is_noticed()

    wait_until(moves_on)
