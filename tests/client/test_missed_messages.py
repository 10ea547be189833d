"""`presence.js` in channels that keep their messages: what was missed, gaps, pages, and messages sent again."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from ..conftest import on_redis
from ..support.browser import Browser, WebSocketRoute
from ..support.client import Client, client
from ..support.proxy import Proxy, running_proxy
from ..support.redis_server import RedisServer
from ..support.server import Server, running, wait_until
from ..support.tab import OpenTab, Tab, opening_tabs

HISTORY = {
    "PRESENCE_HISTORY": {"*-kept": {"messages": 5000, "seconds": 3600}, "*-short": {"messages": 3, "seconds": 3600}},
    "PRESENCE_RATE_LIMIT": None,
    "JWT_SECRET_KEY": "a secret that outlives the server",
}


@pytest.fixture(scope="module")
def service(redis_server: RedisServer) -> dict[str, Any]:
    """Settings of servers on Redis, so that the messages outlive them."""
    return HISTORY | on_redis(redis_server)


@pytest.fixture(scope="module")
def server(service: dict[str, Any]) -> Iterator[Server]:
    with running(**service) as running_server:
        yield running_server


@pytest.fixture
def open_tab(browser: Browser, server: Server) -> Iterator[OpenTab]:
    with opening_tabs(browser, server) as open_one:
        yield open_one


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    """The network between a page and the server."""
    with running_proxy(server.port) as running_one:
        yield running_one


@pytest.fixture
def far(open_tab: OpenTab, proxy: Proxy) -> Tab:
    """Ann's page, behind the proxy."""
    return open_tab("ann", origin=f"http://127.0.0.1:{proxy.port}")


def told(tab: Tab) -> list[Any]:
    """The data of the messages that the page was told, and its gaps."""
    return [event[2] if event[0] == "message" else event for event in tab.heard if event[0] in ("message", "gap")]


def hears(tab: Tab, data: Any) -> None:
    tab.wait(f"heard.some(([kind, , heard]) => kind === 'message' && heard === {json.dumps(data)})")


def cut(tab: Tab, proxy: Proxy) -> None:
    proxy.cut()
    tab.wait("presence.state !== 'connected'")


def mend(tab: Tab, proxy: Proxy) -> None:
    """End the cut, and wait until the page is back."""
    proxy.mend()
    tab.do("presence.connect()")  # not to wait for the next attempt
    is_back(tab)


def is_back(tab: Tab) -> None:
    tab.wait("presence.state === 'connected' && room.state === 'joined'")
    tab.do("presence._request('channel:history', {channel: room.name})")  # it is answered once the room is joined


def messages_to(one: Client) -> list[Any]:
    return [event["data"] for event in one.events() if event["type"] == "channel:message"]


def kept(server: Server, channel: str) -> list[Any]:
    return [message["data"] for message in server.call("get_channel_history", name=channel)]


def send_without_an_answer(tab: Tab, proxy: Proxy, bob: Client, data: str) -> None:
    """Let the page send a message that arrives, and cut the connection before the answer does."""
    proxy.mute()
    tab.do(f"void (window.pending = attempt(room.send('message', '{data}')))")
    while (event := bob.event())["type"] != "channel:message":
        pass
    assert event["data"] == data
    cut(tab, proxy)


def test_a_page_hears_what_it_missed_in_order_and_once(far: Tab, proxy: Proxy, server: Server, name: str) -> None:
    """The network is cut three times, in the middle of a conversation that never stops. Of its own messages the page
    hears nothing, and those of the user's other tab are told."""
    channel = f"presence-{name}-kept"
    with client(server, "bob") as bob, client(server, "ann") as other_tab:
        for one in (bob, other_tab):
            one.join(channel)
        far.join(channel)
        far.do("void (window.ids = [], room.on('message', (_, {id}) => ids.push(id)))")
        said: list[Any] = []

        def talk(speaker: Client = bob) -> None:
            said.append(f"line {len(said)}")
            speaker.say(channel, said[-1])

        for _ in range(3):
            talk()
            assert far.do("room.send('message', 'my own')")["delivered"] == 2
            talk()
            far.do("void (window.known = states.length)")
            cut(far, proxy)
            for _ in range(5):
                talk()
                talk(other_tab)
            proxy.mend()
            far.do("void presence.connect()")
            while far.do("presence.state") != "connected":
                talk()
            talk()
        is_back(far)
        assert told(far) == said
        assert far.do("[...new Set(ids)].length") == len(said)
        assert far.do("room.history({limit: 1}).then(({messages: [{id}]}) => ids.at(-1) === id)") is True


def test_the_list_is_current_before_the_missed_messages_are_told(
    far: Tab, proxy: Proxy, server: Server, name: str
) -> None:
    channel = f"presence-{name}-kept"
    with client(server, "bob") as bob:
        bob.join(channel)
        far.join(channel)
        assert far.heard == [["members", ["bob", "ann"]]]
        cut(far, proxy)
        with client(server, "carol") as carol:
            carol.join(channel)
            carol.say(channel, "hello")
            bob.request("leave", channel=channel)
            mend(far, proxy)
            assert [event for event in far.heard if event != ["error", "TOKEN_FAILED"]][-4:] == [
                ["left", "bob"],
                ["joined", "carol"],
                ["members", ["carol", "ann"]],
                ["message", "message", "hello", "carol"],
            ]


def test_a_message_whose_answer_was_lost_goes_out_once(far: Tab, proxy: Proxy, server: Server, name: str) -> None:
    """Its promise resolves with the first answer, and the page does not hear it as a missed message."""
    channel = f"presence-{name}-kept"
    with client(server, "bob") as bob:
        bob.join(channel)
        far.join(channel)
        bob.events()
        send_without_an_answer(far, proxy, bob, "once")
        bob.say(channel, "meanwhile")
        mend(far, proxy)
        messages = server.call("get_channel_history", name=channel)
        assert far.do("pending") == {"delivered": 1, "id": messages[0]["id"]}
        assert [message["data"] for message in messages] == ["once", "meanwhile"]
        assert told(far) == ["meanwhile"]
        assert messages_to(bob) == []


def test_every_message_of_a_page_goes_out_once_and_in_order(far: Tab, proxy: Proxy, server: Server, name: str) -> None:
    """The page sends without waiting for answers, while its network is cut in several ways. It also sends as soon as it
    is back, and when it hears what it missed."""
    channel = f"presence-{name}-kept"
    with client(server, "bob") as bob:
        bob.join(channel)
        far.join(channel)
        bob.events()
        far.do("void (window.sent = [], window.say = () => sent.push(attempt(room.send('m', sent.length))))")
        far.do("void presence.on('state', (state) => state === 'connected' && say())")
        far.do("void room.on('message:question', () => say())")
        for strike in ("cut", "mute", "abandon") * 2:
            far.do("void (say(), say())")
            if strike == "mute":
                proxy.mute()
                far.do("void (say(), say())")
            far.do("void (say(), window.before = presence.clientId)")
            if strike == "abandon":
                proxy.abandon()
                far.wait("presence.clientId && presence.clientId !== before")
            else:
                cut(far, proxy)
                bob.say(channel, "missed", event="question")
                mend(far, proxy)
            is_back(far)
        assert told(far) == ["missed"] * 4
        answers = far.do("Promise.all(sent)")
        numbers = list(range(len(answers)))
        messages = server.call("get_channel_history", name=channel, limit=1000)
        messages = [message for message in messages if message["event"] == "m"]
        assert [message["data"] for message in messages] == numbers
        assert [message["id"] for message in messages] == [answer.get("id") for answer in answers]
        assert messages_to(bob) == numbers


def test_messages_that_a_killed_server_did_not_read_are_sent_in_order(
    far: Tab, proxy: Proxy, server: Server, name: str
) -> None:
    """A message that the page sends while it is coming back does not overtake them. What was said before the kill and
    after the restart is told."""
    channel = f"presence-{name}-kept"
    far.join(channel)
    with client(server, "bob") as bob:
        bob.join(channel)
        bob.say(channel, "before")
        hears(far, "before")
        os.killpg(server.process.pid, signal.SIGSTOP)
        far.do("void (window.sent = ['one', 'two'].map((data) => attempt(room.send('message', data))))")
        far.do(
            "void presence.on('state', (state) => state === 'connected' && sent.push(attempt(room.send('m', 'three'))))"
        )
        server.kill()
        cut(far, proxy)
    server.start()
    server.wait_until_ready()
    with client(server, "bob") as bob:
        bob.join(channel)
        bob.say(channel, "after")
        mend(far, proxy)
        assert [answer["delivered"] for answer in far.do("Promise.all(sent)")] == [1, 1, 1]
        assert kept(server, channel) == ["before", "after", "one", "two", "three"]
        assert messages_to(bob) == ["one", "two", "three"]
    assert told(far) == ["before", "after"]


def test_a_server_that_lost_its_memory_causes_a_gap(browser: Browser, open_tab: OpenTab, name: str) -> None:
    """The gap has what the channel keeps by now. A message without an answer is not sent again, because nobody would
    know it for a repetition."""
    channel = f"presence-{name}-kept"
    with running(**HISTORY) as server, running_proxy(server.port) as proxy:
        ann = open_tab("ann", origin=f"http://127.0.0.1:{proxy.port}")
        ann.join(channel)
        with client(server, "bob") as bob:
            bob.join(channel)
            bob.say(channel, "before")
            hears(ann, "before")
            send_without_an_answer(ann, proxy, bob, "lost")
            server.kill()
        server.start()
        server.wait_until_ready()
        with client(server, "bob") as bob:
            bob.join(channel)
            bob.say(channel, "missed, or not")
            mend(ann, proxy)
            bob.say(channel, "live")
            hears(ann, "live")
            assert told(ann) == ["before", ["gap", "missed, or not"], "live"]
            assert ann.do("pending.then(({code}) => code)") == "DISCONNECTED"
            assert kept(server, channel) == ["missed, or not", "live"]
            cut(ann, proxy)
            mend(ann, proxy)
            assert told(ann) == []


def test_a_history_that_was_trimmed_causes_a_gap(far: Tab, proxy: Proxy, server: Server, name: str) -> None:
    """The gap leaves out what the page itself sent. Without a handler for `gap`, they come as messages."""
    channel = f"presence-{name}-short"
    with client(server, "bob") as bob:
        bob.join(channel)
        far.join(channel)
        bob.say(channel, "first")
        hears(far, "first")
        cut(far, proxy)
        for number in range(5):
            bob.say(channel, number)
        mend(far, proxy)
        assert told(far) == ["first", ["gap", 2, 3, 4]]

        for number in (5, 6, 7):
            far.do(f"room.send('message', {number})")
        cut(far, proxy)
        bob.say(channel, 8)
        mend(far, proxy)
        assert told(far) == [["gap", 8]]

        other = f"presence-{name}-other-short"
        bob.join(other)
        far.do(f"(window.other = presence.join('{other}'), other.joined.then(() => 1))")
        far.do("void other.on('message', (data) => heard.push(['other', data]))")
        cut(far, proxy)
        for number in range(4):
            bob.say(other, number)
        mend(far, proxy)
        far.wait("heard.filter(([kind]) => kind === 'other').length === 3")
        assert [event for event in far.heard if event[0] == "other"] == [["other", 1], ["other", 2], ["other", 3]]


def test_a_join_tells_the_newest_messages_before_it_resolves(open_tab: OpenTab, server: Server, name: str) -> None:
    """It does so once. A room that is joined again after it was left begins anew, and asks again only if it is told
    to. The user's messages from before a reload are told."""
    channel = f"presence-{name}-kept"
    with client(server, "ann") as before:
        before.join(channel)
        for number in range(4):
            before.say(channel, number)
    ann = open_tab("ann")
    join = f"watch(window.room = presence.join('{channel}', {{}}, {{history: 3}})).joined"
    assert ann.do(f"{join}.then(() => heard.filter(([kind]) => kind === 'message'))") == [
        ["message", "message", number, "ann"] for number in (1, 2, 3)
    ]
    ann.do("void (heard.length = 0, presence.join(room.name, {x: 1}))")
    ann.wait("room.me.x === 1")
    assert told(ann) == []
    assert ann.do(f"room.leave().then(() => watch(window.room = presence.join('{channel}')).joined).then(() => 1)")
    assert told(ann) == []
    assert ann.do(f"room.leave().then(() => {join}).then(() => 1)")
    assert told(ann) == [1, 2, 3]


def test_history_pages_backwards(open_tab: OpenTab, server: Server, name: str) -> None:
    channel = f"presence-{name}-kept"
    with client(server, "bob") as bob:
        bob.join(channel)
        for number in range(5):
            bob.say(channel, number, event="line")
        ann = open_tab("ann")
        ann.join(channel)
        newest = ann.do("room.history({limit: 2})")
        assert newest["more"] is True
        assert [message["data"] for message in newest["messages"]] == [3, 4]
        assert newest["messages"][0].keys() == {"id", "event", "data", "from", "timestamp"}
        assert newest["messages"][0]["from"] == {"clientId": bob.id, "userId": "bob"}
        older = ann.do(f"room.history({{before: '{newest['messages'][0]['id']}'}})")
        assert [message["data"] for message in older["messages"]] == [0, 1, 2]
        assert older["more"] is False
        assert ann.do("attempt(room.history({before: 'nonsense'}))")["code"] == "INVALID_REQUEST"
        assert ann.do("attempt(room.history({limit: 0}))")["code"] == "INVALID_REQUEST"
        assert told(ann) == []
        unkept = ann.do("presence.join('unkept').joined.then((room) => room.history())")
        assert unkept == {"messages": [], "more": False}
        assert ann.do("(room.leave(), attempt(room.history()))")["code"] == "NOT_IN_CHANNEL"


def test_elsewhere_a_lost_answer_rejects(far: Tab, open_tab: OpenTab, proxy: Proxy, server: Server, name: str) -> None:
    """In a channel that keeps nothing, and for an anonymous page, the server would not know a repetition. As that page
    believes that its message was not sent, it is told if it was."""
    with client(server, "bob") as bob:
        bob.join(f"presence-{name}")
        far.join(f"presence-{name}")
        bob.events()
        send_without_an_answer(far, proxy, bob, "perhaps")
        assert far.do("pending.then(({code, retryable}) => [code, retryable])") == ["DISCONNECTED", True]
        mend(far, proxy)
        assert bob.event()["type"] == "presence:member_left"

        nobody = open_tab(None, origin=f"http://127.0.0.1:{proxy.port}")
        bob.join(f"{name}-kept")
        nobody.join(f"{name}-kept")
        bob.events()
        send_without_an_answer(nobody, proxy, bob, "from nobody")
        assert nobody.do("pending.then(({code}) => code)") == "DISCONNECTED"
        mend(nobody, proxy)
        assert told(nobody) == ["from nobody"]
        assert kept(server, f"{name}-kept") == ["from nobody"]


def test_a_late_message_of_the_connection_before_is_not_told(
    open_tab: OpenTab, proxy: Proxy, server: Server, name: str
) -> None:
    """The network changed, and the server has not noticed: it still handles what the old connection sent."""
    channel = f"presence-news-{name}-kept"
    with client(server, "bob") as bob:
        bob.join(channel)
        ann = open_tab("staff ann", origin=f"http://127.0.0.1:{proxy.port}")
        ann.join(channel)
        bob.events()
        ann.do("void (window.pending = attempt(room.send('wait', 'late')))")
        ann.do("void (window.first = presence.clientId)")
        proxy.abandon()
        ann.wait("presence.clientId && presence.clientId !== first && room.state === 'joined'")
        server.get(f"/open/{channel}")
        assert ann.do("pending")["delivered"] >= 1
        assert kept(server, channel) == ["late"]
        assert told(ann) == []
        assert messages_to(bob) == ["late"]


def test_a_refused_rejoin_ends_what_waits_for_it(far: Tab, proxy: Proxy, server: Server, name: str) -> None:
    """If the page is let in later, it hears what it missed. So it does after the connection was closed, but not after
    it left."""
    channel = f"presence-owned-{name}-kept"
    server.post(f"/own/{channel}", True)
    with client(server, "bob") as bob:
        bob.join(channel)
        far.join(channel)
        bob.events()
        send_without_an_answer(far, proxy, bob, "mine")
        server.post(f"/own/{channel}", False)
        proxy.mend()
        far.wait("room.state === 'refused'")
        assert far.do("pending.then(({code}) => code)") == "DISCONNECTED"
        bob.say(channel, "while out")
        server.post(f"/own/{channel}", True)
        far.do("presence.join(room.name).joined.then(() => 1)")
        assert told(far) == ["mine", "while out"]

        far.do("presence.close()")
        bob.say(channel, "while closed")
        far.do("(presence.connect(), room.joined.then(() => 1))")
        assert told(far) == ["while closed"]

        send_without_an_answer(far, proxy, bob, "again")
        far.do("void room.leave()")
        assert far.do("pending.then(({code}) => code)") == "DISCONNECTED"


def test_a_message_of_unknown_delivery_is_sent_again(
    browser: Browser, server: Server, service: dict[str, Any], redis_server: RedisServer, name: str
) -> None:
    """Redis got the message, and its answer was lost. A channel that keeps nothing rejects the promise."""
    channel = f"presence-{name}-kept"
    with ExitStack() as stack:
        proxy = stack.enter_context(running_proxy(redis_server.port))
        far_service = service | {"PRESENCE_BACKEND": f"redis://127.0.0.1:{proxy.port}/0"}
        ann = stack.enter_context(opening_tabs(browser, stack.enter_context(running(**far_service))))("ann")
        bob = stack.enter_context(client(server, "bob"))
        bob.join(channel)
        ann.join(channel)
        ann.do("(window.unkept = presence.join('unkept'), unkept.joined.then(() => 1))")
        bob.events()
        proxy.mute()
        ann.do("void (window.answers = Promise.all([room, unkept].map((one) => attempt(one.send('m', 'unknown')))))")
        assert bob.event()["data"] == "unknown"
        bob.say(channel, "meanwhile")
        answer, unknown = ann.do("answers")
        assert answer == {"delivered": 1, "id": server.call("get_channel_history", name=channel)[0]["id"]}
        assert unknown == {"code": "SEND_FAILED", "message": "Delivery unknown", "retryable": False}
        is_back(ann)
        bob.say(channel, "after")
        hears(ann, "after")
        assert told(ann) == ["meanwhile", "after"]
        assert kept(server, channel) == ["unknown", "meanwhile", "after"]
        assert messages_to(bob) == []


def test_a_page_recovers_from_a_server_that_closes_with_1011(open_tab: OpenTab, server: Server, name: str) -> None:
    """As it does if it has lost messages of the channel for good."""
    channel = f"presence-{name}-kept"
    routes: list[WebSocketRoute] = []

    def connect(route: WebSocketRoute) -> None:
        route.connect_to_server()
        routes.append(route)

    with client(server, "bob") as bob:
        bob.join(channel)
        ann = open_tab("ann")
        ann.page.route_web_socket("**/presence/ws*", connect)
        ann.do("(presence.close(), presence.connect(), 1)")
        ann.join(channel)
        ann.do("void (states.length = 0)")
        routes[-1].close(code=1011, reason="Messages were lost")
        ann.wait("states.length > 0")
        assert ann.do("states[0]") == ["waiting", 1011]
        bob.say(channel, "missed")
        is_back(ann)
        assert told(ann) == ["missed"]


def test_a_message_that_may_be_repeated_outlasts_the_timeout(open_tab: OpenTab, server: Server, name: str) -> None:
    """If the server does not answer, the client checks the connection. The answer may still come, and if the connection
    turns out to be lost, the message is sent again."""
    channel = f"presence-{name}-kept"
    ann = open_tab("ann", options="timeout: 400")
    ann.join(channel)
    os.killpg(server.process.pid, signal.SIGSTOP)
    ann.do("void (window.pending = attempt(room.send('message', 'slow')))")
    ann.wait("presence.state === 'waiting'")
    os.killpg(server.process.pid, signal.SIGCONT)
    assert "id" in ann.do("pending")
    wait_until(lambda: kept(server, channel) == ["slow"])
    assert told(ann) == []
