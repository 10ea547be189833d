"""A page with a client of its own, in a real browser, for tests of `presence.js`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from .browser import Browser, BrowserContext, Page, lose_network
from .server import DEADLINE, Server

ROOM = "presence-room"
SETUP = """() => {
    window.heard = [];
    window.states = [];
    window.tokens = 0;
    const claims = () => (LIVES ? {exp: Math.floor(Date.now() / 1000 + LIVES)} : {});
    window.token = async () => {
        tokens += 1;
        const query = new URLSearchParams({user: USER, claims: JSON.stringify(claims())});
        return (await fetch(`/token?${query}`)).json();
    };
    window.presence = new Presence("/presence/ws", {token: USER && token, OPTIONS});
    presence.on("state", (state, {code}) => states.push(code ? [state, code] : [state]));
    presence.on("broadcast", (frame) => heard.push(["broadcast", frame]));
    presence.on("error", ({code}) => heard.push(["error", code]));
    window.watch = (room) => {
        for (const event of ["joined", "left", "updated"]) {
            room.on(event, (member) => heard.push([event, member.id]));
        }
        return room
            .on("members", (members) => heard.push(["members", members.map(({id}) => id)]))
            .on("message", (data, {event, from}) => heard.push(["message", event, data, from.userId ?? from.clientId]))
            .on("gap", (messages) => heard.push(["gap", ...messages.map(({data}) => data)]))
            .on("error", ({code, message}) => heard.push(["error", code, message]));
    };
    window.outcome = ({code, message, retryable}) => ({code, message, retryable});
    window.attempt = (promise) => promise.then((value) => value, outcome);
}"""


class Tab:
    """A page with its own client, and the events that its application got."""

    def __init__(self, page: Page, origin: str, user: str | None, options: str, lives: int) -> None:
        self.page = page
        self.problems: list[str] = []
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.goto(f"{origin}/page")
        setup = SETUP.replace("LIVES", str(lives)).replace("USER", json.dumps(user)).replace("OPTIONS", options)
        page.evaluate(setup)

    def do(self, script: str) -> Any:
        """The value of an expression, awaited."""
        return self.page.evaluate(f"async () => {{ return await ({script}); }}")

    def join(self, channel: str = ROOM, info: str = "undefined") -> Any:
        return self.do(
            f"attempt(watch(window.room = presence.join('{channel}', {info})).joined.then(() => room.members))"
        )

    def wait(self, condition: str) -> None:
        self.page.wait_for_function(condition, timeout=DEADLINE * 1000)

    def lose_network(self) -> None:
        """Take the network away. Returns once the client waits for it."""
        self.page.clock.install()
        lose_network(self.page, lambda: self.do("presence.state === 'waiting'"))

    @property
    def heard(self) -> list[Any]:
        """The events since the last call. A ping makes sure that all of them have arrived."""
        self.do("attempt(presence._request('ping', {}))")
        heard: list[Any] = self.do("heard.splice(0)")
        return heard


class OpenTab(Protocol):
    """Opens a page of a server, or of another `origin` that leads to it. `options` are those of `Presence`, in
    JavaScript, and `lives` are the seconds that a token lasts (0: it does not expire)."""

    def __call__(
        self, user: str | None = None, on: Server | None = None, options: str = "", lives: int = 0, origin: str = ""
    ) -> Tab: ...


@contextmanager
def opening_tabs(browser: Browser, server: Server) -> Iterator[OpenTab]:
    """Pages that are closed at the end. None of them may have had an uncaught error."""
    contexts: list[BrowserContext] = []
    tabs: list[Tab] = []

    def open_one(
        user: str | None = None, on: Server | None = None, options: str = "", lives: int = 0, origin: str = ""
    ) -> Tab:
        contexts.append(browser.new_context())
        tabs.append(Tab(contexts[-1].new_page(), origin or (on or server).origin, user, options, lives))
        return tabs[-1]

    yield open_one
    assert [problem for tab in tabs for problem in tab.problems] == []
    for context in contexts:
        context.close()
