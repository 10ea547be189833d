"""The example's page with pusher-js, beside its page with presence.js: one room, two clients, and Pusher's SDK."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ..support.browser import Browser, Locator, Page, Request, expect
from ..support.server import DEADLINE, ROOT, Server, running

Enter = Callable[..., Page]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running(app="example.app:create_app()") as running_server:
        yield running_server


@pytest.fixture
def enter(browser: Browser, server: Server) -> Iterator[Enter]:
    """Opens one of the two pages, without a way to other hosts, and enters a room. No page may have had an error."""
    problems: list[str] = []
    pages: list[Page] = []

    def note_request(request: Request) -> None:
        if not request.url.startswith(server.origin):
            problems.append(request.url)

    def open_page(name: str, path: str = "/", room: str = "general", **options: Any) -> Page:
        page = browser.new_context(**options).new_page()
        pages.append(page)
        page.on("pageerror", lambda error: problems.append(f"{name}: {error}"))
        page.on("request", note_request)
        page.goto(f"{server.origin}{path}")
        page.get_by_role("button", name=name).click()
        if room != "general":
            page.get_by_role("navigation", name="Rooms").get_by_role("button", name=room).click()
        return page

    yield open_page
    for page in pages:
        page.context.close()
    assert problems == []


def online(page: Page) -> Locator:
    return page.locator("#members li > span:not(.avatar)")


def bodies(page: Page) -> Locator:
    return page.locator("#log .body")


def say(page: Page, text: str) -> None:
    page.get_by_label("Message", exact=True).fill(text)
    page.get_by_role("button", name="Send").click()


def announce(server: Server, text: str, room: str) -> None:
    environ = os.environ | {"PUSHER_HOST": server.host}
    command = [sys.executable, "-m", "example.announce", text, room]
    subprocess.run(command, check=True, cwd=ROOT, env=environ, timeout=DEADLINE)


def test_both_pages_show_the_same_members_and_messages(enter: Enter, server: Server) -> None:
    ann, bob = enter("Ann"), enter("Bob", "/pusher")
    expect(online(ann)).to_have_text(["Ann Archer (you)", "Bob Berger"])
    expect(online(bob)).to_have_text(["Ann Archer", "Bob Berger (you)"])
    expect(bob.locator("#members .badge")).to_have_text(["staff"])
    say(bob, "Hello from pusher-js")
    say(ann, "Hello from presence.js")
    for page in (ann, bob):
        expect(bodies(page)).to_have_text(["Bob BergerHello from pusher-js", "Ann ArcherHello from presence.js"])
    announce(server, "Lunch is ready", "general")
    for page in (ann, bob):
        expect(page.locator("#log .note").last).to_have_text("Announcement: Lunch is ready")
    carol = enter("Carol", "/pusher")
    for page in (ann, bob):
        expect(online(page)).to_have_count(3)
        expect(page.locator("#log .note").last).to_have_text("Welcome, Carol Chen!")
    carol.close()
    for page in (ann, bob):
        expect(online(page)).to_have_count(2)
        expect(page.locator("#log .note").last).to_have_text("Carol Chen has left.")


def test_a_member_who_goes_away_is_shown_as_away_by_pusher_js(enter: Enter) -> None:
    ann, bob = enter("Ann", room="random"), enter("Bob", "/pusher", "random")
    expect(online(bob)).to_have_count(2)
    ann.evaluate(
        "() => { Object.defineProperty(document, 'hidden', {value: true});"
        " document.dispatchEvent(new Event('visibilitychange')); }"
    )
    expect(bob.locator("#members .away")).to_have_text(["AAAnn Archerstaffaway"])
    expect(online(bob)).to_have_text(["Ann Archer", "Bob Berger (you)"])


def test_the_guards_decide_about_pages_with_pusher_js_too(enter: Enter) -> None:
    bob = enter("Bob", "/pusher", "staff")
    expect(bob.locator("#log .note")).to_have_text(["Sorry, you cannot be in this room. This room is for staff only."])
    expect(bob.get_by_role("button", name="Send")).to_be_disabled()
    ann = enter("Ann", "/pusher", "staff")
    expect(online(ann)).to_have_text(["Ann Archer (you)"])


def test_message_guards_decide_about_pages_with_pusher_js_too(enter: Enter) -> None:
    ann, bob = enter("Ann", room="announcements"), enter("Bob", "/pusher", "announcements")
    expect(online(ann)).to_have_count(2)
    say(bob, "Buy!")
    expect(bob.locator("#log .note").last).to_have_text("Sorry, that failed. Only staff write here.")
    say(ann, "Lunch is at noon")
    expect(bodies(bob).last).to_have_text("Ann ArcherLunch is at noon")
    expect(bodies(ann)).to_have_text(["Ann ArcherLunch is at noon"])


def test_a_client_cannot_announce(enter: Enter) -> None:
    ann, bob = enter("Ann"), enter("Bob", "/pusher")
    expect(online(ann)).to_have_count(2)
    ann.evaluate("room.send('announcement', {text: 'forged'})")
    bob.evaluate("channel.trigger('client-announcement', {text: 'forged'})")
    say(ann, "the end")
    say(bob, "the real end")
    for page in (ann, bob):
        expect(bodies(page).last).to_have_text("Bob Bergerthe real end")
        expect(page.locator("#log")).not_to_contain_text("forged")
