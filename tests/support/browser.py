"""Playwright's names for the tests of pages. If Playwright is missing, a module that imports them is skipped."""

from __future__ import annotations

import os

import pytest

from .server import DEADLINE

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
    "sync_playwright",
]
