"""Pages and programs with the clients of Pusher from npm, for tests of the Pusher dialect."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import pytest

from .browser import Browser, BrowserContext, Page
from .pusher import KEY
from .server import DEADLINE, Server

PACKAGES = ["pusher-js@8.6.0", "laravel-echo@2.5.0"]
OPTIONS = """{
    cluster: "x", wsHost: "HOST", wsPort: PORT, wssPort: 443, forceTLS: false, enabledTransports: ["ws", "wss"],
    channelAuthorization: {endpoint: "ORIGIN/presence/pusher/auth", headers: HEADERS},
    userAuthentication: {endpoint: "ORIGIN/presence/pusher/user-auth", headers: HEADERS},
}"""
SETUP = """
    const place = globalThis;
    place.heard = [];
    place.states = [];
    place.pusher = new Pusher("KEY", OPTIONS);
    pusher.connection.bind("state_change", ({current}) => states.push(current));
    pusher.connection.bind("error", (problem) => heard.push(["error", problem?.data?.code ?? String(problem?.error)]));
    place.watch = (name) => new Promise((resolve, reject) => {
        const channel = pusher.subscribe(name);
        channel.bind("client-typing", (_data, { user_id }) => heard.push(["typing", user_id]));
        channel.bind_global((event, data) => {
            if (event === "presence:member_updated") {
                channel.members.members[data.user_id] = data.user_info;
            }
            heard.push([event, data]);
        });
        channel.bind("pusher:subscription_succeeded", resolve);
        channel.bind("pusher:subscription_error", reject);
    });
    place.members = (name) => pusher.channel(name).members.members;
    place.sent = (name, event, data) => pusher.channel(name).trigger(event, data);
    place.signedIn = async () => {
        pusher.user.bind_global((event, data) => heard.push([event, data]));
        pusher.signin();
        await pusher.user.signinDonePromise;
        return pusher.user.user_data;
    };
"""


def setup(server: Server, user: str, **claims: Any) -> str:
    """The script that connects, as a user of the tests' app."""
    headers = json.dumps({"Authorization": f"Bearer {server.token(user, **claims)}"})
    options = OPTIONS.replace("HEADERS", headers).replace("ORIGIN", server.origin)
    options = options.replace("HOST", "127.0.0.1").replace("PORT", str(server.port))
    return SETUP.replace("OPTIONS", options).replace("KEY", KEY)


class PusherPage:
    """A page of a server, with pusher-js as `pusher` and the events of its channels in `heard`."""

    def __init__(self, page: Page, server: Server, user: str, scripts: list[Path]) -> None:
        self.page = page
        self.problems: list[str] = []
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.goto(f"{server.origin}/page")
        for script in scripts:
            page.add_script_tag(path=script)
        page.evaluate(f"() => {{ {setup(server, user, name=user.title())} }}")
        self.wait_for_state("connected")

    def do(self, script: str) -> Any:
        """The value of an expression, awaited."""
        return self.page.evaluate(f"async () => {{ return await ({script}); }}")

    def watch(self, channel: str) -> None:
        """Subscribe, which must succeed."""
        self.do(f"watch('{channel}').then(() => null)")

    def members(self, channel: str) -> dict[str, Any]:
        """The members as the page knows them, by id."""
        known: dict[str, Any] = self.do(f"members('{channel}')")
        return known

    def wait(self, condition: str) -> None:
        self.page.wait_for_function(condition, timeout=DEADLINE * 1000)

    def wait_for_state(self, state: str) -> None:
        self.wait(f"pusher.connection.state === '{state}'")

    def wait_for(self, event: str) -> Any:
        """Wait for an event, and return the first of this name, which is not returned again."""
        self.wait(f"heard.some(([event]) => event === '{event}')")
        return self.do(f"heard.splice(heard.findIndex(([event]) => event === '{event}'), 1)[0]")

    def heard(self) -> list[Any]:
        """The events since the last call."""
        heard: list[Any] = self.do("heard.splice(0)")
        return heard


class OpenPusherPage(Protocol):
    """Opens a page of a server, with these scripts from `node_modules`."""

    def __call__(self, server: Server, user: str, *scripts: str) -> PusherPage: ...


@contextmanager
def opening_pusher_pages(browser: Browser, folder: Path) -> Iterator[OpenPusherPage]:
    """Pages that are closed at the end. None of them may have had an uncaught error."""
    contexts: list[BrowserContext] = []
    pages: list[PusherPage] = []

    def open_one(server: Server, user: str, *scripts: str) -> PusherPage:
        contexts.append(browser.new_context())
        paths = [folder / "node_modules" / name for name in scripts or ["pusher-js/dist/web/pusher.js"]]
        pages.append(PusherPage(contexts[-1].new_page(), server, user, paths))
        return pages[-1]

    yield open_one
    assert [problem for page in pages for problem in page.problems] == []
    for context in contexts:
        context.close()


def install_clients(folder: Path) -> str | None:
    """Install the clients into `folder`, once for all workers of a run. Returns what is missing for that."""
    if shutil.which("npm") is None:
        return "npm"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (folder / "installed").exists():
            return None
        (folder / "package.json").write_text(json.dumps({"private": True, "type": "module"}))
        command = ["npm", "install", "--no-audit", "--no-fund", "--prefer-offline", *PACKAGES]
        try:
            subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=240)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as problem:
            print((problem.stderr or b"").decode())
            return "npm's registry"
        (folder / "installed").touch()
    return None


def session_folder(tmp_path_factory: pytest.TempPathFactory, name: str) -> Path:
    """A folder that all workers of a run share."""
    base = tmp_path_factory.getbasetemp()
    return (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
