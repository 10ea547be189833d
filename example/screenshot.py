"""Takes the picture in the README from a real run: `python -m example.screenshot [FILE]`.

This starts the example, opens it in Chromium as three users, lets them talk, and takes a picture of two windows: on a
desktop in light mode, and on a phone in dark mode. It needs `playwright` and a Chromium.
"""

from __future__ import annotations

import base64
import shutil
import sys
from pathlib import Path

from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.support.server import running

DESK, PHONE = {"width": 1040, "height": 620}, {"width": 360, "height": 620}
FRAME = """<main style="padding: 32px; display: flex; gap: 28px; background: #c9d3e2; width: max-content">{}</main>"""
WINDOW = """<img src="data:image/png;base64,{}" style="height: 620px; border-radius: 12px;
 box-shadow: 0 8px 30px #0005">"""


def main(target: Path) -> None:
    """Write the picture to a file."""
    with running(app="example.app:create_app()") as server, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium") or shutil.which("google-chrome"),
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        ann = enter(browser, server.origin, "Ann", DESK, "light")
        carol = enter(browser, server.origin, "Carol", DESK, "light")
        bob = enter(browser, server.origin, "Bob", PHONE, "dark")
        expect(ann.locator("#members li")).to_have_count(3)
        say(ann, "Morning! Shall we look at the new floor plan?")
        say(bob, "Yes. I am on the train, but I can see it.")
        say(carol, "The entrance is in the wrong place, top left.")
        say(ann, "Here?")
        point(carol, 0.3, 0.35)
        point(bob, 0.62, 0.6)
        point(ann, 0.2, 0.2)
        ann.get_by_role("application").press("Enter")
        hide(carol)
        bob.get_by_label("Message", exact=True).press_sequentially("Just")
        expect(ann.locator("#typing")).to_have_text("Bob Berger is typing …")
        windows = "".join(WINDOW.format(base64.b64encode(page.screenshot()).decode()) for page in (ann, bob))
        frame = browser.new_page(viewport={"width": 1600, "height": 900})
        frame.set_content(FRAME.format(windows))
        frame.locator("main").screenshot(path=target)


def enter(browser: Browser, url: str, name: str, size: dict[str, int], scheme: str) -> Page:
    """Open a window and log in."""
    context = browser.new_context(viewport=size, color_scheme=scheme, device_scale_factor=1)  # type: ignore[arg-type]
    page = context.new_page()
    page.goto(url)
    page.get_by_role("button", name=name).click()
    expect(page.get_by_role("button", name="Send")).to_be_enabled()
    return page


def say(page: Page, text: str) -> None:
    page.get_by_label("Message", exact=True).fill(text)
    page.get_by_role("button", name="Send").click()
    expect(page.locator(".body").last).to_contain_text(text)


def hide(page: Page) -> None:
    """Tell the page that its tab is hidden."""
    page.evaluate(
        "() => { Object.defineProperty(document, 'hidden', {value: true});"
        " document.dispatchEvent(new Event('visibilitychange')); }"
    )


def point(page: Page, x: float, y: float) -> None:
    """Move the pointer to a place in the shared area."""
    area = page.evaluate("() => document.getElementById('board').getBoundingClientRect().toJSON()")
    page.mouse.move(area["x"] + area["width"] * x, area["y"] + area["height"] * y)
    page.wait_for_timeout(200)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).with_name("screenshot.png")))
