"""The test client for the tests of an app."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask
from flask_jwt_extended import JWTManager, get_jwt_identity

from flask_presence import ChannelName, Presence, PresenceTestError, User, deny

from ..support.flask_app import make_presence_app


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
    with presence.test_client(user=User(7, claims={"exp": 5, "team": "red"}), app=app) as one:  # type: ignore[arg-type]
        assert one.join("presence-room")["me"]["id"] == "7"


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
