"""The tests of the example, written like an app's own: `python -m pytest example`.

They use the fixture `presence_client`, which comes with the package and needs a fixture `app`.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from flask import Flask

from flask_presence import PresenceTestError, TestClient, User

from .app import USERS, create_app

Connect = Callable[..., TestClient]


@pytest.fixture
def app() -> Flask:
    return create_app()


def user(user_id: str) -> User:
    """A user with the claims that the example's login puts into a token."""
    return User(user_id, name=USERS[user_id]["name"], claims=USERS[user_id])


def test_only_staff_have_a_badge(presence_client: Connect) -> None:
    ann, bob = presence_client(user("ann")), presence_client(user("bob"))
    ann.join("presence-room-general")
    members = bob.join("presence-room-general", {"badge": "staff"})["members"]
    assert [(member["name"], member.get("badge")) for member in members] == [
        ("Ann Archer", "staff"),
        ("Bob Berger", None),
    ]
    assert "badge" not in bob.update("presence-room-general", badge="staff")["member"]


@pytest.mark.parametrize(
    ("room", "reason"), [("staff", "This room is for staff only."), ("cellar", "There is no such room.")]
)
def test_some_rooms_are_closed(presence_client: Connect, room: str, reason: str) -> None:
    with pytest.raises(PresenceTestError) as refused:
        presence_client(user("bob")).join(f"presence-room-{room}")
    assert (refused.value.code, refused.value.message) == ("FORBIDDEN", reason)


def test_staff_enter_the_staff_room(presence_client: Connect) -> None:
    assert presence_client(user("ann")).join("presence-room-staff")["me"]["badge"] == "staff"


def test_only_staff_write_announcements(presence_client: Connect) -> None:
    ann, bob = presence_client(user("ann")), presence_client(user("bob"))
    for client in (ann, bob):
        client.join("presence-room-announcements")
    with pytest.raises(PresenceTestError, match=r"Only staff write here\."):
        bob.send("presence-room-announcements", "message", {"text": "Buy!"})
    ann.send("presence-room-announcements", "message", {"text": "Lunch is at noon"})
    assert bob.received[-1]["data"] == {"text": "Lunch is at noon"}


def test_a_room_keeps_its_last_fifty_messages(presence_client: Connect) -> None:
    """What is sent beside the chat, such as cursors and who is typing, is not kept, and neither are greetings."""
    ann = presence_client(user("ann"))
    ann.join("presence-room-general")
    ann.join("private-room-general")
    for number in range(60):
        ann.send("presence-room-general", "message", {"text": str(number)})
        ann.send("private-room-general", "cursor", {"x": 0, "y": 0})

    back = presence_client(user("bob"))
    assert "messages" not in back.request({"type": "join", "channel": "private-room-general", "history": 20})
    joined = back.request({"type": "join", "channel": "presence-room-general", "history": 20})
    assert [message["data"]["text"] for message in joined["messages"]] == [str(number) for number in range(40, 60)]
    request = {"type": "channel:history", "channel": "presence-room-general", "limit": 40}
    page = back.request(request | {"before": joined["messages"][0]["id"]})
    assert [message["data"]["text"] for message in page["messages"]] == [str(number) for number in range(10, 40)]
    assert page["more"] is False


def test_a_new_member_is_greeted_once(presence_client: Connect) -> None:
    """A second tab of the same user is not a new member."""
    ann = presence_client(user("ann"))
    ann.join("presence-room-general")
    second = presence_client(user("ann"))
    second.join("presence-room-general")
    greetings = [event["text"] for event in ann.received if event["type"] == "greeting"]
    assert greetings == ["Welcome, Ann Archer!"]


def test_a_logout_ends_the_connections_of_that_login_only(app: Flask, presence_client: Connect) -> None:
    """The tokens are those of the login page. A page sends its token when it connects; this test uses `auth`."""
    http = app.test_client()
    tokens = [http.post("/login", data={"user": "bob"}).json["access_token"] for _ in range(2)]  # type: ignore[index]
    phone, laptop = presence_client(), presence_client()
    for client, token in zip((phone, laptop), tokens, strict=True):
        assert client.request({"type": "auth", "token": token})["user"]["id"] == "bob"
        client.join("presence-room-general")

    http.post("/logout", headers={"Authorization": f"Bearer {tokens[0]}"})
    assert phone.closed == (4401, "Token revoked")
    assert laptop.closed is None


def test_only_known_users_log_in(app: Flask) -> None:
    assert app.test_client().post("/login", data={"user": "mallory"}).status_code == 401
