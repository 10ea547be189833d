"""Calls the app's own code for the hub: guards and event handlers.

Rule: each call has its own app context, which is torn down after it. Only a plain yes of a guard allows; if a guard
raises, that denies, and clients never see the exception's text.
"""

from __future__ import annotations

import copy
import dataclasses
import logging
import re
import time
import traceback
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from flask import Flask
from werkzeug.exceptions import Forbidden

from ..domain.callables import discard_coroutine, fit_arguments, name_of
from ..domain.channels import ChannelName
from ..domain.errors import CredentialRejected
from ..domain.events import EVENT_NAMES, Event, check_event_name, decode_data
from ..domain.frozen import is_constant
from ..domain.guards import GuardRegistry, Match, Verdict, deny, read_verdict
from ..domain.members import User
from ..hub.ports import Credential, Login
from ..signals import SIGNALS
from .auth import Authenticator, hint
from .json_encoding import encode_json
from .log_throttle import LogThrottle
from .stall_watch import StallWatch
from .webhooks import Webhooks

Handler = Callable[[Any], object]

_VALUES: Final = re.compile(", not |: ")
"""What comes before a value in the description of a mistake."""


class HandlerRegistry:
    """The event handlers of one `Presence`, in order of registration."""

    def __init__(self) -> None:
        self._handlers: dict[str, list[Handler]] = {name: [] for name in EVENT_NAMES}

    def add(self, event_name: str, handler: Handler) -> None:
        """Register a handler. Raises `ValueError` if there is no such event, and `TypeError` if `handler` cannot be
        called with an event."""
        check_event_name(event_name)
        self._handlers[event_name].append(fit_arguments(handler, 1, "a handler"))

    def of(self, event_name: str) -> list[Handler]:
        return self._handlers[event_name]


class FlaskApplication:
    """One app, as the hub sees it. See `hub.ports.Application`."""

    def __init__(
        self,
        app: Flask,
        authenticator: Authenticator,
        guards: GuardRegistry,
        message_guards: GuardRegistry,
        handlers: HandlerRegistry,
        stall_watch: StallWatch,
        webhooks: Webhooks | None = None,
    ) -> None:
        self._app = app
        self._authenticator = authenticator
        self._guards = guards
        self._message_guards = message_guards
        self._handlers = handlers
        self._stall_watch = stall_watch
        self._webhooks = webhooks
        self._log_throttle = LogThrottle()

    def identify(self, token: str) -> Credential:
        return self._authenticator.verify(token)

    @property
    def has_user_loader(self) -> bool:
        return self._authenticator.has_user_loader

    def load_user(self, upgrade: bytes) -> User | None:
        return self._authenticator.load_user(upgrade)

    def authorize(self, login: Login, user: User | None, channel: ChannelName, user_info: Mapping[str, Any]) -> Verdict:
        match = self._guards.find(channel) if channel.type != "public" else None
        if match is None and login is None:
            return Verdict(True)
        return self._decide(login, match, channel, _copied(user), channel, user_info)

    def has_message_guard(self, channel: ChannelName) -> bool:
        return self._message_guards.find(channel) is not None

    @property
    def message_guards_version(self) -> int:
        return self._message_guards.version

    def authorize_message(
        self, login: Login, user: User | None, channel: ChannelName, event: str, data: bytes
    ) -> Verdict:
        match = self._message_guards.find(channel)
        if match is None:
            return Verdict(True)
        try:
            decoded = decode_data(data)
        except ValueError:
            return Verdict(False, "A number in the data has too many digits")
        return self._decide(login, match, channel, _copied(user), channel, event, decoded)

    def _decide(self, login: Login, match: Match | None, channel: ChannelName, *arguments: Any) -> Verdict:
        """Ask the guard, in a context with the login. An error while the login is verified is raised. Any later error
        denies, including one while the context is torn down."""
        began, is_verified = time.monotonic(), False
        try:
            with self._authenticator.context(login):
                is_verified = True
                return Verdict(True) if match is None else self._ask(match, channel, *arguments)
        except BaseException as problem:  # gevent.Timeout and SystemExit deny like the others
            if not is_verified:
                raise
            name = _guard_name(match)
            text = f"%s failed; %.200r was denied{hint(self._app, problem)}"
            self._log_throttle.log(_kind(name, problem), logging.ERROR, text, name, str(channel), problem=problem)
            return Verdict(False, mistake="it raised", seconds=time.monotonic() - began)

    def _ask(self, match: Match, channel: ChannelName, *arguments: Any) -> Verdict:
        guard = match.guard
        if guard is None:
            text = "%.200r does not have the form that the guard pattern %r expects, so everyone is denied"
            self._log_throttle.log(f"near {match.pattern.text}", logging.INFO, text, str(channel), match.pattern.text)
            return Verdict(False, seconds=0)
        name = _guard_name(match)
        began = time.monotonic()
        try:
            with self._stall_watch.calling(guard, name):
                answer = guard(*arguments, **match.arguments)
        except Forbidden as refusal:  # abort(403), perhaps with a reason
            answer = deny(refusal.description if "description" in vars(refusal) else None)
        verdict = read_verdict(answer, partial(encode_json, self._app))
        verdict = dataclasses.replace(verdict, seconds=time.monotonic() - began)
        if verdict.mistake:
            text = "%s allowed %.200r: %s" if verdict.allowed else "%s denied %.200r: %s"
            kind = f"{name}: {_VALUES.split(verdict.mistake)[0]}"
            self._log_throttle.log(kind, logging.ERROR, text, name, str(channel), verdict.mistake)
        return verdict

    def listens(self, event_name: str) -> bool:
        is_reported = self._webhooks is not None and self._webhooks.reports(event_name)
        return is_reported or self.has_handlers(event_name)

    def has_handlers(self, event_name: str) -> bool:
        return bool(self._handlers.of(event_name)) or bool(SIGNALS[event_name].receivers)

    def observe(self, event: Event) -> None:
        if self._webhooks is not None:
            self._webhooks.add(event)

    def notify(self, event: Event, login: Login) -> None:
        for handler in self._handlers.of(event.name):
            self._call(handler, event, login, f"handler {name_of(handler)}")
        for receiver in SIGNALS[event.name].receivers_for(self._app):
            self._call(partial(self._send_signal, receiver), event, login, f"receiver {name_of(receiver)}")

    def _send_signal(self, receiver: Callable[..., object], event: Event) -> object:
        return receiver(self._app, event=event)

    def _call(self, handler: Handler, event: Event, login: Login, name: str) -> None:
        try:
            with self._authenticator.context(login), self._stall_watch.calling(handler, name):
                answer = handler(event)
            if discard_coroutine(answer):
                text = "%s returned a coroutine for %s, which nothing awaits; a handler is an ordinary function"
                self._log_throttle.log(name, logging.ERROR, text, name, event.name)
        except CredentialRejected:
            self._call(handler, event, None, name)  # the login has ended; the event is still to be handled
        except BaseException as problem:
            text = f"%s failed on %s of client %s{hint(self._app, problem)}"
            kind = _kind(name, problem)
            self._log_throttle.log(kind, logging.ERROR, text, name, event.name, event.client_id, problem=problem)


def _kind(name: str, problem: BaseException) -> str:
    """The kind of a log line: what failed, with which exception, at which line. Clients cannot make up new kinds."""
    *_, (frame, line) = traceback.walk_tb(problem.__traceback__)
    return f"{name}: {type(problem).__qualname__} at {frame.f_code.co_filename}:{line}"


def _guard_name(match: Match | None) -> str:
    guard = match.guard if match is not None else None
    return "the login's check" if guard is None else f"guard {getattr(guard, '__module__', '')}.{name_of(guard)}"


def _copied(user: User | None) -> User | None:
    """The user for a function of the app, which may change what the app itself has put into the claims."""
    if user is None or (type(user) is User and is_constant(user.claims)):
        return user
    return dataclasses.replace(user, claims=copy.deepcopy(dict(user.claims)))
