"""The test client for the tests of an app."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, jsonify
from flask_jwt_extended import JWTManager, create_access_token, get_jwt_identity, set_access_cookies

from flask_presence import ChannelName, Presence, PresenceTestError, TestClient, User, deny

from ..conftest import on_redis
from ..support.flask_app import make_presence_app
from ..support.flask_login_app import create_app as flask_login_app
from ..support.redis_server import RedisServer


def test_a_test_client_joins_sends_updates_and_receives(room: tuple[Any, Any]) -> None:
    """If nothing has arrived, `receive` raises at once."""
    ann, bob = room
    assert ann.send("presence-room-1", event="typing", data={"isTyping": True})["delivered"] == 1
    assert bob.receive()["data"] == {"isTyping": True}
    assert ann.update("presence-room-1", status="away")["member"]["status"] == "away"
    assert [event["type"] for event in bob.received] == ["presence:member_updated"]
    assert ann.request({"type": "leave", "channel": "x"})["code"] == "NOT_FOUND"
    assert ann.request("null")["code"] == "INVALID_REQUEST"
    with pytest.raises(PresenceTestError, match="nothing"):
        ann.receive()
    with pytest.raises(PresenceTestError) as caught:
        ann.send("elsewhere", data=1)
    assert caught.value.code == "NOT_IN_CHANNEL"


def test_a_test_client_meets_the_real_guards_with_a_real_token(app: Flask, presence: Presence) -> None:
    @presence.guard("team-*")
    def team(user: User, channel: ChannelName, user_info: dict[str, Any]) -> Any:
        assert get_jwt_identity() == user.id
        return channel.topic == f"team-{user.claims['team']}" or deny("Another team")

    with presence.test_client(user=User("ann", claims={"team": "red"}), app=app) as ann:
        ann.join("private-team-red")
        with pytest.raises(PresenceTestError, match="Another team"):
            ann.join("private-team-blue")
    with presence.test_client(app=app) as anonymous, pytest.raises(PresenceTestError, match="Authentication required"):
        anonymous.join("private-team-red")


def test_a_disconnected_test_client_raises_with_its_close_code(app: Flask, presence: Presence) -> None:
    with presence.test_client(user="ann", app=app) as ann:
        with app.app_context():
            assert presence.disconnect(user_id="ann", reason="enough") == 1
        with pytest.raises(PresenceTestError, match="4403"):
            ann.request({"type": "ping"})


def test_a_test_client_works_with_a_user_identity_loader(app: Flask) -> None:
    jwt = JWTManager(app)
    jwt.user_identity_loader(lambda user: user.id)
    presence = Presence(app)
    with presence.test_client(user=User(7, claims={"exp": 5, "team": "red"}), app=app) as one:
        assert one.join("presence-room")["me"]["id"] == "7"


def test_a_user_leaves_closes_and_drops(app: Flask, presence: Presence, room: tuple[Any, Any]) -> None:
    """The others hear why. After its end, a client raises, and `closed` has the close code."""
    ann, bob = room
    assert ann.closed is None
    assert ann.leave("presence-room-1") == {"type": "channel:left", "channel": "presence-room-1"}
    with pytest.raises(PresenceTestError, match="NOT_MEMBER"):
        ann.leave("presence-room-1")
    assert bob.receive()["reason"] == "left"
    for end, closed, reason in ((TestClient.close, (1000, ""), "closed"), (TestClient.drop, (1006, ""), "lost")):
        with presence.test_client(user="eve", app=app) as eve:
            eve.join("presence-room-1")
            end(eve)
            assert eve.closed == closed
            end(eve)
            with pytest.raises(PresenceTestError, match=str(closed[0])):
                eve.join("presence-room-1")
        assert bob.receive()["type"] == "presence:member_joined"
        assert bob.receive()["reason"] == reason
    with app.app_context():
        presence.disconnect(user_id="bob", reason="enough")
    assert bob.closed == (4403, "enough")


def test_time_passes_for_the_whole_service(name: str) -> None:
    """A grace ends, a token expires, a login is checked again, and the rate limit recovers, all without waiting."""
    revoked: set[str] = set()
    presence, app = make_presence_app(
        PRESENCE_GRACE_ABRUPT=30, PRESENCE_RATE_LIMIT=(1, 2), PRESENCE_TOKEN_RECHECK=60, JWT_ACCESS_TOKEN_EXPIRES=3600
    )
    app.extensions["flask-jwt-extended"].token_in_blocklist_loader(lambda _, claims: claims["sub"] in revoked)
    with presence.test_client("ann", app) as ann, presence.test_client(app=app) as anonymous:
        ann.join("presence-room")
        ann.request({"type": "ping"})
        assert ann.request({"type": "ping"})["code"] == "RATE_LIMIT_EXCEEDED"
        ann.advance(2)
        with presence.test_client("bob", app) as bob:
            joined_at = bob.join("presence-room")["me"]["joinedAt"]
            bob.drop()
        assert ann.receive()["type"] == "presence:member_joined"
        ann.advance(29)
        assert ann.received == []
        ann.advance(2)
        left = ann.receive()
        assert (left["type"], left["reason"], left["member"]["joinedAt"]) == (
            "presence:member_left",
            "lost",
            joined_at,
        )
        with presence.test_client("eve", app) as eve:
            revoked.add("eve")
            eve.advance(60)
            assert eve.closed == (4401, "Token revoked")
        ann.advance(3600 - 93 - 31)
        assert ann.closed is None
        ann.advance(2)
        assert [event["type"] for event in ann.received] == ["auth:expiring"]
        anonymous.advance(31)
        assert ann.closed == (4401, "Token expired")
        assert anonymous.request({"type": "ping"})["timestamp"] / 1000 > time.time() + 3500
        with presence.test_client("ann", app) as again:
            again.advance(3000)
            assert again.closed is None
        for wrong in (-1, float("nan"), float("inf")):
            with pytest.raises(ValueError, match="time"):
                anonymous.advance(wrong)


def test_a_test_client_works_on_redis(redis_server: RedisServer) -> None:
    presence, app = make_presence_app(**on_redis(redis_server), PRESENCE_GRACE_ABRUPT=0)
    with presence.test_client("ann", app) as ann:
        ann.join("presence-room")
        with presence.test_client("bob", app) as bob:
            bob.join("presence-room")
            assert ann.send("presence-room", "typing", {"isTyping": True})["delivered"] == 1
            assert [event["type"] for event in bob.received] == ["channel:message"]
            bob.leave("presence-room")
            bob.join("presence-room")
            bob.drop()
        events = [(event["type"].partition("_")[2], event.get("reason")) for event in ann.received]
        assert events == [("joined", None), ("left", "left"), ("joined", None), ("left", "lost")]
        ann.advance(86400)
        assert ann.closed == (4401, "Token expired")
    with presence.test_client("eve", app) as eve:
        assert len(eve.join("presence-room")["members"]) == 1


def test_a_connection_opens_as_the_browser_of_an_http_client_would_open_it() -> None:
    """Its cookies, the origin check, the user loader and the app's own functions decide."""
    app = flask_login_app()
    app.config["SERVER_NAME"] = "rooms.example"
    closed_for_today = False

    @app.before_request
    def close_for_today() -> Any:
        return ("closed for today", 418) if closed_for_today else None

    presence: Presence = app.extensions["presence"]
    http = app.test_client()
    with presence.test_client(http=http) as anonymous:
        assert anonymous.request({"type": "join", "channel": "private-of-ann"})["message"] == "Authentication required"
    http.get("/login/ann")
    with presence.test_client(http=http) as ann:
        assert ann.join("presence-of-ann")["me"]["name"] == "Ann"
        with pytest.raises(PresenceTestError, match="FORBIDDEN"):
            ann.join("presence-of-bob")
        http.get("/gone/ann")
        with app.app_context():
            presence.recheck(user_id="ann")
        assert ann.closed == (4401, "Login ended")

    closed_for_today = True
    with pytest.raises(PresenceTestError, match="418") as caught, presence.test_client(http=http):
        pass
    assert (caught.value.status, caught.value.code) == (418, None)


def test_a_refused_http_client_raises_with_status_code_and_message() -> None:
    presence, app = make_presence_app(PRESENCE_AUTH_REQUIRED=True)
    http = app.test_client()
    with pytest.raises(PresenceTestError) as caught, presence.test_client(http=http):
        pass
    problem = caught.value
    assert (problem.status, problem.code, problem.message) == (401, "UNAUTHORIZED", "Authentication required")
    with pytest.raises(TypeError, match="either user or http"):
        presence.test_client("ann", http=http)


def test_a_cookie_of_flask_jwt_extended_opens_the_connection() -> None:
    """If the client has none, it is anonymous."""
    presence, app = make_presence_app(JWT_TOKEN_LOCATION=["cookies"])

    @app.get("/login")
    def login() -> Any:
        response = jsonify()
        set_access_cookies(response, create_access_token("ann"))
        return response

    http = app.test_client()
    with presence.test_client(http=http) as anonymous:
        assert "user" not in anonymous.request({"type": "join", "channel": "presence-room"})
    http.get("/login")
    with presence.test_client(http=http) as ann:
        assert ann.join("presence-room")["me"]["id"] == "ann"


def test_guards_see_the_user_as_the_loader_knows_them_now() -> None:
    """A recheck loads the user again before it asks the guards. Handlers see the new claims too."""
    presence, app = make_presence_app()
    teams, seen = ["red"], list[Any]()
    presence.user_loader(lambda: User("ann", claims={"teams": list(teams)}))
    presence.guard("team-*")(lambda user, channel: channel.topic.removeprefix("team-") in user.claims["teams"])
    presence.message_guard("news-*")(lambda user: "blue" in user.claims["teams"])
    presence.on("channel.left")(lambda event: seen.append(event.user.claims["teams"]))
    with presence.test_client(http=app.test_client()) as ann, app.app_context():
        ann.join("presence-team-red")
        ann.join("news-1")
        teams[:] = ["blue"]
        presence.recheck(user_id="ann")
        assert [event["code"] for event in ann.received] == ["FORBIDDEN"]
        ann.send("news-1", "headline", 1)
        ann.join("presence-team-blue")
        with pytest.raises(PresenceTestError, match="FORBIDDEN"):
            ann.join("presence-team-red")
    assert seen == [["blue"]] * 3


def test_a_member_in_question_has_no_grace_period() -> None:
    """Nobody could ask about a user who has no connection."""
    presence, app = make_presence_app(PRESENCE_GRACE_ABRUPT=60)
    asked = list[str]()

    @presence.guard("room")
    def may_join(user: User) -> bool:
        asked.append(user.id)
        if asked.count("bob") == 2:
            bob.drop()
        return len(asked) < 3

    with presence.test_client("ann", app) as ann, presence.test_client("bob", app) as bob, app.app_context():
        ann.join("presence-room")
        bob.join("presence-room")
        presence.recheck(user_id="bob")
        assert [event["type"] for event in ann.received] == ["presence:member_joined", "presence:member_left"]


def test_a_join_whose_permissions_keep_changing_fails_in_the_end() -> None:
    presence, app = make_presence_app()
    asked = list[str]()

    @presence.guard("room")
    def one_tab_only(user: User, channel: ChannelName) -> bool:
        asked.append(user.id)
        return presence.remove(channel, user.id) == 0

    with presence.test_client("ann", app) as ann:
        answer = ann.request({"type": "join", "channel": "private-room"})
        assert (answer["code"], answer["retryable"]) == ("JOIN_FAILED", True)
        assert len(asked) == 10
        assert ann.request({"type": "ping"})["type"] == "pong"


USERS_CONFTEST = """
import pytest
from flask import Flask
from flask_jwt_extended import JWTManager
from flask_presence import Presence

@pytest.fixture(scope="session")
def app():
    app = Flask("users-app")
    app.config["JWT_SECRET_KEY"] = "a secret of thirty-two characters"
    JWTManager(app)
    Presence(app)
    return app
"""
USERS_TESTS = """
def test_room(presence_client, app):
    ann, bob = presence_client("ann"), presence_client("bob")
    ann.join("presence-room")
    bob.join("presence-room")
    assert ann.receive()["member"]["id"] == "bob"
    assert presence_client(http=app.test_client()).request({"type": "ping"})["type"] == "pong"

def test_nobody_is_left(presence_client):
    assert len(presence_client("eve").join("presence-room")["members"]) == 1
"""


def test_the_fixture_of_the_pytest_plugin_connects_clients(tmp_path: Path) -> None:
    """They disconnect when the test ends."""
    (tmp_path / "conftest.py").write_text(USERS_CONFTEST)
    (tmp_path / "test_users_app.py").write_text(USERS_TESTS)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "2 passed" in done.stdout, done.stdout


def test_a_test_client_outside_of_a_with_statement_raises() -> None:
    presence, app = make_presence_app()
    one = presence.test_client(user="ann", app=app)
    for use in (lambda: one.join("news"), lambda: one.received, lambda: one.receive(), lambda: one.request({})):
        with pytest.raises(PresenceTestError, match="with statement"):
            use()


def test_an_app_in_place_of_the_user_raises() -> None:
    presence, app = make_presence_app()
    with pytest.raises(TypeError, match=r"test_client\(app=app\)"):
        presence.test_client(app)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"User\.id"):
        presence.test_client(object(), app)  # type: ignore[arg-type]
