"""The documents agree with the software: code blocks run, tables match the code, links resolve."""

from __future__ import annotations

import ast
import builtins
import dis
import inspect
import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import fields
from html.parser import HTMLParser
from pathlib import Path
from types import CodeType
from typing import Any, get_args

import click
import msgspec
import pytest
from flask import Flask, render_template_string
from flask_jwt_extended import JWTManager, create_access_token

import flask_presence
from flask_presence import Presence, User
from flask_presence.domain import events, wire
from flask_presence.domain.errors import ERROR_CODES, Removed
from flask_presence.domain.meter import CLOSE_CODES
from flask_presence.domain.timestamps import from_epoch
from flask_presence.settings import Settings
from flask_presence.testing import TestClient

from ..conftest import missing
from ..support.documents import ROOT, Block, anchors_of, blocks_of, names_of, prose_of, read, rows_of, section_of
from ..support.guides import GUIDES, files_of

README = ROOT / "README.md"
CONTRIBUTING = ROOT / "CONTRIBUTING.md"
DOCS = ROOT / "docs"
DOCUMENTS = [README, CONTRIBUTING, *sorted(DOCS.glob("*.md"))]
LINKED = [*DOCUMENTS, ROOT / "CHANGELOG.md", ROOT / "benchmarks/README.md"]
FOR_USERS = [document for document in DOCUMENTS if document.name not in ("CONTRIBUTING.md", "architecture.md")]

LANGUAGES = {"python", "console", "js", "ts", "tsx", "vue", "html", "diff", "json", "nginx", "text"}
OF_THE_READER = {"db", "Document", "Account", "ask_the_archive", "forget_membership", "SCRAPE_TOKEN"}
"""Names in examples that belong to the reader's app."""
ROOM = "presence-room-1"
SECRET = "a secret of thirty-two characters"
VARYING = {
    "clientId": re.compile(r"[\w-]{22,}"),
    **dict.fromkeys(
        ("joinedAt", "updatedAt", "timestamp", "expiresAt"), re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
    ),
}
"""Keys whose value differs in every run, and the pattern of the value."""


BLOCKS = [block for document in DOCUMENTS for block in blocks_of(document)]


def in_language(*languages: str) -> pytest.MarkDecorator:
    blocks = [block for block in BLOCKS if block.language in languages]
    return pytest.mark.parametrize("block", blocks, ids=lambda block: block.name)


def new_app(**config: Any) -> Flask:
    app = Flask("documents")
    app.config.update(JWT_SECRET_KEY=SECRET, SECRET_KEY=SECRET, **config)
    return app


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.name)
def test_every_block_has_a_language_that_is_checked(block: Block) -> None:
    assert block.language in LANGUAGES
    assert block.text.strip()


# Python


IN_ONE_APP = [document for document in DOCUMENTS if document.name not in GUIDES]


@pytest.mark.parametrize("document", IN_ONE_APP, ids=names_of(IN_ONE_APP))
def test_python_blocks_run(document: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The blocks of a document build on one another, functions named `test_…` in them pass, and every setting is
    valid. (The blocks of a guide are files: see `tests/guides`.)"""
    app = new_app()
    JWTManager(app)
    namespace: dict[str, Any] = {"__name__": "app", "app": app, "presence": Presence(), "Presence": Presence}
    for block in blocks_of(document):
        if block.language != "python":
            continue
        code = compile("\n" * (block.line - 1) + block.text, str(document), "exec")
        exec(code, namespace)
        unknown = {name for name in globals_of(code) if name not in namespace and not hasattr(builtins, name)}
        assert unknown <= OF_THE_READER, f"{block.name} uses names that it neither has nor imports"
        config = {key: value for key, value in namespace["app"].config.items() if key.startswith("PRESENCE_")}
        Presence().init_app(new_app(**config))
    app, presence = namespace["app"], namespace["presence"]
    if "presence" not in app.extensions:
        presence.init_app(app)
    for name, function in list(namespace.items()):
        if name.startswith("test_"):
            with ExitStack() as stack:
                connect = lambda *arguments: stack.enter_context(presence.test_client(*arguments, app=app))  # noqa: E731
                fixtures = {"app": app, "presence_client": connect, "caplog": caplog}
                function(**{fixture: fixtures[fixture] for fixture in inspect.signature(function).parameters})


def globals_of(code: CodeType) -> set[str]:
    """The names that the code, and the functions in it, look up globally."""
    names = {one.argval for one in dis.get_instructions(code) if one.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names |= globals_of(constant)
    return names


def test_the_app_and_the_page_of_the_readme_belong_together() -> None:
    """The page renders, its script exists, and the guard lets in the users of the channel."""
    python, page = (next(b for b in blocks_of(README) if b.language == kind) for kind in ("python", "html"))
    namespace: dict[str, Any] = {"__name__": "app"}
    exec(compile(python.text, str(README), "exec"), namespace)
    app, presence = namespace["app"], namespace["presence"]
    with app.test_request_context():
        html = render_template_string(page.text)
    http = app.test_client()
    script = re.search(r'src="([^"]+)"', html)
    assert script is not None
    assert http.get(script[1]).status_code == 200
    assert http.get("/presence/ws").status_code == 426
    assert 'new Presence("/presence/ws"' in html
    assert http.post("/login/ann").text.count(".") == 2
    with presence.test_client(user=User("ann", name="Ann"), app=app) as ann:
        assert ann.join(ROOM, {"status": "here"})["me"]["status"] == "here"
        assert ann.receive()["data"] == {"text": "Welcome, Ann!"}
    with presence.test_client(user="mallory", app=app) as mallory:
        assert mallory.request({"type": "join", "channel": ROOM})["code"] == "FORBIDDEN"


# JavaScript


@in_language("js", "html")
def test_javascript_blocks_are_valid(block: Block, tmp_path: Path) -> None:
    node = shutil.which("node")
    if node is None:
        missing("Node")
    is_page = block.language == "html"
    scripts = scripts_of(block.text) if is_page else [block.text]
    assert scripts or (is_page and "<script" not in block.text)
    for script in scripts:
        path = tmp_path / ("script.js" if is_page else "module.mjs")  # a module may await
        path.write_text(script, encoding="utf-8")
        done = subprocess.run([node or "", "--check", path], capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr


def scripts_of(html: str) -> list[str]:
    """The texts of the `<script>` elements."""

    class Reader(HTMLParser):
        inside = False

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            self.inside = tag == "script"

        def handle_endtag(self, tag: str) -> None:
            self.inside = False

        def handle_data(self, data: str) -> None:
            if self.inside and data.strip():
                found.append(data)

    found: list[str] = []
    Reader().feed(html)
    return found


# The wire


class Conversation:
    """Ann's connection, and Bob, Carol and the server, who cause the events that Ann gets."""

    def __init__(self, stack: ExitStack) -> None:
        self.app = new_app()
        JWTManager(self.app)
        self.presence = Presence(self.app)
        self._stack, self._carol_s = stack, stack.enter_context(ExitStack())
        stack.enter_context(self.app.app_context())
        self.bob = self._enter("bob")
        self.bob.join(ROOM)
        self.ann = self._enter("ann")

    def _enter(self, name: str, stack: ExitStack | None = None) -> TestClient:
        client = self.presence.test_client(user=User(name, name=name.title()))
        return (stack or self._stack).enter_context(client)

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Send a request of Ann, and return its answer."""
        if request["type"] == "auth":
            request = request | {"token": create_access_token("ann")}
        return self.ann.request(request)

    def hear(self, kind: str) -> dict[str, Any]:
        """Cause an event of that kind, and return it as Ann gets it."""
        now = from_epoch(1768473000.0)
        if kind == "connected":
            return decoded(wire.connected(self.ann.client_id, User("ann"), now))
        if kind == "auth:expiring":
            return decoded(wire.auth_expiring(now))
        self.ann.join(ROOM)
        while self.ann.received:
            self.ann.receive()
        self._cause(kind)
        frame: dict[str, Any] = self.ann.receive()
        assert self.ann.received == []
        return frame

    def _cause(self, kind: str) -> None:
        causes: dict[str, Callable[[], object]] = {
            "channel:message": lambda: self.bob.send(ROOM, data="hello"),
            "presence:member_joined": lambda: self._enter("carol", self._carol_s).join(ROOM),
            "presence:member_updated": lambda: self.bob.update(ROOM, status="away"),
            "presence:member_left": self._carol_s.close,
            "channel:removed": lambda: self.presence.remove(ROOM, "ann"),
            "user:message": lambda: self.presence.send_to_user("ann", "invited", {"to": "tea"}),
        }
        causes[kind]()


def decoded(frame: bytes) -> dict[str, Any]:
    fields: dict[str, Any] = json.loads(frame)
    return fields


def test_every_frame_looks_as_documented() -> None:
    """Every request gets the answer below it, and every event looks like its block."""
    blocks = [block for block in blocks_of(DOCS / "protocol.md") if block.language == "json"]
    with ExitStack() as stack:
        conversation = Conversation(stack)
        answer: dict[str, Any] | None = None
        for block in blocks:
            frame = json.loads(block.text)
            assert (block.role == "answer") == (answer is not None), f"{block.name}: an answer follows a request"
            if block.role == "request":
                answer = conversation.ask(frame)
                continue
            assert block.role in ("answer", "event")
            actual = answer if answer is not None else conversation.hear(frame["type"])
            compare(frame, actual, block.name)
            answer = None
    assert answer is None


def compare(documented: Any, actual: Any, where: str) -> None:
    """Fail if the two differ. Ids and times need only the right format."""
    assert type(documented) is type(actual), where
    if isinstance(documented, dict):
        assert documented.keys() == actual.keys(), where
        for key, value in documented.items():
            if key in VARYING and isinstance(value, str):
                assert VARYING[key].fullmatch(value), f"{where}, {key}"
                assert VARYING[key].fullmatch(actual[key]), f"{where}, {key}"
            elif key == "timestamp":
                assert type(value) is type(actual[key]), f"{where}, {key}"
            else:
                compare(value, actual[key], f"{where}, {key}")
    elif isinstance(documented, list):
        assert len(documented) == len(actual), where
        for number, (one, other) in enumerate(zip(documented, actual, strict=True)):
            compare(one, other, f"{where}, {number}")
    else:
        assert documented == actual, where


@in_language("json")
def test_json_blocks_are_valid(block: Block) -> None:
    json.loads(block.text)


def test_every_frame_is_in_the_protocol() -> None:
    text = read(DOCS / "protocol.md")
    structs = [kind for kind in vars(wire).values() if isinstance(kind, type) and issubclass(kind, msgspec.Struct)]
    tags = {kind.__struct_config__.tag for kind in structs if kind.__module__ == wire.__name__}
    names = {tag for tag in tags if isinstance(tag, str) and tag[0].islower()}
    assert len(names) > 15
    assert [name for name in sorted(names) if f"`{name}" not in text and f'"{name}"' not in text] == []


def test_every_error_code_is_in_the_protocol() -> None:
    rows = [row for row in rows_of(DOCS / "protocol.md") if re.fullmatch(r"(`[A-Z_]+`(, )?)+", row[0])]
    documented = {code for row in rows for code in re.findall(r"[A-Z_]+", row[0])}
    assert documented == set(ERROR_CODES)
    assert f"`{Removed.code}`" in read(DOCS / "protocol.md")


def test_every_close_code_is_in_the_protocol() -> None:
    text = prose_of(DOCS / "protocol.md")
    assert [code for code in CLOSE_CODES if not re.search(rf"\b{code}\b", text)] == []


# Commands


@in_language("console")
def test_documented_commands_exist(block: Block) -> None:
    lines = [line.removeprefix("$ ") for line in block.text.splitlines() if line.strip()]
    for line in lines:
        for words in commands_in(line):
            check_command(words)


def commands_in(line: str) -> Iterator[list[str]]:
    """The commands in a line of shell, as words; `&&` separates them."""
    words = shlex.split(line, comments=True)
    while "&&" in words:
        yield words[: words.index("&&")]
        words = words[words.index("&&") + 1 :]
    yield words


def check_command(words: list[str]) -> None:
    while "=" in words[0]:
        key = words[0].partition("=")[0]
        assert key.removeprefix("FLASK_PRESENCE_").lower() in {one.name for one in fields(Settings)}, key
        words = words[1:]
    if words[0] == "sudo":
        words = words[1:]
    program, arguments = words[0].rpartition("/")[2], words[1:]
    checks: dict[str, Callable[[list[str]], None]] = {
        "flask": check_flask,
        "python": check_module,
        "python3": check_module,
        "pip": check_install,
        "celery": lambda given: None,  # `tests/guides` runs it
        "curl": lambda given: None,  # and sends what it would send
        "npm": lambda given: None,
        "gunicorn": check_gunicorn,
        "ruff": lambda given: None,
        "mypy": lambda given: None,
        ".": lambda given: None,
        "cp": check_files,
        "install": check_files,
        "docker": check_files,
        "systemd-run": check_systemd_run,
        **dict.fromkeys(("curl", "nginx", "sudoedit", "systemctl", "useradd"), lambda given: None),
    }
    assert program in checks, f"{program} is not known here"
    checks[program](arguments)


def command_group() -> click.Group:
    app = new_app()
    Presence(app)
    group = app.cli.get_command(click.Context(app.cli), "presence")
    assert isinstance(group, click.Group)
    return group


def check_flask(arguments: list[str]) -> None:
    """A command of ours must exist, and accept these arguments and options."""
    if arguments[0] == "--app":
        assert arguments[1] in ("app", "example.deploy.wsgi")
        arguments = arguments[2:]
        if arguments[0] in ("run", "seed"):  # Flask's own, and the tutorial's
            return
    assert arguments[0] == "presence"
    command_group().commands[arguments[1]].make_context(arguments[1], arguments[2:])


def check_systemd_run(arguments: list[str]) -> None:
    """Its options come first, each in one word, and then the command that it runs."""
    program = next(place for place, word in enumerate(arguments) if not word.startswith("-"))
    check_command(arguments[program:])


def check_module(arguments: list[str]) -> None:
    if arguments[0] in files_of_guides():
        return
    assert arguments[0] == "-m"
    module, *given = arguments[1:]
    if module == "pytest":
        paths = [one for one in given if one.startswith("tests/")]
        assert [path for path in paths if not (ROOT / path).exists()] == []
        return
    if module == "venv":
        return
    path = ROOT / module.replace(".", "/")
    source = read(path / "__main__.py" if path.is_dir() else path.with_suffix(".py"))
    assert [one for one in given if one.startswith("--") and f'"{one}"' not in source] == []


def files_of_guides() -> set[str]:
    return {path for name in GUIDES for path in files_of(DOCS / name)}


def check_install(arguments: list[str]) -> None:
    """Extras must be those of the package, files must exist, and other packages must be among those that are tested."""
    tested = re.findall(r"^([\w-]+)==", read(ROOT / "requirements.txt"), re.MULTILINE)
    known = re.findall(r"^([\w-]+) =$", read(ROOT / "setup.cfg").partition("[options.extras_require]")[2], re.MULTILINE)
    for argument in arguments:
        extras = re.fullmatch(r"(?:flask-presence|\.)\[([\w,-]+)\]", argument)
        if extras:
            assert set(extras[1].split(",")) <= set(known)
        elif argument.endswith(".txt"):
            assert (ROOT / argument).exists()
        else:
            assert argument in ("install", "-q", "-r", *tested)


def check_files(arguments: list[str]) -> None:
    """Files of the repository must exist."""
    patterns = [one for one in arguments if one.startswith("example/")]
    assert [pattern for pattern in patterns if not list(ROOT.glob(pattern))] == []


def check_gunicorn(arguments: list[str]) -> None:
    check_files(arguments)
    module = arguments[-1].partition(":")[0]
    assert module == "app" or (ROOT / module.replace(".", "/")).with_suffix(".py").exists()


def test_every_command_is_documented() -> None:
    text = read(DOCS / "operations.md")
    for name, command in command_group().commands.items():
        assert f"flask presence {name}" in text
        options = {text for one in command.params if isinstance(one, click.Option) for text in one.opts}
        assert [option for option in options if option not in text] == []


# Tables


def test_the_documented_settings_are_the_settings() -> None:
    """`docs/settings.md` has every setting with its default, and no other."""
    rows = [row for row in rows_of(DOCS / "settings.md") if row[0].startswith("`PRESENCE_")]
    documented = {row[0].strip("`"): ast.literal_eval(row[2].strip("`")) for row in rows}
    assert len(rows) == len(documented)
    defaults = Settings()
    assert documented == {f"PRESENCE_{one.name.upper()}": getattr(defaults, one.name) for one in fields(Settings)}


@pytest.mark.parametrize("document", LINKED, ids=names_of(LINKED))
def test_every_setting_that_a_document_names_exists(document: Path) -> None:
    known = {f"PRESENCE_{one.name.upper()}" for one in fields(Settings)}
    assert set(re.findall(r"PRESENCE_[A-Z_]+[A-Z]", read(document))) <= known


def test_the_documented_server_api_is_the_public_api() -> None:
    """`docs/server-api.md` has every public name of `Presence` with its arguments, and no other."""
    text = read(DOCS / "server-api.md")
    public = {name: member for name, member in vars(Presence).items() if not name.startswith("_")}
    named = set(re.findall(r"\bpresence\.(\w+)", prose_of(DOCS / "server-api.md")))
    assert named == public.keys()
    for name, written in re.findall(r"^\| `presence\.(\w+)\(([^`]*)\)`", text, re.MULTILINE):
        parameters = list(inspect.signature(public[name]).parameters.values())[1:]
        arguments = [one.name if one.default is one.empty else f"{one.name}={one.default!r}" for one in parameters]
        assert written.replace('"', "'") == ", ".join(arguments), name


def test_every_exported_name_is_documented() -> None:
    text = read(DOCS / "server-api.md") + read(DOCS / "guards.md")
    assert [name for name in flask_presence.__all__ if not re.search(rf"\b{name}\b", text)] == []


def test_every_event_field_and_reason_is_documented() -> None:
    kinds = {kind.name: kind for kind in events.Event.__subclasses__()}
    rows = {row[0].strip("`"): row for row in rows_of(DOCS / "server-api.md") if row[0].strip("`") in kinds}
    assert rows.keys() == kinds.keys() == set(events.EVENT_NAMES)
    usual = {one.name for one in fields(events.Event)}
    for name, kind in kinds.items():
        properties = {key for key, value in vars(kind).items() if isinstance(value, property)}
        own = {one.name for one in fields(kind)} | properties
        assert rows[name][1] == f"`{kind.__name__}`"
        documented = set(re.findall(r"`(\w+)`", " ".join(rows[name][2:])))
        assert own - usual <= documented, name
        assert set(re.findall(r"`(\w+)`", rows[name][2])) <= own, name
    reasons = section_of(DOCS / "server-api.md", "### Reasons")
    assert {*re.findall(r"^\| `(\w+)` \|", reasons, re.MULTILINE)} == {"reason", *get_args(events.Reason)}


def test_the_documented_metrics_are_the_metrics() -> None:
    """`docs/operations.md` has every metric with its kind, and no other."""
    app = new_app(PRESENCE_STATS_PUBLIC=True)
    Presence(app)
    text = app.test_client().get("/presence/metrics").text
    actual = set(re.findall(r"^# TYPE flask_presence_(\w+) (\w+)$", text, re.MULTILINE))
    section = section_of(DOCS / "operations.md", "## Metrics")
    documented = set()
    for table in section.split("\n\n"):
        head = re.match(r"\| (counter|histogram|gauge) \|", table)
        if head:
            documented |= {(name, head[1]) for name in re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)}
    assert documented == actual


def test_every_route_is_documented() -> None:
    app = new_app()
    Presence(app)
    text = "".join(map(read, DOCUMENTS))
    own_files = {"/stats.css", "/stats.js", "/stats.<version>.css", "/stats.<version>.js", "/<path:rest>", "/"}
    rules = {rule.rule.removeprefix("/presence") for rule in app.url_map.iter_rules() if "presence" in rule.endpoint}
    paths = {re.sub(r"<\w+:", "<", rule) for rule in rules - own_files}
    assert len(paths) > 10
    assert [path for path in sorted(paths) if f"`{path}" not in text] == []


def test_every_documented_log_line_exists() -> None:
    """One string of the package contains every part of the line; `…` separates the parts."""
    section = section_of(DOCS / "operations.md", "## The log")
    lines = [
        line for first in re.findall(r"^\| (`.*?) \| \w", section, re.MULTILINE) for line in first.split("`")[1::2]
    ]
    trees = [ast.parse(read(path)) for path in (ROOT / "flask_presence").rglob("*.py")]
    texts = {
        node.value
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    assert len(lines) > 15
    for line in lines:
        parts = [part for part in re.split(r"\s*…\s*", line) if part.strip(" :;.,")]
        assert any(all(part in text for part in parts) for text in texts), line


# The documents themselves


def test_the_readme_has_at_most_150_lines() -> None:
    assert len(read(README).splitlines()) <= 150


def test_the_readme_has_the_test_line_once() -> None:
    """`.ci/run` reads it there, and `CONTRIBUTING.md` repeats it."""
    lines = re.findall(r"^python3 -m venv .*pytest.*$", read(README), re.MULTILINE)
    assert len(lines) == 1
    assert lines[0] in read(CONTRIBUTING)


@pytest.mark.parametrize("document", FOR_USERS, ids=names_of(FOR_USERS))
def test_documents_for_users_name_only_public_modules(document: Path) -> None:
    assert set(re.findall(r"\bflask_presence\.(\w+)", read(document))) <= {"signals", "__version__"}


@pytest.mark.parametrize("document", LINKED, ids=names_of(LINKED))
def test_every_link_has_a_target(document: Path) -> None:
    targets = re.findall(r"\]\(([^)\s]+)\)", prose_of(document))
    for target in targets:
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        found = (document.parent / path).resolve() if path else document
        assert found.exists(), target
        assert not anchor or anchor in anchors_of(found), target
