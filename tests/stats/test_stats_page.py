"""The stats page in a real browser: its numbers stay right while clients come and go."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from flask_presence.stats.format import count, size
from flask_presence.web.page_state import HELPERS

from ..conftest import Connect, either_backend
from ..support.browser import Browser, BrowserContext, Page, expect
from ..support.client import client
from ..support.metrics import scrape, value
from ..support.raw import greet, masked, small_socket
from ..support.redis_server import running_redis
from ..support.server import Server, running, wait_until

Open = Callable[..., Page]
LIVE = 10_000
"""Milliseconds until the page shows a change: it polls every two seconds."""


@pytest.fixture(scope="module", params=["memory", "redis"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server that only these tests use, so that they know its numbers."""
    options = {"PRESENCE_MAX_OUTBOX": 300_000, "PRESENCE_RATE_LIMIT": None, **either_backend(request)}
    options["PRESENCE_HISTORY"] = {"kept-*": {"messages": 20, "seconds": 3600}}
    with running(send_buffer=16_384, **options) as running_server:
        yield running_server


@pytest.fixture
def show(browser: Browser, server: Server) -> Iterator[Open]:
    """Opens the page. It may have no errors, and may send requests only to its own server."""
    problems: list[str] = []
    with ExitStack() as stack:

        def show(query: str = "", **options: Any) -> Page:
            context = stack.enter_context(browser.new_context(**options))
            page = context.new_page()
            page.on("pageerror", lambda error: problems.append(str(error)))
            page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
            page.on("request", lambda sent: None if sent.url.startswith(server.origin) else problems.append(sent.url))
            page.goto(f"{server.origin}/presence/{query}")
            return page

        yield show
    assert problems == []


def tile(page: Page, name: str) -> Any:
    return page.locator(".tile", has=page.locator("dt", has_text=re.compile(f"^{name}$"))).locator("dd > span").first


def rows(page: Page, table: str) -> Any:
    return page.locator(f"#{table} > tr")


def expect_cells(page: Page, table: str, fields: str, wanted: list[list[str]]) -> None:
    """Wait until a table has these texts."""
    expect(rows(page, table)).to_have_count(len(wanted), timeout=LIVE)
    for number, texts in enumerate(wanted):
        for field, text in zip(fields.split(), texts, strict=True):
            cell = rows(page, table).nth(number).locator(f'[data-field="{field}"]')
            expect(cell).to_have_text(text, timeout=LIVE)


def test_the_numbers_follow_what_happens(show: Open, server: Server, connect: Connect, name: str) -> None:
    """Connections, members, channels, closes, errors and guards."""
    page = show(f"?search={name}")
    expect(page.get_by_role("status")).to_have_text("Live", timeout=LIVE)
    with ExitStack() as stack:
        clients = [stack.enter_context(client(server, f"user-{number}")) for number in range(4)]
        for one in clients:
            one.join(f"presence-{name}-room")
        clients[0].join(f"{name}-news")
        clients[1].request("join", channel=f"private-denied-{name}")
        expect(tile(page, "Connections")).to_have_text("4", timeout=LIVE)
        expect(tile(page, "Memberships")).to_contain_text("5", timeout=LIVE)
        expect(tile(page, "Channels")).to_have_text("2", timeout=LIVE)
        expect(page.locator("#guards tr", has_text="denied").locator('[data-field="count"]')).to_have_text("1")
        expect(page.locator("#errors tr", has_text="FORBIDDEN").locator('[data-field="number"]')).to_have_text("1")
        wanted = [[f"presence-{name}-room", "presence", "4"], [f"{name}-news", "public", "1"]]
        expect_cells(page, "channels", "name type memberCount", wanted)
        clients[3].socket.close()
        expect(tile(page, "Connections")).to_have_text("3", timeout=LIVE)
        expect(page.locator("#closed tr", has_text="1000").locator('[data-field="number"]')).to_have_text("1")
    expect(tile(page, "Connections")).to_have_text("0", timeout=LIVE)
    expect(rows(page, "channels")).to_have_count(0, timeout=LIVE)
    expect(page.get_by_text("No channel matches.")).to_be_visible()
    truth = server.json("/presence/stats")
    assert (truth["connections"], truth["channels"]) == (0, 0)


def test_cells_with_short_words_do_not_wrap_beside_a_long_name(show: Open, connect: Connect, name: str) -> None:
    one = connect("ann")
    one.join(f"presence-{name}-" + "x" * 180)
    one.join(f"private-{name}-" + "y" * 180)
    page = show(f"?search={name}", viewport={"width": 700, "height": 900})
    expect(rows(page, "channels")).to_have_count(2, timeout=LIVE)
    for cell in ("type", "createdAt"):
        heights = page.locator(f'#channels [data-field="{cell}"]').evaluate_all(
            """(cells) => cells.map((cell) => {
                const range = document.createRange();
                range.selectNodeContents(cell);
                return new Set([...range.getClientRects()].map(({top}) => top)).size;
            })"""
        )
        assert heights == [1, 1]
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_names_with_numbers_are_sorted_by_number(show: Open, connect: Connect, name: str) -> None:
    one = connect("ann")
    for number in (10, 2, 1, 20):
        one.join(f"{name}-news-{number}")
    page = show(f"?search={name}-news&sort=name")
    wanted = [[f"{name}-news-{number}"] for number in (1, 2, 10, 20)]
    expect_cells(page, "channels", "name", wanted)
    expect_cells(show(f"?search={name}-news"), "channels", "name", wanted)


def test_an_open_channel_lists_its_members_and_stays_current(show: Open, connect: Connect, name: str) -> None:
    """A hostile name is shown as text."""
    hostile = f"<img src=x onerror=alert(1)>{name}"
    ann = connect("ann", claims={"name": hostile})
    ann.join(f"presence-{name}", mood="good", tags=["a", 1])
    connect("ann").join(f"presence-{name}")
    page = show()
    page.get_by_role("link", name=f"presence-{name}").first.click()
    expect(page.locator("#channel")).to_be_focused(timeout=LIVE)
    expect_cells(page, "members", "name id connections details", [[hostile, "ann", "2", 'mood good tags ["a",1]']])
    connect("bob").join(f"presence-{name}")
    ann.update(f"presence-{name}", mood="better", tags=None)
    expect(rows(page, "members")).to_have_count(2, timeout=LIVE)
    expect(page.locator("#members")).to_contain_text("better", timeout=LIVE)
    expect(page.locator("[data-summary]")).to_have_text("2 members")
    page.go_back()
    expect(page.locator("#channel")).to_be_hidden(timeout=LIVE)
    page.go_forward()
    expect(rows(page, "members")).to_have_count(2, timeout=LIVE)
    page.get_by_label("Close").click()
    expect(page.locator("#channel")).to_be_hidden(timeout=LIVE)


def test_search_type_and_sorting_are_kept_in_the_address(show: Open, connect: Connect, name: str) -> None:
    ann, bob = connect("ann"), connect("bob")
    for number in range(3):
        ann.join(f"presence-{name}-{number}")
    bob.join(f"presence-{name}-1")
    ann.join(f"{name}-public")
    page = show()
    page.get_by_label("Search channels").press_sequentially(f"{name}-")
    expect(rows(page, "channels")).to_have_count(4, timeout=LIVE)
    expect(rows(page, "channels").first).to_contain_text(f"presence-{name}-1", timeout=LIVE)
    page.get_by_label("Type").select_option("presence")
    expect(rows(page, "channels")).to_have_count(3, timeout=LIVE)
    page.get_by_role("link", name="Channel", exact=True).click()
    expect(rows(page, "channels").first).to_contain_text(f"presence-{name}-0", timeout=LIVE)
    page.get_by_role("link", name="Channel", exact=True).click()
    expect(rows(page, "channels").first).to_contain_text(f"presence-{name}-2", timeout=LIVE)
    expect(page.locator("th[aria-sort=descending]")).to_have_text("Channel")
    page.reload()
    expect_cells(page, "channels", "name", [[f"presence-{name}-{number}"] for number in (2, 1, 0)])


def test_more_than_fifty_channels_are_paged(show: Open, connect: Connect, name: str) -> None:
    """This works with the script and without it."""
    ann = connect("ann")
    for number in range(60):
        ann.join(f"{name}-{number:02}")
    for options in ({}, {"java_script_enabled": False}):
        page = show(f"?search={name}-&sort=name", **options)
        expect(rows(page, "channels")).to_have_count(50)
        expect(page.get_by_text("1 to 50 of 60")).to_be_visible()
        page.get_by_role("link", name="next").click()
        expect(rows(page, "channels")).to_have_count(10, timeout=LIVE)
        expect(page.get_by_text("51 to 60 of 60")).to_be_visible()
        page.get_by_role("link", name="previous").click()
        expect(rows(page, "channels").first).to_contain_text(f"{name}-00", timeout=LIVE)


def test_everything_can_be_found_without_javascript(show: Open, connect: Connect, name: str) -> None:
    connect("ann").join(f"presence-{name}", mood="good")
    page = show(java_script_enabled=False)
    page.get_by_label("Search channels").fill(name)
    page.get_by_role("button", name="Search").click()
    expect(page).to_have_url(re.compile("[?&]search="))
    page.get_by_role("link", name=f"presence-{name}").first.click()
    expect_cells(page, "members", "id connections details", [["ann", "1", "mood good"]])
    page.get_by_role("link", name="Per second").click()
    expect(page).to_have_url(re.compile("[?&]sort="))
    expect_cells(page, "members", "id", [["ann"]])


def test_the_busiest_channel_and_a_slow_client_are_shown(
    show: Open, server: Server, connect: Connect, name: str
) -> None:
    """Messages in and out have rates and charts."""
    ann = connect("ann")
    ann.join(f"quiet-{name}")
    ann.join(f"loud-{name}")
    page = show()
    with small_socket(server.port) as slow:
        greet(slow, server.port, server.token(f"slow-{name}"))
        slow.sendall(masked(b'{"type": "join", "channel": "loud-%s"}' % name.encode()))

        def is_blocked() -> bool:
            ann.say(f"loud-{name}", "x" * 20_000)
            return bool(server.json("/presence/activity")["outbox"]["slowest"])

        wait_until(is_blocked)
        expect(page.locator("#slowest")).to_contain_text(f"slow-{name}", timeout=LIVE)
        expect(page.locator("#busiest tr").first).to_contain_text(f"loud-{name}", timeout=LIVE)
        assert page.locator("[data-alarm=on]").count() == 1
    expect(page.get_by_text("No slow clients.")).to_be_visible(timeout=LIVE)
    line = page.locator("[data-flow=sent] polyline").get_attribute("points")
    assert line is not None
    assert len({point.split(",")[1] for point in line.split()}) > 1
    assert page.locator("[data-flow=received] [data-peak]").inner_text() != "0"


def test_the_kept_messages_are_counted(show: Open, server: Server, connect: Connect, name: str) -> None:
    """Those of the open channel, if it keeps messages, and those of all channels; with the script and without it."""
    kept, other = f"presence-kept-{name}", f"presence-{name}"
    for channel in (kept, other):
        connect("ann").join(channel)

    def publish() -> None:
        """Publish a message. Returns when nothing older is cached."""
        assert server.call("publish", name=kept, event="news", data="x" * 1000) == 1
        wait_until(lambda: server.json("/presence/activity")["history"] == total())

    def total() -> dict[str, float]:
        samples = scrape(server)
        return {unit: value(samples, f"history_{unit}") for unit in ("messages", "bytes")}

    def expect_kept(page: Page, number: int) -> None:
        """The page has the figures of the open channel, with so many messages, and of all channels."""
        own = server.json(f"/presence/channels/{kept}")["history"]
        assert own["messages"] == number
        text = f"Kept messages: {number} ({size(own['bytes'])})"
        expect(page.locator("[data-kept]")).to_have_text(text, timeout=LIVE)
        cell = page.locator("tr", has=page.get_by_role("rowheader", name="Kept messages")).locator("td")
        text = f"{count(total()['messages'])} ({size(total()['bytes'])})"
        expect(cell).to_have_text(text, timeout=LIVE)

    for number, options in enumerate(({}, {"java_script_enabled": False}), 1):
        publish()
        page = show(f"?channel={other}&search={name}", **options)
        expect(page.locator("[data-name]")).to_have_text(other)
        expect(page.locator("[data-kept]")).to_be_hidden()
        page.locator("#channels").get_by_role("link", name=kept, exact=True).click()
        expect_kept(page, number)
    page = show(f"?channel={kept}")
    expect_kept(page, 2)
    publish()
    expect_kept(page, 3)
    expect(show(f"?channel=kept-nobody-{name}").locator("[data-kept]")).to_have_text("Kept messages: 0 (0 B)")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_a_narrow_screen_and_has_enough_contrast(
    show: Open, connect: Connect, name: str, scheme: str
) -> None:
    connect("ann").join(f"presence-{name}-{'long' * 40}", **{"k" * 60: "v" * 300})
    viewport = {"width": 360, "height": 740}
    page = show(f"?channel=presence-{name}-{'long' * 40}", viewport=viewport, color_scheme=scheme)
    expect(page.get_by_role("status")).to_have_text("Live", timeout=LIVE)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    ground, text = page.evaluate(
        "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
    )
    assert contrast(ground, text) > 7


def contrast(*colours: str) -> float:
    """The contrast ratio of two `rgb(…)` colours, as WCAG 2.2 defines it."""

    def luminance(colour: str) -> float:
        parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
        red, green, blue = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    dark, light = sorted(map(luminance, colours))
    return (light + 0.05) / (dark + 0.05)


def test_polls_get_304_while_nothing_happens(show: Open, connect: Connect, name: str) -> None:
    """They keep the parameters that gave access to the page."""
    connect("ann").join(f"presence-{name}")
    page = show(f"?search=presence-{name}&key=a%26b")
    answers: list[tuple[int, str]] = []
    page.on("response", lambda response: answers.append((response.status, response.url)))
    expect(page.get_by_role("status")).to_have_text("Live", timeout=LIVE)
    with page.expect_response(lambda response: "/channels?" in response.url and response.status == 304, timeout=LIVE):
        pass
    assert answers
    assert all("key=a%26b" in url for status, url in answers if "/presence/stats." not in url)


def test_the_page_says_that_the_server_does_not_answer(browser: Browser) -> None:
    """It keeps the last numbers, and goes on when the server is back."""
    with running() as server, browser.new_context() as context:
        page = context.new_page()
        page.goto(f"{server.origin}/presence/")
        expect(page.get_by_role("status")).to_have_text("Live", timeout=LIVE)
        server.stop()
        expect(page.get_by_role("status")).to_contain_text("The server does not answer; data as of", timeout=LIVE)
        server.start()
        server.wait_until_ready()
        expect(page.get_by_role("status")).to_have_text("Live", timeout=LIVE)


def test_the_page_says_that_redis_is_down(browser: Browser, program: str) -> None:
    """A page that is opened meanwhile says so too, and both show numbers when Redis is back."""
    with running_redis(program) as store, running(PRESENCE_BACKEND=store.url) as server, ExitStack() as stack:
        early, late = (stack.enter_context(browser.new_context()).new_page() for _ in range(2))
        early.goto(f"{server.origin}/presence/")
        expect(early.get_by_role("status")).to_have_text("Live", timeout=LIVE)
        store.stop()
        expect(early.get_by_role("status")).to_contain_text("The state store is unreachable", timeout=LIVE)
        late.goto(f"{server.origin}/presence/")
        expect(late.get_by_role("status")).to_have_text("The state store is unreachable")
        store.start()
        for page in (early, late):
            expect(page.get_by_role("status")).to_have_text("Live", timeout=LIVE)
            expect(tile(page, "Connections")).to_have_text("0")


def add_cookie(context: BrowserContext, server: Server, value: str) -> None:
    context.add_cookies([{"name": "key", "value": value, "url": server.origin}])


@pytest.mark.parametrize("odd", ["..", ".", "/a", "//", "%2F", "?a#b"])
def test_a_channel_with_any_name_can_be_opened(show: Open, connect: Connect, odd: str) -> None:
    connect("ann").join(odd)
    page = show()
    page.locator("#channels a", has_text=re.compile(f"^{re.escape(odd)}$")).click()
    expect(page.locator("[data-summary]")).to_have_text("1 connections; only presence channels list their members.")
    page.get_by_label("Close").click()
    expect(page.locator("#channels a", has_text=re.compile(f"^{re.escape(odd)}$"))).to_be_focused(timeout=LIVE)


def test_every_kind_of_access_keeps_the_page_live(browser: Browser) -> None:
    """A parameter, a password, a header and a cookie give access. A page that loses it says so."""
    with running(app="tests.support.plain:create_app()", PRESENCE_STATS_PUBLIC=False) as server:
        page_url = f"http://{server.host}/presence/"
        ways: list[tuple[str, dict[str, Any]]] = [
            (f"{page_url}?key=open%20sesame", {}),
            (f"{page_url.replace('http://', 'http://operator:open%20sesame@')}?ask", {}),
            (page_url, {"extra_http_headers": {"X-Key": "open sesame"}}),
            (page_url, {"storage_state": {"cookies": [], "origins": []}}),
        ]
        for url, options in ways:
            with browser.new_context(**options) as context:
                if "storage_state" in options:
                    add_cookie(context, server, "open-sesame")
                page = context.new_page()
                page.goto(url)
                expect(page.get_by_role("status")).to_have_text("Live", timeout=LIVE)
                if "storage_state" in options:
                    add_cookie(context, server, "another")
                    expect(page.get_by_role("status")).to_contain_text("no longer have access", timeout=LIVE)


def test_the_script_formats_numbers_like_the_server(show: Open) -> None:
    page = show()
    numbers = [0, 0.04, 0.05, 0.25, 0.949, 0.95, 1.25, 9.94, 9.95, 9.99, 10.5, 99.5, 999.4, 999.5, 1000, 1250, 10500]
    numbers += [
        999_499,
        999_500,
        1_234_567,
        999_500_000,
        12_345_678_901,
        0.0005,
        0.00994,
        0.00996,
        0.0125,
        0.9994,
        0.9996,
    ]
    for name in ("count", "rate", "size", "duration"):
        python: Any = HELPERS[name]
        script = page.evaluate(
            "async ([numbers, name, url]) => numbers.map((await import(url)).formats[name])",
            [numbers, name, "/presence/stats.js"],
        )
        assert script == [python(number) for number in numbers]
