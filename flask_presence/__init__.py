"""Channels and presence over WebSockets for Flask apps, in the style of Pusher.

Rule: the names in `__all__` are public, and everything else is private.
"""

from __future__ import annotations

from . import signals
from .domain.channels import Channel, ChannelName, Stats
from .domain.errors import BackendUnavailable, ConfigurationError, PresenceError, PresenceTestError
from .domain.guards import GuardInfo, allow, deny
from .domain.members import Member, User
from .extension import Presence

__all__ = [
    "BackendUnavailable",
    "Channel",
    "ChannelName",
    "ConfigurationError",
    "GuardInfo",
    "Member",
    "Presence",
    "PresenceError",
    "PresenceTestError",
    "Stats",
    "User",
    "allow",
    "deny",
    "signals",
]
