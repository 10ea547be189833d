"""The commands of `flask presence`: what they print, and how they fail."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from click.testing import Result
from flask import Flask
from flask_jwt_extended import JWTManager
from hypothesis import given
from hypothesis import strategies as st

from flask_presence import Presence
from flask_presence.cli.tables import printable, table

from ..conftest import Connect, on_redis
from ..support.client import client
from ..support.redis_server import RedisServer
from ..support.server import DEADLINE, ROOT, Server, running, wait_until


def run(*arguments: str, **config: Any) -> Result:
    """Run a command in an app without a server, with Flask's own runner."""
    app = Flask("cli")
    app.config.update(JWT_SECRET_KEY="a secret of thirty-two characters", **config)
    JWTManager(app)
    Presence(app)
    return app.test_cli_runner().invoke(args=["presence", *arguments])


def succeed(*arguments: str, **config: Any) -> str:
    result = run(*arguments, **config)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture
def where(server: Server) -> tuple[str, str]:
    """The options with which a command asks the running server."""
    return "--url", f"{server.origin}/presence"


def test_stats_prints_numbers_or_the_json_of_the_endpoint(connect: Connect, where: tuple[str, str], name: str) -> None:
    connect("ann").join(f"presence-{name}")
    shape = json.loads(succeed("stats", *where, "--json"))
    assert shape.keys() == {"channels", "totalMembers", "byType", "connections"}
    assert shape["byType"]["presence"] >= 1
    assert re.search(r"^Connections +\d+$", succeed("stats", *where), re.MULTILINE)


def test_channels_prints_a_table_or_the_json_of_the_endpoint(
    connect: Connect, server: Server, where: tuple[str, str], name: str
) -> None:
    """The options filter as the endpoint does."""
    ann = connect("ann")
    ann.join(f"presence-{name}-room")
    ann.join(f"{name}-public")

    def are_listed() -> bool:  # a list may be two seconds old
        prefixes = (f"presence-{name}-", f"{name}-")
        paths = [f"/presence/channels?include=rate&prefix={prefix}" for prefix in prefixes]
        return all(server.json(path)["channels"] for path in paths)

    wait_until(are_listed)
    lines = succeed("channels", "--prefix", f"presence-{name}-", *where).splitlines()
    assert lines[0].split() == ["CHANNEL", "TYPE", "MEMBERS", "PER", "SECOND", "SINCE"]
    assert [line.split()[:3] for line in lines[1:]] == [[f"presence-{name}-room", "presence", "1"]]
    shape = json.loads(succeed("channels", "--type", "public", "--prefix", f"{name}-", *where, "--json"))
    assert shape == server.json(f"/presence/channels?type=public&prefix={name}-")
    assert len(shape["channels"]) == 1


def test_members_prints_who_is_in_a_channel(
    connect: Connect, server: Server, where: tuple[str, str], name: str
) -> None:
    """It prints the members' info and number of connections. An empty channel is an error."""
    channel = f"presence-{name}/ä?#"
    connect("ann").join(channel, mood="gr\u202eeat")
    connect("ann").join(channel)
    heads, line = succeed("members", channel, *where).splitlines()
    assert heads.split() == ["USER", "NAME", "CONNECTIONS", "SINCE", "INFO"]
    assert line.split()[0] == "ann"
    assert " 2 " in line
    assert "gr\\u202eeat" in line
    shape = json.loads(succeed("members", channel, *where, "--json"))
    assert [member["id"] for member in shape["members"]] == ["ann"]
    empty = run("members", f"presence-nobody-{name}", *where)
    assert (empty.exit_code, empty.stdout) == (1, "")
    assert "Nobody is in" in empty.stderr
    assert run("members", name, *where).exit_code == 1


def test_a_header_or_a_password_opens_closed_pages() -> None:
    """Without one, the error says what is missing."""
    with running(app="tests.support.plain:create_app()", PRESENCE_STATS_PUBLIC=False) as server:
        where = ("--url", f"{server.origin}/presence/")
        result = run("stats", *where)
        assert result.exit_code == 1
        assert "403" in result.stderr
        assert "stats_guard" in result.stderr
        assert "--header" in result.stderr
        assert json.loads(succeed("stats", *where, "--header", "x-key: open sesame", "--json"))["connections"] == 0
        with_password = f"http://operator:open%20sesame@{server.host}/presence"
        assert json.loads(succeed("stats", "--url", with_password, "--json"))["connections"] == 0
        wrong = run("stats", "--url", f"http://operator:secret@{server.host}/presence")
        assert wrong.exit_code == 1
        assert "secret" not in wrong.output


@pytest.mark.parametrize("command", [["stats"], ["channels"], ["members", "presence-x"], ["history", "x"], ["watch"]])
def test_a_question_to_the_memory_backend_names_the_url_option(command: list[str]) -> None:
    result = run(*command)
    assert (result.exit_code, result.stdout) == (1, "")
    assert f"flask presence {' '.join(command)} --url http://" in result.stderr


@pytest.mark.parametrize(
    "command",
    [["publish", "x", "news", "1"], ["broadcast", "x", "{}"], ["disconnect", "--user", "ann"]],
)
def test_a_command_to_the_memory_backend_names_redis(command: list[str]) -> None:
    result = run(*command)
    assert result.exit_code == 1
    assert "memory://" in result.stderr
    assert "Redis" in result.stderr


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (["stats", "--url", "file:///etc/passwd"], "http://"),
        (["stats", "--url", "http://127.0.0.1:1/presence", "--header", "nonsense"], "Name: value"),
        (["stats", "--url", "http://127.0.0.1:1/presence", "--header", "X: a\nY: b"], "Name: value"),
        (["stats", "--url", "http://127.0.0.1:1/presence", "--header", "X: \u65e5"], "Name: value"),
        (["stats", "--url", "http://127.0.0.1:1/presence", "--header", "A: 1", "--header", "a: 2"], "twice"),
        (["stats", "--url", "http://127.0.0.1:1/presence?a=1"], "without a query"),
        (["stats", "--url", "nonsense"], "http://"),
        (["channels", "--type", "secret"], "presence"),
        (["members", "a b"], "white space"),
        (["publish", "x", "news", "hello"], "is not valid JSON"),
        (["broadcast", "x", "[1]"], "JSON object"),
        (["disconnect"], "--user"),
        (["disconnect", "--user", "a", "--client", "b"], "--user"),
        (["unknown"], "No such command"),
    ],
)
def test_a_wrong_call_exits_with_2_and_says_what_is_right(command: list[str], told: str) -> None:
    result = run(*command)
    assert (result.exit_code, result.stdout) == (2, "")
    assert told in result.stderr


def test_an_unreachable_or_wrong_server_exits_with_1_and_a_sentence() -> None:
    assert "is the server running?" in run("stats", "--url", "http://127.0.0.1:1/presence").stderr
    with another_web_server() as (url, seen):
        assert (
            "redirects to http://127.0.0.1:1/" in run("stats", "--url", f"{url}/moved", "--header", "X-Key: k").stderr
        )
        assert "is that the URL of the blueprint" in run("stats", "--url", f"{url}/html").stderr
        assert "is that the URL of the blueprint" in run("stats", "--url", f"{url}/missing").stderr
        assert "is that the URL of the blueprint" in run("channels", "--url", f"{url}/json").stderr
        assert seen[0]["X-Key"] == "k"
        assert len(seen) == 4


def test_the_server_is_asked_without_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy of the environment sees the credentials."""
    with another_web_server() as (url, seen), running() as server:
        monkeypatch.setenv("http_proxy", url)
        succeed("stats", "--url", f"{server.origin}/presence", "--header", "X-Key: k")
        assert seen == []


@contextmanager
def another_web_server() -> Iterator[tuple[str, list[Any]]]:
    """A web server without the blueprint, and the headers that it gets."""
    seen: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.headers)
            self.send_response({"moved": 302, "html": 200, "json": 200}.get(self.path.split("/")[1], 404))
            self.send_header("Location", "http://127.0.0.1:1/")
            self.end_headers()
            self.wfile.write(b'{"error": "x"}' if "json" in self.path else b"<html>")

        def log_message(self, *_: Any) -> None:
            """Log nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", seen
        server.shutdown()
        thread.join()


class Watching:
    """`flask presence watch` in a process of its own."""

    def __init__(self, *arguments: str, **config: Any) -> None:
        environ = {f"FLASK_{key}": json.dumps(value) for key, value in config.items()}
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "flask",
                "--app",
                "tests.support.apps:create_app()",
                "presence",
                "watch",
                *arguments,
            ],
            cwd=ROOT,
            env=os.environ | environ | {"PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stderr is not None
        lines = iter(self.process.stderr.readline, "")
        assert any("Watching" in line for line in lines)

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def end(self) -> int:
        """Press Ctrl-C; the exit code."""
        self.process.send_signal(signal.SIGINT)
        self.process.communicate(timeout=DEADLINE)
        return self.process.returncode


def test_watch_prints_the_changes_of_a_channel(server: Server, where: tuple[str, str], name: str) -> None:
    """It prints even members who leave at once."""
    channel = f"presence-{name}"
    watching = Watching(channel, *where, "--json")
    try:
        with client(server, "ann") as ann, client(server, "bob") as bob:
            ann.join(channel, mood="good")
            bob.join(f"{channel}-other")
            ann.update(channel, mood="better")
            ann.request("leave", channel=channel)
        heard = [json.loads(watching.line()) for _ in range(3)]
        assert [(one["change"], one["channel"], one["member"]["id"]) for one in heard] == [
            ("joined", channel, "ann"),
            ("updated", channel, "ann"),
            ("left", channel, "ann"),
        ]
        assert heard[1]["member"]["mood"] == "better"
    finally:
        watching.end()


def test_watch_without_a_channel_prints_all_changes(server: Server, where: tuple[str, str], name: str) -> None:
    watching = Watching(*where)
    try:
        with client(server, "ann") as ann:
            ann.join(f"presence-{name}")
            line = watching.line()
            while name not in line:
                line = watching.line()
        assert re.match(rf"\d\d:\d\d:\d\d  joined   presence-{name}  ann  ", line)
    finally:
        assert watching.end() == 0


def test_watch_ends_with_1_when_the_server_stops() -> None:
    with running() as server:
        watching = Watching("--url", f"{server.origin}/presence")
        server.stop()
        _, told = watching.process.communicate(timeout=DEADLINE)
        assert "has ended the stream" in told
        assert watching.process.returncode == 1


@pytest.fixture
def redis_config(redis_server: RedisServer) -> dict[str, Any]:
    return on_redis(redis_server)


def test_every_command_works_with_redis_and_without_a_server(redis_config: dict[str, Any]) -> None:
    with running(**redis_config) as server, client(server, "ann") as ann, client(server, "bob") as bob:
        ann.join("presence-room", mood="good")
        bob.join("presence-room")
        ann.event()
        assert json.loads(succeed("stats", "--json", **redis_config)) == server.json("/presence/stats")
        assert "presence-room" in succeed("channels", **redis_config)
        assert json.loads(succeed("members", "presence-room", "--json", **redis_config)) == server.json(
            "/presence/channels/presence-room"
        )
        data = '{"text": "ä"}'
        assert succeed("publish", "presence-room", "number", "-5", **redis_config) == "delivered: 2\n"
        assert ann.event()["data"] == -5
        assert succeed("publish", "presence-room", "news", data, **redis_config) == "delivered: 2\n"
        message = ann.event()
        assert (message["event"], message["data"], message["from"]) == ("news", {"text": "ä"}, {"clientId": "server"})
        sent = succeed("broadcast", "presence-room", '{"type": "x", "n": 1}', "--json", **redis_config)
        assert json.loads(sent) == {"delivered": 2}
        assert ann.event() == {"type": "x", "n": 1}
        watching = Watching("presence-room", "--json", **redis_config)
        closed = succeed("disconnect", "--user", "bob", "--reason", "bye", **redis_config)
        assert closed == "disconnected: 1\n"
        assert bob.wait_closed() == (4403, "bye")
        heard = json.loads(watching.line())
        assert (heard["change"], heard["member"]["id"]) == ("left", "bob")
        watching.end()
        assert succeed("disconnect", "--client", ann.id, **redis_config) == "disconnected: 1\n"


def test_an_unreachable_redis_names_the_setting() -> None:
    for command in (["stats"], ["watch"], ["publish", "x", "y", "1"]):
        result = run(*command, PRESENCE_BACKEND="redis://127.0.0.1:1/0")
        assert result.exit_code == 1
        assert "PRESENCE_BACKEND" in result.stderr


@given(st.text())
def test_printed_text_moves_no_cursor_and_hides_nothing(text: str) -> None:
    assert printable(text).isprintable()
    assert next(table([], [(text, "x")])).isprintable()
