"""The events as blinker signals. The sender is the app, and receivers get the keyword argument `event`."""

from __future__ import annotations

from typing import Final

from blinker import NamedSignal, Namespace

from .domain.events import EVENT_NAMES

_signals = Namespace()
SIGNALS: Final[dict[str, NamedSignal]] = {name: _signals.signal(name.replace(".", "_")) for name in EVENT_NAMES}

client_connected = SIGNALS["client.connected"]
client_disconnected = SIGNALS["client.disconnected"]
channel_joined = SIGNALS["channel.joined"]
channel_left = SIGNALS["channel.left"]
member_joined = SIGNALS["member.joined"]
member_updated = SIGNALS["member.updated"]
member_left = SIGNALS["member.left"]
message = SIGNALS["message"]
