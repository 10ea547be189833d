"""What an app writes that has types. Type checkers must accept every line; `test_types.py` runs them."""

# pyright: strict, reportUnknownLambdaType=false, reportUnknownArgumentType=false

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Literal, ParamSpec, TypeVar
from uuid import UUID

from asgiref.sync import async_to_sync
from flask import Flask, abort
from typing_extensions import assert_type

from flask_presence import (
    BackendUnavailable,
    Channel,
    ChannelJoined,
    ChannelLeft,
    ChannelName,
    ChannelType,
    ClientConnected,
    ClientDisconnected,
    ConfigurationError,
    GuardInfo,
    GuardResult,
    Member,
    MemberJoined,
    MemberLeft,
    MemberUpdated,
    MessageSent,
    Presence,
    PresenceError,
    PresenceTestError,
    Stats,
    TestClient,
    User,
    allow,
    deny,
    signals,
)

P = ParamSpec("P")
R = TypeVar("R")

# The extension and its settings

app = Flask(__name__)
presence = Presence()
presence.init_app(app)
Presence(app)
Presence(app, auth_required=True, max_channels=20, ping_interval=30, ping_timeout=2.5, backend="redis://localhost")
Presence(app, backend={"a": "redis://redis-a", "b": "redis://redis-b"})
Presence(rate_limit=None, allowed_origins="*", subdomain=None, host="live.example.com")
Presence(rate_limit=(10, 20.5), allowed_origins=["https://app.example.com", "https://*.example.com"])


def configured(settings: dict[str, Any]) -> Presence:
    return Presence(app, **settings)


# Guards


@presence.guard("*")
def nobody() -> bool:
    return False


@presence.guard("team-*")
def of_the_team(user: User, channel: ChannelName, user_info: dict[str, Any]) -> bool | dict[str, Any]:
    if user_info.get("secret"):
        abort(403, "No secrets")
    return channel.topic.removeprefix("team-") in user.claims.get("teams", []) or deny("Ask to be added")


@presence.guard("club-*")
def of_the_club(user: User, channel: str) -> Mapping[str, object] | None:
    return allow({"role": "member"}) if user.id in channel else None


@presence.guard("any-*")
def answers_anything(user: User) -> GuardResult:
    return "admin" in user.claims or deny()


@presence.guard("never-*")
def raises(user: User) -> bool:
    raise LookupError(user.id)


@presence.guard("document-<int:document_id>")
def readers(user: User, document_id: int) -> dict[str, Any]:
    return allow({"role": "reader"}) if document_id else {"authorized": False, "reason": "There is no such document"}


@presence.guard("<org>-<uuid:room>")
def of_the_organisation(user: User, org: str, room: UUID) -> bool:
    return (org, str(room)) in user.claims["rooms"]


@presence.guard("scale-<float:scale>")
def scales(scale: float) -> bool:
    return scale > 1


@presence.guard("room-<room>")
@presence.guard("lobby-<room>")
def by_room(user: User, channel: ChannelName, room: str) -> bool:
    return channel.type == "presence" and user.id in room


@presence.guard("page-<int:number>")
def with_everything(user: User, channel: ChannelName, user_info: dict[str, Any], number: int = 0) -> bool:
    return bool(user_info) and number > 0


@presence.guard("part-<int:number>-<int:part>")
def with_variables(user: User, channel: ChannelName, user_info: dict[str, Any], **variables: int) -> bool:
    return variables["number"] < variables["part"]


presence.guard("lambda-*")(lambda user, channel: True)


class Rooms:
    def __init__(self, names: set[str]) -> None:
        self.names = names

    def may_enter(self, user: User, channel: ChannelName) -> bool:
        return channel.topic in self.names

    def __call__(self, user: User) -> bool:
        return user.name is not None

    @staticmethod
    def is_open() -> bool:
        return True

    @classmethod
    def for_everyone(cls, user: User) -> bool:
        return user.id in cls.__name__


rooms = Rooms({"a"})
presence.guard("a*")(rooms.may_enter)
presence.guard("b*")(rooms)
presence.guard("c*")(rooms.is_open)
presence.guard("d*")(Rooms.for_everyone)


def has_role(role: str, user: User) -> bool:
    return user.claims.get("role") == role


presence.guard("staff-*")(functools.partial(has_role, "staff"))


def logged(function: Callable[P, R]) -> Callable[P, R]:
    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        return function(*args, **kwargs)

    return call


@presence.guard("logged-*")
@logged
def decorated(user: User, channel: ChannelName) -> bool:
    return user.id in channel


@presence.guard("cached-*")
@functools.cache
def cached(user: User) -> bool:
    return bool(user.email)


async def ask(user: User, channel: ChannelName) -> bool:
    return user.id in channel


presence.guard("async-*")(async_to_sync(ask))


@presence.message_guard("news-*")
def only_editors(user: User | None, channel: ChannelName, event: str, data: Any) -> bool:
    return user is not None and bool(user.claims.get("editor"))


@presence.message_guard("chat-*")
def short(user: User | None, channel: ChannelName, event: str, data: dict[str, Any]) -> bool | dict[str, Any]:
    return len(data["text"]) < 500 or deny("Too long")


@presence.message_guard("wall-<int:wall>")
def on_the_wall(user: User | None, channel: ChannelName, event: str, wall: int) -> bool:
    return event == "post" and wall > 0


@presence.message_guard("quiet-*")
def silent() -> None:
    return None


# A decorated function keeps its type

assert_type(readers(User("ann"), 7), dict[str, Any])
assert_type(readers(user=User("ann"), document_id=7), dict[str, Any])
assert_type(by_room(User("ann"), ChannelName("presence-room-1"), room="1"), bool)
assert_type(only_editors(None, ChannelName("news-1"), "post", {}), bool)

# Logins


@presence.user_loader
def load() -> User | None:
    return User("ann", name="Ann", email="ann@example.com", avatar=None, claims={"teams": ["red"]})


@Presence().user_loader
def load_somebody() -> User:
    return User(7)


@presence.stats_guard
def may_see_the_pages() -> bool:
    return True


assert_type(load(), User | None)
assert_type(User(UUID(int=7)).id, str)

# Events


@presence.on("client.connected")
def connected(event: ClientConnected) -> None:
    assert_type(event.client_id, str)
    assert_type(event.user, User | None)


@presence.on("client.disconnected")
def disconnected(event: ClientDisconnected) -> None:
    assert_type(event.code, int)
    if event.reason == "slow":
        print(event.client_id)


@presence.on("channel.joined")
def joined(event: ChannelJoined) -> None:
    assert_type(event.channel, ChannelName)
    assert_type(event.channel.topic, str)
    assert_type(event.type, ChannelType)


@presence.on("channel.left")
def left(event: ChannelLeft) -> None:
    print(event.channel, event.type, event.reason)


@presence.on("member.joined")
def welcome(event: MemberJoined) -> None:
    presence.publish(event.channel, "greeting", {"text": f"Welcome, {event.member.name}"})


@presence.on("member.updated")
def updated(event: MemberUpdated) -> None:
    assert_type(event.member.info, Mapping[str, Any])


@presence.on("member.left")
def gone(event: MemberLeft) -> None:
    print(event.member.id, event.reason or "unknown")


@presence.on("message")
def said(event: MessageSent) -> int:
    return len(event.raw) + len(event.data)


@presence.on("member.joined")
@presence.on("member.left")
@logged
def count(event: MemberJoined | MemberLeft) -> None:
    print(len(presence.get_channel_members(event.channel)))


@presence.on("client.connected")
def without_the_event() -> None:
    print("somebody came")


presence.on("client.connected")(lambda event: print("somebody came"))
welcome(MemberJoined("x", None, ChannelName("x"), Member("ann", "x", datetime.now().astimezone(), "Ann", None, {})))


def on_both(name: Literal["member.joined", "member.updated"]) -> None:
    presence.on(name)(keep)


def keep(event: MemberJoined | MemberUpdated) -> None:
    print(event.member.id)


@signals.channel_joined.connect
def received(sender: Flask, event: ChannelJoined) -> None:
    sender.logger.info("%s joined %s", event.client_id, event.channel)


# Methods


def ask_everything(kind: ChannelType) -> None:
    assert_type(presence.get_channel("presence-room-1"), Channel | None)
    assert_type(presence.list_channels(), list[Channel])
    assert_type(presence.list_channels(type="presence", prefix="presence-room-"), list[Channel])
    assert_type(presence.list_channels(kind), list[Channel])
    assert_type(presence.get_channel_members("presence-room-1"), list[Member])
    assert_type(presence.get_channel_stats(), Stats)
    assert_type(presence.get_channel_stats().by_type["public"], int)
    assert_type(presence.guards, list[GuardInfo])
    assert_type(presence.is_online("ann"), bool)
    assert_type(presence.broadcast_to_channel("news", {"type": "closing"}, exclude="x"), int)
    assert_type(presence.publish("news", "closing", {"in": 60}), int)
    assert_type(presence.send_to_user(7, "invited", None), int)
    assert_type(presence.remove("presence-room-1", "ann", reason="Calm down"), int)
    assert_type(presence.recheck(user_id="ann"), int)
    assert_type(presence.recheck(channel="presence-room-1"), int)
    assert_type(presence.disconnect(user_id=UUID(int=7), reason="Bye"), int)
    channel = presence.get_channel("presence-room-1")
    if channel is not None:
        assert_type(channel.members, tuple[Member, ...] | None)
        print(channel.created_at.isoformat(), channel.name.topic, channel.to_dict()["memberCount"])
    presence.drain()


def errors() -> list[type[PresenceError]]:
    return [BackendUnavailable, ConfigurationError, PresenceTestError]


# Tests of an app


def test_room(presence_client: Callable[..., TestClient]) -> None:
    with presence.test_client(user="ann", app=app) as ann, presence.test_client(User("bob"), app) as bob:
        assert_type(ann, TestClient)
        assert ann.join("presence-room-1", user_info={"name": "Ann"})["me"]["name"] == "Ann"
        bob.send("presence-room-1", "chat", "hello")
        bob.update("presence-room-1", status="away")
        assert ann.received[0]["type"]
        assert ann.receive()["data"] == "hello"
        assert_type(bob.closed, tuple[int, str] | None)
        bob.advance(2.5)
        bob.drop()
    with presence.test_client(http=app.test_client()) as http:
        assert http.request({"type": "ping"})["type"] == "pong"
    assert presence_client("ann").client_id
