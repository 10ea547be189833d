"""The requests of the HTTP API: reads the bodies that server SDKs send, and what they ask about channels.

Rule: a body is checked as a whole before anything of it is sent. What the API does not know is ignored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import msgspec
from msgspec import Raw

from ..channels import ChannelName
from ..text import is_sendable
from . import names
from .data import value_of

T = TypeVar("T")

MAX_CHANNELS: Final = 100
MAX_EVENTS: Final = 10
MAX_EVENT_NAME: Final = 200
USER_COUNT: Final = "user_count"
SUBSCRIPTION_COUNT: Final = "subscription_count"
NAME_EXPECTED: Final = "A channel name has 1 to 200 letters, digits and characters of _-=@,.;"
PRESENCE_EXPECTED: Final = "Only presence channels, whose names begin with presence-, have users"

_ESCAPED: Final = 6
"""How many bytes of JSON a byte of text may need."""
_REST: Final = 262144
"""The bytes of a body that are not data."""


class InvalidBody(Exception):
    """A body, or a part of the query, is not what the request needs. The text says what it needs."""


class DataTooLarge(InvalidBody):
    """The data of an event is larger than the messages of clients may be."""


@dataclass(frozen=True, slots=True)
class Publication:
    """An event to send to `channel`, or to the user whose address that is. The socket `exclude` does not get it.
    `attributes` are what the sender wants to know of the channel."""

    channel: str
    event: str
    data: Raw
    exclude: str | None
    attributes: frozenset[str] | None

    @property
    def user_id(self) -> str | None:
        """The user that it is for, if it is not for a channel."""
        return names.addressed_user(self.channel)


class _Content(msgspec.Struct, kw_only=True):
    name: str
    data: str
    socket_id: str | None = None
    info: str | None = None


class _Event(_Content, kw_only=True):
    channel: str | None = None
    channels: list[str] | None = None


class _BatchEvent(_Content, kw_only=True):
    channel: str


class _Batch(msgspec.Struct):
    batch: list[_BatchEvent]


def max_body(events: int, max_data: int) -> int:
    """How many bytes a body may have with so many events, whose data has at most `max_data` bytes each."""
    return events * _ESCAPED * max_data + _REST


def read_event(body: bytes, max_data: int) -> list[Publication]:
    """The event of `POST events`, once for each of its channels. Raises `InvalidBody`."""
    event = _decode(body, _Event)
    if (event.channels is None) == (event.channel is None):
        raise InvalidBody("Either channels, a list of names, or channel is required")
    channels = event.channels if event.channel is None else [event.channel]
    assert channels is not None
    if not 1 <= len(channels) <= MAX_CHANNELS:
        raise InvalidBody(f"channels must have 1 to {MAX_CHANNELS} names")
    return _publications(event, channels, max_data)


def read_batch(body: bytes, max_data: int) -> list[Publication]:
    """The events of `POST batch_events`, in order. Raises `InvalidBody`."""
    events = _decode(body, _Batch).batch
    if not 1 <= len(events) <= MAX_EVENTS:
        raise InvalidBody(f"batch must have 1 to {MAX_EVENTS} events")
    return [publication for event in events for publication in _publications(event, [event.channel], max_data)]


def check_object(body: bytes) -> None:
    """Raise `InvalidBody` if there is a body that is no JSON object."""
    if body:
        _decode(body, dict[str, Any])


def channel_name(text: str) -> ChannelName:
    """`text` as the name of a channel. Raises `InvalidBody` if clients of this dialect cannot use it."""
    if not names.is_channel_name(text):
        raise InvalidBody(NAME_EXPECTED)
    return ChannelName(text)


def read_attributes(info: str, channel: str) -> frozenset[str]:
    """The attributes that `info` names, of those that a channel has. `channel` is its name, or how it begins. Raises
    `InvalidBody` if users are asked for and it has none."""
    attributes = frozenset(part.strip() for part in info.split(",")) & {USER_COUNT, SUBSCRIPTION_COUNT}
    if USER_COUNT in attributes and ChannelName(channel).type != "presence":
        raise InvalidBody(f"user_count: {PRESENCE_EXPECTED}")
    return attributes


def _publications(event: _Content, channels: Sequence[str], max_data: int) -> list[Publication]:
    if not 1 <= len(event.name) <= MAX_EVENT_NAME or not is_sendable(event.name):
        raise InvalidBody(f"name must have 1 to {MAX_EVENT_NAME} characters")
    if names.is_reserved_event(event.name):
        raise InvalidBody(f"name must not begin with {' or '.join(names.RESERVED_EVENTS)}")
    if event.socket_id is not None and not names.is_client_id(event.socket_id):
        raise InvalidBody("socket_id must be two whole numbers with a dot between, or a native client id")
    for channel in channels:
        if not names.addressed_user(channel):
            channel_name(channel)
        if not is_sendable(channel):
            raise InvalidBody(NAME_EXPECTED)
    data = _value(event.data, max_data)
    return [
        Publication(
            channel,
            event.name,
            data,
            event.socket_id,
            None if event.info is None else read_attributes(event.info, channel),
        )
        for channel in channels
    ]


def _value(data: str, max_data: int) -> Raw:
    if not is_sendable(data):
        raise InvalidBody("data must have no lone surrogates")
    if len(data.encode()) > max_data:
        raise DataTooLarge(f"data must have at most {max_data} bytes (PRESENCE_MAX_MESSAGE_SIZE)")
    return value_of(data)


def _decode(body: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as problem:
        raise InvalidBody(f"The body is not what this request needs: {problem}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise InvalidBody("The body must be a JSON object") from None
