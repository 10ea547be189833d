"""Mistakes that raise where they are written: async functions, wrong signatures, misused decorators."""

from __future__ import annotations

import functools
import logging
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async

from flask_presence import Presence, PresenceTestError, User

from ..support.flask_app import make_presence_app


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
def test_an_async_function_raises_and_names_async_to_sync(decorator: str, kind: str) -> None:
    with pytest.raises(TypeError, match=r"cannot be async.*async_to_sync"):
        DECORATORS[decorator](Presence())(ASYNC[kind])


async def _wants_user(user: User) -> bool:
    return user.id == "ann"


async def _wants_three(user: User, channel: Any, user_info: Any) -> bool:
    return (user.id, channel.topic, user_info) == ("ann", "room-1", {"a": 1})


@pytest.mark.parametrize("function", [_wants_user, _wants_three])
def test_async_to_sync_keeps_the_arguments_of_the_function(function: Any) -> None:
    """It runs in a thread of its own, because Playwright's event loop may run in that of the tests."""
    presence, app = make_presence_app()
    presence.guard("*")(async_to_sync(function))

    def join() -> str:
        with presence.test_client(user="ann", app=app) as ann:
            return str(ann.join("presence-room-1", user_info={"a": 1})["type"])

    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(join).result() == "channel:joined"


def test_a_function_that_returns_a_coroutine_is_logged_as_a_mistake(caplog: pytest.LogCaptureFixture) -> None:
    """This holds for guards and handlers."""
    presence, app = make_presence_app()
    presence.guard("*")(lambda: coroutine())  # type: ignore[type-var]
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
def test_a_misused_decorator_says_how_to_use_it(call: Callable[[Presence], Any], told: str) -> None:
    with pytest.raises(TypeError, match=told):
        call(Presence())


def test_a_handler_may_leave_out_the_event() -> None:
    presence, app = make_presence_app()
    heard: list[str] = []
    presence.on("client.connected")(lambda: heard.append("connected"))
    with presence.test_client(app=app) as one:
        assert one.client_id
        assert heard == ["connected"]


def test_a_bad_pattern_event_or_loader_raises_at_registration(presence: Presence) -> None:
    with pytest.raises(ValueError, match="pattern"):
        presence.guard("a b")
    with pytest.raises(ValueError, match=r"member\.joined"):
        presence.on("member.join")  # type: ignore[call-overload]
    with pytest.raises(TypeError):
        presence.user_loader(lambda user: None)  # type: ignore[type-var]
