"""The requests of the protocol and their answers.

Rule: every frame gets exactly one answer, whatever it holds. The application is asked off the event loop, while the
connection's later frames wait. Its verdict takes effect in the loop, and only if the connection is still there.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Final, Protocol, TypeVar

from ..backends.base import Backend
from ..domain import wire
from ..domain.channels import Channel, ChannelName
from ..domain.errors import (
    BackendUnavailable,
    ChannelsDisabled,
    CredentialRejected,
    Forbidden,
    InvalidJSON,
    InvalidRequest,
    NotFound,
    NotInChannel,
    NotMember,
    OutcomeUnknown,
    RateLimitExceeded,
    RequestError,
    SendFailed,
    Unauthorized,
    UpdateFailed,
)
from ..domain.events import MessageSent
from ..domain.guards import Verdict
from ..domain.history import DEFAULT_LIMIT, Page, Published, parse_position
from ..domain.members import client_info
from ..domain.roster import Updated
from ..domain.text import is_utf8
from ..domain.timestamps import from_epoch, isoformat
from ..loops.pending import Outcome, Pending, raising, then, throw
from .clock import Clock
from .fanout import FanOut
from .handlers import EventDispatcher
from .joins import Answer, Joins
from .logins import LoginWatch
from .membership import SessionMembership
from .offload import Offload
from .ports import Application, Credential, Policy
from .session import Session, Turn

T = TypeVar("T")
Step = Callable[[], Answer]

MAX_TURNS: Final = 256
"""How many messages of one connection may be on their way to the backend at once."""

log = logging.getLogger("flask_presence")


class LoginOwner(Protocol):
    """What the hub does about a session's login."""

    @property
    def rechecks_begun(self) -> int:
        """How many rechecks have begun."""

    def adopt(self, session: Session, credential: Credential) -> None:
        """Give the session a new token."""

    def recheck_if_stale(self, session: Session, rechecks_begun: int) -> None:
        """Recheck the session if `rechecks_begun` has grown since it had that value."""


class Requests:
    """Answers the requests of all sessions."""

    def __init__(
        self,
        application: Application,
        backend: Backend,
        policy: Policy,
        fan_out: FanOut,
        membership: SessionMembership,
        events: EventDispatcher,
        joins: Joins,
        logins: LoginWatch,
        offload: Offload,
        owner: LoginOwner,
        clock: Clock,
    ) -> None:
        self._application = application
        self._backend = backend
        self._policy = policy
        self._fan_out = fan_out
        self._membership = membership
        self._events = events
        self._joins = joins
        self._logins = logins
        self._offload = offload
        self._owner = owner
        self._clock = clock
        self._meter = fan_out.meter
        self._steps: dict[type[wire.Request], Callable[[Session, Any], Answer]] = {
            wire.Join: joins.join,
            wire.Leave: self._leave,
            wire.Message: self.message,
            wire.Update: self._update,
            wire.History: self._history,
            wire.Ping: self._ping,
            wire.Auth: self._auth,
        }

    def handle(self, session: Session, payload: bytes, is_text: bool, admitted: bool) -> None:
        """Answer a frame now, or mark the session busy until it is answered. See `Handle`."""
        request = self._read(payload, is_text, admitted)
        if session.turns and not (self._is_pipelined(request) and len(session.turns) < MAX_TURNS):
            session.put_back(payload, is_text=is_text, admitted=admitted)
        elif isinstance(request, wire.Rejected):
            self._refuse(session, request.error, request.requestId)
        else:
            step = partial(self._steps[type(request)], session, request)
            if session.turns:
                self._take_turn(session, request, step)
            else:
                self._answer(session, request, step)

    def _read(self, payload: bytes, is_text: bool, admitted: bool) -> wire.Request | wire.Rejected:
        if not admitted:
            return wire.Rejected(RateLimitExceeded(), wire.read_request_id(payload))
        if not is_text and not is_utf8(payload):
            return wire.Rejected(InvalidJSON())
        request = wire.decode_request(payload)
        if not self._policy.enabled and request.concerns_channels:
            return wire.Rejected(ChannelsDisabled(), request.requestId)
        return request

    def _answer(self, session: Session, request: wire.Request, step: Step) -> None:
        try:
            frame = step()
        except RequestError as problem:
            self._refuse(session, problem, request.requestId)
        except BackendUnavailable as problem:
            error = SendFailed if isinstance(request, wire.Message) else request.fault
            if isinstance(request, wire.Message) and isinstance(problem, OutcomeUnknown):
                # Without a `messageId`, a second attempt might deliver it twice.
                is_repeatable = request.messageId is not None and self._fan_out.is_kept(request.channel or "")
                self._refuse(session, SendFailed("Delivery unknown", retryable=is_repeatable), request.requestId)
            else:
                self._refuse(session, error("Temporarily unavailable", retryable=True), request.requestId)
        except Exception as problem:
            self._log_fault(session, request, problem)
            self._refuse(session, request.fault("Internal error"), request.requestId)
        else:
            if not isinstance(frame, Pending):
                if frame is not None:
                    self._fan_out.answer(session, wire.answer(frame, request.requestId))
            elif self._is_pipelined(request):
                self._take_turn(session, request, lambda: frame)
            else:
                session.busy = True
                frame.when(partial(self._resume, session, request))

    def _is_pipelined(self, request: object) -> bool:
        """Whether the next message may start before this request is answered. If a guard decides, it may not: the guard
        may be slow, and the next message would overtake it."""
        return isinstance(request, wire.Message) and not self._fan_out.is_guarded(request.channel or "")

    def _resume(self, session: Session, request: wire.Request, step: Outcome[wire.Frame | None]) -> None:
        if session.is_open:
            self._answer(session, request, step)
        if isinstance(request, wire.Join):
            self._joins.answered(session)
        session.finish()

    def _take_turn(self, session: Session, request: wire.Request, step: Step) -> None:
        """Start a message while earlier ones are on their way. The backend keeps their order, and so do the answers."""
        turn = Turn(request)
        if session.turns is None:
            session.turns = deque()
        session.turns.append(turn)
        try:
            answer = step()
        except Exception as problem:
            self._end_turn(session, turn, raising(problem))
        else:
            then(answer, partial(self._end_turn, session, turn))

    def _end_turn(self, session: Session, turn: Turn, outcome: Outcome[wire.Frame | None]) -> None:
        turn.outcome = outcome
        while session.turns and session.turns[0].outcome is not None:
            first = session.turns.popleft()
            if session.is_open and first.outcome is not None:
                self._answer(session, first.request, first.outcome)
        if not session.turns:
            session.turns = None
            session.finish()

    def _refuse(self, session: Session, problem: RequestError, request_id: Any) -> None:
        self._meter.errors[problem.code] += 1
        self._fan_out.answer(session, wire.answer(wire.error(problem), request_id))

    def _log_fault(self, session: Session, request: wire.Request, problem: Exception) -> None:
        kind = type(request).__struct_config__.tag
        self._offload.spawn(partial(log.error, "%s of client %s failed", kind, session.id, exc_info=problem))

    def _leave(self, session: Session, request: wire.Leave) -> Answer:
        channel = ChannelName.parse(request.channel or "")
        if channel not in session.channels:
            return then(self._look_up(channel), lambda found: throw(NotMember() if found() else NotFound()))

        def left(outcome: Outcome[bool]) -> wire.Frame:
            outcome()
            return wire.Left(channel=str(channel))

        return then(self._membership.leave(session, channel, "left"), left)

    def _look_up(self, channel: ChannelName) -> Channel | Pending[Channel | None] | None:
        return self._query(lambda: self._backend.get(channel))

    def _query(self, query: Callable[[], T]) -> T | Pending[T]:
        """The backend's answer to a query, which may block."""
        return self._offload.ask(query) if self._backend.blocking else query()

    def message(self, session: Session, request: wire.Message) -> Answer:
        """Send a message of the session, if it may. Returns the answer, or `None` if the session has ended."""
        name = request.channel or ""
        if not session.is_in(name):
            ChannelName.parse(name)
            raise NotInChannel
        channel = session.channels[name]
        if self._fan_out.is_guarded(name):
            return self._offload.ask(lambda: self._authorize_message(session, channel, request)).then(
                lambda verdict: self._send_if(verdict(), session, channel, request)
            )
        return self._send(session, channel, request)

    def _authorize_message(self, session: Session, channel: ChannelName, request: wire.Message) -> Verdict | None:
        """Like `_authorize`."""
        data = bytes(request.data)
        try:
            return self._application.authorize_message(session.login, session.user, channel, request.event, data)
        except CredentialRejected:
            return None

    def _send_if(
        self, verdict: Verdict | None, session: Session, channel: ChannelName, request: wire.Message
    ) -> Answer:
        if not self._logins.confirmed_by(verdict, session):
            return None
        assert verdict is not None
        if not session.is_in(channel):
            raise NotInChannel  # it was removed meanwhile
        if not verdict.allowed:
            raise Forbidden(verdict.reason)
        return self._send(session, channel, request)

    def _send(self, session: Session, channel: ChannelName, request: wire.Message) -> Answer:
        name = str(channel)
        now = self._clock.utc_now()
        payload = wire.channel_message(name, request.event, request.data, session.id, session.user, now)
        if self._fan_out.is_kept(name):
            return self._send_kept(session, channel, request, payload)
        delivered = self._backend.publish(name, payload, session.id)
        if isinstance(delivered, Pending):
            return delivered.then(lambda outcome: self._sent(session, channel, request, outcome()))
        return self._sent(session, channel, request, delivered)

    def _send_kept(self, session: Session, channel: ChannelName, request: wire.Message, payload: bytes) -> Answer:
        """Send a message in a channel that keeps it. A message that is repeated raises no event."""
        key = None
        if request.messageId is not None:  # what one user has sent, another cannot repeat
            kind, sender = ("client", session.id) if session.user is None else ("user", session.user.id)
            key = f"{kind} {len(sender)} {sender} {request.messageId}"

        def sent(outcome: Outcome[Published]) -> wire.Frame:
            published = outcome()
            if published.is_new:
                answer = self._sent(session, channel, request, published.delivered)
            else:
                answer = wire.Sent(channel=str(channel), delivered=published.delivered)
            answer.id = published.id
            return answer

        return then(self._backend.publish_kept(str(channel), payload, session.id, key), sent)

    def _sent(self, session: Session, channel: ChannelName, request: wire.Message, delivered: int) -> wire.Sent:
        self._meter.published += 1
        if self._events.listens(MessageSent.name):
            self._events.emit(
                session, MessageSent(session.id, session.user, channel, request.event, bytes(request.data))
            )
        return wire.Sent(channel=str(channel), delivered=delivered)

    def _update(self, session: Session, request: wire.Update) -> Answer:
        channel = ChannelName.parse(request.channel or "")
        info = client_info(request.userInfo or {}, session.user, self._policy.max_user_info)
        if not session.is_in(channel):
            return then(self._look_up(channel), lambda found: throw(_not_updated(channel, found())))
        updating = self._backend.update(channel, session.id, info, self._clock.utc_now())
        return then(updating, lambda outcome: self._updated(outcome(), session, channel))

    def _updated(self, outcome: Updated, session: Session, channel: ChannelName) -> wire.Frame:
        self._events.emit_change(session, channel, outcome.change)
        return wire.Updated(channel=str(channel), member=outcome.member.json)

    def _history(self, session: Session, request: wire.History) -> Answer:
        name = request.channel or ""
        limit, before = request.limit or DEFAULT_LIMIT, None
        if request.before is not None:
            before = parse_position(request.before)
            if before is None:
                raise InvalidRequest(wire.BAD_BEFORE)
        if not session.is_in(name):
            ChannelName.parse(name)
            raise NotInChannel
        session.pay_for(limit)
        if not self._fan_out.is_kept(name):
            return wire.kept(name, Page((), more=False))
        kept = self._query(lambda: self._backend.history(name, limit, before))
        return then(kept, lambda page: wire.kept(name, page()))

    def _ping(self, _session: Session, _request: wire.Ping) -> wire.Frame:
        return wire.Pong(timestamp=int(self._clock.epoch() * 1000))

    def _auth(self, session: Session, request: wire.Auth) -> Answer:
        if self._application.has_user_loader or (session.user is not None and session.credential is None):
            raise Unauthorized
        token = request.token or ""
        begun = self._owner.rechecks_begun
        return self._offload.ask(lambda: self._identify(token)).then(lambda new: self._accept(session, new(), begun))

    def _identify(self, token: str) -> Credential:
        try:
            return self._application.identify(token)
        except CredentialRejected:
            raise Unauthorized from None

    def _accept(self, session: Session, credential: Credential, rechecks_begun: int) -> wire.Frame | None:
        if not session.is_open:
            return None
        if session.user is not None and session.user.id != credential.user.id:
            raise Unauthorized("Different user")
        answer = wire.AuthOk(user=wire.identity(credential.user))
        if credential.expires_at is not None:
            answer.expiresAt = isoformat(from_epoch(credential.expires_at))
        self._owner.adopt(session, credential)
        self._owner.recheck_if_stale(session, rechecks_begun)
        return answer


def _not_updated(channel: ChannelName, found: Channel | None) -> UpdateFailed:
    """Why a connection that is not in the channel cannot update a member there."""
    if found is None:
        return UpdateFailed("Channel not found")
    return UpdateFailed("Not a member of this channel" if channel.type == "presence" else "Not a presence channel")
