"""Webhooks: what back ends elsewhere are told about channels, as JSON.

Rule: only channels that clients of this dialect can name are told about.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec
from msgspec import UNSET, UnsetType

from ..events import Event, MemberJoined, MemberLeft, MessageSent
from ..wire import encode
from .data import text_of
from .names import CLIENT_EVENT, is_channel_name

REPORTED: Final = frozenset((MemberJoined.name, MemberLeft.name, MessageSent.name))
"""The names of the app's events that webhooks report."""


class _MemberEvent(msgspec.Struct):
    name: str
    channel: str
    user_id: str


class _ClientEvent(msgspec.Struct):
    name: str
    channel: str
    event: str
    data: str
    socket_id: str
    user_id: str | UnsetType = UNSET


def webhook_event(event: Event) -> bytes | None:
    """What a webhook says of an event, as JSON; `None` if it says nothing."""
    if not isinstance(event, (MemberJoined, MemberLeft, MessageSent)) or not is_channel_name(event.channel):
        return None
    channel = str(event.channel)
    if isinstance(event, MessageSent):
        is_listed = event.channel.type == "presence"
        user_id = event.user.id if is_listed and event.user is not None else UNSET
        name, data = CLIENT_EVENT + event.event, text_of(event.raw)
        return encode(_ClientEvent("client_event", channel, name, data, event.client_id, user_id))
    name = "member_added" if isinstance(event, MemberJoined) else "member_removed"
    return encode(_MemberEvent(name, channel, event.member.id))


def webhook_body(events: Iterable[bytes], now: float) -> bytes:
    """The body of a webhook with these events, at `now` in epoch seconds."""
    return b'{"time_ms":%d,"events":[%b]}' % (int(now * 1000), b",".join(events))
