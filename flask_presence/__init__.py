"""Channels and presence over WebSockets for Flask apps, in the style of Pusher.

Rule: the names in `__all__` are public, and everything else is private.
"""

from __future__ import annotations

from . import signals
from .domain.channels import Channel, ChannelName, ChannelType, Stats
from .domain.errors import BackendUnavailable, ConfigurationError, PresenceError, PresenceTestError
from .domain.events import (
    ChannelJoined,
    ChannelLeft,
    ClientConnected,
    ClientDisconnected,
    MemberJoined,
    MemberLeft,
    MemberUpdated,
    MessageSent,
)
from .domain.guards import GuardInfo, allow, deny
from .domain.history import Message
from .domain.members import Member, User
from .domain.signatures import GuardResult
from .extension import Presence
from .testing import TestClient

__version__ = "0.1.0"

__all__ = [
    "BackendUnavailable",
    "Channel",
    "ChannelJoined",
    "ChannelLeft",
    "ChannelName",
    "ChannelType",
    "ClientConnected",
    "ClientDisconnected",
    "ConfigurationError",
    "GuardInfo",
    "GuardResult",
    "Member",
    "MemberJoined",
    "MemberLeft",
    "MemberUpdated",
    "Message",
    "MessageSent",
    "Presence",
    "PresenceError",
    "PresenceTestError",
    "Stats",
    "TestClient",
    "User",
    "__version__",
    "allow",
    "deny",
    "signals",
]
