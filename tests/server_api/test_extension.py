"""The extension object: several apps, signals, and the values that it returns."""

from __future__ import annotations

import copy
import uuid
from dataclasses import dataclass
from datetime import date, datetime, timezone
from typing import Any

import pytest
from flask import Flask

from flask_presence import Presence, User, allow, signals
from flask_presence.domain.frozen import is_constant

from ..support.flask_app import make_app, make_presence_app


def test_a_second_init_app_raises(app: Flask, presence: Presence) -> None:
    assert app.extensions["presence"] is presence
    with pytest.raises(RuntimeError, match="already"):
        presence.init_app(app)


def test_one_instance_serves_several_apps(presence: Presence, app: Flask) -> None:
    """Each app has its own channels."""
    other = make_app()
    presence.init_app(other)
    with presence.test_client(app=app) as here, presence.test_client(app=other):
        here.join("room")
        with app.app_context():
            assert presence.get_channel("room") is not None
        with other.app_context():
            assert presence.get_channel("room") is None


def test_a_call_without_an_app_context_raises(presence: Presence) -> None:
    """In an app without the extension, the error names `init_app`."""
    with pytest.raises(RuntimeError, match="application context"):
        presence.get_channel("x")
    with make_app().app_context(), pytest.raises(RuntimeError, match="init_app"):
        presence.get_channel("x")


def test_every_event_is_a_signal_too(app: Flask, presence: Presence) -> None:
    """The sender is the app, and the keyword is `event`."""
    heard: list[Any] = []

    def receiver(sender: Flask, event: Any) -> None:
        assert sender is app
        heard.append((event.name, event.channel, event.type, event.user))

    with signals.channel_joined.connected_to(receiver), presence.test_client(app=app) as one:
        one.join("public-room")
        one.join("public-room")
    assert heard == [("channel.joined", "public-room", "public", None)]


def test_data_is_encoded_like_flask_json(app: Flask, presence: Presence) -> None:
    """Data that cannot be encoded raises before anything is sent."""
    with presence.test_client(app=app) as one:
        one.join("room")
        with app.app_context():
            when = datetime(2024, 1, 15, tzinfo=timezone.utc)
            assert presence.publish("room", "x", {"id": uuid.UUID(int=1), "when": when}) == 1
            for bad in (object(), {1, 2}, float("nan"), "\ud800"):
                with pytest.raises(TypeError):
                    presence.publish("room", "x", bad)
        assert one.receive()["data"] == {
            "id": "00000000-0000-0000-0000-000000000001",
            "when": "Mon, 15 Jan 2024 00:00:00 GMT",
        }
        assert one.received == []


@dataclass
class Note:
    author: User
    others: dict[str, list[User]]
    written: date


def test_the_claims_of_a_user_in_a_dataclass_are_not_sent(app: Flask, presence: Presence) -> None:
    """This holds for events, and for what a guard owns, too."""
    ann = User("ann", name="Ann", claims={"salary": 5})
    presence.guard("room")(lambda: allow({"note": Note(ann, {}, date(2024, 1, 15))}))
    presence.on("channel.joined")(lambda event: presence.publish(event.channel, "heard", event))
    with presence.test_client(ann, app) as one, app.app_context():
        note = {"author": {"id": "ann", "name": "Ann"}, "others": {}, "written": "Mon, 15 Jan 2024 00:00:00 GMT"}
        assert one.join("presence-room")["me"]["note"] == note
        assert one.receive()["data"]["user"] == {"id": "ann", "name": "Ann"}
        presence.publish("presence-room", "x", [Note(ann, {"a": [ann]}, date(2024, 1, 15))])
        assert one.receive()["data"] == [note | {"others": {"a": [note["author"]]}}]


def test_channels_and_members_are_immutable(room: tuple[Any, Any], app: Flask, presence: Presence) -> None:
    """Their attributes are snake_case, and `to_dict()` is camelCase."""
    with app.app_context():
        channel = presence.get_channel("presence-room-1")
        members = presence.get_channel_members("presence-room-1")
    assert channel is not None
    assert channel.members == tuple(members)
    assert (channel.type, channel.member_count, channel.created_at.tzinfo) == ("presence", 2, timezone.utc)
    assert members[0].info == {"name": "Ann"}
    with pytest.raises(AttributeError):
        members[0].name = "x"  # type: ignore[misc]
    with pytest.raises(TypeError):
        members[0].info["x"] = 1  # type: ignore[index]
    assert channel.to_dict()["members"][0]["clientId"] == room[0].client_id


def test_the_id_of_a_user_is_a_string() -> None:
    """A number becomes a string, and the claims are read-only."""
    assert User(5).id == "5"
    for bad in ("", None, True, 1.5):
        with pytest.raises(TypeError):
            User(bad)  # type: ignore[arg-type]
    for name in ("name", "email", "avatar"):
        with pytest.raises(TypeError, match=name):
            User("ann", **{name: 5})  # type: ignore[arg-type]
    user = User("ann", claims={"a": 1, "teams": ["red"]})
    assert user.claims == {"a": 1, "teams": ["red"]}
    with pytest.raises(TypeError):
        user.claims["a"] = 2  # type: ignore[index]
    with pytest.raises(TypeError):
        user.claims["teams"].append("blue")


def test_claims_that_could_be_changed_are_not_constant() -> None:
    """They are copied for each guard."""
    assert is_constant(User("ann", claims={"a": [1, {"b": None}], "c": 1.5, "d": "x", "e": True}).claims)
    for value in ({1}, (), bytearray(), [{"x": {1}}], object()):
        assert not is_constant(User("ann", claims={"a": 1, "b": value}).claims)


def test_channels_and_members_can_be_sent_and_copied(room: tuple[Any, Any], app: Flask, presence: Presence) -> None:
    """A returned value cannot change the roster."""
    ann, _ = room
    ann.update("presence-room-1", cursor={"x": 1})
    with app.app_context():
        channel = presence.get_channel("presence-room-1")
        assert channel is not None
        assert channel.members is not None
        with pytest.raises(TypeError):
            channel.members[0].info["cursor"]["x"] = 2
        assert copy.deepcopy(channel) == channel
        presence.publish("presence-room-1", "who", {"channel": channel, "members": list(channel.members)})
        circular: list[Any] = []
        circular.append(circular)
        for bad in (circular, 5):
            with pytest.raises(TypeError):
                presence.broadcast_to_channel("presence-room-1", {"x": bad} if bad is circular else bad)
        with pytest.raises(TypeError):
            presence.disconnect(user_id="ann", reason=None)  # type: ignore[arg-type]
    data = ann.receive()["data"]
    assert data["members"][0]["clientId"] == ann.client_id
    assert data["channel"]["memberCount"] == 2


def test_the_log_says_once_that_a_call_in_memory_reaches_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """A view may call without a log line."""
    presence, app = make_presence_app()
    app.add_url_rule("/publish", view_func=lambda: {"heard": presence.publish("news", "x", 1)})
    assert app.test_client().get("/publish").json == {"heard": 0}
    assert caplog.text == ""
    with app.app_context():
        assert presence.publish("news", "x", 1) == 0
        assert presence.list_channels() == []
        assert presence.disconnect(user_id="ann") == 0
    assert caplog.text.count("reaches nobody") == 1
    assert "PRESENCE_BACKEND" in caplog.text
