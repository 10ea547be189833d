"""Where the membership lives, chosen by the scheme of a URL.

Law: a backend decides each change in one place, says what changed, and tells every hub in the same step.
Nothing here knows a connection, only client ids.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from ..domain.channels import Channel, ChannelName, ChannelType
from ..domain.errors import ConfigurationError
from ..domain.members import Member, User
from ..domain.roster import Change, Joined, Updated
from .pending import Pending


class Listener(Protocol):
    """The hub of this process, as a backend sees it."""

    def deliver(self, channel: str, payload: bytes, exclude: str | None) -> int:
        """Send a frame's JSON to this process's connections in `channel` but `exclude`; how many."""

    def announce(self, channel: ChannelName, change: Change, exclude: str | None, now: datetime) -> None:
        """Tell this process's connections in `channel` but `exclude` what changed."""


class Backend(Protocol):
    """Who is in which channel, over the whole service.

    Every change is atomic: it happens as a whole, and the others hear of it in the order in which things
    happened. Changes are made in the event loop and never hold it up: what must wait for a server is
    `Pending`, and settled at the change's own place among what this process hears of the channel. Questions
    may wait where the backend is `blocking`, and are then asked beside the loop, else in it. A state store
    that is away raises `BackendUnavailable`.
    """

    blocking: bool

    def bind(self, listener: Listener) -> None:
        """Who hears of changes in this process."""

    def join(
        self, channel: ChannelName, client_id: str, user: User | None, info: Mapping[str, Any] | None, now: datetime
    ) -> Joined | Pending[Joined]:
        """As `Roster.join`; the change has been announced to all but `client_id`."""

    def leave(
        self, channel: ChannelName, client_id: str, now: datetime, *, hold: bool = False
    ) -> Change | Pending[Change | None] | None:
        """As `Roster.leave`; the change has been announced."""

    def release(self, channel: ChannelName, user_id: str, now: datetime) -> Change | Pending[Change | None] | None:
        """As `Roster.release`; the change has been announced."""

    def update(
        self, channel: ChannelName, client_id: str, info: Mapping[str, Any], now: datetime
    ) -> Updated | Pending[Updated]:
        """As `Roster.update`; the change has been announced to all but `client_id`."""

    def publish(self, channel: str, payload: bytes, exclude: str | None) -> int | Pending[int]:
        """Send a frame's JSON to all connections in `channel` but `exclude`; how many they are."""

    def broadcast(self, channel: str, payload: bytes, exclude: str | None) -> int:
        """As `publish`, for the server's own code; may wait, like a question."""

    def get(self, name: str) -> Channel | None:
        """The channel with its members, or `None`."""

    def channels(self, kind: ChannelType | None = None, prefix: str | None = None) -> list[Channel]:
        """The channels of that type, with names that begin so; oldest first, without their members."""

    def members(self, name: str) -> Sequence[Member]:
        """In order of joining; empty for an unknown, public or private channel."""

    def counts(self) -> tuple[int, dict[str, int]]:
        """The sum of the channels' member counts, and the number of channels by type."""


def open_backend(url: str, max_info: int) -> Backend:
    """The backend for `url`; `ConfigurationError` where there is none."""
    scheme = url.partition("://")[0]
    if scheme == "memory":
        from .memory import MemoryBackend

        return MemoryBackend(max_info)
    raise ConfigurationError(f"PRESENCE_BACKEND = {url!r}: this version has the backend 'memory://' only")
