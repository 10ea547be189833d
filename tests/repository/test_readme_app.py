"""The app and the page of the README, copied into files and run as the README says."""

from __future__ import annotations

from pathlib import Path

from ..support.browser import Browser, Dialog, Page, expect
from ..support.documents import blocks_of
from ..support.server import ROOT, Server, running


def copy_example(folder: Path) -> None:
    blocks = {block.language: block.text for block in reversed(list(blocks_of(ROOT / "README.md")))}
    (folder / "templates").mkdir()
    (folder / "app.py").write_text(blocks["python"], encoding="utf-8")
    (folder / "templates/index.html").write_text(blocks["html"], encoding="utf-8")


def open_page(browser: Browser, server: Server, user: str, problems: list[str]) -> Page:
    """The page of a browser of its own, logged in as `user`."""

    def answer(dialog: Dialog) -> None:
        dialog.accept(user)

    page = browser.new_context().new_page()
    page.on("dialog", answer)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(f"{server.origin}/")
    expect(page.locator("#online")).to_contain_text(user.title())
    return page


def test_two_users_of_the_readme_app_see_each_other_and_talk(browser: Browser, tmp_path: Path) -> None:
    copy_example(tmp_path)
    problems: list[str] = []
    with running(app="app:app", arguments=("--chdir", str(tmp_path))) as server:
        ann, bob = (open_page(browser, server, user, problems) for user in ("ann", "bob"))
        expect(ann.locator("#online")).to_have_text("Ann, Bob")
        bob.fill("#text", "hello")
        bob.click("button")
        expect(ann.locator("#log")).to_contain_text("bob: hello")
        expect(bob.locator("#log")).to_contain_text("me: hello")
        expect(bob.locator("#log")).to_contain_text("Welcome, Bob!")
        for page in (ann, bob):
            page.context.close()
    assert problems == []
