"""The examples of the documents about moving from Flask-SocketIO and Pusher: both versions do the same."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from types import ModuleType
from typing import Any

import pytest

from ..support.browser import Browser, Page, expect
from ..support.documents import ROOT
from ..support.guides import files_of, write
from ..support.server import Server, running

FROM_SOCKETIO = files_of(ROOT / "docs/moving-from-flask-socketio.md")
FROM_PUSHER = files_of(ROOT / "docs/moving-from-pusher.md")


def module_of(files: dict[str, str], name: str) -> Any:
    module = ModuleType(name)
    exec(compile(files[f"{name}.py"], f"{name}.py", "exec"), vars(module))
    return module


@pytest.fixture(scope="module", params=["socketio", "pusher"])
def after(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Server]]:
    """The name of the peer, and the app that replaces it."""
    folder: Path = tmp_path_factory.mktemp(request.param)
    write(FROM_SOCKETIO if request.param == "socketio" else FROM_PUSHER, folder)
    with running(app="app:app", arguments=("--chdir", str(folder))) as server:
        yield request.param, server


def open_page(browser: Browser, server: Server, name: str, said: list[str]) -> Page:
    context = browser.new_context()
    context.request.post(f"{server.origin}/login/{name}")
    page = context.new_page()
    page.on("console", lambda message: said.append(f"{name} reads: {message.text}"))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(f"{server.origin}/")
    return page


def test_the_page_of_the_new_app_has_the_list_and_the_messages(browser: Browser, after: tuple[str, Server]) -> None:
    peer, server = after
    said: list[str] = []
    ann, bob = (open_page(browser, server, name, said) for name in ("ann", "bob"))
    for page in (ann, bob):
        expect(page).to_have_title("Ann, Bob" if peer == "pusher" else "ann, bob")
    if peer == "pusher":
        ann.context.request.post(f"{server.origin}/orders/7/ship")
        for page in (ann, bob):
            expect(page.locator("body")).to_contain_text("Order 7 is on its way")
        assert bob.evaluate("channel.send('shipped', {order: 7}).catch(({code}) => code)") == "FORBIDDEN"
        assert said == []
    else:
        with ann.expect_console_message():
            bob.evaluate("say('hello')")
        assert said == ["ann reads: bob hello"]
        staff = "presence.join('presence-staff').joined.then(() => 'in', ({code}) => code)"
        assert [page.evaluate(staff) for page in (ann, bob)] == ["in", "FORBIDDEN"]
    bob.close()
    expect(ann).to_have_title("Ann" if peer == "pusher" else "ann")
    for page in (ann, bob):
        page.context.close()


def test_the_old_app_with_flask_socketio_works() -> None:
    before = module_of(FROM_SOCKETIO, "before")

    def connect(name: str) -> Any:
        http = before.app.test_client()
        http.post(f"/login/{name}")
        return before.socketio.test_client(before.app, flask_test_client=http)

    ann, bob = connect("ann"), connect("bob")
    for client in (ann, bob):
        client.emit("join", {"room": "lobby"})
    assert ann.get_received()[-1]["args"] == [["ann", "bob"]]
    bob.emit("chat", {"room": "lobby", "text": "hello"})
    assert ann.get_received()[-1]["args"] == [{"user": "bob", "text": "hello"}]
    assert [event["name"] for event in bob.get_received()] == ["members"]
    assert bob.emit("join", {"room": "staff"}, callback=True) == "Access denied"
    bob.disconnect()
    assert ann.get_received()[-1]["args"] == [["ann"]]
    assert not before.socketio.test_client(before.app, flask_test_client=before.app.test_client()).is_connected()


class FakePusher(BaseHTTPRequestHandler):
    """The part of Pusher's HTTP API that takes events."""

    events: list[Any] = []  # noqa: RUF012

    def do_POST(self) -> None:
        self.events.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        """Print nothing."""


def test_the_old_app_with_pusher_works() -> None:
    """Pusher's own library runs, and sends to a server on this machine."""
    before = module_of(FROM_PUSHER, "before")
    with HTTPServer(("127.0.0.1", 0), FakePusher) as service:
        address = {"host": "127.0.0.1", "port": service.server_port, "ssl": False}
        before.client = before.pusher.Pusher(app_id="1", key="key", secret="secret", **address)
        thread = Thread(target=service.serve_forever)
        thread.start()
        try:
            http = before.app.test_client()
            form = {"channel_name": "presence-order-7", "socket_id": "1.2"}
            assert http.post("/pusher/auth", data=form).status_code == 403
            http.post("/login/ann")
            answer = http.post("/pusher/auth", data=form).json
            assert json.loads(answer["channel_data"]) == {"user_id": "ann", "user_info": {"name": "Ann"}}
            assert http.post("/orders/7/ship").status_code == 200
        finally:
            service.shutdown()
            thread.join()
    assert [(event["name"], event["channels"]) for event in FakePusher.events] == [("shipped", ["presence-order-7"])]
