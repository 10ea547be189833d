"""pusher-js in Chromium and in Node, laravel-echo, and pysher, beside pages with `presence.js`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from queue import Queue
from typing import Any

import pusher  # type: ignore[import-untyped]
import pysher  # type: ignore[import-untyped]
import pytest
import redis

from ..conftest import missing, on_redis
from ..support.browser import Browser
from ..support.client import client
from ..support.pusher import KEY, SECRET, SETTINGS, pusher_client
from ..support.pusher_page import (
    OpenPusherPage,
    install_clients,
    opening_pusher_pages,
    session_folder,
    setup,
)
from ..support.redis_server import RedisServer
from ..support.server import DEADLINE, Server, running, wait_until
from ..support.tab import OpenTab, Tab, opening_tabs

ROOM = "presence-room"
ENCRYPTION_KEY = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="


@pytest.fixture(scope="session")
def clients(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the clients from npm in `node_modules`."""
    folder = session_folder(tmp_path_factory, "pusher-clients")
    lacking = install_clients(folder)
    if lacking is not None:
        missing(lacking)
    return folder


@pytest.fixture
def server() -> Iterator[Server]:
    with running(PRESENCE_PUSHER_ENCRYPTION_KEY=ENCRYPTION_KEY, **SETTINGS) as running_server:
        yield running_server


@pytest.fixture
def open_page(browser: Browser, clients: Path) -> Iterator[OpenPusherPage]:
    with opening_pusher_pages(browser, clients) as open_one:
        yield open_one


@pytest.fixture
def open_tab(browser: Browser, server: Server) -> Iterator[OpenTab]:
    with opening_tabs(browser, server) as open_one:
        yield open_one


def info(user: str, **more: Any) -> dict[str, Any]:
    """What the app's signer says of a user."""
    return {"id": user, "name": user.title(), **more}


def names(tab: Tab) -> list[str]:
    """The ids of the members that a page with `presence.js` lists."""
    listed: list[str] = tab.do("room.members.map(({id}) => id)")
    return listed


def test_a_room_is_shared_with_pages_of_presence_js(
    server: Server, open_page: OpenPusherPage, open_tab: OpenTab
) -> None:
    """Members, updates, and events of the clients and of the server."""
    ann, bob = open_tab("ann"), open_page(server, "bob")
    ann.join(ROOM, "{name: 'Ann', mood: 'fine'}")
    bob.watch(ROOM)
    assert bob.members(ROOM) == {"ann": info("ann", mood="fine"), "bob": info("bob")}
    assert bob.do(f"pusher.channel('{ROOM}').members.me") == {"id": "bob", "info": info("bob")}
    ann.wait("room.members.length === 2")
    with client(server, "eve") as eve:
        eve.join(ROOM, name="Eve")
        assert bob.wait_for("pusher:member_added")[1] == {"id": "eve", "info": info("eve")}
        eve.update(ROOM, mood="tired")
        assert bob.wait_for("presence:member_updated")[1]["user_id"] == "eve"
        assert bob.members(ROOM)["eve"] == info("eve", mood="tired")
    assert bob.wait_for("pusher:member_removed")[1]["id"] == "eve"
    assert list(bob.members(ROOM)) == ["ann", "bob"]
    assert bob.do(f"sent('{ROOM}', 'client-typing', {{at: [1, 'é']}})") is True
    ann.wait("heard.some(([kind]) => kind === 'message')")
    assert ["message", "typing", {"at": [1, "é"]}, "bob"] in ann.heard
    ann.do("room.send('typing', '7')")
    assert bob.wait_for("typing") == ["typing", "ann"]
    assert bob.wait_for("client-typing") == ["client-typing", "7"]
    server.call("publish", name=ROOM, event="news", data={"text": "é"})
    assert bob.wait_for("news") == ["news", {"text": "é"}]
    bob.do(f"pusher.unsubscribe('{ROOM}')")
    ann.wait("room.members.length === 1")


def test_a_page_signs_in_and_hears_messages_to_its_user(server: Server, open_page: OpenPusherPage) -> None:
    page = open_page(server, "ann")
    assert page.do("signedIn()") == {"id": "ann", "user_info": info("ann")}
    wait_until(lambda: server.call("send_to_user", user_id="ann", event="note", data={"n": 1}) == 1)
    assert page.wait_for("note") == ["note", {"n": 1}]
    assert server.call("disconnect", user_id="ann") == 1
    page.wait_for_state("disconnected")


def test_a_page_comes_back_at_once_and_asks_the_signer_again(server: Server, open_page: OpenPusherPage) -> None:
    """After 4200. A guard that says no by then keeps it out of that channel."""
    closing = "presence-closing-room"
    page = open_page(server, "ann")
    page.watch(ROOM)
    page.watch(closing)
    page.do("states.splice(0)")
    server.get(f"/close/{closing}")
    assert server.call("recheck", user_id="ann") == 1
    page.wait("states.at(-1) === 'connected'")
    refused = page.wait_for("pusher:subscription_error")
    assert refused[1]["status"] == 403
    wait_until(lambda: [member["id"] for member in server.call("get_channel_members", name=ROOM)] == ["ann"])
    assert server.call("get_channel_members", name=closing) == []
    assert page.do("states.splice(0)")[-2:] == ["connecting", "connected"]


def test_a_page_that_was_disconnected_stays_away(server: Server, open_page: OpenPusherPage) -> None:
    """After 4009. `disconnected` is the state in which pusher-js plans no other attempt."""
    page = open_page(server, "ann")
    page.watch(ROOM)
    assert server.call("disconnect", user_id="ann", reason="Enough") == 1
    page.wait_for_state("disconnected")
    assert page.do("[pusher.connection.retryTimer, pusher.connection.unavailableTimer.timer]") == [None, None]
    assert ["error", 4009] in page.heard()
    assert server.json("/presence/stats")["connections"] == 0


def test_a_removed_page_hears_that_it_is_no_longer_subscribed(server: Server, open_page: OpenPusherPage) -> None:
    page = open_page(server, "ann")
    page.watch(ROOM)
    assert server.call("remove", name=ROOM, user_id="ann", reason="Calm down") == 1
    assert page.wait_for("pusher:subscription_error")[1] == {"type": "Removed", "error": "Calm down", "status": 403}
    assert page.do("pusher.connection.state") == "connected"


def test_a_page_decrypts_what_a_back_end_encrypts(server: Server, open_page: OpenPusherPage) -> None:
    """With the key that the app's signer derives; the server sees no plain text."""
    page = open_page(server, "ann", "pusher-js/dist/web/pusher-with-encryption.js")
    page.watch("private-encrypted-room")
    back_end = pusher.Pusher(
        *("1", KEY, SECRET),
        host="127.0.0.1",
        port=server.port,
        ssl=False,
        encryption_master_key_base64=ENCRYPTION_KEY,
    )
    back_end.trigger("private-encrypted-room", "secret", {"text": "é"})
    assert page.wait_for("secret") == ["secret", {"text": "é"}]


ECHO = """new Promise((resolve) => {
    window.echo = new Echo.default({broadcaster: "reverb", client: pusher});
    window.room = echo.join("room")
        .here((users) => resolve(users))
        .joining((user) => heard.push(["joining", user]))
        .leaving((user) => heard.push(["leaving", user]))
        .listenForWhisper("typing", (data) => heard.push(["whisper", data]))
        .listen(".news", (data) => heard.push(["listen", data]))
        .error((problem) => heard.push(["error", problem]));
})"""


def test_laravel_echo_joins_listens_and_whispers(server: Server, open_page: OpenPusherPage) -> None:
    """Its users are the `user_info` of the members."""
    scripts = ("pusher-js/dist/web/pusher.js", "laravel-echo/dist/echo.iife.js")
    page = open_page(server, "ann", *scripts)
    assert page.do(ECHO) == [info("ann")]
    with client(server, "bob") as native, pusher_client(server) as signed:
        native.join(ROOM, name="Bob")
        assert page.wait_for("joining")[1] == info("bob")
        signed.members(ROOM, "7", {"id": 7, "name": "Eve"})
        assert page.wait_for("joining")[1] == {"id": 7, "name": "Eve"}
        page.do("room.whisper('typing', {at: 1}) && null")
        signed.until(lambda frame: frame["event"] == "client-typing")
        native.say(ROOM, {"at": 2}, event="typing")
        assert page.wait_for("whisper")[1] == {"at": 2}
        server.call("publish", name=ROOM, event="news", data={"n": 1})
        assert page.wait_for("listen")[1] == {"n": 1}
    assert {page.wait_for("leaving")[1]["id"] for _ in range(2)} == {"bob", 7}
    page.do("echo.leave('room')")
    wait_until(lambda: server.call("get_channel_members", name=ROOM) == [])


def test_lists_agree_after_a_worker_was_killed(
    redis_server: RedisServer, browser: Browser, open_page: OpenPusherPage
) -> None:
    """Pages of both dialects, on two workers: `bob` is on both, so nobody hears that he left."""
    options: dict[str, Any] = {"PRESENCE_LEASE": 8, **on_redis(redis_server), **SETTINGS}
    with running(**options) as near, running(**options) as far, ExitStack() as stack:
        open_tab = stack.enter_context(opening_tabs(browser, near))
        native = [open_tab("ann"), open_tab("eve", far)]
        pages = [open_page(near, "bob"), open_page(far, "bob"), open_page(far, "zoe")]
        watcher = stack.enter_context(client(near, "watcher"))
        watcher.join(ROOM)
        for tab in native:
            tab.join(ROOM)
        for page in pages:
            page.watch(ROOM)
        wait_until(lambda: watcher.say(ROOM, 0)["delivered"] == 5)
        for page in pages:
            page.do("states.splice(0)")
        os.kill(far.worker_pids()[0], signal.SIGKILL)
        for page in pages[1:]:
            page.wait("states.at(-1) === 'connected'")
        native[1].wait("states.filter(([state]) => state === 'connected').length === 2")
        admin = stack.enter_context(redis.Redis(port=redis_server.port, socket_timeout=5))
        connections = f"{options['PRESENCE_REDIS_PREFIX']}:channel:{{{ROOM}}}:connections"

        def agree() -> bool:
            listed = [sorted(names(tab)) for tab in native] + [sorted(page.members(ROOM)) for page in pages]
            return listed == [["ann", "bob", "eve", "watcher", "zoe"]] * 5 and admin.hlen(connections) == 6

        wait_until(agree)
        wait_until(lambda: watcher.say(ROOM, 1)["delivered"] == 5)
        left = [event["member"]["id"] for event in watcher.events() if event["type"] == "presence:member_left"]
        removed = [data["id"] for event, data in pages[0].heard() if event == "pusher:member_removed"]
        assert "bob" not in left + removed
        assert sorted(left) == sorted(removed)


NODE = """
import Pusher from "pusher-js";
import { createInterface } from "node:readline";
SETUP
for await (const line of createInterface({ input: process.stdin })) {
    try {
        console.log(JSON.stringify({ value: (await eval(line)) ?? null }));
    } catch (problem) {
        console.log(JSON.stringify({ problem }));
    }
}
process.exit(0);
"""


class NodeClient:
    """pusher-js in a Node process, which evaluates the expressions that it is sent."""

    def __init__(self, folder: Path, program: str) -> None:
        self.process = subprocess.Popen(
            ["node", "--input-type=module", "--eval", program],
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def do(self, script: str) -> Any:
        """The value of an expression, awaited."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{script}\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        assert "value" in answer, answer
        return answer["value"]

    def wait(self, condition: str) -> None:
        wait_until(lambda: self.do(condition))

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(DEADLINE)
        self.process.stdout.close()


@pytest.fixture
def node(server: Server, clients: Path) -> Iterator[NodeClient]:
    one = NodeClient(clients, NODE.replace("SETUP", setup(server, "ann", name="Ann")))
    try:
        yield one
    finally:
        one.close()


def test_pusher_js_works_in_node(server: Server, node: NodeClient) -> None:
    node.wait("pusher.connection.state === 'connected'")
    node.do(f"watch('{ROOM}').then(() => 1)")
    assert node.do(f"members('{ROOM}')") == {"ann": info("ann")}
    assert node.do("signedIn()")["id"] == "ann"
    with client(server, "bob") as bob:
        bob.join(ROOM, name="Bob")
        node.do(f"sent('{ROOM}', 'client-x', 'text')")
        assert bob.event()["data"] == "text"
        bob.say(ROOM, {"a": 1}, event="typing")
        node.wait("heard.some(([event, data]) => event === 'client-typing' && data.a === 1)")
        node.wait("heard.some(([event, user]) => event === 'typing' && user === 'bob')")
        wait_until(lambda: server.call("send_to_user", user_id="ann", event="note", data=5) == 1)
        node.wait("heard.some(([event, data]) => event === 'note' && data === 5)")
        assert server.call("recheck", user_id="ann") == 1
        node.wait("states.filter((state) => state === 'connected').length === 2")
        wait_until(lambda: len(server.call("get_channel_members", name=ROOM)) == 2)
        node.wait("pusher.user.user_data?.id === 'ann'")
        assert server.call("disconnect", user_id="ann") == 1
        node.wait("pusher.connection.state === 'disconnected'")


def test_pysher_signs_for_itself(server: Server) -> None:
    """It sends protocol 6, and heeds only the frame before a close."""
    got: Queue[tuple[str, Any]] = Queue()
    one = pysher.Pusher(
        KEY,
        secret=SECRET,
        secure=False,
        custom_host="127.0.0.1",
        port=server.port,
        user_data={"user_id": "ann", "user_info": {"name": "Ann"}},
        reconnect_interval=1,
    )

    def subscribe(_data: str) -> None:
        channel = one.subscribe(ROOM)
        for event in ("pusher_internal:subscription_succeeded", "pusher_internal:member_added", "news", "client-x"):
            channel.bind(event, lambda data, event=event: got.put((event, json.loads(data))))

    one.connection.bind("pusher:connection_established", subscribe)
    one.connection.bind("pusher:error", lambda data: got.put(("error", data["code"])))
    one.connect()
    try:
        event, data = got.get(timeout=DEADLINE)
        assert (event, data["presence"]["hash"]) == ("pusher_internal:subscription_succeeded", {"ann": {"name": "Ann"}})
        with client(server, "bob") as bob:
            bob.join(ROOM, name="Bob")
            assert got.get(timeout=DEADLINE)[1]["user_id"] == "bob"
            server.call("publish", name=ROOM, event="news", data=[1])
            assert got.get(timeout=DEADLINE) == ("news", [1])
            bob.say(ROOM, {"a": 1}, event="x")
            assert got.get(timeout=DEADLINE) == ("client-x", {"a": 1})
            one.channels[ROOM].trigger("client-y", {"b": 2})
            assert [bob.event()["data"] for _ in range(2)] == [[1], {"b": 2}]
            assert server.call("recheck", user_id="ann") == 1
            assert got.get(timeout=DEADLINE) == ("error", 4200)
            assert got.get(timeout=DEADLINE)[0] == "pusher_internal:subscription_succeeded"
            assert server.call("disconnect", user_id="ann") == 1
            assert got.get(timeout=DEADLINE) == ("error", 4009)
            wait_until(lambda: server.json("/presence/stats")["connections"] == 1)
    finally:
        one.disconnect(timeout=DEADLINE)
