"""The recipes, all in one app as the document has them, on a real server, in real browsers."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ..conftest import on_redis
from ..support.browser import Browser, Page, expect
from ..support.documents import ROOT
from ..support.guides import commands_of, files_of, run, write
from ..support.redis_server import RedisServer
from ..support.server import Server, running

RECIPES = ROOT / "docs/recipes.md"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipes")
    write(files_of(RECIPES), path)
    return path


@pytest.fixture(scope="module")
def settings(redis_server: RedisServer) -> dict[str, Any]:
    return on_redis(redis_server)


@pytest.fixture(scope="module")
def server(folder: Path, settings: dict[str, Any]) -> Iterator[Server]:
    assert "gunicorn -k gevent app:app" in commands_of(RECIPES)
    with running(app="app:app", arguments=("--chdir", str(folder)), **settings) as server:
        yield server


class Users:
    """Pages of users; each user has a browser of their own. `problems` are the errors of all pages."""

    def __init__(self, browser: Browser, server: Server) -> None:
        self.problems: list[str] = []
        self._server = server
        self._contexts = {name: browser.new_context() for name in ("ann", "bob", "carol")}
        for name, context in self._contexts.items():
            context.request.get(f"{server.origin}/login/{name}")

    def open(self, name: str, path: str) -> Page:
        page = self._contexts[name].new_page()
        page.on("pageerror", lambda error: self.problems.append(f"{name}, {path}: {error}"))
        page.goto(f"{self._server.origin}{path}")
        page.wait_for_function("presence.state === 'connected'")
        return page

    def post(self, name: str, path: str, **form: str) -> Any:
        response = self._contexts[name].request.post(f"{self._server.origin}{path}", form={**form})
        assert response.ok, response.status
        return response.json()

    def get(self, name: str, path: str) -> Any:
        return self._contexts[name].request.get(f"{self._server.origin}{path}").json()

    def close_pages(self) -> None:
        for context in self._contexts.values():
            for page in context.pages:
                page.close()

    def close(self) -> None:
        for context in self._contexts.values():
            context.close()


@pytest.fixture(scope="module")
def shared_users(browser: Browser, server: Server) -> Iterator[Users]:
    users = Users(browser, server)
    yield users
    users.close()


@pytest.fixture
def users(shared_users: Users) -> Iterator[Users]:
    yield shared_users
    shared_users.close_pages()
    assert shared_users.problems == []


def refusal(page: Page, channel: str) -> Any:
    """The code and the text with which the page is refused in a channel."""
    return page.evaluate("(name) => presence.join(name).joined.catch(({code, message}) => [code, message])", channel)


def test_readers_of_a_document_see_each_other(users: Users) -> None:
    ann, bob = users.open("ann", "/documents/1"), users.open("bob", "/documents/1")
    expect(ann.locator("#others")).to_have_text("Bob")
    expect(bob.locator("#others")).to_have_text("Ann")
    assert users.get("ann", "/documents") == {"Plan": ["Ann", "Bob"], "Budget": []}
    assert users.get("bob", "/documents") == {"Plan": ["Ann", "Bob"]}
    assert refusal(bob, "presence-document-2") == ["FORBIDDEN", "Access denied"]
    assert refusal(bob, "presence-anything") == ["FORBIDDEN", "Access denied"]
    ann.close()
    expect(bob.locator("#others")).to_have_text("nobody")


def test_every_page_of_a_user_gets_a_notification(users: Users) -> None:
    pages = users.open("bob", "/inbox"), users.open("bob", "/inbox")
    other = users.open("carol", "/inbox")
    assert users.post("ann", "/invite/bob") == {"reached": 2}
    for page in pages:
        expect(page.locator("#notes li")).to_have_text(["ann invites you to tea"])
    assert users.post("ann", "/invite/dan") == {"reached": 0}
    assert users.post("ann", "/invite/carol") == {"reached": 1}
    expect(other.locator("#notes li")).to_have_text(["ann invites you to tea"])


def test_everyone_reads_a_read_only_channel_and_only_the_server_writes(users: Users) -> None:
    bob = users.open("bob", "/news")
    bob.evaluate("() => news.joined")
    answer = bob.evaluate("() => news.send('headline', {text: 'Buy!'}).catch(({code}) => code)")
    assert answer == "FORBIDDEN"
    assert users.post("ann", "/news", text="Rain") == {"reached": 1}
    expect(bob.locator("#headlines li")).to_have_text(["Rain"])


def test_a_chat_shows_what_was_said_before_and_what_was_missed(users: Users, server: Server) -> None:
    """A page that comes late has all lines, and so has one that was disconnected for a while, each once."""
    ann, bob = users.open("ann", "/chat/red"), users.open("bob", "/chat/red")
    say(ann, "one")
    expect(bob.locator("#lines li")).to_have_text(["ann: one"])
    bob.evaluate("() => presence.close()")
    say(ann, "two")
    expect(ann.locator("#lines li")).to_have_text(["ann: one", "ann: two"])
    bob.evaluate("() => void presence.connect()")
    expect(bob.locator("#lines li")).to_have_text(["ann: one", "ann: two"])
    say(bob, "three")
    late = users.open("carol", "/chat/red")
    for page in (ann, bob, late):
        expect(page.locator("#lines li")).to_have_text(["ann: one", "ann: two", "bob: three"])
    answer = bob.evaluate("() => room.send('line', {id: 9, author: 'ann', text: 'x'}).catch(({code}) => code)")
    assert answer == "FORBIDDEN"


def say(page: Page, text: str) -> None:
    page.get_by_label("Message").fill(text)
    page.get_by_role("button", name="Send").click()


def test_a_page_shows_who_is_typing(users: Users) -> None:
    ann, bob = users.open("ann", "/rooms/red"), users.open("bob", "/rooms/red")
    ann.wait_for_function("room.members.length === 2")
    bob.get_by_label("Message").press_sequentially("Hel")
    expect(ann.get_by_role("status")).to_have_text("Bob typing …")
    expect(bob.get_by_role("status")).to_have_text("")
    ann.evaluate("() => void room.on('left', () => window.typistsLeft = typists.size)")
    bob.close()
    ann.wait_for_function("window.typistsLeft === 0")
    expect(ann.get_by_role("status")).to_have_text("")


def test_a_page_shows_the_cursors_of_the_others(users: Users) -> None:
    ann, bob = users.open("ann", "/board/blue"), users.open("bob", "/board/blue")
    ann.wait_for_function("room.members.length === 2")
    bob.wait_for_function("room.members.length === 2")
    area = bob.get_by_role("application").bounding_box()
    assert area is not None
    bob.mouse.move(area["x"] + area["width"] / 2, area["y"] + area["height"] / 4)
    cursor = ann.locator("#board span")
    expect(cursor).to_have_text("➤ Bob")
    expect(cursor).to_have_attribute("style", "left: 50%; top: 25%;")
    bob.mouse.move(area["x"], area["y"] + area["height"] + 50)
    expect(cursor).to_have_count(0)
    for wrong in ("{x: '<b>', y: 0.5}", "{x: 0.5, y: {}}", "7"):
        bob.mouse.move(area["x"] + area["width"] / 4, area["y"] + area["height"] / 4)
        expect(cursor).to_have_attribute("style", "left: 25%; top: 25%;")
        bob.evaluate(f"() => room.send('cursor', {wrong})")
        expect(cursor).to_have_count(0)
        bob.mouse.move(area["x"], area["y"] + area["height"] + 50)
    bob.mouse.move(area["x"] + area["width"] / 4, area["y"] + area["height"] / 4)
    expect(cursor).to_have_count(1)
    bob.close()
    expect(cursor).to_have_count(0)


def test_a_script_publishes(users: Users, folder: Path, settings: dict[str, Any]) -> None:
    bob = users.open("bob", "/news")
    bob.evaluate("() => news.joined")
    environ = {f"FLASK_{key}": str(value) for key, value in settings.items()}
    assert run(folder, "announce.py", "We are open", **environ) == "1\n"
    expect(bob.locator("#headlines li")).to_have_text(["We are open"])


def test_a_celery_task_notifies_a_user(
    users: Users, folder: Path, settings: dict[str, Any], redis_server: RedisServer, prefix: str
) -> None:
    """The worker is a real one, with Redis as its broker."""
    bob = users.open("bob", "/inbox")
    environ = {f"FLASK_{key}": str(value) for key, value in settings.items()}
    environ |= {"CELERY_BROKER": redis_server.url.replace("/0", "/7")}
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    words = next(line for line in commands_of(RECIPES) if " celery " in line).partition(" celery ")[2].split()
    options = ["--pool", "solo", "--without-gossip", "--without-mingle", "--without-heartbeat", "--queues", prefix]
    log = (folder / "celery.log").open("w")
    worker = subprocess.Popen(
        [sys.executable, "-m", "celery", *words, *options],
        cwd=folder,
        env=os.environ | environ | {"PYTHONPATH": path},
        stdout=log,
        stderr=subprocess.STDOUT,
    )
    try:
        call = f"import tasks; tasks.invite_later.apply_async(('bob', 'lunch'), queue={prefix!r})"
        run(folder, "-c", call, **environ)
        expect(bob.locator("#notes li")).to_have_text(["the calendar invites you to lunch"], timeout=30_000)
    finally:
        worker.kill()
        worker.wait()
        log.close()
        print((folder / "celery.log").read_text())
