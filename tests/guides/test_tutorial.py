"""The tutorial, followed to the letter: its files are written, its tests run, its app started, and its pages used."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..support.browser import Browser, Locator, Page, expect
from ..support.documents import ROOT
from ..support.guides import commands_of, files_of, run, write
from ..support.server import Server, running

TUTORIAL = ROOT / "docs/tutorial.md"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reader's folder, at the end of the tutorial."""
    path = tmp_path_factory.mktemp("tutorial")
    write(files_of(TUTORIAL), path)
    return path


def commands(program: str) -> list[list[str]]:
    """The arguments of every command of the tutorial that begins with this word."""
    words = [shlex.split(line) for line in commands_of(TUTORIAL)]
    return [line[1:] for line in words if line[0] == program]


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    [seed] = commands("flask")
    run(folder, "-m", "flask", *seed)
    [[option, worker, app]] = commands("gunicorn")
    assert (option, worker) == ("-k", "gevent")
    with running(app=app, arguments=("--chdir", str(folder))) as server:
        yield server


def test_the_tests_of_the_tutorial_pass(folder: Path) -> None:
    [arguments] = commands("python")
    assert arguments == ["-m", "pytest"]
    output = run(folder, "-W", "error", *arguments)
    tests = (folder / "test_live.py").read_text().count("\ndef test_")
    assert f"{tests} passed" in output


def test_two_members_meet_and_one_logs_out(browser: Browser, server: Server) -> None:
    """What the text says under "Run it"."""
    ann, bob = open_project(browser, server, "Ann"), open_project(browser, server, "Bob")
    for page in (ann, bob):
        expect(lines(page, "#members")).to_have_text(["Ann (owner)", "Bob (viewer)"])
    bob.evaluate("() => room.update({role: 'owner', name: 'Ann'})")
    say(bob, "Hello <b>Ann</b>")
    for page in (ann, bob):
        expect(lines(page, "#messages")).to_have_text(["Bob: Hello <b>Ann</b>"])
    expect(lines(ann, "#members")).to_have_text(["Ann (owner)", "Bob (viewer)"])

    bob.evaluate("() => room.send(5).catch(showProblem)")
    expect(bob.get_by_role("status")).to_have_text("event must be a string")
    say(bob, "Again")
    expect(bob.get_by_role("status")).to_be_empty()

    second = bob.context.new_page()
    second.goto(bob.url)
    expect(lines(second, "#members")).to_have_text(["Ann (owner)", "Bob (viewer)"])
    bob.get_by_role("button", name="Log out").click()
    expect(lines(ann, "#members")).to_have_text(["Ann (owner)"])
    expect(second.get_by_role("status")).to_contain_text("not connected any more")
    expect(bob.get_by_label("Password")).to_be_visible()
    for page in (ann, bob):
        page.context.close()


def test_a_stranger_gets_neither_the_page_nor_the_channel(browser: Browser, server: Server) -> None:
    carol = log_in(browser, server, "Carol")
    expect(carol).to_have_title(re.compile("404"))
    answer = carol.evaluate(
        """async () => {
            await import("/presence/presence.mjs").then(({Presence}) => window.presence = new Presence("/presence/ws"));
            return presence.join("presence-project-1").joined.catch(({code, message}) => [code, message]);
        }"""
    )
    assert answer == ["FORBIDDEN", "You are not a member of this project."]
    carol.context.close()


def log_in(browser: Browser, server: Server, name: str) -> Page:
    page = browser.new_context().new_page()
    page.goto(f"{server.origin}/projects/1")
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill("secret")
    page.get_by_role("button", name="Log in").click()
    return page


def open_project(browser: Browser, server: Server, name: str) -> Page:
    page = log_in(browser, server, name)
    expect(page.get_by_text(f"Hello {name}!")).to_be_visible()
    expect(lines(page, "#members").filter(has_text=name)).to_have_count(1)
    return page


def lines(page: Page, list_: str) -> Locator:
    return page.locator(f"{list_} li")


def say(page: Page, text: str) -> None:
    page.get_by_label("Message").fill(text)
    page.get_by_role("button", name="Send").click()
