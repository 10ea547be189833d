"""The extension object: what a Flask app is given, and where the parts are put together.

Law: no app is kept on it. What belongs to an app is in that app's `extensions`, so one `Presence` serves
several apps, and guards and handlers can be registered before any app exists.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

from flask import Flask, current_app
from msgspec import Raw

from .app.application import HandlerRegistry
from .app.auth import UserLoader
from .app.json_encoding import encode_json
from .app.patterns import compile_pattern
from .app.service import Service
from .domain import wire
from .domain.callables import fit_arguments
from .domain.channels import Channel, ChannelName, Stats, channel_type
from .domain.errors import InvalidRequest
from .domain.events import check_event_name
from .domain.guards import GuardInfo, GuardRegistry
from .domain.members import Member, User
from .domain.text import sendable
from .hub.clock import utc_now
from .hub.directory import Directory
from .settings import load_settings
from .testing import TestClient
from .web.access import StatsGuard
from .web.blueprint import check_place, register_blueprint

F = TypeVar("F", bound=Callable[..., Any])

EXTENSION: Final = "presence"
SERVICE: Final = "presence.service"

_NO_FUNCTION: Final[Any] = None
"""What a decorator gets that is written with empty parentheses."""


class Presence:
    """Channels and presence for Flask apps.

    `settings` are defaults for the config keys, without the prefix `PRESENCE_` and in lower case:
    `Presence(app, auth_required=True)`. Methods that ask or tell need an app context, may be called from
    views, handlers, greenlets and threads, and do not wait for any client.
    """

    def __init__(self, app: Flask | None = None, **settings: Any) -> None:
        self._defaults = settings
        self._guards = GuardRegistry("join", 3)
        self._message_guards = GuardRegistry("message", 4)
        self._handlers = HandlerRegistry()
        self._user_loader: UserLoader | None = None
        self._stats_guard: StatsGuard | None = None
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Register the blueprint on `app`, as its settings say.

        Raises `ConfigurationError` for wrong settings, `RuntimeError` at a second time on one app.
        """
        if EXTENSION in app.extensions:
            raise RuntimeError("a Presence has been initialised with this app already; init_app once is enough")
        settings = load_settings(app.config, self._defaults)
        check_place(app, settings)
        service = Service(app, settings, self._guards, self._message_guards, self._handlers, lambda: self._user_loader)
        register_blueprint(app, service, lambda: self._stats_guard)
        app.extensions[EXTENSION] = self
        app.extensions[SERVICE] = service

    def guard(self, pattern: str) -> Callable[[F], F]:
        """Register a function that decides who may join the channels that `pattern` matches.

        It is called with `(user, channel, user_info)`, or the first of these, in a fresh app context; it may block.
        `True` and `{"authorized": True}` let in, as does `allow(info)`, which also gives keys of the member that are
        the server's; `deny(reason)`, `abort(403, reason)` and everything else deny. Patterns meet the name and the
        topic; `*` stands for any characters, and a converter of Werkzeug's, as in `"room-<int:room_id>"`, becomes a
        keyword argument.
        `ValueError` for a bad pattern, `TypeError` for a function that cannot be called so.
        """
        return self._register(self._guards, pattern)

    def message_guard(self, pattern: str) -> Callable[[F], F]:
        """Register a function that decides who may send to the channels that `pattern` matches, public ones too.

        It is asked for every `channel:message` of a client, with `(user, channel, event, data)` or the first of these;
        `user` is `None` for an anonymous sender, `data` is decoded. Patterns and answers are as for `guard`. Where none
        matches, whoever is in a channel may send.
        """
        return self._register(self._message_guards, pattern)

    @property
    def guards(self) -> list[GuardInfo]:
        """The registered guards, those that decide who may join first, each kind in the order of looking up."""
        return [*self._guards.list(), *self._message_guards.list()]

    @staticmethod
    def _register(registry: GuardRegistry, pattern: str) -> Callable[[F], F]:
        compiled = compile_pattern(pattern)  # a bad one raises here, where it is written

        def register(function: F) -> F:
            registry.add(compiled, function)
            return function

        return register

    def on(self, event: str) -> Callable[[F], F]:
        """Register a handler, called with the event in a fresh app context after it has happened.

        Handlers run in order of registration and never delay a frame; one that raises is logged.
        `ValueError` for an unknown event name.
        """
        check_event_name(event)

        def register(function: F) -> F:
            self._handlers.add(event, function)
            return function

        return register

    def user_loader(self, function: F = _NO_FUNCTION) -> F:
        """Register the function that says who a request is from, in place of flask-jwt-extended.

        It takes no arguments, runs in a request context made from the upgrade, and returns a `User`, or
        `None` for anonymous. An exception refuses the upgrade with 401.
        """
        self._user_loader = fit_arguments(_decorated(function, "user_loader"), 0, "a user_loader")
        return function

    def stats_guard(self, function: F = _NO_FUNCTION) -> F:
        """Register the function that says with `True` who may see the pages. It takes no arguments and runs
        in the page's request context."""
        self._stats_guard = fit_arguments(_decorated(function, "stats_guard"), 0, "a stats_guard")
        return function

    def get_channel(self, name: str) -> Channel | None:
        """The channel, with its members if it is a presence channel; `None` where nobody is in it."""
        return self._directory.channel(name)

    def list_channels(self, type: str | None = None, prefix: str | None = None) -> list[Channel]:
        """The channels that somebody is in, oldest first, without their members.

        Only those of `type` (`"public"`, `"private"`, `"presence"`; `ValueError` for another) and with
        names that begin with `prefix`.
        """
        return self._directory.channels(None if type is None else channel_type(type), prefix)

    def get_channel_members(self, name: str) -> list[Member]:
        """The members in order of joining; `[]` for an unknown, public or private channel."""
        return self._directory.members(name)

    def broadcast_to_channel(self, name: str, message: Any, exclude: str | None = None) -> int:
        """Send `message`, an object, as it is to every connection in the channel but the one with the client
        id `exclude`. The number of connections.

        Encoded like Flask's own JSON; `TypeError` before anything is sent where that cannot be.
        """
        payload = _json(message)
        if not bytes(payload).lstrip().startswith(b"{"):
            raise TypeError(f"a broadcast is a JSON object, such as a dict, not {type(message).__name__}")
        return self._directory.publish(_checked(name), bytes(payload), exclude)

    def publish(self, name: str, event: str, data: Any, exclude: str | None = None) -> int:
        """Send a `channel:message` from the server to every connection in the channel but the one with the client id
        `exclude`; their number.

        `data` is encoded like Flask's own JSON; `TypeError` before anything is sent where that cannot be.
        """
        _event_name(event)
        raw = _json(data)
        return self._directory.publish(name, wire.server_message(_checked(name), event, raw, utc_now()), exclude)

    def get_channel_stats(self) -> Stats:
        """Counts of channels, members and connections."""
        return self._directory.stats()

    def disconnect(self, user_id: str | None = None, client_id: str | None = None, reason: str = "") -> int:
        """Close the connections of a user, or the one with a client id, with the code 4403; how many.

        They have left all channels when this returns. `reason` is sent, cut to 123 bytes. `ValueError`
        where neither is given.
        """
        if user_id is None and client_id is None:
            raise ValueError("disconnect whom? give user_id or client_id")
        if not isinstance(reason, str):
            raise TypeError(f"reason must be a string, not {reason!r}")
        return self._directory.disconnect(None if user_id is None else str(user_id), client_id, reason)

    def send_to_user(self, user_id: str, event: str, data: Any) -> int:
        """Send a `user:message` to every open connection of a user, on every worker, in channels or not; how many.

        Nothing is kept for a user who is not connected. `data` is encoded like Flask's own JSON; `TypeError` before
        anything is sent where that cannot be.
        """
        payload = wire.user_message(_event_name(event), _json(data), utc_now())
        return self._directory.send_to_user(_user_id(user_id), payload)

    def is_online(self, user_id: str) -> bool:
        """Whether a user has an open connection anywhere; of a worker that was killed, for up to `PRESENCE_LEASE`
        seconds longer."""
        return self._directory.is_online(_user_id(user_id))

    def remove(self, name: str, user_id: str, reason: str = "") -> int:
        """Take all connections of a user out of a channel, on every worker; how many.

        They are told (`channel:removed`), and may come back if the guard lets them. A grace ends too.
        """
        if not isinstance(reason, str):
            raise TypeError(f"reason must be a string, not {reason!r}")
        return self._directory.remove(_checked(name), _user_id(user_id), sendable(reason))

    def recheck(self, user_id: str | None = None, channel: str | None = None) -> int:
        """Have the credentials of living connections verified and their guards asked again, on every worker: those of
        a user, in a channel, or both. How many connections; returns before they have been asked, beside the sockets.

        Whose login has ended is disconnected (4401); who may no longer be in a channel leaves it (`channel:removed`);
        what a guard gives now takes effect. `ValueError` where neither is given.
        """
        if user_id is None and channel is None:
            raise ValueError("recheck whom? give user_id, channel or both")
        name = None if channel is None else _checked(channel)
        return self._directory.recheck(None if user_id is None else _user_id(user_id), name)

    def drain(self) -> None:
        """Say goodbye (1001) to every connection of this process, over at most `PRESENCE_DRAIN` seconds, and
        refuse new ones. Blocks until they are gone and their handlers have run.

        For servers other than gunicorn, whose workers do this by themselves when they are stopped.
        """
        self._service().drain()

    def test_client(self, user: User | str | None = None, app: Flask | None = None) -> TestClient:
        """A client without a socket, for tests, as a context manager; `user` is a `User` or an id.

        `TypeError` for anything else.
        """
        if isinstance(user, Flask):
            raise TypeError("the first argument is the user; write presence.test_client(app=app)")
        if app is None:
            app = _current_app()
        return TestClient(app, self._service(app), user if user is None or isinstance(user, User) else User(user))

    @property
    def _directory(self) -> Directory:
        service = self._service()
        service.warn_if_alone()
        return service.hub.directory

    def _service(self, app: Flask | None = None) -> Service:
        app = app or _current_app()
        if app.extensions.get(EXTENSION) is not self:
            raise RuntimeError("this Presence does not know the current app; was presence.init_app(app) called?")
        service: Service = app.extensions[SERVICE]
        return service


def _current_app() -> Flask:
    app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]  # noqa: SLF001
    return app


def _decorated(function: F, name: str) -> F:
    if function is _NO_FUNCTION:
        raise TypeError(f"write @presence.{name} without parentheses")
    return function


def _event_name(event: str) -> str:
    if not isinstance(event, str):
        raise TypeError(f"event must be a string, not {event!r}")
    _json(event)  # `TypeError` for what has no UTF-8
    return event


def _user_id(user_id: Any) -> str:
    """As `User` has it."""
    return User(user_id).id


def _json(value: Any) -> Raw:
    return encode_json(_current_app(), value)


def _checked(name: str) -> str:
    if not isinstance(name, str):
        raise TypeError(f"a channel's name is a string, not {name!r}")
    try:
        return str(ChannelName.parse(name))
    except InvalidRequest as problem:
        raise ValueError(problem.message) from None
