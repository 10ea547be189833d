"""`Presence`, the extension object: the public API of this package.

Rule: it keeps no app. What belongs to an app is in that app's `extensions`. So one `Presence` can serve several apps,
and guards and handlers can be registered before any app exists.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar, overload

from flask import Flask, current_app
from flask.testing import FlaskClient
from msgspec import Raw

from .app import arguments
from .app.application import HandlerRegistry
from .app.auth import UserLoader
from .app.json_encoding import encode_json
from .app.patterns import compile_pattern
from .app.service import Service
from .domain import wire
from .domain.callables import fit_arguments
from .domain.channels import Channel, ChannelType, Stats, channel_type
from .domain.events import check_event_name
from .domain.guards import GuardInfo, GuardRegistry
from .domain.history import MAX_LIMIT, Message, parse_position
from .domain.members import Member, User, UserId
from .domain.pusher.names import RESERVED_EVENTS, is_reserved_event
from .domain.signatures import (
    GuardFunction,
    LoaderFunction,
    MessageGuardFunction,
    OnChannelJoined,
    OnChannelLeft,
    OnClientConnected,
    OnClientDisconnected,
    OnMemberJoined,
    OnMemberLeft,
    OnMemberUpdated,
    OnMessageSent,
    StatsGuardFunction,
)
from .hub.hub import Hub
from .settings import load_settings
from .testing import TestClient
from .web.access import StatsGuard
from .web.blueprint import check_routing, register_blueprint

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .settings import SettingArguments

F = TypeVar("F", bound=Callable[..., Any])

EXTENSION: Final = "presence"
SERVICE: Final = "presence.service"

_NO_FUNCTION: Final[Any] = None
"""What a decorator gets if it is written with empty parentheses."""


class Presence:
    """Channels and presence for Flask apps.

    `settings` are defaults for the config keys, in lower case and without `PRESENCE_`:
    `Presence(app, auth_required=True)`. Raises like `init_app`, if there is an `app`.

    Methods that read or change the service need an app context. They may be called from views, handlers, greenlets and
    threads, and do not wait for any client. They raise `BackendUnavailable` while the state store is unreachable.
    """

    def __init__(self, app: Flask | None = None, **settings: Unpack[SettingArguments]) -> None:
        self._defaults: Mapping[str, Any] = settings
        self._guards = GuardRegistry("join", 3)
        self._message_guards = GuardRegistry("message", 4)
        self._handlers = HandlerRegistry()
        self._user_loader: UserLoader | None = None
        self._stats_guard: StatsGuard | None = None
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Register the routes and the commands on `app`.

        Raises `ConfigurationError` if a setting is wrong, and `RuntimeError` if the app has a `Presence` already.
        """
        if EXTENSION in app.extensions:
            raise RuntimeError("this app has a Presence already: call init_app only once per app")
        settings = load_settings(app.config, self._defaults)
        check_routing(app, settings)
        service = Service(app, settings, self._guards, self._message_guards, self._handlers, lambda: self._user_loader)
        register_blueprint(app, service, lambda: self._stats_guard)
        app.extensions[EXTENSION] = self
        app.extensions[SERVICE] = service

    def guard(self, pattern: str) -> Callable[[GuardFunction], GuardFunction]:
        """Register a function that decides who may join the private and presence channels that `pattern` matches.

        It is called with `(user, channel, user_info)`, a `User`, a `ChannelName` and a dict, or with the first of
        these. It runs in its own app context and may block. `True`, `{"authorized": True}` and `allow(info)` allow;
        `deny(reason)`, `abort(403, reason)` and everything else deny.

        A pattern is compared with the channel's name and with its topic. `*` matches any characters. A converter of
        Werkzeug's, like in `"room-<int:room_id>"`, becomes a keyword argument.

        Raises `ValueError` if the pattern is not valid, and `TypeError` if the function cannot be called like this.
        """
        return self._register(self._guards, pattern)

    def message_guard(self, pattern: str) -> Callable[[MessageGuardFunction], MessageGuardFunction]:
        """Register a function that decides who may send to the channels that `pattern` matches, even public ones.

        It is called for every `channel:message` of a client, with `(user, channel, event, data)` or the first of these.
        `user` is `None` if the sender is anonymous, and `data` is decoded JSON. Patterns, answers and errors are those
        of `guard`. If no pattern matches, everyone in a channel may send.
        """
        return self._register(self._message_guards, pattern)

    @property
    def guards(self) -> list[GuardInfo]:
        """The registered guards: first those that decide who may join, then those that decide who may send. The guards
        of a kind are in the order in which they are tried."""
        return [*self._guards.list(), *self._message_guards.list()]

    @staticmethod
    def _register(registry: GuardRegistry, pattern: str) -> Callable[[F], F]:
        compiled = compile_pattern(pattern)  # raises here, before the function is known

        def register(function: F) -> F:
            registry.add(compiled, function)
            return function

        return register

    @overload
    def on(self, event: Literal["client.connected"]) -> Callable[[OnClientConnected], OnClientConnected]: ...
    @overload
    def on(self, event: Literal["client.disconnected"]) -> Callable[[OnClientDisconnected], OnClientDisconnected]: ...
    @overload
    def on(self, event: Literal["channel.joined"]) -> Callable[[OnChannelJoined], OnChannelJoined]: ...
    @overload
    def on(self, event: Literal["channel.left"]) -> Callable[[OnChannelLeft], OnChannelLeft]: ...
    @overload
    def on(self, event: Literal["member.joined"]) -> Callable[[OnMemberJoined], OnMemberJoined]: ...
    @overload
    def on(self, event: Literal["member.updated"]) -> Callable[[OnMemberUpdated], OnMemberUpdated]: ...
    @overload
    def on(self, event: Literal["member.left"]) -> Callable[[OnMemberLeft], OnMemberLeft]: ...
    @overload
    def on(self, event: Literal["message"]) -> Callable[[OnMessageSent], OnMessageSent]: ...
    def on(self, event: str) -> Callable[[F], F]:
        """Register a handler of the events with this name, like `"member.joined"`.

        It is called with the event after the change has taken effect, in its own app context. Handlers run in order of
        registration, and delay no frame. If one raises, the exception is logged.

        Raises `ValueError` if there is no such event, and `TypeError` if the function cannot be called with an event.
        """
        check_event_name(event)

        def register(function: F) -> F:
            self._handlers.add(event, function)
            return function

        return register

    def user_loader(self, function: LoaderFunction = _NO_FUNCTION) -> LoaderFunction:
        """Register the function that identifies users, in place of flask-jwt-extended.

        It takes no arguments, and runs in a request context that is made from the upgrade request. It returns a `User`,
        or `None` for an anonymous visitor. If it raises, the upgrade is refused with 401. It is called again every
        `PRESENCE_TOKEN_RECHECK` seconds while the connection is open.
        """
        self._user_loader = fit_arguments(_decorated(function, "user_loader"), 0, "a user_loader")
        return function

    def stats_guard(self, function: StatsGuardFunction = _NO_FUNCTION) -> StatsGuardFunction:
        """Register the function that decides who may see the pages.

        It takes no arguments, and runs in the page's request context. It answers like a guard.
        """
        self._stats_guard = fit_arguments(_decorated(function, "stats_guard"), 0, "a stats_guard")
        return function

    def get_channel(self, name: str) -> Channel | None:
        """The channel, with its members if it is a presence channel. `None` if nobody is in it."""
        return self._hub.directory.channel(name)

    def list_channels(self, type: ChannelType | None = None, prefix: str | None = None) -> list[Channel]:
        """All channels that somebody is in, oldest first, without their members.

        If `type` is given (`"public"`, `"private"` or `"presence"`), only channels of this type; if `prefix` is given,
        only those with names that begin with it. Raises `ValueError` for another type.
        """
        return self._hub.directory.channels(None if type is None else channel_type(type), prefix)

    def get_channel_members(self, name: str) -> list[Member]:
        """The members in order of joining. `[]` if the channel is unknown, public or private."""
        return self._hub.directory.members(name)

    def broadcast_to_channel(self, name: str, message: Any, exclude: str | None = None) -> int:
        """Send `message`, a JSON object, as it is to all connections in a channel. Returns their number.

        The connection with the client id `exclude` does not get it. `message` is encoded like Flask's own JSON. Raises
        `TypeError` if that is not possible, and `ValueError` if no channel can have this name; nothing is sent then.
        """
        payload = _json(message)
        if not bytes(payload).lstrip().startswith(b"{"):
            raise TypeError(f"a broadcast must be a JSON object, such as a dict, not {type(message).__name__}")
        return self._hub.directory.publish(arguments.channel_name(name), bytes(payload), exclude)

    def publish(self, name: str, event: str, data: Any, exclude: str | None = None) -> int:
        """Send a `channel:message` from the server to all connections in a channel. Returns their number.

        The connection with the client id `exclude` does not get it. `data` is encoded like Flask's own JSON. Raises
        `TypeError` if that is not possible, and `ValueError` if no channel can have this name, or if Pusher's protocol
        is on and `event` begins with `pusher:` or `pusher_internal:`; nothing is sent then.
        """
        self._check_event_name(event)
        raw = _json(data)
        message = wire.server_message(arguments.channel_name(name), event, raw, self._hub.clock.utc_now())
        return self._hub.directory.publish(name, message, exclude, keep=True)

    def get_channel_history(self, name: str, limit: int = 50, before: str | None = None) -> list[Message]:
        """The newest `limit` messages that a channel keeps, oldest first. `[]` if it keeps none.

        They are at most 256 KiB, beyond which the oldest are left out. With `before`, the id of a message, only those
        before it. Raises `ValueError` if `limit` is not from 1 to 1000, if `before` is not the id of a message, and if
        no channel can have this name.
        """
        if not isinstance(limit, int) or isinstance(limit, bool) or not 1 <= limit <= MAX_LIMIT:
            raise ValueError(f"limit must be a whole number from 1 to {MAX_LIMIT}, not {limit!r}")
        position = None if before is None else parse_position(before)
        if before is not None and position is None:
            raise ValueError(f"before must be the id of a message, not {before!r}")
        page = self._hub.directory.history(arguments.channel_name(name), limit, position)
        return [wire.read_kept(frame) for frame in page.messages]

    def clear_channel_history(self, name: str) -> int:
        """Forget the messages that a channel keeps. Returns how many there were. Raises `ValueError` if no channel can
        have this name."""
        return self._hub.directory.clear_history(arguments.channel_name(name))

    def get_channel_stats(self) -> Stats:
        """Counts of channels, members and connections, over all workers."""
        return self._hub.directory.stats()

    def disconnect(self, user_id: UserId | None = None, client_id: str | None = None, reason: str = "") -> int:
        """Close the connections of a user, or the one with a client id, with the close code 4403. Returns how many.

        This reaches all workers. The connections have left all channels when it returns, and the user's grace periods
        have ended. Clients get `reason`, cut to 123 bytes. Raises `ValueError` if neither id is given.
        """
        if user_id is None and client_id is None:
            raise ValueError("disconnect needs user_id or client_id")
        user = None if user_id is None else arguments.user_id(user_id)
        return self._hub.directory.disconnect(user, client_id, arguments.reason_text(reason))

    def send_to_user(self, user_id: UserId, event: str, data: Any) -> int:
        """Send a `user:message` to all connections of a user, on all workers. Returns their number.

        It does not matter which channels they are in. A user who is not connected misses it. `data` is encoded like
        Flask's own JSON. Raises `TypeError` if that is not possible, and `ValueError` for an `event` as `publish` does;
        nothing is sent then.
        """
        self._check_event_name(event)
        payload = wire.user_message(event, _json(data), self._hub.clock.utc_now())
        return self._hub.directory.send_to_user(arguments.user_id(user_id), payload)

    def is_online(self, user_id: UserId) -> bool:
        """Whether a user has an open connection on any worker. If a worker was killed, its connections count for up to
        `PRESENCE_LEASE` seconds more."""
        return self._hub.directory.is_online(arguments.user_id(user_id))

    def remove(self, name: str, user_id: UserId, reason: str = "") -> int:
        """Take all connections of a user out of a channel, on all workers. Returns how many.

        They get `channel:removed` with the `reason`, and may join again if the guard allows it. The user's grace period
        in the channel ends. Raises `ValueError` if no channel can have this name.
        """
        text = arguments.reason_text(reason)
        return self._hub.directory.remove(arguments.channel_name(name), arguments.user_id(user_id), text)

    def recheck(self, user_id: UserId | None = None, channel: str | None = None) -> int:
        """Verify logins and ask guards again, for the connections of a user, in a channel, or both, on all workers.

        Returns how many connections match, before they have been rechecked. A connection whose login has ended is
        closed with 4401. One that may no longer be in a channel leaves it and gets `channel:removed`. Owned info that a
        guard returns now takes effect. Raises `ValueError` if neither `user_id` nor `channel` is given, and if no
        channel can have this name.
        """
        if user_id is None and channel is None:
            raise ValueError("recheck needs user_id, channel or both")
        name = None if channel is None else arguments.channel_name(channel)
        return self._hub.directory.recheck(None if user_id is None else arguments.user_id(user_id), name)

    def drain(self) -> None:
        """Close all connections of this process with 1001, over at most `PRESENCE_DRAIN` seconds, and refuse new ones.

        Blocks until they are closed and their handlers have run. It is for servers other than gunicorn, whose workers
        do this by themselves when they are stopped.
        """
        self._service().drain()

    def test_client(
        self, user: User | UserId | None = None, app: Flask | None = None, http: FlaskClient | None = None
    ) -> TestClient:
        """Create a client without a socket, for tests. Use it in a `with` statement.

        `user` is a `User`, the id of one, or `None` for an anonymous client. With `http`, a client that
        `app.test_client()` has created, the connection is opened as by a browser that has the cookies of this client,
        through the origin check and the app's own login. `app` is by default the app of `http`, or the current app.
        Raises `TypeError` if `user` is something else, or if there is both `user` and `http`.
        """
        if isinstance(user, Flask):
            raise TypeError("the first argument is the user; write presence.test_client(app=app)")
        if user is not None and http is not None:
            raise TypeError("the login of http decides who the user is: give either user or http")
        if app is None:
            app = http.application if http is not None else _current_app()
        if user is not None and not isinstance(user, User):
            user = User(user)
        return TestClient(app, self._service(app), user, http)

    def _check_event_name(self, event: str) -> None:
        if not isinstance(event, str):
            raise TypeError(f"event must be a string, not {event!r}")
        _json(event)  # raises if UTF-8 cannot encode it
        if self._service().settings.pusher_key is not None and is_reserved_event(event):
            raise ValueError(
                f"event must not begin with {' or '.join(RESERVED_EVENTS)}, which Pusher's clients take for events of "
                f"the protocol itself: {event!r:.200}"
            )

    @property
    def _hub(self) -> Hub:
        service = self._service()
        service.warn_if_alone()
        return service.hub

    def _service(self, app: Flask | None = None) -> Service:
        app = app or _current_app()
        if app.extensions.get(EXTENSION) is not self:
            raise RuntimeError("the current app is not registered with this Presence: call presence.init_app(app)")
        service: Service = app.extensions[SERVICE]
        return service


def _current_app() -> Flask:
    app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]  # noqa: SLF001
    return app


def _decorated(function: F, name: str) -> F:
    if function is _NO_FUNCTION:
        raise TypeError(f"write @presence.{name} without parentheses")
    return function


def _json(value: Any) -> Raw:
    return encode_json(_current_app(), value)
