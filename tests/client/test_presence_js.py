"""`presence.js` in a real Chromium, against a real server."""

from __future__ import annotations

import gzip
import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from ..conftest import on_redis
from ..support.browser import Browser, Page
from ..support.client import client
from ..support.redis_server import RedisServer
from ..support.server import ROOT, Server, running, wait_until
from ..support.tab import ROOM, OpenTab, opening_tabs
from .conftest import run_in


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running() as running_server:
        yield running_server


@pytest.fixture
def open_tab(browser: Browser, server: Server) -> Iterator[OpenTab]:
    """Opens pages. At the end none may have had an uncaught error."""
    with opening_tabs(browser, server) as open_one:
        yield open_one


def ids(members: list[Any]) -> list[str]:
    return [member["id"] for member in members]


def test_the_client_is_a_script_and_a_module(server: Server, open_tab: OpenTab) -> None:
    """`presence.js` is the classic script, however it is loaded, and `presence.mjs` is the module."""
    tab = open_tab()
    imported = "import('/presence/presence.mjs').then((all) => [typeof all.Presence, all.default === all.Presence])"
    assert tab.do(imported) == ["function", True]
    for cross_origin in ("null", "'anonymous'", "'use-credentials'"):
        assert (
            tab.do(f"""new Promise((resolve, reject) => {{
                const frame = document.body.appendChild(document.createElement('iframe'));
                const script = frame.contentDocument.createElement('script');
                Object.assign(script, {{crossOrigin: {cross_origin}, src: '/presence/presence.js', onerror: reject}});
                script.onload = () => resolve(typeof frame.contentWindow.Presence);
                frame.contentDocument.head.append(script);
            }})""")
            == "function"
        )
    status, headers, script = server.get("/presence/presence.js")
    assert (status, headers["Content-Type"].split(";")[0]) == (200, "text/javascript")
    assert "\nexport " not in script
    assert "export class Presence" in server.get("/presence/presence.d.ts")[2]
    size = len(gzip.compress(script.encode()))
    print(f"presence.js is {size} bytes compressed")
    assert size <= 8000


def test_two_clients_join_talk_update_and_leave(open_tab: OpenTab) -> None:
    """Each hears of the other in order."""
    ann, bob = open_tab("ann"), open_tab("bob")
    assert ids(ann.join(info="{name: 'Ann'}")) == ["ann"]
    assert ann.do("room.me.name") == "Ann"
    assert ids(bob.join()) == ["ann", "bob"]
    assert bob.heard == [["members", ["ann", "bob"]]]
    assert ann.heard == [["members", ["ann"]], ["joined", "bob"], ["members", ["ann", "bob"]]]

    assert ann.do("room.send('typing', {isTyping: true})") == {"delivered": 1}
    assert ann.do("room.send('message')") == {"delivered": 1}
    assert bob.heard == [["message", "typing", {"isTyping": True}, "ann"], ["message", "message", None, "ann"]]

    assert bob.do("room.update({status: 'away'})")["status"] == "away"
    assert bob.do("room.me.status") == "away"
    assert bob.heard == [["updated", "bob"], ["members", ["ann", "bob"]]]
    assert ann.heard == [["updated", "bob"], ["members", ["ann", "bob"]]]

    bob.do("room.leave()")
    assert bob.do("[room.state, room.members]") == ["left", []]
    assert ann.heard == [["left", "bob"], ["members", ["ann"]]]
    assert bob.do("attempt(room.send('message'))")["code"] == "NOT_IN_CHANNEL"


def test_joining_again_returns_the_same_room_and_merges(open_tab: OpenTab) -> None:
    """After a leave it is another room."""
    ann = open_tab("ann")
    ann.join(info="{x: 1}")
    assert ann.do("presence.join(room.name) === room") is True
    ann.do("presence.join(room.name, {y: 2})")
    assert ann.heard[-1] == ["members", ["ann"]]
    assert ann.do("[room.me.x, room.me.y]") == [1, 2]
    assert ann.do("room.leave().then(() => presence.join(room.name) === room)") is False


def test_a_join_before_the_connection_waits_for_it(open_tab: OpenTab) -> None:
    """A message is refused with a reason."""
    ann = open_tab("ann")
    answers = ann.do(
        """(() => {
            const other = new Presence('/presence/ws', {token});
            const room = other.join('early');
            const answers = Promise.all([attempt(room.send('message')), room.joined.then(({state}) => state)]);
            return answers.finally(() => other.close());
        })()"""
    )
    assert answers[0]["code"] == "DISCONNECTED"
    assert answers[0]["retryable"] is True
    assert answers[1] == "joined"


def test_a_refused_room_refuses_every_request(open_tab: OpenTab) -> None:
    """The application may join again."""
    ann = open_tab("ann")
    refused = {"code": "FORBIDDEN", "message": "Not on Mondays", "retryable": False}
    assert ann.join("presence-reason-1") == refused
    assert ann.heard == [["error", "FORBIDDEN", "Not on Mondays"]]
    assert ann.do("attempt(room.update({x: 1}))")["code"] == "NOT_IN_CHANNEL"
    assert ann.do("attempt(presence.join(room.name).joined)") == refused


def test_two_tabs_of_a_user_are_one_member(open_tab: OpenTab) -> None:
    """Each tab gets the messages and updates of the other, and the member leaves with the last."""
    bob, first, second = open_tab("bob"), open_tab("ann"), open_tab("ann")
    channel = "presence-tabs"
    bob.join(channel)
    first.join(channel)
    assert ids(second.join(channel)) == ["bob", "ann"]
    first.do("room.update({x: 1})")
    first.do("room.send('message', 'from the other tab')")
    assert second.heard[1:] == [
        ["updated", "ann"],
        ["members", ["bob", "ann"]],
        ["message", "message", "from the other tab", "ann"],
    ]
    assert second.do("room.me.x") == 1
    first.do("presence.close()")
    assert ids(second.do("room.members")) == ["bob", "ann"]
    second.do("presence.close()")
    bob.wait("room.members.length === 1")
    assert [event for event in bob.heard if event[0] == "left"] == [["left", "ann"]]


def test_a_client_that_the_server_disconnects_stays_closed(open_tab: OpenTab, server: Server) -> None:
    """The application may connect again."""
    ann = open_tab("kicked")
    ann.join()
    assert server.call("disconnect", user_id="kicked", reason="Enough") == 1
    ann.wait("presence.state === 'closed'")
    assert ann.do("states") == [["connected"], ["closed", 4403]]
    ann.do("presence.connect()")
    ann.wait("presence.state === 'connected' && room.state === 'joined'")
    assert ann.do("room.send('message')")["delivered"] == 0


def test_broadcasts_and_published_messages_arrive(open_tab: OpenTab, server: Server) -> None:
    ann = open_tab("ann")
    ann.join("presence-news")
    server.call("broadcast_to_channel", name="presence-news", message={"type": "news", "requestId": 1})
    server.call("publish", name="presence-news", event="hello", data=[1])
    ann.wait("heard.length === 3")
    assert ann.heard[1:] == [["broadcast", {"type": "news", "requestId": 1}], ["message", "hello", [1], "server"]]


def test_a_client_rejoins_after_its_server_was_killed(open_tab: OpenTab) -> None:
    """Requests under way fail, the state is "waiting", and the room comes back with its last user info."""
    with running(JWT_SECRET_KEY="a secret that outlives the server") as server:
        ann = open_tab("ann", server)
        ann.join(info="{x: 1, y: 1}")
        ann.do("room.update({x: 2})")
        ann.do("heard.splice(0)")
        os.killpg(server.process.pid, signal.SIGSTOP)
        ann.do("void (window.pending = attempt(room.send('message')))")
        server.kill()
        assert ann.do("pending")["code"] == "DISCONNECTED"
        ann.wait("presence.state === 'waiting'")
        assert ann.do("room.members.length") == 1
        server.start()
        server.wait_until_ready()
        ann.wait("presence.state === 'connected'")
        assert ann.do("room.send('message')") == {"delivered": 0}
        assert ann.do("[room.me.x, room.me.y, tokens]") == [2, 1, ann.do("tokens")]
        assert ann.do("tokens") > 1
        assert [event for event in ann.heard if event[0] != "members" and event != ["error", "TOKEN_FAILED"]] == []


def test_a_server_that_restarts_causes_no_events(open_tab: OpenTab) -> None:
    """The code 1001 is in the state event."""
    with running(JWT_SECRET_KEY="a secret that outlives a worker") as server:
        ann = open_tab("ann", server)
        ann.join()
        server.process.send_signal(signal.SIGHUP)
        ann.wait("states.length > 1")
        assert ann.do("states[1]") == ["waiting", 1001]
        ann.wait("presence.state === 'connected' && room.state === 'joined'")
        assert ann.heard[1:] == [["members", ["ann"]]]


def test_a_removed_member_gets_channel_removed(open_tab: OpenTab, server: Server) -> None:
    """A reconnect does not join the room again, but the application may."""
    ann, bob = open_tab("ann"), open_tab("bob")
    for tab in (ann, bob):
        tab.join("presence-removed")
    ann.do("void room.on('removed', ({code, message}) => heard.push(['removed', code, message]))")
    ann.do("heard.splice(0)")
    server.call("remove", name="presence-removed", user_id="ann", reason="Enough")
    ann.wait("room.state === 'refused'")
    assert ann.heard == [["members", []], ["removed", "REMOVED", "Enough"]]
    assert ann.do("attempt(room.joined)")["code"] == "REMOVED"
    assert ann.do("attempt(room.send('x'))")["code"] == "NOT_IN_CHANNEL"
    bob.wait("room.members.length === 1")
    ann.lose_network()
    ann.page.context.set_offline(False)
    ann.wait("presence.state === 'connected'")
    assert ann.do("room.state") == "refused"
    assert ids(ann.do("(presence.join('presence-removed'), room.joined.then(() => room.members))")) == ["bob", "ann"]


def test_a_message_for_a_user_arrives_outside_of_rooms(open_tab: OpenTab, server: Server) -> None:
    ann = open_tab("for-me")
    ann.wait("presence.state === 'connected'")
    ann.do("void presence.on('message', (data, about) => heard.push([data, about.event, 'from' in about]))")
    ann.do("void presence.on('message:invited', (data) => heard.push(data))")
    assert server.call("send_to_user", user_id="for-me", event="invited", data={"to": "tea"}) == 1
    ann.wait("heard.length >= 2")
    assert ann.heard == [[{"to": "tea"}, "invited", False], {"to": "tea"}]


def test_a_refusal_without_a_listener_is_a_console_warning(open_tab: OpenTab) -> None:
    ann = open_tab("ann")
    warnings: list[str] = []
    ann.page.on("console", lambda message: warnings.append(message.text) if message.type == "warning" else None)
    ann.do("attempt(presence.join('presence-denied-1').joined)")
    ann.do("attempt(presence.join('presence-denied-2').on('error', () => {}).joined)")
    ann.do("attempt(presence.join('presence-reason-1').joined)")
    assert warnings == ["presence-denied-1: FORBIDDEN: Access denied", "presence-reason-1: FORBIDDEN: Not on Mondays"]


def test_a_client_comes_back_within_the_grace_of_a_restart(open_tab: OpenTab, redis_server: RedisServer) -> None:
    """It tries often enough, so the other members see no events."""
    options = on_redis(redis_server) | {"JWT_SECRET_KEY": "one for both, of 32 characters or so", "PRESENCE_GRACE": 60}
    with running(**options) as server, running(**options) as other, client(other, "watcher") as watcher:
        watcher.join(ROOM)
        ann = open_tab("ann", server)
        ann.join()
        assert watcher.event()["member"]["id"] == "ann"
        ann.do("void (window.delays = [], presence.on('state', (_, {delay}) => delay && delays.push(delay)))")
        server.stop()
        ann.wait("delays.length >= 4")
        first, *others = ann.do("delays")
        assert first <= 3000
        assert max(others) <= 2000
        server.start()
        server.wait_until_ready()
        ann.wait("presence.state === 'connected' && room.state === 'joined'")
        assert watcher.silent()


def test_after_a_network_loss_the_room_hears_only_the_changes(open_tab: OpenTab, server: Server) -> None:
    channel = "presence-cut"
    with client(server, "bob") as bob, client(server, "carol") as carol, client(server, "eve") as eve:
        for one in (bob, carol, eve):
            one.join(channel, mood="fine")
        ann = open_tab("ann")
        ann.join(channel)
        ann.do("heard.splice(0)")
        ann.lose_network()
        bob.request("leave", channel=channel)
        carol.update(channel, mood="better")
        eve.request("leave", channel=channel)
        eve.join(channel, mood="fine")
        with client(server, "dan") as dan:
            dan.join(channel)
            ann.page.context.set_offline(False)
            ann.wait("presence.state === 'connected' && room.members.length === 4 && room.members[3].id === 'ann'")
            assert [event for event in ann.heard if event != ["error", "TOKEN_FAILED"]] == [
                ["left", "bob"],
                ["updated", "carol"],
                ["joined", "dan"],
                ["members", ["carol", "eve", "dan", "ann"]],
            ]


def test_a_list_from_the_page_is_shown_until_the_servers(open_tab: OpenTab, server: Server) -> None:
    """Then the room hears the difference, as after a reconnect. An empty list is a list too."""
    channel = "presence-rendered"
    with client(server, "bob") as bob, client(server, "carol") as carol, client(server, "eve") as eve:
        for one in (bob, carol, eve):
            one.join(channel, mood="fine", nested={"b": [1], "a": None})
        ann = open_tab("ann")
        members = json.dumps(server.call("get_channel_members", name=channel))
        ann.do(f"(presence.close(), watch(window.room = presence.join('{channel}', {{}}, {{members: {members}}})), 1)")
        assert ann.do("[room.state, room.members.map(({id}) => id), room.me]") == [
            "joining",
            ["bob", "carol", "eve"],
            None,
        ]
        eve.request("leave", channel=channel)
        carol.update(channel, mood="better")
        ann.do("presence.connect(), room.joined.then(() => 1)")
        assert ann.heard == [
            ["left", "eve"],
            ["updated", "carol"],
            ["joined", "ann"],
            ["members", ["bob", "carol", "ann"]],
        ]
        ann.do(
            f"room.leave().then(() => watch(presence.join('{channel}', {{}}, {{members: []}})).joined).then(() => 1)"
        )
        assert ann.heard[1:] == [
            ["joined", "bob"],
            ["joined", "carol"],
            ["joined", "ann"],
            ["members", ["bob", "carol", "ann"]],
        ]
    refused = "watch(presence.join('presence-denied-3', {}, {members: [{id: 'x'}]}))"
    assert ann.do(f"(window.room = {refused}).joined.catch(() => room.members)") == []
    assert ann.heard[-2:] == [["members", []], ["error", "FORBIDDEN", "Access denied"]]


def test_a_user_info_that_is_too_large_is_refused_once(open_tab: OpenTab) -> None:
    """The client does not send it again at every join."""
    ann = open_tab("ann")
    ann.join("presence-large", info="{x: 1}")
    answer = ann.do("attempt(room.update({photo: 'x'.repeat(70000)}))")
    assert (answer["code"], answer["retryable"]) == ("DISCONNECTED", False)
    ann.wait("presence.state === 'connected' && states.length > 2")
    assert ann.do("room.update({y: 2}).then(() => [room.me.x, room.me.y, room.me.photo ?? null])") == [1, 2, None]
    assert ann.do("attempt(room.update({photo: 'x'.repeat(5000)}))")["code"] == "INVALID_REQUEST"

    ann.do("presence.join(room.name, {photo: 'x'.repeat(5000)})")
    ann.wait("heard.some(([event]) => event === 'error')")
    assert ann.do("[room.state, room.me.y]") == ["joined", 2]
    assert ann.do("room.send('message')") == {"delivered": 0}

    first = "attempt(presence.join('presence-first', {photo: 'x'.repeat(70000)}).joined)"
    assert ann.do(first)["code"] == "DISCONNECTED"
    ann.wait("presence.state === 'connected' && states.length > 5")
    assert ann.do("presence.join('presence-first').joined.then(({me}) => me.id)") == "ann"


def test_a_handler_may_close_the_client_at_any_time(open_tab: OpenTab) -> None:
    for script in (
        "new Presence('/presence/ws', {token: () => { throw 1; }}).on('error', function () { other.close(); })",
        "new Presence('/presence/ws', {token, auth: 'message'}).on('state', (s) => s === 'connected' && other.close())",
        "new Presence('/presence/ws', {token: 'x', auth: 'message'}).on('error', () => other.close())",
    ):
        ann = open_tab("ann")
        ann.do(f"void (window.other = {script})")
        ann.wait("other.state === 'closed'")
        assert ann.do("attempt(other.join('late').leave())") is None
        joined = "(other.join('x'), other.connect(), other.close(), other.join('x').joined)"
        assert ann.do(f"attempt({joined})")["code"] == "DISCONNECTED"
        assert ann.do("other.state") == "closed"


def test_a_room_that_was_left_hears_nothing_more(open_tab: OpenTab, server: Server) -> None:
    """The next room of its name begins anew."""
    with client(server, "bob") as bob:
        bob.join("presence-again")
        ann = open_tab("ann")
        ann.join("presence-again")
        ann.do("heard.splice(0)")
        ann.do("(room.leave(), watch(window.second = presence.join(room.name)), second.joined.then(() => 1))")
        assert ann.heard == [["members", []], ["members", ["bob", "ann"]]]
        assert ann.do("[room.state, second.state]") == ["left", "joined"]
        ann.do("second.on('members', () => second.leave())")
        bob.update("presence-again", x=1)
        ann.wait("second.state === 'left'")
        assert ann.heard == [["updated", "bob"], ["members", ["bob", "ann"]], ["members", []]]
        assert ann.do("attempt(second.leave())") is None


def test_requests_during_a_join_are_sent_after_it(open_tab: OpenTab) -> None:
    ann = open_tab("ann", options="token, auth: 'message'")
    ann.do("void watch(window.room = presence.join('presence-once', {away: true}))")
    ann.do(
        "(window.ask = () => void Promise.all([room.update({away: false}), room.send('message')]),"
        " void (presence.state === 'connected' ? ask()"
        " : presence.on('state', (state) => state === 'connected' && ask())))"
    )
    ann.wait("presence.state === 'connected' && room.me?.away === false")
    assert ann.do("presence.join('presence-twice').send('message')") == {"delivered": 0}


def test_an_expiring_token_is_replaced_silently(open_tab: OpenTab, server: Server) -> None:
    with client(server, "bob") as bob:
        bob.join("presence-renewed")
        ann = open_tab("ann", lives=3)
        ann.join("presence-renewed")
        assert bob.event()["type"] == "presence:member_joined"
        ann.wait("tokens >= 3")
        assert bob.silent()
        assert ann.do("states") == [["connected"]]


def test_auth_protocol_keeps_the_token_out_of_the_url(open_tab: OpenTab, server: Server) -> None:
    ann = open_tab("ann", options="auth: 'protocol'")
    assert ids(ann.join()) == ["ann"]
    requested = ann.do("performance.getEntriesByType('resource').map(({name}) => name).join()")
    assert "token=" not in requested
    ann.do("void (window.other = new Presence('/presence/ws', {token: 'garbage', auth: 'protocol'}))")
    ann.wait("other.state === 'waiting'")


COOKIES = """() => {
    window.states = [];
    window.presence = new Presence("/presence/ws");
    presence.on("state", (state, {code}) => states.push(code ? `${state} ${code}` : state));
    window.room = presence.join("presence-room");
}"""


@pytest.fixture
def by_cookie(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Opens a page whose login is a cookie of three seconds."""
    with ExitStack() as stack:

        def open_page(**config: Any) -> Page:
            app = "tests.support.variations:create_app()"
            server = stack.enter_context(running(app=app, VARIATION="cookies", **config))
            page = stack.enter_context(browser.new_context()).new_page()
            page.goto(f"{server.origin}/page")
            page.evaluate(COOKIES)
            page.wait_for_function("room.state === 'joined' && room.members.length === 1")
            return page

        yield open_page


def test_a_renewed_cookie_keeps_the_client_connected(by_cookie: Callable[..., Page]) -> None:
    """The client cannot ask for a cookie, so it tries again with those that other requests brought."""
    page = by_cookie()
    page.evaluate("void setInterval(() => fetch('/renew'), 200)")
    renewed = "states.filter((state) => state === 'waiting 4401').length >= 2"
    page.wait_for_function(f"{renewed} && presence.state === 'connected' && room.members.length === 1")
    assert "closed 4401" not in page.evaluate("states")


@pytest.mark.parametrize("required", [False, True])
def test_an_ended_cookie_login_closes_the_client_after_one_attempt(
    by_cookie: Callable[..., Page], required: bool
) -> None:
    """The room shows no members."""
    page = by_cookie(PRESENCE_AUTH_REQUIRED=required)
    page.wait_for_function("presence.state === 'closed'")
    states = page.evaluate("states")
    assert states.count("waiting 4401") == 1
    assert states[-1] == "closed 4401"
    assert page.evaluate("[room.state, room.members]") == ["joining", []]
    assert page.evaluate("room.joined.catch(({code}) => code)") == "DISCONNECTED"
    page.evaluate("fetch('/renew').then(() => presence.connect())")
    page.wait_for_function("room.state === 'joined' && room.members.length === 1")


def test_a_token_that_cannot_be_renewed_closes_the_client(open_tab: OpenTab) -> None:
    ann = open_tab("ann", lives=2, options="token: null")
    token = ann.do("token()")
    ann.do(f"(presence.close(), window.presence = new Presence('/presence/ws', {{token: '{token}'}}), 1)")
    ann.wait("presence.state === 'closed'")


def test_a_failing_token_function_is_tried_again(open_tab: OpenTab) -> None:
    """The application gets `TOKEN_FAILED` each time."""
    ann = open_tab("ann", options="token: () => { if (++tokens < 3) throw new Error('no'); return null; }")
    ann.wait("presence.state === 'connected'")
    assert ann.do("[tokens, presence.user]") == [3, None]
    assert ann.heard == [["error", "TOKEN_FAILED"]] * 2


def test_auth_message_keeps_the_token_out_of_the_url(open_tab: OpenTab) -> None:
    """The rooms are joined after the server accepted the token."""
    urls: list[str] = []
    ann = open_tab("ann", options="auth: 'message'")
    ann.page.on("websocket", lambda socket: urls.append(socket.url))
    assert ids(ann.join()) == ["ann"]
    ann.do("presence.close()")
    ann.do("presence.connect()")
    ann.wait("presence.state === 'connected'")
    assert ann.do("presence.user") == {"id": "ann"}
    wait_until(lambda: urls)
    assert {url.partition("?")[2] for url in urls} == {""}


def test_a_refused_token_is_not_tried_for_ever(open_tab: OpenTab) -> None:
    ann = open_tab("ann", options="auth: 'message', token: 'garbage'")
    ann.wait("presence.state === 'closed'")
    assert ann.do("heard") == [["error", "UNAUTHORIZED"]]


def test_a_request_without_an_answer_times_out(open_tab: OpenTab) -> None:
    """The client connects again."""
    with running() as server:
        ann = open_tab("ann", server, options="timeout: 1000")
        ann.join()
        os.killpg(server.process.pid, signal.SIGSTOP)
        assert ann.do("attempt(room.send('message'))")["code"] == "TIMEOUT"
        os.killpg(server.process.pid, signal.SIGCONT)
        ann.wait("presence.state === 'connected' && room.state === 'joined'")


def test_odd_texts_break_nothing(open_tab: OpenTab) -> None:
    """Lone surrogates are refused, the keys of a prototype are ordinary keys, and a handler that raises stops no
    other."""
    ann = open_tab("ann")
    ann.join("presence-odd")
    assert ann.do("attempt(room.send('message', '\\ud800'))")["code"] == "INVALID_JSON"
    assert ann.do("room.send('message', 'fine')") == {"delivered": 0}
    ann.do('room.update(JSON.parse(\'{"__proto__": {"polluted": 1}, "a": {"__proto__": {"polluted": 1}}}\'))')
    assert ann.do("[({}).polluted, Object.assign({}, room.me).polluted ?? null]") == [None, None]
    ann.do("(room.on('members', () => { throw new Error('broken'); }).on('members', () => heard.push('after')), 1)")
    ann.do("room.update({b: 1})")
    assert ann.heard[-1] == "after"
    assert ann.problems == ["broken"]
    ann.problems.clear()


def test_the_declared_types_match_the_client(frontend: Path) -> None:
    """`typed_usage.ts` compiles, and its marked misuse does not."""
    options = ["--noEmit", "--strict", "--target", "es2022", "--module", "esnext", "--moduleResolution", "bundler"]
    run_in(ROOT, str(frontend / "node_modules/.bin/tsc"), *options, "tests/client/typed_usage.ts")
