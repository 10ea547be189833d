"""The example app on a real server, in a real browser: what its users see."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from ..support.browser import Browser, BrowserContext, Locator, Page, expect, lose_network
from ..support.client import client
from ..support.server import Server, running, wait_until

Enter = Callable[..., Page]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """The example, started as its docstring says, but for a route that forgets messages."""
    with running(
        app="tests.support.example_app:create_app()", JWT_SECRET_KEY="one that outlives a reload, for all its workers"
    ) as running_server:
        yield running_server


@pytest.fixture
def enter(browser: Browser, server: Server) -> Iterator[Enter]:
    """Opens a window and enters a room. At the end no window may have had an error."""
    problems: list[str] = []
    contexts: list[BrowserContext] = []
    for room in ("general", "random", "announcements", "staff"):
        server.json(f"/forget/{room}")

    def open_window(name: str, room: str = "general", **options: Any) -> Page:
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: problems.append(f"{name}: {error}"))
        page.goto(server.origin)
        page.get_by_role("button", name=name).click()
        if room != "general":
            go(page, room)
        return page

    yield open_window
    for context in contexts:
        context.close()
    wait_until(lambda: server.json("/presence/stats")["connections"] == 0)
    assert problems == []


def go(page: Page, room: str) -> None:
    page.get_by_role("navigation", name="Rooms").get_by_role("button", name=room).click()


def online(page: Page) -> Locator:
    return page.get_by_role("list", name="Online").get_by_role("listitem")


def names(page: Page) -> Locator:
    return online(page).locator("span:not(.avatar)")


def log(page: Page) -> Locator:
    return page.get_by_role("log", name="Messages")


def bodies(page: Page) -> Locator:
    return log(page).locator(".body")


def state(page: Page) -> Locator:
    return page.locator("#state")


def board(page: Page) -> Locator:
    return page.get_by_role("application", name="Shared area")


def say(page: Page, text: str) -> None:
    page.get_by_label("Message", exact=True).fill(text)
    page.get_by_role("button", name="Send").click()


def hide(page: Page, hidden: bool) -> None:
    """Tell the page that its tab is hidden, because a headless browser hides no tab."""
    page.evaluate(
        "(hidden) => {"
        " Object.defineProperty(document, 'hidden', {value: hidden, configurable: true});"
        " document.dispatchEvent(new Event('visibilitychange')); }",
        hidden,
    )


def test_a_new_user_is_listed_and_greeted(enter: Enter) -> None:
    """Everybody in the room sees the list in order of joining."""
    ann = enter("Ann")
    expect(names(ann)).to_have_text(["Ann Archer (you)"])
    expect(log(ann)).to_contain_text("Welcome, Ann Archer!")

    bob = enter("Bob")
    expect(names(bob)).to_have_text(["Ann Archer", "Bob Berger (you)"])
    expect(names(ann)).to_have_text(["Ann Archer (you)", "Bob Berger"])
    expect(online(ann).locator(".avatar")).to_have_text(["AA", "BB"])
    for page in (ann, bob):
        expect(log(page)).to_contain_text("Welcome, Bob Berger!")
        expect(state(page)).to_have_text("")


def test_two_users_chat(enter: Enter) -> None:
    """A message appears once in each window, with the name of its sender."""
    ann, bob = enter("Ann"), enter("Bob")
    expect(online(ann)).to_have_count(2)
    expect(online(bob)).to_have_count(2)

    say(ann, "Hello Bob")
    expect(bodies(bob)).to_have_text(["Ann ArcherHello Bob"])
    say(bob, "Hello Ann")
    for page in (ann, bob):
        expect(bodies(page)).to_have_text(["Ann ArcherHello Bob", "Bob BergerHello Ann"])


def test_the_others_see_who_is_typing(enter: Enter) -> None:
    """This ends when the message arrives."""
    ann, bob = enter("Ann"), enter("Bob")
    expect(online(ann)).to_have_count(2)
    ann.get_by_label("Message", exact=True).press_sequentially("Hel")
    expect(bob.locator("#typing")).to_have_text("Ann Archer is typing …")
    ann.get_by_role("button", name="Send").click()
    expect(bodies(bob)).to_have_text(["Ann ArcherHel"])
    expect(bob.locator("#typing")).to_have_text("")
    expect(ann.locator("#typing")).to_have_text("")


def test_the_pointer_and_the_arrow_keys_move_a_cursor(enter: Enter) -> None:
    """The other window shows it with a name."""
    ann, bob = enter("Ann"), enter("Bob")
    expect(online(ann)).to_have_count(2)
    area = board(ann).bounding_box()
    assert area is not None
    ann.mouse.move(area["x"] + area["width"] / 4, area["y"] + area["height"] / 2)
    cursor = board(bob).locator(".cursor")
    expect(cursor).to_have_text("Ann Archer")
    expect(cursor).to_have_attribute("style", re.compile("left: 25%; top: 50%;"))

    ann.mouse.move(0, 0)
    expect(cursor).to_have_count(0)
    board(ann).focus()
    ann.keyboard.press("ArrowRight")
    ann.keyboard.press("ArrowDown")
    expect(cursor).to_have_attribute("style", re.compile("left: 27%; top: 52%;"))
    ann.keyboard.press("Enter")
    expect(board(bob).locator(".wave")).to_be_visible()
    expect(bob.locator("#waved")).to_have_text("Ann Archer waves")
    expect(board(bob).locator(".wave")).to_have_count(0)


def test_a_tap_waves_and_leaves_no_cursor(enter: Enter) -> None:
    """A phone shows how many users are online."""
    ann, bob = enter("Ann", viewport={"width": 390, "height": 800}, has_touch=True, is_mobile=True), enter("Bob")
    expect(online(bob)).to_have_count(2)
    expect(ann.locator("#online")).to_have_text("Online 2")
    expect(ann.locator("#online")).to_be_visible()
    board(ann).tap(position={"x": 50, "y": 50})
    expect(bob.locator("#waved")).to_have_text("Ann Archer waves")
    say(ann, "Did you see it?")  # everything that the tap sent arrives before this
    expect(bodies(bob)).to_have_count(1)
    assert board(bob).locator(".cursor").count() == board(ann).locator(".cursor").count() == 0


def test_a_user_who_hides_every_tab_is_away(enter: Enter) -> None:
    ann, bob = enter("Ann"), enter("Bob")
    expect(online(ann)).to_have_count(2)
    hide(bob, True)
    expect(online(ann).nth(1)).to_contain_text("away")
    hide(bob, False)
    expect(online(ann).nth(1)).not_to_contain_text("away")

    second = enter("Bob")
    expect(online(second)).to_have_count(2)
    hide(second, True)
    expect(online(second).nth(1)).not_to_contain_text("away")
    expect(online(ann).nth(1)).not_to_contain_text("away")


def test_a_user_who_leaves_disappears_with_the_cursor(enter: Enter) -> None:
    """Leaving means closing the window or entering another room."""
    ann, bob, carol = enter("Ann"), enter("Bob"), enter("Carol")
    expect(online(ann)).to_have_count(3)
    bob.bring_to_front()
    board(bob).hover()
    expect(board(ann).locator(".cursor")).to_have_text("Bob Berger")

    bob.context.close()
    expect(names(ann)).to_have_text(["Ann Archer (you)", "Carol Chen"])
    expect(log(ann)).to_contain_text("Bob Berger has left.")
    expect(board(ann).locator(".cursor")).to_have_count(0)
    go(carol, "random")
    expect(names(ann)).to_have_text(["Ann Archer (you)"])


def test_users_hear_only_their_own_room(enter: Enter) -> None:
    ann, bob, carol = enter("Ann"), enter("Bob"), enter("Carol", "random")
    expect(names(carol)).to_have_text(["Carol Chen (you)"])
    expect(online(bob)).to_have_count(2)

    say(ann, "Only for general")
    expect(log(bob)).to_contain_text("Only for general")
    say(carol, "Only for random")
    expect(bodies(carol)).to_have_text(["Carol ChenOnly for random"])
    expect(bodies(bob)).to_have_text(["Ann ArcherOnly for general"])


def test_only_staff_can_enter_the_staff_room(enter: Enter) -> None:
    """Others are told why, and can enter another room."""
    ann, bob = enter("Ann", "staff"), enter("Bob")
    expect(names(ann)).to_have_text(["Ann Archer (you)"])

    expect(names(bob)).to_have_text(["Bob Berger (you)"])
    go(bob, "staff")
    expect(log(bob)).to_have_text("Sorry, you cannot come in. This room is for staff only.")
    expect(bob.get_by_role("button", name="Send")).to_be_disabled()
    expect(online(bob)).to_have_count(0)
    expect(bob.locator("#title")).to_have_text("Not in room: staff")
    expect(bob.locator("#rooms [aria-current]")).to_have_count(0)
    go(bob, "random")
    expect(bob.locator("#title")).to_have_text("Room: random")
    expect(bob.locator("#rooms [aria-current]")).to_have_text("random")
    expect(names(bob)).to_have_text(["Bob Berger (you)"])
    expect(bob.get_by_role("button", name="Send")).to_be_enabled()


def test_only_users_with_a_badge_can_write_announcements(enter: Enter) -> None:
    """The guard gives the badge, and everybody reads the announcements."""
    ann, bob = enter("Ann", "announcements"), enter("Bob", "announcements")
    badges = online(bob).filter(has=bob.locator(".badge"))
    expect(badges).to_have_count(1)
    expect(badges.locator("span:not(.avatar)")).to_have_text("Ann Archer")
    expect(bob.get_by_role("button", name="Send")).to_be_disabled()
    answer = bob.evaluate("room.send('message', {text: 'Buy!'}).catch(({code, message}) => [code, message])")
    assert answer == ["FORBIDDEN", "Only staff write here."]
    bob.evaluate("room.update({badge: 'staff', name: 'Ann Archer'})")
    say(ann, "Lunch is at noon")
    expect(bodies(bob)).to_have_text(["Ann ArcherLunch is at noon"])
    expect(names(ann)).to_have_text(["Ann Archer (you)", "Bob Berger"])
    expect(badges).to_have_count(1)


def test_logging_out_ends_the_connection_and_revokes_the_token(enter: Enter, server: Server) -> None:
    ann, bob = enter("Ann"), enter("Bob")
    expect(online(ann)).to_have_count(2)
    token = bob.evaluate("token")
    with client(server, token=token) as other:
        bob.get_by_role("button", name="Log out").click()
        assert other.wait_closed() == (4401, "Token revoked")
    expect(online(ann)).to_have_count(1)
    expect(bob.get_by_text("Who are you?")).to_be_visible()
    with pytest.raises(InvalidStatus), client(server, token=token):
        pass


def test_a_user_with_two_windows_is_listed_once(enter: Enter) -> None:
    """Each window shows what the user wrote in the other."""
    first, second = enter("Ann"), enter("Ann")
    expect(names(second)).to_have_text(["Ann Archer (you)"])

    say(first, "From here")
    expect(bodies(second)).to_have_text(["Ann ArcherFrom here"])
    expect(log(second).locator(".mine")).to_have_count(1)
    second.context.close()
    say(first, "Still here")
    expect(names(first)).to_have_text(["Ann Archer (you)"])


def test_a_reload_shows_the_conversation(enter: Enter) -> None:
    """In the same room, with times, and with the names of those who have left. What the user wrote is theirs."""
    ann, bob = enter("Ann", "random"), enter("Bob", "random")
    expect(online(ann)).to_have_count(2)
    say(bob, "Hello Ann")
    expect(bodies(ann)).to_have_count(1)
    say(ann, "Hello Bob")
    board(ann).hover()
    expect(board(bob).locator(".cursor")).to_have_count(1)
    bob.context.close()
    expect(online(ann)).to_have_count(1)

    ann.reload()
    expect(ann.locator("#title")).to_have_text("Room: random")
    expect(bodies(ann)).to_have_text(["Bob BergerHello Ann", "Ann ArcherHello Bob"])
    expect(log(ann).locator(".mine .body")).to_have_text(["Ann ArcherHello Bob"])
    expect(log(ann).locator(".message time")).to_have_text([re.compile(r"^\d+:\d\d")] * 2)
    go(ann, "general")
    expect(online(ann)).to_have_count(1)
    expect(bodies(ann)).to_have_count(0)
    go(ann, "random")
    expect(bodies(ann)).to_have_text(["Bob BergerHello Ann", "Ann ArcherHello Bob"])


def test_older_messages_scroll_in(enter: Enter) -> None:
    """The lines that the user is reading stay in place, and no message appears twice."""
    ann = enter("Ann")
    expect(online(ann)).to_have_count(1)
    ann.evaluate("(async () => { for (let n = 0; n < 60; n++) await room.send('message', {text: `line ${n}`}); })()")

    def lines(first: int) -> list[str]:
        return [f"Ann Archerline {number}" for number in range(first, 60)]

    ann.reload()
    expect(bodies(ann)).to_have_text(lines(40))
    expect(bodies(ann).last).to_be_in_viewport()
    for first in (20, 10):
        oldest = bodies(ann).first
        oldest.scroll_into_view_if_needed()
        expect(bodies(ann)).to_have_text(lines(first))
        expect(bodies(ann).nth(20 if first == 20 else 10)).to_be_in_viewport()
    assert ann.evaluate("oldest") is None
    say(ann, "line 60")
    expect(bodies(ann).last).to_have_text("Ann Archerline 60")
    expect(bodies(ann).last).to_be_in_viewport()


def test_a_tall_window_is_filled(enter: Enter) -> None:
    """If the newest messages do not fill it, older ones come without scrolling."""
    ann = enter("Ann", viewport={"width": 1200, "height": 4000})
    expect(online(ann)).to_have_count(1)
    ann.evaluate("(async () => { for (let n = 0; n < 60; n++) await room.send('message', {text: `line ${n}`}); })()")
    ann.reload()
    expect(bodies(ann)).to_have_count(50)


def test_a_message_on_its_way_is_shown_until_it_is_sent(enter: Enter, server: Server) -> None:
    ann, bob = enter("Ann"), enter("Bob", "announcements")
    expect(online(ann)).to_have_count(1)
    server.process.send_signal(signal.SIGSTOP)
    for pid in server.worker_pids():
        os.kill(pid, signal.SIGSTOP)
    say(ann, "Wait for me")
    expect(log(ann).locator(".unsent .body")).to_have_text(["Ann ArcherWait for me"])
    for pid in server.worker_pids():
        os.kill(pid, signal.SIGCONT)
    server.process.send_signal(signal.SIGCONT)
    expect(log(ann).locator(".unsent")).to_have_count(0)
    expect(bodies(ann)).to_have_text(["Ann ArcherWait for me"])

    expect(online(bob)).to_have_count(1)
    bob.evaluate("document.getElementById('send').disabled = false")
    say(bob, "Buy!")
    expect(log(bob)).to_contain_text("Your message was not sent. Only staff write here.")
    expect(bodies(bob)).to_have_count(0)
    expect(bob.get_by_label("Message", exact=True)).to_have_value("Buy!")


def test_text_is_never_markup(enter: Enter) -> None:
    ann, bob = enter("Ann"), enter("Bob")
    expect(online(ann)).to_have_count(2)

    say(ann, "<img src=x onerror='throw 1'>")
    for page in (ann, bob):
        expect(log(page)).to_contain_text("<img src=x onerror='throw 1'>")
        expect(log(page).locator("img")).to_have_count(0)


def test_any_json_of_another_client_is_handled(enter: Enter) -> None:
    ann, bob = enter("Ann"), enter("Bob")
    expect(online(ann)).to_have_count(2)
    for event in ("message", "typing", "cursor", "wave", "greeting"):
        for data in ("null", "5", "{x: 'NaN', y: null}", "[]", "{text: {toString: null}}", "{text: 'I am the server'}"):
            bob.evaluate(f"() => Promise.all([room, live].map((channel) => channel.send('{event}', {data})))")
    say(bob, "the end")
    expect(bodies(ann)).to_have_text(["Bob BergerI am the server", "Bob Bergerthe end"])
    expect(log(ann)).not_to_have_text(re.compile("server.*server"))
    bob.reload()
    expect(bodies(bob)).to_have_text(["Bob BergerI am the server", "Bob Bergerthe end"])


def test_the_page_reconnects_after_a_network_loss(enter: Enter) -> None:
    """Meanwhile it says so. Then it shows what was written."""
    ann, bob = enter("Ann"), enter("Bob")
    expect(online(ann)).to_have_count(2)
    ann.clock.install()
    lose_network(ann, lambda: state(ann).inner_text() == "Reconnecting …")
    expect(ann.get_by_role("button", name="Send")).to_be_disabled()
    say(bob, "Anybody?")
    ann.context.set_offline(False)
    expect(state(ann)).to_have_text("", timeout=20_000)
    say(ann, "Here again")
    for page in (ann, bob):
        expect(bodies(page)).to_have_text(["Bob BergerAnybody?", "Ann ArcherHere again"])


def test_everybody_is_back_after_a_restart_of_the_server(enter: Enter, server: Server) -> None:
    """The messages stay on the page, which says that others may be missing: they were in the old worker's memory."""
    ann, bob = enter("Ann"), enter("Bob")
    expect(online(ann)).to_have_count(2)
    say(ann, "Before")
    for page in (ann, bob):
        page.evaluate(
            "() => { window.said = []; const node = document.getElementById('state');"
            " new MutationObserver(() => said.push(node.textContent)).observe(node, {childList: true}); }"
        )
    server.process.send_signal(signal.SIGHUP)
    for page in (ann, bob):
        # The text may be there only for a moment, because the delay is random.
        page.wait_for_function("said.includes('The server is restarting. Reconnecting …')", timeout=20_000)
    for page in (ann, bob):
        expect(state(page)).to_have_text("", timeout=20_000)
        expect(online(page)).to_have_count(2)
    say(ann, "After")
    for page in (ann, bob):
        expect(bodies(page)).to_have_text(["Ann ArcherBefore", "Ann ArcherAfter"])
        expect(log(page)).to_contain_text("Some messages may be missing here.")


def test_the_page_waits_for_a_killed_server(enter: Enter, server: Server) -> None:
    ann = enter("Ann")
    expect(online(ann)).to_have_count(1)
    server.kill()
    expect(state(ann)).to_have_text("Reconnecting …")
    server.start()
    server.wait_until_ready()
    expect(state(ann)).to_have_text("", timeout=20_000)
    say(ann, "After")
    expect(bodies(ann)).to_have_text(["Ann ArcherAfter"])


def test_the_page_links_to_the_statistics(enter: Enter) -> None:
    ann = enter("Ann")
    expect(online(ann)).to_have_count(1)

    with ann.context.expect_page() as opened:
        ann.get_by_role("link", name="Statistics").click()
    expect(opened.value.locator("#channels").get_by_role("row", name="presence-room-general")).to_be_visible()
