"""The frames of the Pusher protocol: decodes requests, and encodes answers and events.

Rule: every frame has an `event` and `data`. `data` is a JSON string in all but `pusher:error`, in which it is an
object, because some clients read only this.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, TypeVar

import msgspec
from msgspec import UNSET, Raw, UnsetType

from ..channels import ChannelName
from ..members import Member
from ..roster import Change
from ..wire import ABSENT, ChannelMessage, UserMessage, encode
from .data import is_string, text_of, without_data
from .names import CLIENT_EVENT, user_address
from .users import info_of

T = TypeVar("T", bound=msgspec.Struct)

NOTHING: Final = "{}"
"""The data of an event that says nothing more."""


class Request(msgspec.Struct):
    """A frame from a client. Only `event` is required."""

    event: str
    channel: str | None = None
    data: Raw = ABSENT


class Subscribe(msgspec.Struct):
    channel: str
    auth: str | None = None
    channel_data: str | None = None


class Unsubscribe(msgspec.Struct):
    channel: str


class SignIn(msgspec.Struct):
    auth: str
    user_data: str


class _Frame(msgspec.Struct):
    event: str
    channel: str | UnsetType = UNSET
    data: str = NOTHING
    user_id: str | UnsetType = UNSET


class _ErrorData(msgspec.Struct):
    code: int
    message: str


class _Error(msgspec.Struct):
    event: str
    data: _ErrorData


class _Any(msgspec.Struct):
    type: Any = None


_decode_request: Final = msgspec.json.Decoder(Request).decode
_decode_message: Final = msgspec.json.Decoder(ChannelMessage).decode
_decode_user_message: Final = msgspec.json.Decoder(UserMessage).decode
_decode_any: Final = msgspec.json.Decoder(_Any).decode
_decode_text: Final = msgspec.json.Decoder(str).decode
_MISTAKES: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def read_request(payload: bytes) -> Request | None:
    """A frame from a client; `None` if it is not a JSON object with an `event`, or a field has the wrong type."""
    try:
        return _decode_request(payload)
    except _MISTAKES:
        return None


def read_data(data: Raw, kind: type[T]) -> T | None:
    """The data of a request, an object or the JSON of one in a string; `None` if it is something else."""
    try:
        text: str | Raw = _decode_text(data) if is_string(data) else data
        return msgspec.json.decode(text, type=kind)
    except _MISTAKES:
        return None


def connection_established(socket_id: str, activity_timeout: int) -> bytes:
    return _event("pusher:connection_established", {"socket_id": socket_id, "activity_timeout": activity_timeout})


def pong() -> bytes:
    return _frame("pusher:pong")


def error(code: int, message: str) -> bytes:
    return encode(_Error("pusher:error", _ErrorData(code, message)))


def subscription_error(channel: str, kind: str, message: str, status: int) -> bytes:
    data = {"type": kind, "error": message, "status": status}
    return _event("pusher:subscription_error", data, channel)


def subscription_succeeded(channel: str, members: Iterable[Member] | None = None) -> bytes:
    """The answer to a subscription, with the members in order of joining, if the channel has a list."""
    if members is None:
        return _frame("pusher_internal:subscription_succeeded", channel)
    infos = {member.id: info_of(member) for member in members}
    presence = {"ids": list(infos), "hash": infos, "count": len(infos)}
    return _event("pusher_internal:subscription_succeeded", {"presence": presence}, channel)


def signin_success(user_data: str) -> bytes:
    return _event("pusher:signin_success", {"user_data": user_data})


def cache_miss(channel: str) -> bytes:
    return _frame("pusher:cache_miss", channel)


def member_event(channel: ChannelName, change: Change) -> bytes:
    """What the others in a channel hear of a change to its list."""
    member = change.member
    if change.kind == "left":
        return _event("pusher_internal:member_removed", {"user_id": member.id}, channel)
    event = "pusher_internal:member_added" if change.kind == "joined" else "presence:member_updated"
    return _event(event, {"user_id": member.id, "user_info": info_of(member)}, channel)


def channel_frame(channel: str, payload: bytes) -> bytes:
    """The frame for what a native frame's JSON tells a channel: a message, or else a broadcast of the server."""
    found = _read_message(payload)
    if found is None:
        return _broadcast(channel, payload)
    message, data = found
    event, text, sender = message.event, text_of(data), message.sender
    if sender.clientId == "server":
        return _frame(event, channel, text)
    is_listed = ChannelName(channel).type == "presence"
    return _frame(CLIENT_EVENT + event, channel, text, sender.userId if is_listed else UNSET)


def is_from_server(payload: bytes) -> bool:
    """Whether a native message, as JSON, is one that the server published."""
    found = _read_message(payload)
    return found is not None and found[0].sender.clientId == "server"


def user_frame(user_id: str, payload: bytes) -> bytes:
    """The frame for a native `user:message` as JSON, at the user's address."""
    found = without_data(payload, b',"timestamp":')
    assert found is not None, "a message to a user has data, and then a timestamp"
    rest, data = found
    return _frame(_decode_user_message(rest).event, user_address(user_id), text_of(data))


def _read_message(payload: bytes) -> tuple[ChannelMessage, bytes] | None:
    """A native message and its data; `None` if the JSON is none, but an app's own broadcast."""
    found = without_data(payload, b',"from":') if payload.startswith(b'{"type":"channel:message",') else None
    if found is None:
        return None
    rest, data = found
    try:
        return _decode_message(rest), data
    except _MISTAKES:
        return None


def _broadcast(channel: str, payload: bytes) -> bytes:
    try:
        kind = _decode_any(payload).type
    except RecursionError:
        kind = None
    event = kind if isinstance(kind, str) and kind and not kind.startswith("pusher") else "broadcast"
    return _frame(event, channel, payload.decode())


def _event(event: str, data: Any, channel: str | None = None) -> bytes:
    return _frame(event, channel, encode(data).decode())


def _frame(event: str, channel: str | None = None, data: str = NOTHING, user_id: str | UnsetType = UNSET) -> bytes:
    return encode(_Frame(event, UNSET if channel is None else str(channel), data, user_id))
