"""`docs/troubleshooting.md` has the statuses, close codes and texts with which the server refuses."""

from __future__ import annotations

import ast
import re
import shlex
from typing import Any

import pytest
from flask import Flask
from flask_jwt_extended import JWTManager, create_refresh_token

from flask_presence import Presence, PresenceTestError, User
from flask_presence.domain.meter import REFUSALS

from ..support.documents import ROOT, read, rows_of, section_of
from ..support.guides import commands_of

DOCUMENT = ROOT / "docs/troubleshooting.md"
ROWS = [row for row in rows_of(DOCUMENT) if re.fullmatch(r"`[^`]+`", row[0])]
QUOTES = [row[0].strip("`") for row in ROWS]


def app_with(**config: Any) -> Flask:
    app = Flask("troubleshooting")
    app.config.update(SECRET_KEY="secret", JWT_SECRET_KEY="a secret of thirty-two characters", **config)
    Presence(app)
    return app


def headers_of_curl() -> dict[str, str]:
    """The headers of the handshake in the document's curl command."""
    [command] = [shlex.split(line) for line in commands_of(DOCUMENT) if line.startswith("curl")]
    assert command[-1].endswith("/presence/ws")
    pairs = [command[at + 1].split(": ", 1) for at, word in enumerate(command) if word == "-H"]
    return dict(pairs)


def refusal(app: Flask, protocol: str = "HTTP/1.1", **changes: str | None) -> tuple[int, str]:
    """The status and the text with which the app refuses the document's handshake, with some headers changed."""
    headers = headers_of_curl() | {name.replace("_", "-"): value for name, value in changes.items()}
    sent = {name: value for name, value in headers.items() if value is not None}
    environ = {"SERVER_PROTOCOL": protocol}
    response = app.test_client().get("/presence/ws", headers=sent, environ_overrides=environ)
    assert response.json is not None
    return response.status_code, response.json["error"]["message"]


def test_every_quoted_text_is_one_of_the_package() -> None:
    """Or it contains one, if a value is inserted."""
    trees = [ast.parse(read(path)) for path in (ROOT / "flask_presence").rglob("*.py")]
    constants = {node.value for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    texts = {text for text in constants if isinstance(text, str) and len(text) > 10}
    assert len(QUOTES) > 15
    unknown = [quote for quote in QUOTES if not any(quote in text or text in quote for text in texts)]
    assert unknown == []
    assert any("blocked this worker's event loop for" in text for text in texts)
    assert any("this process has no WebSockets" in text for text in texts)


def test_every_status_and_close_code_has_a_section_or_a_row() -> None:
    sections = re.findall(r"^## (\d{3})$", read(DOCUMENT), re.MULTILINE)
    assert set(sections) == {*map(str, REFUSALS), "404"}
    protocol = section_of(ROOT / "docs/protocol.md", "## Close codes")
    codes = set(re.findall(r"\b(?:1\d{3}|44\d\d)\b", " ".join(re.findall(r"^\| ([^|]+)", protocol, re.MULTILINE))))
    rows = {row[0] for row in rows_of(DOCUMENT)}
    assert codes - {"1000", "1002", "1007"} <= rows  # a client of ours cannot cause those three


@pytest.mark.parametrize(
    ("status", "config", "changes"),
    [
        (400, {}, {"protocol": "HTTP/1.0"}),
        (400, {}, {"Sec_WebSocket_Key": "short"}),
        (401, {"PRESENCE_AUTH_REQUIRED": True}, {}),
        (401, {}, {"Authorization": "Bearer nonsense"}),
        (403, {}, {"Origin": "http://elsewhere.example"}),
        (426, {}, {"Upgrade": None, "Connection": None, "Sec_WebSocket_Key": None}),
        (426, {}, {"Upgrade": None, "Connection": None}),
        (426, {}, {"Sec_WebSocket_Version": "8"}),
        (503, {}, {}),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else str(value),
)
def test_a_refusal_has_the_status_and_the_text_of_the_document(
    status: int, config: dict[str, Any], changes: dict[str, Any]
) -> None:
    actual, message = refusal(app_with(**config), **changes)
    section = section_of(DOCUMENT, f"## {status}")
    assert actual == status, message
    quotes = [quote for quote in QUOTES if quote in section]
    assert any(quote in message for quote in quotes), message


def test_a_page_that_is_closed_has_the_text_of_the_document() -> None:
    response = app_with().test_client().get("/presence/stats")
    assert response.status_code == 403
    assert "Access to this page is denied" in response.get_data(as_text=True)
    assert "Access to this page is denied" in QUOTES


def test_a_bad_token_has_the_causes_of_the_document() -> None:
    """A refresh token, a token of another key, and a token for an app without a `JWTManager`."""
    app, other = app_with(), app_with()
    other.config["JWT_SECRET_KEY"] = "another secret of thirty-two characters"
    for one in (app, other):
        JWTManager(one)
    with app.app_context():
        refresh = create_refresh_token("ann")
    for one in (app, other, app_with()):
        assert refusal(one, Authorization=f"Bearer {refresh}") == (401, "Invalid token")


def test_a_join_is_denied_for_the_reasons_of_the_document() -> None:
    app = app_with()
    presence: Presence = app.extensions["presence"]
    presence.guard("forgets-*")(lambda user: None)
    presence.guard("room-<int:room>")(lambda user, room: True)
    with presence.test_client(app=app) as visitor, pytest.raises(PresenceTestError, match="Authentication required"):
        visitor.join("presence-room-7")
    with presence.test_client(user=User("ann"), app=app) as ann:
        assert ann.join("presence-room-7")["me"]["name"] == "Anonymous"
        assert ann.join("presence-room-7", {"name": "Ann"})["me"]["name"] == "Ann"
        for channel in ("presence-room-07", "presence-forgets-x"):
            with pytest.raises(PresenceTestError, match="Access denied"):
                ann.join(channel)
