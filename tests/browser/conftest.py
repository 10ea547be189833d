"""A real Chromium for the tests of pages."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from ..conftest import missing

if TYPE_CHECKING:
    from ..support.browser import Browser


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    from ..support.browser import Error, sync_playwright

    with sync_playwright() as playwright:
        try:
            chromium = playwright.chromium.launch(
                executable_path=shutil.which("chromium") or shutil.which("google-chrome"),
                args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
            )
        except Error:
            missing("Chromium")
            raise
        yield chromium
        chromium.close()
