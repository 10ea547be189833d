"""The app's own code, as the hub calls it: guards and event handlers.

Law: each call has a fresh app context of its own, torn down when it is over; nothing that a guard does but
a plain yes lets anybody in, and nothing that it raises is sent.
"""

from __future__ import annotations

import copy
import dataclasses
import logging
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from flask import Flask

from .auth import Authenticator, hint
from .complaints import Complaints
from .domain.callables import discard_coroutine, name_of, with_leading_arguments
from .domain.channels import ChannelName
from .domain.errors import CredentialRejected
from .domain.events import EVENT_NAMES, Event, check_event_name
from .domain.guards import Guard, GuardRegistry, Verdict, read_verdict
from .domain.members import User
from .hub.ports import Credential
from .signals import SIGNALS
from .stalls import StallWatch

Handler = Callable[[Any], object]


class HandlerRegistry:
    """The event handlers of one `Presence`, in order of registration."""

    def __init__(self) -> None:
        self._handlers: dict[str, list[Handler]] = {name: [] for name in EVENT_NAMES}

    def add(self, event_name: str, handler: Handler) -> None:
        """`ValueError` for an event that does not exist, `TypeError` for what cannot be called with an event."""
        check_event_name(event_name)
        self._handlers[event_name].append(with_leading_arguments(handler, 1, "a handler"))

    def of(self, event_name: str) -> list[Handler]:
        return self._handlers[event_name]


class FlaskApplication:
    """What the hub asks of one app."""

    def __init__(
        self,
        app: Flask,
        authenticator: Authenticator,
        guards: GuardRegistry,
        handlers: HandlerRegistry,
        stalls: StallWatch,
    ) -> None:
        self._app = app
        self._authenticator = authenticator
        self._guards = guards
        self._handlers = handlers
        self._stalls = stalls
        self._complaints = Complaints()

    def identify(self, token: str) -> Credential:
        return self._authenticator.verify(token)

    def authorize(
        self, token: str | None, user: User | None, channel: ChannelName, user_info: Mapping[str, Any]
    ) -> Verdict:
        guard = self._guards.find(channel) if channel.type != "public" else None
        if guard is None and token is None:
            return Verdict(True)
        with self._authenticator.context(token):
            return Verdict(True) if guard is None else self._ask(guard, user, channel, user_info)

    def _ask(self, guard: Guard, user: User | None, channel: ChannelName, user_info: Mapping[str, Any]) -> Verdict:
        name = f"guard {getattr(guard, '__module__', '')}.{name_of(guard)}"
        began = time.monotonic()
        try:
            with self._stalls.calling(guard, name):
                answer = guard(_copied(user), channel, user_info)
        except BaseException as problem:  # gevent.Timeout and SystemExit deny like the others
            text = f"%s failed; %.200r was denied{hint(self._app, problem)}"
            self._complaints.complain(name, logging.ERROR, text, name, str(channel), problem=problem)
            return Verdict(False, mistake="it raised", seconds=time.monotonic() - began)
        verdict = dataclasses.replace(read_verdict(answer), seconds=time.monotonic() - began)
        if verdict.mistake:
            text = "%s denied %.200r: %s"
            self._complaints.complain(name, logging.ERROR, text, name, str(channel), verdict.mistake)
        return verdict

    def listens(self, event_name: str) -> bool:
        return bool(self._handlers.of(event_name)) or bool(SIGNALS[event_name].receivers)

    def notify(self, event: Event, token: str | None) -> None:
        for handler in self._handlers.of(event.name):
            self._call(handler, event, token, f"handler {name_of(handler)}")
        for receiver in SIGNALS[event.name].receivers_for(self._app):
            self._call(partial(self._tell, receiver), event, token, f"receiver {name_of(receiver)}")

    def _tell(self, receiver: Callable[..., object], event: Event) -> object:
        return receiver(self._app, event=event)

    def _call(self, handler: Handler, event: Event, token: str | None, name: str) -> None:
        try:
            with self._authenticator.context(token), self._stalls.calling(handler, name):
                answer = handler(event)
            if discard_coroutine(answer):
                text = "%s gave a coroutine at %s, which nobody awaits; a handler is an ordinary function"
                self._complaints.complain(name, logging.ERROR, text, name, event.name)
        except CredentialRejected:
            self._call(handler, event, None, name)
        except BaseException as problem:
            text = f"%s failed at %s of client %s{hint(self._app, problem)}"
            self._complaints.complain(name, logging.ERROR, text, name, event.name, event.client_id, problem=problem)


def _copied(user: User | None) -> User | None:
    return user and dataclasses.replace(user, claims=copy.deepcopy(dict(user.claims)))
