"""The requests of Pusher's clients, and their answers.

Rule: a signature decides who may subscribe, and who the connection's user is. Everything else is up to the native
dialect's limits and message guards. A frame that is not understood changes nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, Protocol, TypeVar

import msgspec

from ...domain import wire as native
from ...domain.channels import ChannelName
from ...domain.errors import (
    BackendUnavailable,
    Forbidden,
    InternalError,
    InvalidRequest,
    JoinFailed,
    NotInChannel,
    OutcomeUnknown,
    RateLimitExceeded,
    RequestError,
    SendFailed,
    Unauthorized,
    UnknownMessageType,
)
from ...domain.events import Reason
from ...domain.history import NO_REPLAY, Replay
from ...domain.limits import RateLimit
from ...domain.members import NO_INFO, User
from ...domain.meter import Meter
from ...domain.pusher import names, wire
from ...domain.pusher.data import value_of_any
from ...domain.pusher.users import SignedUser, read_channel_data, read_user_data
from ...domain.roster import Joined
from ...domain.text import is_utf8
from ...loops.pending import Outcome, Pending, then
from ..clock import Clock
from ..fanout import FanOut
from ..joins import Joins
from ..membership import SessionMembership
from ..offload import Offload
from ..ports import Policy, PusherPolicy
from ..requests import Requests
from ..session import Session
from .dialect import BAD_REQUEST, COME_BACK_LATER, EVENT_REFUSED, NOT_AUTHORIZED, PusherDialect
from .reconnects import Reconnects
from .refusals import Refused, limit_reached, not_subscribed, refused
from .session import PusherSession

T = TypeVar("T", bound=msgspec.Struct)

Answer = Sequence[bytes] | Pending[Any]
"""Frames, as JSON, perhaps later."""

NOTHING: Final[Sequence[bytes]] = ()

CACHE_DEPTH: Final = 200
"""Among how many of the newest kept messages the cached event is looked for: those of clients may come after it."""
USER_REQUIRED_AFTER: Final = 30.0
"""Seconds that a connection may stay without a user, if `PRESENCE_AUTH_REQUIRED` is set."""

UNAVAILABLE: Final = "Temporarily unavailable"

log = logging.getLogger("flask_presence")


class PusherHub(Protocol):
    """The hub, as the requests of this dialect see it."""

    meter: Meter
    clock: Clock
    sessions: dict[str, Session]

    def disconnected(self, session: Session, code: int, reason: Reason) -> None:
        """The session's connection has ended."""

    def identify(self, session: Session, user: User) -> None:
        """The session belongs to this user from now on."""


class PusherRequests:
    """Creates the sessions of this dialect, and answers their requests."""

    def __init__(
        self,
        policy: Policy,
        pusher: PusherPolicy,
        fan_out: FanOut,
        requests: Requests,
        joins: Joins,
        membership: SessionMembership,
        offload: Offload,
        hub: PusherHub,
    ) -> None:
        self.policy = policy
        self.meter = hub.meter
        self.clock = hub.clock
        self.disconnected = hub.disconnected
        self.answer = fan_out.answer
        self._pusher = pusher
        self._signer = pusher.signer
        self._dialect = PusherDialect(pusher.activity_timeout)
        self._fan_out = fan_out
        self._requests = requests
        self._joins = joins
        self._membership = membership
        self._offload = offload
        self._hub = hub
        self._reconnects = Reconnects(offload, hub.clock)
        self.recheck = self._reconnects.recheck
        self._user_required_at: dict[str, float] = {}  # in epoch seconds, by client id, the earliest first
        self._steps: dict[str, Callable[[PusherSession, wire.Request], Answer]] = {
            "pusher:subscribe": self._subscribe,
            "pusher:unsubscribe": self._unsubscribe,
            "pusher:signin": self._sign_in,
            "pusher:ping": lambda _session, _request: (wire.pong(),),
            "pusher:pong": lambda _session, _request: NOTHING,
        }

    def session(self) -> PusherSession:
        """A new session, which nobody sees before the hub's `connected`."""
        rate = self._pusher.client_events
        limit = RateLimit(*rate, self.clock.monotonic()) if rate is not None else None
        return PusherSession(self, self._dialect, limit)

    def opened(self, session: Session) -> None:
        """Note that the session's connection is open."""
        if self._pusher.user_required:
            self._user_required_at[session.id] = self.clock.epoch() + USER_REQUIRED_AFTER

    def tick(self, now: float) -> None:
        """At `now`, in epoch seconds, close the connections that should have a user by now."""
        while self._user_required_at:
            client_id, due = next(iter(self._user_required_at.items()))
            if now < due:
                return
            del self._user_required_at[client_id]
            session = self._hub.sessions.get(client_id)
            if session is not None and session.user is None:
                session.close(NOT_AUTHORIZED, "Connection not authorized within timeout", "expired")

    def handle(self, session: Session, payload: bytes, is_text: bool, admitted: bool) -> None:
        """Answer a frame now, or mark the session busy until it is answered. See `Handle`."""
        assert isinstance(session, PusherSession), "other sessions have other owners"
        self._answer(session, partial(self._step, session, payload, is_text=is_text, admitted=admitted))

    def _step(self, session: PusherSession, payload: bytes, *, is_text: bool, admitted: bool) -> Answer:
        if not admitted:
            raise RateLimitExceeded
        request = wire.read_request(payload) if is_text or is_utf8(payload) else None
        if request is None:
            raise refused(
                BAD_REQUEST, "A JSON object with event, data and perhaps channel was expected", InvalidRequest
            )
        step = self._steps.get(request.event)
        if step is None and request.event.startswith(names.CLIENT_EVENT):
            step = self._client_event
        if step is None:
            raise refused(BAD_REQUEST, f"Unknown event: {request.event[: native.MAX_ECHO]}", UnknownMessageType)
        return step(session, request)

    def _answer(self, session: PusherSession, step: Callable[[], Answer]) -> None:
        """Run a step, and send its answer, or its refusal, when there is one."""
        try:
            answer = step()
        except Refused as refusal:
            self._refuse(session, refusal)
        except RateLimitExceeded as problem:
            self._refuse(session, refused(EVENT_REFUSED, problem.message, RateLimitExceeded))
        except Exception as problem:
            self._log_fault(session, problem)
            self._refuse(session, refused(EVENT_REFUSED, InternalError.default, InternalError))
        else:
            if isinstance(answer, Pending):
                session.busy = True
                answer.when(partial(self._resume, session))
            else:
                for frame in answer:
                    self._fan_out.answer(session, frame)

    def _log_fault(self, session: PusherSession, problem: Exception) -> None:
        self._offload.spawn(partial(log.error, "a request of client %s failed", session.id, exc_info=problem))

    def _resume(self, session: PusherSession, step: Outcome[Answer]) -> None:
        if session.is_open:
            self._answer(session, step)
        self._joins.answered(session)
        session.finish()

    def _refuse(self, session: PusherSession, refusal: Refused) -> None:
        self.meter.errors[refusal.counts_as.code] += 1
        if refusal.close is not None:
            session.close(*refusal.close, "closed")
        else:
            self._fan_out.answer(session, refusal.frame)

    def _subscribe(self, session: PusherSession, request: wire.Request) -> Answer:
        wanted = _data(request, wire.Subscribe, "pusher:subscribe needs data with a channel, and perhaps auth")
        user_id = names.addressed_user(wanted.channel)
        if user_id is not None:
            return self._subscribe_to_user(session, wanted.channel, user_id)
        if not names.is_channel_name(wanted.channel):
            text = "A channel name has 1 to 200 letters, digits and characters of _-=@,.;"
            raise not_subscribed(wanted.channel, text, 400, "InvalidChannel", InvalidRequest)
        channel = ChannelName(wanted.channel)
        signed = self._check_access(session, channel, wanted)
        limit = self.policy.max_channels
        if channel not in session.channels and len(session.channels) >= limit:
            raise limit_reached(channel, f"A connection may be in at most {limit} channels")
        if signed is not None:
            too_large = signed.check(self.policy.max_user_info)
            if too_large:
                raise limit_reached(channel, too_large)
            self._identify(session, signed)
        return self._enter(session, channel, signed)

    def _subscribe_to_user(self, session: PusherSession, address: str, user_id: str) -> Answer:
        if session.signed_in is None or session.signed_in.id != user_id:
            raise not_subscribed(address, "Only a connection that has signed in as this user may subscribe", 403)
        session.hears_user = True
        return (wire.subscription_succeeded(address),)

    def _check_access(self, session: PusherSession, channel: ChannelName, wanted: wire.Subscribe) -> SignedUser | None:
        """Check the signature, if the channel needs one. Returns the user to list, if the channel lists users."""
        if channel.type == "public":
            if self._pusher.user_required and session.user is None:
                raise not_subscribed(channel, "Sign in first", 401, counts_as=Unauthorized)
            return None
        if not self._signer.allows_channel(wanted.auth or "", session.id, channel, wanted.channel_data):
            raise not_subscribed(channel, "Invalid signature", 401, counts_as=Unauthorized)
        if channel.type != "presence":
            self._reconnects.check_age(session, session.user_id, channel)
            return None
        signed = session.signed_in if wanted.channel_data is None else read_channel_data(wanted.channel_data)
        if signed is None:
            text = "channel_data must be the JSON of an object with a user_id, and perhaps a user_info"
            raise not_subscribed(channel, text, 400, counts_as=InvalidRequest)
        if session.user is not None and session.user.id != signed.id:
            raise not_subscribed(channel, "This connection belongs to another user", 409)
        self._reconnects.check_age(session, signed.id, channel)
        return signed

    def _identify(self, session: PusherSession, signed: SignedUser) -> None:
        """Note that the connection belongs to the user that a signer has named."""
        if session.user is None:
            self._hub.identify(session, signed.user)
            self._user_required_at.pop(session.id, None)

    def _enter(self, session: PusherSession, channel: ChannelName, signed: SignedUser | None) -> Answer:
        replay = NO_REPLAY
        if names.is_cache(channel) and self._fan_out.keeps(channel):
            session.pay_for(CACHE_DEPTH)
            replay = Replay(None, CACHE_DEPTH)
        user, info = (signed.member_user, signed.info) if signed is not None else (None, NO_INFO)
        enter = partial(self._joins.enter_signed, session, channel, user, info, replay, _subscribed)

        def answer(outcome: Outcome[Any]) -> Answer:
            try:
                entered: Answer | None = outcome()
            except JoinFailed as problem:
                raise limit_reached(channel, problem.message) from None
            except BackendUnavailable:
                raise refused(COME_BACK_LATER, UNAVAILABLE, JoinFailed, close=True) from None
            except Exception as problem:
                self._log_fault(session, problem)
                text = InternalError.default
                raise not_subscribed(channel, text, 500, "ServerError", InternalError) from None
            if isinstance(entered, Pending):
                return entered.then(answer)
            return NOTHING if entered is None else entered

        return answer(enter)

    def _unsubscribe(self, session: PusherSession, request: wire.Request) -> Answer:
        name = _data(request, wire.Unsubscribe, "pusher:unsubscribe needs data with a channel").channel
        if session.signed_in is not None and name == names.user_address(session.signed_in.id):
            session.hears_user = False
        channel = session.channels.get(name)
        if channel is None:
            return NOTHING
        return then(self._membership.leave(session, channel, "left"), _nothing_after)

    def _sign_in(self, session: PusherSession, request: wire.Request) -> Answer:
        wanted = _data(request, wire.SignIn, "pusher:signin needs data with auth and user_data")
        signed = read_user_data(wanted.user_data)
        if not self._signer.allows_user(wanted.auth, session.id, wanted.user_data):
            raise refused(NOT_AUTHORIZED, "Invalid signature", Unauthorized, close=True)
        if signed is None:
            text = "user_data must be the JSON of an object with an id, a string, and perhaps a user_info"
            raise refused(NOT_AUTHORIZED, text, Unauthorized, close=True)
        if session.user is not None and session.user.id != signed.id:
            raise refused(NOT_AUTHORIZED, "This connection belongs to another user", Unauthorized, close=True)
        self._reconnects.check_age(session, signed.id, None)
        self._identify(session, signed)
        session.signed_in = signed
        return (wire.signin_success(wanted.user_data),)

    def _client_event(self, session: PusherSession, request: wire.Request) -> Answer:
        if request.channel is None or request.data is native.ABSENT:
            raise refused(BAD_REQUEST, "A client event needs a channel and data", InvalidRequest)
        channel, limit = ChannelName(request.channel), session.event_limit
        if not session.is_in(channel):
            raise refused(EVENT_REFUSED, "Subscribe to the channel before you send client events", NotInChannel)
        if channel.type == "public" or names.is_encrypted(channel):
            text = "Client events are only for private and presence channels that are not encrypted"
            raise refused(EVENT_REFUSED, text, Forbidden)
        if limit is not None and not limit.admit(self.clock.monotonic()):
            raise refused(EVENT_REFUSED, "Too many client events", RateLimitExceeded)
        event, data = request.event.removeprefix(names.CLIENT_EVENT), value_of_any(request.data)
        message = native.Message(channel=request.channel, event=event, data=data)
        return _relayed(partial(self._requests.message, session, message))


def _relayed(step: Callable[[], Any]) -> Answer:
    """Nothing, once a message has been sent. Raises `Refused` if it could not be."""
    try:
        sending = step()
    except OutcomeUnknown:
        raise refused(EVENT_REFUSED, "Delivery unknown", SendFailed) from None
    except BackendUnavailable:
        raise refused(EVENT_REFUSED, UNAVAILABLE, SendFailed) from None
    except RequestError as problem:
        raise refused(EVENT_REFUSED, problem.message, type(problem)) from None
    return sending.then(_relayed) if isinstance(sending, Pending) else NOTHING


def _nothing_after(outcome: Outcome[object]) -> Answer:
    """Nothing, unless an exception came."""
    outcome()
    return NOTHING


def _subscribed(channel: ChannelName, joined: Joined) -> Answer:
    """The answer to a subscription; in a cache channel, followed by the last event of the server, if it is kept."""
    succeeded = wire.subscription_succeeded(channel, joined.members)
    if not names.is_cache(channel):
        return (succeeded,)
    kept = joined.replayed.messages if joined.replayed is not None else None
    cached = next((frame for frame in reversed(kept or ()) if wire.is_from_server(frame)), None)
    return (succeeded, wire.cache_miss(channel) if cached is None else wire.channel_frame(channel, cached))


def _data(request: wire.Request, kind: type[T], expected: str) -> T:
    """The data of a request. Raises `Refused` if it is not of this kind."""
    data = wire.read_data(request.data, kind)
    if data is None:
        raise refused(BAD_REQUEST, expected, InvalidRequest)
    return data
