"""The extension object: settings, registration, and the test client."""

from __future__ import annotations

import copy
import uuid
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any

import pytest
from flask import Flask
from flask_jwt_extended import JWTManager, get_jwt_identity

from flask_presence import ChannelName, ConfigurationError, Presence, PresenceTestError, User, deny, signals


def make_app(**config: Any) -> Flask:
    app = Flask("presence-unit")
    app.config.update(JWT_SECRET_KEY="a secret of thirty-two characters", **config)
    return app


@pytest.fixture
def app() -> Flask:
    return make_app()


@pytest.fixture
def presence(app: Flask) -> Presence:
    JWTManager(app)
    return Presence(app)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("PRESENCE_ENABLED", "yes"),
        ("PRESENCE_URL_PREFIX", "presence"),
        ("PRESENCE_URL_PREFIX", "/presence/"),
        ("PRESENCE_BACKEND", "postgres://"),
        ("PRESENCE_ALLOWED_ORIGINS", ["example.com"]),
        ("PRESENCE_ALLOWED_ORIGINS", ["https://example.com/path"]),
        ("PRESENCE_ALLOWED_ORIGINS", ["https://*.*.com"]),
        ("PRESENCE_ALLOWED_ORIGINS", 5),
        ("PRESENCE_MAX_CONNECTIONS", 0),
        ("PRESENCE_MAX_CONNECTIONS", True),
        ("PRESENCE_MAX_MESSAGE_SIZE", 1.5),
        ("PRESENCE_MAX_OUTBOX", 65536),
        ("PRESENCE_RATE_LIMIT", 100),
        ("PRESENCE_RATE_LIMIT", (0, 10)),
        ("PRESENCE_RATE_LIMIT", (1, 2, 3)),
        ("PRESENCE_PING_INTERVAL", 0),
        ("PRESENCE_PING_TIMEOUT", "10"),
        ("PRESENCE_DRAIN", -1),
        ("PRESENCE_PING_INTERVALL", 5),
    ],
)
def test_wrong_setting(key: str, value: Any) -> None:
    """A wrong setting raises at `init_app`, and names itself."""
    with pytest.raises(ConfigurationError, match=key):
        Presence(make_app(**{key: value}))


def test_unknown_setting_lists_the_valid_ones() -> None:
    """An unknown key comes with the list of the valid ones; so does an unknown argument."""
    with pytest.raises(ConfigurationError, match="PRESENCE_PING_INTERVAL"):
        Presence(make_app(), pingg=5)


@pytest.mark.parametrize(("arguments", "config"), [({"url_prefix": "/a"}, {}), ({"url_prefix": "/b"}, {"URL": "/a"})])
def test_defaults(arguments: dict[str, Any], config: dict[str, str]) -> None:
    """Keyword arguments are defaults for the config."""
    app = make_app(**({"PRESENCE_URL_PREFIX": config["URL"]} if config else {}))
    Presence(app, **arguments)
    assert app.test_client().get("/a/health").get_json() == {"status": "ok"}


def test_any_origin_with_cookies() -> None:
    """`"*"` is refused while credentials may come from cookies."""
    with pytest.raises(ConfigurationError, match="PRESENCE_ALLOWED_ORIGINS"):
        Presence(make_app(PRESENCE_ALLOWED_ORIGINS="*", JWT_TOKEN_LOCATION=["cookies"]))
    loading = Presence(allowed_origins=["*"])
    loading.user_loader(lambda: None)
    with pytest.raises(ConfigurationError, match="user_loader"):
        loading.init_app(make_app())
    Presence(make_app(PRESENCE_ALLOWED_ORIGINS="*"))


def test_second_init(app: Flask, presence: Presence) -> None:
    """An app is initialised once."""
    assert app.extensions["presence"] is presence
    with pytest.raises(RuntimeError, match="already"):
        presence.init_app(app)


def test_several_apps(presence: Presence, app: Flask) -> None:
    """One instance serves several apps, each with its own channels."""
    other = make_app()
    presence.init_app(other)
    with presence.test_client(app=app) as here, presence.test_client(app=other):
        here.join("room")
        with app.app_context():
            assert presence.get_channel("room") is not None
        with other.app_context():
            assert presence.get_channel("room") is None


def test_without_context(presence: Presence) -> None:
    """Outside an app context the methods raise Flask's error; in a foreign app, what was forgotten."""
    with pytest.raises(RuntimeError, match="application context"):
        presence.get_channel("x")
    with make_app().app_context(), pytest.raises(RuntimeError, match="init_app"):
        presence.get_channel("x")


def test_mistakes_at_registration(presence: Presence) -> None:
    """A programmer's mistake raises where it is written."""
    with pytest.raises(ValueError, match="pattern"):
        presence.guard("a b")
    with pytest.raises(ValueError, match=r"member\.joined"):
        presence.on("member.join")
    with pytest.raises(TypeError):
        presence.user_loader(lambda user: None)


@pytest.fixture
def room(app: Flask, presence: Presence) -> Iterator[tuple[Any, Any]]:
    """Ann and Bob in a room."""
    with presence.test_client(user="ann", app=app) as ann, presence.test_client(user="bob", app=app) as bob:
        ann.join("presence-room-1", user_info={"name": "Ann"})
        bob.join("presence-room-1")
        ann.receive()
        yield ann, bob


def test_test_client(room: tuple[Any, Any]) -> None:
    """The test client joins, sends, updates, receives, and fails at once where nothing came."""
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


def test_test_client_meets_guards(app: Flask, presence: Presence) -> None:
    """The test client meets the real guards, with a real token."""

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


def test_disconnected_test_client(app: Flask, presence: Presence) -> None:
    """A test client that was disconnected says so."""
    with presence.test_client(user="ann", app=app) as ann:
        with app.app_context():
            assert presence.disconnect(user_id="ann", reason="enough") == 1
        with pytest.raises(PresenceTestError, match="4403"):
            ann.request({"type": "ping"})


def test_signals(app: Flask, presence: Presence) -> None:
    """Events are signals too: sender the app, keyword `event`, once each."""
    heard: list[Any] = []

    def receiver(sender: Flask, event: Any) -> None:
        assert sender is app
        heard.append((event.name, event.channel, event.type, event.user))

    with signals.channel_joined.connected_to(receiver), presence.test_client(app=app) as one:
        one.join("public-room")
        one.join("public-room")
    assert heard == [("channel.joined", "public-room", "public", None)]


def test_server_data_like_flask_json(app: Flask, presence: Presence) -> None:
    """Dates, UUIDs and the like are encoded as Flask's JSON does; what cannot be raises first."""
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


def test_values(room: tuple[Any, Any], app: Flask, presence: Presence) -> None:
    """Channels and members are immutable values in snake_case, with the guide's camelCase in `to_dict()`."""
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


def test_stats_guard(app: Flask, presence: Presence) -> None:
    """A stats guard opens the pages with `True`, in the page's request context."""
    from flask import request

    assert app.test_client().get("/presence/stats").status_code == 403
    presence.stats_guard(lambda: request.headers.get("X-Admin") == "yes" or "not quite")
    assert app.test_client().get("/presence/stats").status_code == 403
    assert app.test_client().get("/presence/stats", headers={"X-Admin": "yes"}).status_code == 200


def test_debug_opens_the_pages(app: Flask, presence: Presence) -> None:
    """In debug mode the pages are open."""
    app.debug = True
    assert app.test_client().get("/presence/").status_code == 200


def test_user_values() -> None:
    """A user's id is a string, also where it came as a number; the claims are read-only."""
    assert User(5).id == "5"  # type: ignore[arg-type]
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


def test_own_values_as_data(room: tuple[Any, Any], app: Flask, presence: Presence) -> None:
    """Members and channels can be sent as they are, and copied; what is handed out cannot change the roster."""
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


def test_test_client_with_an_identity_loader(app: Flask) -> None:
    """An app's `user_identity_loader` that wants a user object does not hinder the test client."""
    jwt = JWTManager(app)
    jwt.user_identity_loader(lambda user: user.id)
    presence = Presence(app)
    with presence.test_client(user=User(7, claims={"exp": 5, "team": "red"}), app=app) as one:  # type: ignore[arg-type]
        assert one.join("presence-room")["me"]["id"] == "7"
