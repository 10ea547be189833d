"""The example app on a real server, in a real browser: what two people see who chat with each other."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator

import pytest

from .conftest import missing
from .support.server import Server, running, wait_until

try:
    from playwright.sync_api import Browser, BrowserContext, Error, Locator, Page, expect, sync_playwright
except ImportError:
    if os.environ.get("CI") == "true":
        raise
    pytest.skip("Playwright is missing on this machine", allow_module_level=True)

Enter = Callable[..., Page]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
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


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """The example, started as its docstring says."""
    with running(
        app="example.app:create_app()", JWT_SECRET_KEY="one that outlives a reload, for all its workers"
    ) as running_server:
        yield running_server


@pytest.fixture
def enter(browser: Browser, server: Server) -> Iterator[Enter]:
    """Opens a window of its own and enters a room. At the end, no window may have logged an error."""
    problems: list[str] = []
    contexts: list[BrowserContext] = []

    def open_window(name: str, room: str = "general") -> Page:
        context = browser.new_context()
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: problems.append(f"{name}: {error}"))
        page.on("console", lambda line: problems.append(f"{name}: {line.text}") if line.type == "error" else None)
        page.goto(server.origin)
        page.get_by_label("Room").select_option(room)
        page.get_by_role("button", name=name).click()
        return page

    yield open_window
    for context in contexts:
        context.close()
    wait_until(lambda: server.json("/presence/stats")["connections"] == 0)
    assert problems == []


def online(page: Page) -> Locator:
    return page.get_by_role("list", name="Online").get_by_role("listitem")


def log(page: Page) -> Locator:
    return page.get_by_role("log", name="Messages")


def say(page: Page, text: str) -> None:
    page.get_by_label("Message", exact=True).fill(text)
    page.get_by_role("button", name="Send").click()


def test_who_comes_is_listed_and_greeted(enter: Enter) -> None:
    """Two people in a room see each other in the list, in order of joining, and the server's greeting."""
    ann = enter("Ann")
    expect(online(ann)).to_have_text(["Ann (you)"])
    expect(log(ann)).to_contain_text("Welcome, Ann!")

    bob = enter("Bob")
    expect(online(bob)).to_have_text(["Ann", "Bob (you)"])
    expect(online(ann)).to_have_text(["Ann (you)", "Bob"])
    expect(log(ann)).to_contain_text("Welcome, Bob!")
    expect(log(bob)).to_contain_text("Welcome, Bob!")


def test_people_chat_both_ways(enter: Enter) -> None:
    """A message stands once in the sender's window and once in the other's, with the sender's name."""
    ann, bob = enter("Ann"), enter("Bob")
    expect(online(ann)).to_have_count(2)
    expect(online(bob)).to_have_count(2)

    say(ann, "Hello Bob")
    expect(log(bob).locator(".message")).to_have_text(["AnnHello Bob"])
    say(bob, "Hello Ann")
    for page in (ann, bob):
        expect(log(page).locator(".message")).to_have_text(["AnnHello Bob", "BobHello Ann"])


def test_who_leaves_disappears(enter: Enter) -> None:
    """Somebody who closes the window is gone from the other's list."""
    ann, bob = enter("Ann"), enter("Bob")
    expect(online(ann)).to_have_text(["Ann (you)", "Bob"])

    bob.context.close()
    expect(online(ann)).to_have_text(["Ann (you)"])
    expect(log(ann)).to_contain_text("Bob has left.")


def test_rooms_are_apart(enter: Enter) -> None:
    """Who is in one room neither sees nor hears those in another."""
    ann, bob, carol = enter("Ann"), enter("Bob"), enter("Carol", "random")
    expect(online(bob)).to_have_count(2)

    say(ann, "Only for general")
    expect(log(bob)).to_contain_text("Only for general")
    say(carol, "Only for random")
    expect(online(carol)).to_have_text(["Carol (you)"])
    expect(log(carol).locator(".message")).to_have_text(["CarolOnly for random"])
    expect(log(bob).locator(".message")).to_have_text(["AnnOnly for general"])


def test_staff_room_is_for_staff(enter: Enter) -> None:
    """Only who has the staff claim gets in; somebody else is told why, in words."""
    ann, bob = enter("Ann", "staff"), enter("Bob", "staff")
    expect(online(ann)).to_have_text(["Ann (you)"])

    expect(bob.get_by_role("status")).to_have_text("Sorry, you cannot come in. This room is for staff only.")
    expect(bob.get_by_role("button", name="Send")).to_be_disabled()
    expect(online(bob)).to_have_count(0)
    bob.get_by_role("link", name="Leave").click()
    expect(bob.get_by_role("button", name="Bob")).to_be_visible()


def test_two_windows_of_one_user(enter: Enter) -> None:
    """Somebody with two windows is listed once, and sees in each what was written in the other."""
    first, second = enter("Ann"), enter("Ann")
    expect(online(second)).to_have_text(["Ann (you)"])

    say(first, "From here")
    expect(log(second).locator(".mine")).to_have_text(["AnnFrom here"])
    second.context.close()
    say(first, "Still here")
    expect(online(first)).to_have_text(["Ann (you)"])


def test_text_is_never_markup(enter: Enter) -> None:
    """What people write is shown as they wrote it."""
    ann, bob = enter("Ann"), enter("Bob")
    expect(online(ann)).to_have_count(2)

    say(ann, "<img src=x onerror='throw 1'>")
    for page in (ann, bob):
        expect(log(page)).to_contain_text("<img src=x onerror='throw 1'>")
        expect(log(page).locator("img")).to_have_count(0)


def test_connecting_again(enter: Enter, server: Server) -> None:
    """When the server restarts the page says so, keeps the messages, and comes back at the press of a button."""
    ann = enter("Ann")
    expect(online(ann)).to_have_count(1)
    say(ann, "Before")

    server.process.send_signal(signal.SIGHUP)
    again = ann.get_by_role("button", name="Connect again")
    expect(again).to_be_visible()
    expect(ann.get_by_role("status")).to_have_text("You are not connected. The server is restarting.")
    expect(ann.get_by_role("button", name="Send")).to_be_disabled()
    expect(online(ann)).to_have_count(0)

    again.click()
    expect(online(ann)).to_have_text(["Ann (you)"])
    expect(again).to_be_hidden()
    say(ann, "After")
    expect(log(ann).locator(".message")).to_have_text(["AnnBefore", "AnnAfter"])


def test_statistics_are_linked(enter: Enter) -> None:
    """The page links to the statistics, which are open and show the room."""
    ann = enter("Ann")
    expect(online(ann)).to_have_count(1)

    with ann.context.expect_page() as opened:
        ann.get_by_role("link", name="Statistics").click()
    expect(opened.value.get_by_role("row", name="presence-chat-general")).to_be_visible()
