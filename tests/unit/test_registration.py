"""What is refused where it is written: async functions, wrong signatures, decorators that are used wrongly."""

from __future__ import annotations

import functools
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from flask import Flask
from flask_jwt_extended import JWTManager

from flask_presence import Presence, PresenceTestError, User


async def coroutine(*_: Any) -> bool:
    return True


async def stream(*_: Any) -> AsyncIterator[bool]:
    yield True


class Asynchronous:
    async def __call__(self, *_: Any) -> bool:
        return True

    async def method(self, *_: Any) -> bool:
        return True


ASYNC: dict[str, Any] = {
    "function": coroutine,
    "generator": stream,
    "partial": functools.partial(coroutine, 1),
    "partial of a partial": functools.partial(functools.partial(stream, 1), 2),
    "object": Asynchronous(),
    "method": Asynchronous().method,
    "sync_to_async": sync_to_async(print),
}
DECORATORS: dict[str, Callable[[Presence], Any]] = {
    "guard": lambda presence: presence.guard("room-*"),
    "on": lambda presence: presence.on("member.joined"),
    "user_loader": lambda presence: presence.user_loader,
    "stats_guard": lambda presence: presence.stats_guard,
}


@pytest.mark.parametrize("kind", ASYNC)
@pytest.mark.parametrize("decorator", DECORATORS)
def test_async(decorator: str, kind: str) -> None:
    """Nobody would await it; the text says what to do."""
    with pytest.raises(TypeError, match=r"cannot be async.*async_to_sync"):
        DECORATORS[decorator](Presence())(ASYNC[kind])


async def _wants_user(user: User) -> bool:
    return user.id == "ann"


async def _wants_three(user: User, channel: Any, user_info: Any) -> bool:
    return (user.id, channel.topic, user_info) == ("ann", "room-1", {"a": 1})


@pytest.mark.parametrize("function", [_wants_user, _wants_three])
def test_async_to_sync(function: Any) -> None:
    """What asgiref makes of it is an ordinary function with the inner one's arguments."""
    presence, app = make_app()
    presence.guard("*")(async_to_sync(function))
    with presence.test_client(user="ann", app=app) as ann:
        assert ann.join("presence-room-1", user_info={"a": 1})["type"] == "channel:joined"


def test_coroutines_that_come_later(caplog: pytest.LogCaptureFixture) -> None:
    """An ordinary function that gives a coroutine is a mistake, of a guard and of a handler, and is logged as one."""
    presence, app = make_app()
    presence.guard("*")(lambda: coroutine())
    presence.on("client.connected")(lambda: coroutine())
    with caplog.at_level(logging.ERROR), presence.test_client(user="ann", app=app) as ann:
        with pytest.raises(PresenceTestError, match="FORBIDDEN"):
            ann.join("presence-room-1")
    assert caplog.text.count("returned a coroutine") == 2


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda presence: presence.guard(lambda: True), r"@presence\.guard\('room-\*'\)"),
        (lambda presence: presence.on(lambda event: None), r"@presence\.on\('member\.joined'\)"),
        (lambda presence: presence.user_loader(), "without parentheses"),
        (lambda presence: presence.stats_guard(), "without parentheses"),
        (lambda presence: presence.user_loader(lambda request: None), "up to 0"),
        (lambda presence: presence.guard("x")(lambda a, b, c, d: True), "up to 3"),
        (lambda presence: presence.guard("x")(lambda *, user: True), "up to 3"),
        (lambda presence: presence.on("message")(lambda sender, event: None), "up to 1"),
        (lambda presence: presence.guard("x")("no function"), "must be a function"),
        (lambda presence: presence.guard("x")(type), "arguments"),
    ],
)
def test_wrong_use(call: Callable[[Presence], Any], told: str) -> None:
    with pytest.raises(TypeError, match=told):
        call(Presence())


def test_handler_without_arguments() -> None:
    """A handler may leave out the event."""
    presence, app = make_app()
    heard: list[str] = []
    presence.on("client.connected")(lambda: heard.append("connected"))
    with presence.test_client(app=app) as one:
        assert one.client_id
        assert heard == ["connected"]


def test_test_client_outside_with() -> None:
    presence, app = make_app()
    one = presence.test_client(user="ann", app=app)
    for use in (lambda: one.join("news"), lambda: one.received, lambda: one.receive(), lambda: one.request({})):
        with pytest.raises(PresenceTestError, match="with statement"):
            use()


def test_app_in_the_place_of_the_user() -> None:
    presence, app = make_app()
    with pytest.raises(TypeError, match=r"test_client\(app=app\)"):
        presence.test_client(app)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"User\.id"):
        presence.test_client(object(), app)  # type: ignore[arg-type]


def test_nobody_is_reached(caplog: pytest.LogCaptureFixture) -> None:
    """In memory, what a process without sockets says and asks reaches nobody: it says so, once. A view may ask."""
    presence, app = make_app()
    app.add_url_rule("/publish", view_func=lambda: {"heard": presence.publish("news", "x", 1)})
    assert app.test_client().get("/publish").json == {"heard": 0}
    assert caplog.text == ""
    with app.app_context():
        assert presence.publish("news", "x", 1) == 0
        assert presence.list_channels() == []
        assert presence.disconnect(user_id="ann") == 0
    assert caplog.text.count("reaches nobody") == 1
    assert "PRESENCE_BACKEND" in caplog.text


def make_app() -> tuple[Presence, Flask]:
    app = Flask("registration")
    app.config.update(JWT_SECRET_KEY="a secret of thirty-two characters")
    JWTManager(app)
    return Presence(app), app
