"""Mistakes that type checkers must find: one on every line that ends with `# error`, and no other.

`test_types.py` runs the checkers. Nothing here is ever executed.
"""

# pyright: strict

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import Flask, Request

from flask_presence import (
    ChannelJoined,
    ChannelName,
    ClientConnected,
    MemberJoined,
    MemberLeft,
    MessageSent,
    Presence,
    TestClient,
    User,
    allow,
    deny,
)

app = Flask(__name__)
presence = Presence(app)

# Settings

Presence(app, auth_require=True)  # error
Presence(app, PRESENCE_AUTH_REQUIRED=True)  # error
Presence(app, auth_required="yes")  # error
Presence(app, max_channels="20")  # error
Presence(app, max_channels=2.5)  # error
Presence(app, ping_interval="25")  # error
Presence(app, backend=None)  # error
Presence(app, rate_limit=100)  # error
Presence(app, rate_limit=(1, 2, 3))  # error
Presence(app, allowed_origins=[b"https://example.com"])  # error
Presence(app, drain=None)  # error
Presence("app")  # error

# Events


@presence.on("member.join")  # error
def misspelt(event: MemberJoined) -> None: ...


@presence.on("member_joined")  # error
def with_an_underscore() -> None: ...


@presence.on("member.joined")  # error
def of_another_event(event: MemberLeft) -> None: ...


@presence.on("message")  # error
def of_a_message(event: ChannelJoined) -> None: ...


@presence.on("client.connected")  # error
def of_a_string(event: str) -> None: ...


@presence.on("client.connected")  # error
def of_two(sender: Flask, event: ClientConnected) -> None: ...


@presence.on("channel.left")  # error
def with_a_keyword(event: Any, *, channel: str) -> None: ...


@presence.on("member.joined")
def reads_what_is_not_there(event: MemberJoined) -> None:
    print(event.members)  # error
    print(event.channel.name)  # error
    event.member.name = "Ann"  # error


@presence.on("message")
def compares_with_no_reason(event: MessageSent) -> None:
    print(event.reason)  # error


@presence.on  # error
def without_a_name(event: MemberJoined) -> None: ...


def on_any(name: str) -> None:
    presence.on(name)  # error


# Guards


@presence.guard("room-*")  # error
def with_four(user: User, channel: ChannelName, user_info: dict[str, Any], data: Any) -> bool:
    return True


@presence.guard("room-*")  # error
def with_four_strings(user: User, channel: ChannelName, event: str, data: str) -> bool:
    return True


@presence.guard("room-*")  # error
def with_the_request(user: User, request: Request) -> bool:
    return True


@presence.guard("room-*")  # error
def in_another_order(channel: ChannelName, user: User) -> bool:
    return True


@presence.guard("room-*")  # error
def without_the_channel(user: User, user_info: dict[str, Any]) -> bool:
    return True


@presence.guard("room-*")  # error
def with_a_foreign_keyword(user: User, *, request: Request) -> bool:
    return True


@presence.guard("room-*")  # error
def answers_a_number(user: User) -> int:
    return 1


@presence.guard("room-*")  # error
def answers_a_string(user: User) -> str:
    return "yes"


@presence.guard("room-*")  # error
def answers_a_list(user: User) -> list[str]:
    return [user.id]


@presence.guard("room-*")  # error
def answers_a_user(user: User) -> User:
    return user


@presence.guard("room-*")  # error
async def is_async(user: User) -> bool:
    return True


@presence.guard(5)  # error
def of_a_number() -> bool:
    return True


@presence.guard  # error
def without_a_pattern(user: User) -> bool:
    return True


presence.guard("room-*")("no function")  # error
presence.guard("room-*")(lambda a, b, c, d: True)  # error
deny(403)  # error
allow(True)  # error


@presence.message_guard("news-*")  # error
def of_users_only(user: User) -> bool:
    return bool(user.claims)


@presence.message_guard("news-*")  # error
def with_five(user: User | None, channel: ChannelName, event: str, data: Any, info: dict[str, Any]) -> bool:
    return True


@presence.message_guard("news-*")  # error
def with_bytes(user: User | None, channel: ChannelName, event: bytes) -> bool:
    return True


@presence.message_guard("news-*")  # error
def counts(user: User | None, channel: ChannelName, event: str, data: Any) -> int:
    return len(event)


@presence.message_guard("news-*")  # error
async def is_async_too(user: User | None) -> bool:
    return True


# Logins


@presence.user_loader  # error
def loads_a_number() -> int:
    return 7


@presence.user_loader  # error
def loads_a_name() -> str | None:
    return "ann"


@presence.user_loader  # error
def wants_the_request(request: Request) -> User | None:
    return None


@presence.user_loader  # error
async def loads_later() -> User | None:
    return None


@presence.stats_guard  # error
def may_see(user: User) -> bool:
    return True


@presence.stats_guard  # error
def answers_a_count() -> int:
    return 1


User()  # error
User(None)  # error
User(1.5)  # error
User("ann", nickname="Annie")  # error
User("ann").id = "bob"  # error

# Methods

presence.list_channels(type="presense")  # error
presence.list_channels("Presence")  # error
print(presence.get_channel("news").members)  # error
presence.publish("news", "closing")  # error
presence.publish("news", 5, {})  # error
presence.send_to_user(None, "invited", {})  # error
presence.send_to_user("ann", data={})  # error
presence.disconnect(user="ann")  # error
presence.recheck(channel=7)  # error
print(presence.is_online("ann").user)  # error
print(presence.get_channel_stats().total)  # error
presence.test_client(app)  # error
presence.test_client(http=app)  # error


def tests(presence_client: Callable[..., TestClient]) -> None:
    presence_client("ann").join(7)  # error
    presence_client("ann").wait()  # error
    presence_client("ann").advance("10")  # error
