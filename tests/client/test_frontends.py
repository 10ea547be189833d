"""The client in frontends with a build step: React and Vue, strict TypeScript, a bundler, and a real browser."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ..support.browser import Browser, BrowserContext, ConsoleMessage, Page, Route, WebSocket, expect, lose_network
from ..support.client import client
from ..support.documents import blocks_of
from ..support.server import ROOT, Server, running, wait_until
from .conftest import run_in

HERE = Path(__file__).parent / "frontend"
CLIENT_GUIDE = ROOT / "docs/client.md"
TYPESCRIPT = {
    "strict": True,
    "noEmit": True,
    "noUncheckedIndexedAccess": True,
    "exactOptionalPropertyTypes": False,
    "skipLibCheck": False,
    "types": [],
    "target": "es2022",
    "lib": ["es2022", "dom", "dom.iterable"],
    "module": "esnext",
    "moduleResolution": "bundler",
    "jsx": "react-jsx",
}
VUE_FILES = 'declare module "*.vue" { const component: import("vue").Component; export default component; }\n'
APP = """
from flask import request, send_from_directory
from flask_jwt_extended import create_access_token
from tests.support.apps import create_app

app = create_app()
presence = app.extensions["presence"]

@app.post("/token")
def own_token():
    user = request.cookies["user"]
    return create_access_token(user, additional_claims={"name": user.title()})

@app.get("/app/<name>")
def page_of(name):
    script = f'<script type="module" src="/built/{name}.js"></script>'
    return f'<!doctype html><title>{name}</title><div id="root"></div>{script}'

@app.get("/built/<name>")
def built(name):
    return send_from_directory("FOLDER", name)

@app.get("/favicon.ico")
def icon():
    return "", 204
"""


def texts_of(language: str) -> dict[str, str]:
    """The named blocks of the client guide in a language."""
    return {block.role: block.text for block in blocks_of(CLIENT_GUIDE) if block.language == language and block.role}


@pytest.fixture(scope="module")
def built(frontend: Path) -> Path:
    """The folder of the bundles: of the pages in `frontend/`, and of the components in the client guide."""
    for path in HERE.iterdir():
        shutil.copy(path, frontend)
    for language, folder in (("tsx", "guide_react"), ("ts", "guide_vue"), ("vue", "guide_vue")):
        (frontend / folder).mkdir(exist_ok=True)
        for name, text in texts_of(language).items():
            (frontend / folder / name).write_text(text, encoding="utf-8")
    (frontend / "guide_react/guide_react.ts").write_text('import "./main";\n')
    (frontend / "guide_vue/guide_vue.ts").write_text('import "./main";\n')
    entries = ["react_page.tsx", "vue_page.ts", "guide_react/guide_react.ts", "guide_vue/guide_vue.ts"]
    run_in(frontend, "node", "build.mjs", *entries)
    return frontend / "built"


@pytest.fixture(scope="module")
def server(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The tests' app with the bundles, and with the view and the template of the client guide."""
    folder = tmp_path_factory.mktemp("app")
    (folder / "templates").mkdir()
    views = [block.text for block in blocks_of(CLIENT_GUIDE) if block.language == "python"]
    (folder / "app.py").write_text("\n".join([APP.replace("FOLDER", str(built)), *views]), encoding="utf-8")
    for name, text in texts_of("html").items():
        (folder / "templates" / name).write_text(text, encoding="utf-8")
    arguments = ("--chdir", str(folder), "--pythonpath", str(ROOT))
    history = {"*-kept": {"messages": 100, "seconds": 3600}}
    with running(app="app:app", arguments=arguments, PRESENCE_HISTORY=history) as running_server:
        yield running_server


class Tab:
    """A page, and what it sent over its WebSockets."""

    def __init__(self, context: BrowserContext, server: Server, user: str, path: str) -> None:
        context.add_cookies([{"name": "user", "value": user, "url": server.origin}])
        self.page: Page = context.new_page()
        self.problems: list[str] = []
        self.warnings: list[str] = []
        self.sent: list[dict[str, Any]] = []
        self.sockets: list[WebSocket] = []
        self.has_clock = False
        self.page.on("pageerror", lambda problem: self.problems.append(str(problem)))
        self.page.on("console", self._read)
        self.page.on("websocket", self._listen)
        self.page.goto(f"{server.origin}{path}")

    def _read(self, line: ConsoleMessage) -> None:
        if line.type in ("warning", "error"):
            self.warnings.append(line.text)

    def _listen(self, socket: WebSocket) -> None:
        self.sockets.append(socket)
        socket.on("framesent", lambda data: self.sent.append(json.loads(data)))

    def show(self, *entries: dict[str, Any]) -> None:
        """Render these components, and no others."""
        self.page.evaluate("(entries) => show(entries)", entries)

    def requests(self) -> list[dict[str, Any]]:
        """What the page has sent since the last call, in short. A message of a component shows that all is sent."""
        joined = "Object.values(rooms).find(({state}) => (state.value ?? state) === 'joined')"
        self.page.evaluate(f"{joined}.send('end')")
        self.wait_for_sent(lambda: self.sent[-1].get("event") == "end")
        sent = [frame for frame in self.sent if frame.get("event") != "end" and frame["type"] != "ping"]
        self.sent.clear()
        return [{key: value for key, value in frame.items() if key != "requestId"} for frame in sent]

    def wait_for_sent(self, condition: Callable[[], object]) -> None:
        wait_until(lambda: self.page.evaluate("1") and self.sent and condition())  # Playwright reports while it waits

    def lose_network(self) -> None:
        """Take the network away. Returns once the page says that the client waits for it."""
        if not self.has_clock:
            self.page.clock.install()
            self.has_clock = True
        lose_network(self.page, lambda: self.page.locator("#state").inner_text() == "waiting")

    def expect(self, component: str, text: str) -> None:
        expect(self.page.locator(f"#{component}")).to_have_text(text)


OpenTab = Callable[..., Tab]


@pytest.fixture
def open_tab(browser: Browser, server: Server) -> Iterator[OpenTab]:
    """Opens pages. At the end none may have had an error."""
    contexts: list[BrowserContext] = []
    tabs: list[Tab] = []

    def open_one(user: str, path: str, **options: Any) -> Tab:
        contexts.append(browser.new_context(**options))
        tabs.append(Tab(contexts[-1], server, user, path))
        return tabs[-1]

    yield open_one
    assert [problem for tab in tabs for problem in tab.problems + tab.warnings] == []
    for context in contexts:
        context.close()


FRAMEWORKS = pytest.mark.parametrize("path", ["/app/react_page", "/app/vue_page"])


def part(id: str, name: str | None, **info: str) -> dict[str, Any]:
    return {"id": id, "name": name, "info": info} if info else {"id": id, "name": name}


@FRAMEWORKS
def test_components_share_a_room_until_the_last_of_them_leaves(open_tab: OpenTab, path: str, name: str) -> None:
    """Neither the double mount of StrictMode nor a component that replaces another sends anything."""
    channel = f"presence-{name}"
    ann = open_tab("ann", path)
    ann.show(part("a", channel, status="here"), part("b", channel, mood="fine"), part("c", None))
    ann.expect("a", "joined ann ann:here")
    ann.expect("b", "joined ann ann:here")
    ann.expect("c", "left nobody")
    assert ann.requests() == [{"type": "join", "channel": channel, "userInfo": {"status": "here", "mood": "fine"}}]
    ann.show(part("b", channel, mood="fine"))
    assert ann.requests() == [{"type": "channel:update", "channel": channel, "userInfo": {"status": None}}]
    ann.show(part("d", channel, mood="fine"))
    ann.expect("d", "joined ann ann:")
    assert ann.requests() == []
    ann.show(part("c", None))
    ann.wait_for_sent(lambda: ann.sent[-1]["type"] == "leave")
    assert [frame["type"] for frame in ann.sent] == ["leave"]
    assert len(ann.sockets) == ann.page.evaluate("created") == 1


@FRAMEWORKS
def test_only_a_changed_info_is_sent(open_tab: OpenTab, path: str, name: str) -> None:
    """As an update of the keys that changed, however often the component is rendered with an equal object."""
    channel = f"presence-{name}"
    ann = open_tab("ann", path)
    ann.show(part("a", channel, status="here", mood="fine"))
    ann.expect("a", "joined ann ann:here")
    ann.requests()
    for _ in range(5):
        ann.show(part("a", channel, mood="fine", status="here"))
    assert ann.requests() == []
    ann.show(part("a", channel, status="away", mood="fine"))
    ann.expect("a", "joined ann ann:away")
    assert ann.requests() == [{"type": "channel:update", "channel": channel, "userInfo": {"status": "away"}}]
    assert ann.page.evaluate("rooms.a.update({status: 'busy'}).then(({status}) => status)") == "busy"
    ann.expect("a", "joined ann ann:busy")
    ann.show(part("a", channel))
    ann.expect("a", "joined ann ann:")
    assert ann.requests()[1:] == [
        {"type": "channel:update", "channel": channel, "userInfo": {"status": None, "mood": None}}
    ]
    assert ann.page.evaluate("window.renders ?? 0") < 60


@FRAMEWORKS
def test_another_name_moves_the_component(open_tab: OpenTab, server: Server, path: str, name: str) -> None:
    """Its handlers move with it, and nothing of the old channel is shown."""
    old, new = f"presence-{name}-1", f"presence-{name}-2"
    ann = open_tab("ann", path)
    ann.show(part("a", old, status="here"))
    ann.expect("a", "joined ann ann:here")
    ann.requests()
    with client(server, "bob") as bob:
        bob.join(old)
        bob.join(new)
        ann.show(part("a", new, status="here"))
        ann.expect("a", "joined ann bob: ann:here")
        assert ann.requests() == [
            {"type": "leave", "channel": old},
            {"type": "join", "channel": new, "userInfo": {"status": "here"}},
        ]
        for channel in (old, new):
            bob.request("channel:message", channel=channel, event="typing", data=channel)
        ann.page.wait_for_function("heard.length")
        assert ann.page.evaluate("heard") == [["a", new, "bob"]]
    ann.expect("a", "joined ann ann:here")


@FRAMEWORKS
def test_a_refusal_is_an_error_until_another_component_tries_again(
    open_tab: OpenTab, server: Server, path: str, name: str
) -> None:
    """So does a changed info."""
    channel = f"presence-owned-{name}"
    server.post(f"/own/{channel}", False)
    ann = open_tab("ann", path)
    ann.show(part("a", channel, status="here"))
    ann.expect("a", "refused nobody FORBIDDEN")
    assert ann.page.evaluate("rooms.a.send('x').catch(({code}) => code)") == "NOT_IN_CHANNEL"
    server.post(f"/own/{channel}", True)
    ann.show(part("a", channel, status="here"), part("b", channel))
    ann.expect("a", "joined ann ann:here")
    ann.expect("b", "joined ann ann:here")
    server.call("remove", name=channel, user_id="ann", reason="Enough")
    ann.expect("a", "refused nobody REMOVED")
    ann.show(part("a", channel, status="back"), part("b", channel))
    ann.expect("a", "joined ann ann:back")


def test_a_refusal_that_no_component_shows_is_a_warning(open_tab: OpenTab, name: str) -> None:
    ann = open_tab("ann", "/app/react_page")
    ann.show(part("a", f"presence-denied-{name}") | {"ignoresError": True})
    ann.expect("a", "refused nobody")
    assert ann.warnings == [f"presence-denied-{name}: FORBIDDEN: Access denied"]
    ann.warnings.clear()


@FRAMEWORKS
def test_a_channel_without_members_is_joined_too(open_tab: OpenTab, path: str, name: str) -> None:
    ann = open_tab("ann", path)
    ann.show(part("a", name))
    ann.expect("a", "joined nobody")
    assert ann.page.evaluate("rooms.a.send('typing')") == {"delivered": 0}


@FRAMEWORKS
def test_the_connection_ends_with_its_provider(open_tab: OpenTab, path: str, name: str) -> None:
    ann = open_tab("ann", path)
    ann.show(part("a", f"presence-{name}"))
    ann.expect("a", "joined ann ann:")
    ann.expect("state", "connected")
    with ann.sockets[0].expect_event("close"):
        ann.page.evaluate("void show(null)")
    if "react" in path:
        ann.show(part("a", f"presence-{name}"))
        ann.expect("a", "joined ann ann:")
        assert ann.page.evaluate("created") == 2


def test_a_presence_of_the_app_outlives_its_provider(open_tab: OpenTab, name: str) -> None:
    """Only the rooms are left."""
    ann = open_tab("ann", "/app/react_page")
    shown = json.dumps([part("a", f"presence-{name}")])
    ann.page.evaluate(f"(window.own = connect(), show({shown}, own))")
    ann.expect("a", "joined ann ann:")
    ann.sent.clear()
    ann.page.evaluate(f"(show(null), show({shown}, own))")
    ann.expect("a", "joined ann ann:")
    ann.page.evaluate("show(null)")
    ann.wait_for_sent(lambda: ann.sent[-1]["type"] == "leave")
    assert ann.page.evaluate("own.state") == "connected"
    assert len(ann.sockets) == ann.page.evaluate("created") == 1


def test_components_show_a_list_from_the_server(open_tab: OpenTab, name: str) -> None:
    """The function that creates the `Presence` joins with it, and components find that room."""
    channel = f"presence-{name}"
    ann = open_tab("ann", "/app/react_page")
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    ann.page.route("**/token", hold)
    ann.page.evaluate(
        "(rendered) => void Object.assign(window, {rendered})", {"name": channel, "members": [{"id": "bob"}]}
    )
    ann.show(part("a", channel, status="here"))
    ann.expect("a", "joining nobody bob:")
    wait_until(lambda: ann.page.evaluate("1") and held)
    held.pop().continue_()
    ann.expect("a", "joined ann ann:here")
    assert [frame["type"] for frame in ann.requests()] == ["join"]


@FRAMEWORKS
def test_components_hear_what_a_channel_keeps(open_tab: OpenTab, server: Server, path: str, name: str) -> None:
    """As much as one of them asks for, and after a reconnect what they missed, or that there is a gap."""
    channel = f"presence-{name}-kept"
    ann = open_tab("ann", path)
    with client(server, "bob") as bob:
        bob.join(channel)
        for number in range(3):
            bob.say(channel, number, event="typing")
        ann.show(part("a", channel) | {"history": 1}, part("b", channel) | {"history": 2}, part("c", channel))
        ann.expect("c", "joined ann bob: ann:")
        assert ann.page.evaluate("heard.splice(0).toSorted()") == [[one, n, "bob"] for one in "abc" for n in (1, 2)]
        ann.show(part("c", channel))
        ann.expect("c", "joined ann bob: ann:")

        ann.lose_network()
        bob.say(channel, "missed", event="typing")
        ann.page.context.set_offline(False)
        ann.page.wait_for_function("heard.length")
        assert ann.page.evaluate("heard.splice(0)") == [["c", "missed", "bob"]]

        ann.lose_network()
        bob.say(channel, "forgotten", event="typing")
        server.call("clear_channel_history", name=channel)
        bob.say(channel, "kept", event="typing")
        ann.page.context.set_offline(False)
        ann.page.wait_for_function("heard.length")
        assert ann.page.evaluate("heard.splice(0)") == [["c", ["kept"]]]
    ann.warnings.clear()  # the browser's, about the lost network


def test_an_info_that_was_not_told_is_told_later(open_tab: OpenTab, name: str) -> None:
    """After a lost connection with the join, after a closed one as an update."""
    channel = f"presence-{name}"
    ann = open_tab("ann", "/app/react_page")
    ann.show(part("a", channel, status="here"))
    ann.expect("a", "joined ann ann:here")
    ann.lose_network()
    ann.show(part("a", channel, status="lost"))
    ann.page.context.set_offline(False)
    ann.expect("a", "joined ann ann:lost")
    ann.page.evaluate("presence.close()")
    ann.expect("a", "joining nobody DISCONNECTED")
    ann.show(part("a", channel, status="closed"))
    ann.page.evaluate("new Promise((resolve) => setTimeout(resolve)).then(() => void presence.connect())")
    ann.expect("a", "joined ann ann:closed")
    ann.warnings.clear()  # the browser's, about the lost network


def test_the_types_of_the_package_are_strict(frontend: Path, built: Path) -> None:
    """The pages here, the components in the client guide, and what must not compile."""
    (frontend / "files.d.ts").write_text(VUE_FILES)
    files = ["files.d.ts", "*.tsx", "*.ts", "guide_react/*", "guide_vue/*.ts"]
    (frontend / "tsconfig.json").write_text(json.dumps({"compilerOptions": TYPESCRIPT, "include": files}))
    run_in(frontend, "node_modules/.bin/tsc", "--project", ".")


def test_importing_and_rendering_on_a_server_connects_nowhere(frontend: Path, built: Path) -> None:
    """Components show that they are joining."""
    (frontend / "server.mjs").write_text(
        """
        globalThis.WebSocket = class { constructor() { throw new Error("connected"); } };
        const {createElement: h} = await import("react");
        const {renderToString} = await import("react-dom/server");
        const {PresenceProvider, useConnection, usePresence} = await import("flask-presence/react");
        await import("flask-presence/vue");
        const presence = () => { throw new Error("created"); };
        const Part = ({name}) => {
          const {members, me, state, error} = usePresence(name, {status: "here"});
          return `${useConnection().state} ${state} ${members.length} ${me} ${error};`;
        };
        console.log(renderToString(h(PresenceProvider, {presence}, h(Part, {name: "x"}), h(Part, {name: null}))));
        try { renderToString(h(Part)); } catch ({message}) { console.log(message); }
        """
    )
    page, mistake = run_in(frontend, "node", "server.mjs").splitlines()
    assert page.replace("<!-- -->", "") == (
        "connecting joining 0 undefined undefined;connecting left 0 undefined undefined;"
    )
    assert mistake == "There is no <PresenceProvider> around this component"


@pytest.mark.parametrize("path", ["/app/guide_react", "/app/guide_vue"])
def test_the_components_of_the_client_guide_work(open_tab: OpenTab, server: Server, path: str) -> None:
    ann = open_tab("ann", path)
    items = ann.page.get_by_role("listitem")
    expect(items).to_have_text(["Ann here (you)"])
    ann.page.get_by_label("Away").check()
    expect(items).to_have_text(["Ann away (you)"])
    with client(server, "bob") as bob:
        bob.join("presence-room-1", name="Bob", status="here")
        expect(items).to_have_text(["Ann away (you)", "Bob here"])
        bob.request("channel:message", channel="presence-room-1", event="typing", data=None)
        expect(ann.page.get_by_role("status")).to_have_text("bob is typing")
        ann.page.get_by_placeholder("Message").fill("h")
        assert bob.event()["event"] == "typing"
    expect(items).to_have_text(["Ann away (you)"])


def test_the_list_of_the_client_guide_is_there_before_any_script(open_tab: OpenTab, server: Server) -> None:
    """And it is current afterwards."""
    with client(server, "bob") as bob:
        bob.join("presence-room-7", name="Bob")
        still = open_tab("ann", "/rooms/7", java_script_enabled=False)
        expect(still.page.get_by_role("listitem")).to_have_text(["Bob"])
        ann = open_tab("ann", "/rooms/7")
        expect(ann.page.get_by_role("listitem")).to_have_text(["Bob", "Ann"])
    expect(ann.page.get_by_role("listitem")).to_have_text(["Ann"])
