"""The messages of the protocol: decodes requests, and encodes answers and events.

Rule: each frame is one JSON object. Only this module knows the camelCase names. A client's `data` and `requestId` are
never decoded: their bytes are copied into the frame that the server writes.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, ClassVar, Final, NamedTuple

import msgspec
from msgspec import UNSET, Raw, UnsetType

from . import history, roster
from .channels import ChannelName
from .errors import (
    InternalError,
    InvalidJSON,
    InvalidRequest,
    JoinFailed,
    LeaveFailed,
    RequestError,
    UnknownMessageType,
    UpdateFailed,
)
from .history import MAX_LIMIT, Page
from .members import User
from .timestamps import isoformat, parse_isoformat

ABSENT: Final = Raw()
"""The value of a `Raw` field that is missing from the request."""

EMPTY_STRING: Final = Raw(b'""')

MAX_MESSAGE_ID: Final = 64
"""How many characters a `messageId` may have."""
BAD_BEFORE: Final = "before must be the id of a message"
MAX_ECHO: Final = 200
"""How many characters of an unknown `type` are repeated in the answer."""


Limit = Annotated[int, msgspec.Meta(ge=1, le=MAX_LIMIT)]
MessageId = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_MESSAGE_ID)]


class Request(msgspec.Struct, tag_field="type"):
    """A request. Its fields have the names of the protocol."""

    missing: ClassVar[str] = ""
    """The error message if a required field has no value."""
    concerns_channels: ClassVar[bool] = False
    """Whether `PRESENCE_ENABLED = False` refuses it."""
    fault: ClassVar[type[RequestError]] = InternalError
    """The error that answers it if the server fails."""

    requestId: Raw = ABSENT

    def complete(self) -> bool:
        """Whether every required field has a value. `null` and `""` do not count, except as `data`."""
        return True


class ChannelRequest(Request):
    missing: ClassVar[str] = "Channel name is required"
    concerns_channels: ClassVar[bool] = True

    channel: str | None = None

    def complete(self) -> bool:
        return bool(self.channel)


class Join(ChannelRequest, tag="join"):
    fault: ClassVar[type[RequestError]] = JoinFailed

    userInfo: dict[str, Any] | None = None
    since: str | None = None
    history: Limit | None = None


class Leave(ChannelRequest, tag="leave"):
    fault: ClassVar[type[RequestError]] = LeaveFailed


class Message(ChannelRequest, tag="channel:message"):
    missing: ClassVar[str] = "Channel and data are required"

    data: Raw = ABSENT
    event: str = "message"
    messageId: MessageId | None = None

    def complete(self) -> bool:
        return bool(self.channel) and self.data is not ABSENT


class Update(ChannelRequest, tag="channel:update"):
    missing: ClassVar[str] = "Channel and userInfo are required"
    fault: ClassVar[type[RequestError]] = UpdateFailed

    userInfo: dict[str, Any] | None = None

    def complete(self) -> bool:
        return bool(self.channel) and self.userInfo is not None


class History(ChannelRequest, tag="channel:history"):
    limit: Limit | None = None
    before: str | None = None


class Ping(Request, tag="ping"):
    pass


class Auth(Request, tag="auth"):
    missing: ClassVar[str] = "Token is required"

    token: str | None = None

    def complete(self) -> bool:
        return bool(self.token)


AnyRequest = Join | Leave | Message | Update | History | Ping | Auth

_REQUESTS: Final[dict[str, type[Request]]] = {
    "join": Join,
    "leave": Leave,
    "channel:message": Message,
    "channel:update": Update,
    "channel:history": History,
    "ping": Ping,
    "auth": Auth,
}
_EXPECTED: Final = {
    "channel": (str | None, "channel must be a string"),
    "event": (str, "event must be a string"),
    "token": (str | None, "token must be a string"),
    "since": (str | None, "since must be a string: a position, or the id of a message"),
    "history": (Limit | None, f"history must be a whole number from 1 to {MAX_LIMIT}"),
    "limit": (Limit | None, f"limit must be a whole number from 1 to {MAX_LIMIT}"),
    "before": (str | None, BAD_BEFORE),
    "messageId": (MessageId | None, f"messageId must be a string of 1 to {MAX_MESSAGE_ID} characters"),
    "userInfo": (dict[str, Any] | None, "userInfo must be a JSON object, its numbers in the range of a double"),
}

_decode = msgspec.json.Decoder(AnyRequest).decode
_decode_fields = msgspec.json.Decoder(dict[str, Raw]).decode
_decode_any = msgspec.json.Decoder(Raw).decode


class Rejected(NamedTuple):
    """A frame that is not a valid request: the error that answers it, and what is known about the request."""

    error: RequestError
    requestId: Raw = ABSENT
    concerns_channels: bool = False


def decode_request(payload: bytes) -> Request | Rejected:
    """Decode a frame's payload, which must be valid UTF-8. Never raises."""
    try:
        request: Request = _decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _explain(payload)
    if request.complete():
        return request
    return Rejected(InvalidRequest(request.missing), request.requestId, request.concerns_channels)


def read_request_id(payload: bytes) -> Raw:
    """The `requestId` of a frame, whatever else is in it. `ABSENT` if it cannot be read."""
    try:
        return _decode_fields(payload).get("requestId", ABSENT)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ABSENT


def _explain(payload: bytes) -> Rejected:
    """What is wrong with a payload that could not be decoded."""
    try:
        _decode_any(payload)
        fields = _decode_fields(payload)
    except msgspec.ValidationError:
        return Rejected(InvalidRequest())
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Rejected(InvalidJSON())
    request_id = fields.get("requestId", ABSENT)
    kind = _decode_text(fields.get("type"))
    known = _REQUESTS.get(kind) if kind is not None else None
    if known is None:
        return Rejected(UnknownMessageType(f"Unknown message type: {_printed(fields.get('type'), kind)}"), request_id)
    if known is Update and fields.get("userInfo") == EMPTY_STRING:
        return Rejected(InvalidRequest(known.missing), request_id, known.concerns_channels)
    for name in known.__struct_fields__:
        expected, message = _EXPECTED.get(name, (Raw, ""))
        try:
            msgspec.json.decode(fields.get(name, b"null" if name != "event" else b'""'), type=expected)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return Rejected(InvalidRequest(message), request_id, known.concerns_channels)
    return Rejected(InvalidJSON())


def _decode_text(raw: Raw | None) -> str | None:
    try:
        return msgspec.json.decode(raw, type=str) if raw is not None else None
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _printed(raw: Raw | None, text: str | None) -> str:
    """A `type` for an error message: its text, or else its JSON."""
    if raw is None:
        return "undefined"
    return (bytes(raw).decode(errors="replace") if text is None else text)[:MAX_ECHO]


class Frame(msgspec.Struct, tag_field="type"):
    """An answer. It has the `requestId` of its request, if the request has one."""

    requestId: Raw | UnsetType = UNSET


class Identity(msgspec.Struct):
    id: str


class Connected(msgspec.Struct, tag_field="type", tag="connected"):
    clientId: str
    user: Identity | None
    timestamp: str


class Joined(Frame, tag="channel:joined", kw_only=True):
    channel: str
    channelType: str
    members: list[Raw] | Raw | UnsetType = UNSET
    me: Raw | UnsetType = UNSET
    position: str | UnsetType = UNSET
    recovered: bool | UnsetType = UNSET
    messages: list[Raw] | UnsetType = UNSET


class Left(Frame, tag="channel:left", kw_only=True):
    channel: str


class Sent(Frame, tag="channel:sent", kw_only=True):
    channel: str
    delivered: int
    id: str | UnsetType = UNSET


class Kept(Frame, tag="channel:history", kw_only=True):
    channel: str
    messages: list[Raw]
    more: bool


class Updated(Frame, tag="channel:updated", kw_only=True):
    channel: str
    member: Raw


class Pong(Frame, tag="pong", kw_only=True):
    timestamp: int


class AuthOk(Frame, tag="auth:ok", kw_only=True):
    user: Identity
    expiresAt: str | UnsetType = UNSET


class Error(Frame, tag="error", kw_only=True):
    code: str
    message: str
    retryable: bool | UnsetType = UNSET


class Sender(msgspec.Struct):
    clientId: str
    userId: str | UnsetType = UNSET


class ChannelMessage(msgspec.Struct, tag_field="type", tag="channel:message"):
    channel: str
    event: str
    data: Raw
    sender: Sender = msgspec.field(name="from")
    timestamp: str


class KeptMessage(ChannelMessage, tag="channel:message"):
    id: str


class MemberJoined(msgspec.Struct, tag_field="type", tag="presence:member_joined"):
    channel: str
    member: Raw
    timestamp: str


class MemberUpdated(MemberJoined, tag="presence:member_updated"):
    pass


class MemberLeft(MemberJoined, tag="presence:member_left"):
    reason: str | UnsetType = UNSET


class Removed(msgspec.Struct, tag_field="type", tag="channel:removed"):
    channel: str
    code: str
    message: str


class UserMessage(msgspec.Struct, tag_field="type", tag="user:message"):
    event: str
    data: Raw
    timestamp: str


class AuthExpiring(msgspec.Struct, tag_field="type", tag="auth:expiring"):
    expiresAt: str


_decode_kept = msgspec.json.Decoder(KeptMessage).decode
_CHANGES: Final = {"joined": MemberJoined, "updated": MemberUpdated, "left": MemberLeft}
_SERVER: Final = Sender("server")

encode: Final = msgspec.json.Encoder().encode
"""Encode a frame's JSON, as UTF-8 bytes."""


def connected(client_id: str, user: User | None, now: datetime) -> bytes:
    return encode(Connected(clientId=client_id, user=identity(user) if user else None, timestamp=isoformat(now)))


def identity(user: User) -> Identity:
    return Identity(str(user.id))


def joined(channel: ChannelName, outcome: roster.Joined) -> Joined:
    answer = Joined(channel=str(channel), channelType=channel.type)
    if outcome.members is not None and outcome.me is not None:
        known = outcome.list_json
        answer.members = [member.json for member in outcome.members] if known is None else known
        answer.me = outcome.me.json
    if outcome.replayed is not None:
        answer.position, messages, recovered = outcome.replayed
        answer.recovered = UNSET if recovered is None else recovered
        answer.messages = UNSET if messages is None else [Raw(frame) for frame in messages]
    return answer


def kept(channel: str, page: Page) -> Kept:
    return Kept(channel=channel, messages=[Raw(frame) for frame in page.messages], more=page.more)


def read_kept(frame: bytes) -> history.Message:
    """Decode the frame of a kept message."""
    kept = _decode_kept(frame)
    data, sender = msgspec.json.decode(kept.data), kept.sender
    user_id = None if sender.userId is UNSET else sender.userId
    channel, moment = ChannelName(kept.channel), parse_isoformat(kept.timestamp)
    return history.Message(kept.id, channel, kept.event, data, sender.clientId, user_id, moment)


def with_id(payload: bytes, message_id: str) -> bytes:
    """The JSON of a message's frame, with its id."""
    return payload[:-1] + b',"id":"' + message_id.encode() + b'"}'


def error(problem: RequestError) -> Error:
    return Error(code=problem.code, message=problem.message, retryable=True if problem.retryable else UNSET)


def answer(frame: Frame, request_id: Raw) -> bytes:
    """Encode `frame` as the answer to the request with `request_id`."""
    if request_id is not ABSENT:
        frame.requestId = request_id
    return encode(frame)


def channel_message(channel: str, event: str, data: Raw, client_id: str, user: User | None, now: datetime) -> bytes:
    sender = Sender(client_id, user.id) if user else Sender(client_id)
    return encode(ChannelMessage(channel, event, data, sender, isoformat(now)))


def server_message(channel: str, event: str, data: Raw, now: datetime) -> bytes:
    return encode(ChannelMessage(channel, event, data, _SERVER, isoformat(now)))


def member_event(channel: str, change: roster.Change, now: datetime) -> bytes:
    event = _CHANGES[change.kind](str(channel), change.member.json, isoformat(now))
    if change.reason is not None and isinstance(event, MemberLeft):
        event.reason = change.reason
    return encode(event)


def removed(channel: str, code: str, message: str) -> bytes:
    return encode(Removed(channel, code, message))


def user_message(event: str, data: Raw, now: datetime) -> bytes:
    return encode(UserMessage(event, data, isoformat(now)))


def auth_expiring(expires_at: datetime) -> bytes:
    return encode(AuthExpiring(isoformat(expires_at)))


def check_json(text: str | bytes) -> Raw:
    """Compact JSON that can be put into a frame. Raises `TypeError` if clients could not parse `text`, for instance
    because of NaN or lone surrogates."""
    payload = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    try:
        _decode_any(payload)
        return Raw(msgspec.json.format(payload, indent=-1))
    except (msgspec.DecodeError, UnicodeError, RecursionError) as problem:
        raise TypeError(f"this cannot be sent as JSON: {problem}") from None
