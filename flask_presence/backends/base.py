"""What every backend does: it keeps track of who is in which channel, over the whole service.

Rule: a backend decides each change in one place, returns what changed, and tells every hub in the same step. It knows
client ids, never connections.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from ..domain.channels import Channel, ChannelCounts, ChannelList, ChannelName, ChannelType
from ..domain.events import Event, Reason
from ..domain.history import HistorySize, Page, Position, Published
from ..domain.members import Member, OwnedInfo, Profile, User
from ..domain.readings import Reading, Survey
from ..domain.roster import Change, Joined, Joiner, Updated
from ..domain.shards import ShardState
from ..loops.base import Loop
from ..loops.pending import Pending


class Listener(Protocol):
    """The hub of this process, as the backend sees it. Called in the event loop."""

    def deliver(self, channel: str, payload: bytes, exclude: str | None) -> int:
        """Send a frame's JSON to this process's connections in `channel`, except `exclude`. Returns how many."""

    def utc_now(self) -> datetime:
        """The service's time, for what the backend itself causes."""

    def announce(self, channel: ChannelName, change: Change, exclude: str | None, now: datetime) -> None:
        """Tell this process's connections in `channel`, except `exclude`, what changed in its member list."""

    def close_matching(self, user_id: str | None, client_id: str | None, text: str) -> int | Pending[int]:
        """Close, with 4403, this process's connections that match (`None` matches any). Returns how many, once they
        have left their channels."""

    def remove_from(self, channel: str, user_id: str, text: str) -> int | Pending[int]:
        """Take this process's connections of a user out of `channel`. Returns how many, once they have left."""

    def recheck(self, user_id: str | None, channel: str | None, *, ask_signers: bool = True) -> int:
        """Ask the application again, off the loop, about this process's connections that match (`None` matches any).
        Returns how many there are.

        Connections that a signer has let in come back with new signatures. With `ask_signers` off, they stay: their
        permissions have not changed, but what guards own may have been lost."""

    def deliver_to_user(self, user_id: str, payload: bytes) -> int:
        """Send a frame's JSON to this process's connections of a user. Returns how many."""

    def has_user(self, user_id: str) -> bool:
        """Whether this process has a connection of the user."""

    def give_up_channel(self, channel: str) -> None:
        """Close, with 1011, this process's connections in `channel`: they have missed messages that are lost."""

    def notify(self, event: Event) -> None:
        """Tell the application's handlers about a connection that no process has any longer."""

    def reading(self) -> Reading:
        """What this process has counted and measured."""


class Membership(Protocol):
    """The changes: what a worker's connections do.

    Every change is atomic: it happens as a whole, and everybody hears of changes in the order in which they happened.
    Changes are made in the event loop and never block it. An outcome that depends on a server is `Pending`, and is
    settled at the change's position among the channel's events in this process. While the state store is unreachable,
    changes raise `BackendUnavailable`. `outlives_process`: whether the state survives this process.
    """

    outlives_process: bool

    def bind(self, listener: Listener) -> None:
        """Set the hub that hears of changes in this process."""

    def start(self, loop: Loop) -> None:
        """Make changes in `loop` from now on. Called before the first change, in the process that runs the loop."""

    def tick(self, now: float) -> None:
        """Do what is due at `now`, in epoch seconds. Called in the loop, a few times a second."""

    def close(self) -> None:
        """Finish: all connections are gone and no more will come. May block; called off the loop."""

    def forked(self) -> None:
        """Let go of everything inherited: this process is a fork of the one that has the connections."""

    def opened(self, client_id: str, user: User | None) -> None:
        """Note that a connection has opened, or belongs to another user now."""

    def closed(self, client_id: str) -> None:
        """Note that a connection is gone and out of every channel."""

    def join(self, joiner: Joiner) -> Joined | Pending[Joined]:
        """Like `Roster.join`; everybody but the joiner has been told of the change. `replayed` ends where the list and
        the joiner's later events begin."""

    def leave(
        self, channel: ChannelName, client_id: str, now: datetime, reason: Reason, *, grace: float = 0
    ) -> Change | Pending[Change | None] | None:
        """Like `Roster.leave`; everybody has been told of the change, with its `reason`.

        With a `grace`, in seconds, a user whose last connection this was stays listed for that long. When it ends, the
        backend tells everybody and calls `Listener.notify`.
        """

    def update(
        self,
        channel: ChannelName,
        client_id: str,
        info: Mapping[str, Any],
        now: datetime,
        owned: OwnedInfo | None = None,
    ) -> Updated | Pending[Updated]:
        """Like `Roster.update`; everybody but `client_id` has been told of the change."""

    def publish(self, channel: str, payload: bytes, exclude: str | None) -> int | Pending[int]:
        """Send a frame's JSON to all connections in `channel` except `exclude`. Returns how many there are."""

    def publish_kept(
        self, channel: str, payload: bytes, exclude: str | None, key: str | None
    ) -> Published | Pending[Published]:
        """Like `publish`, in a channel that keeps messages: the frame gets an `id`, and is kept. If a kept message was
        sent with this `key`, nothing is sent, and the outcome is that of the earlier message."""

    def profile(self, channel: ChannelName, client_id: str) -> Profile | None:
        """What is known of the user of one of this process's connections in a presence channel. Called in the loop."""


class Directory(Protocol):
    """Queries about the whole service, and what the app's own code does to it. Works in any process, with or without
    connections.

    If the backend is `blocking`, every method may block and is called off the loop; otherwise every method is called in
    the loop. While the state store is unreachable, methods raise `BackendUnavailable`. If the service has shards, a
    question about a channel or a user fails if its shard does not answer. One about the whole service is answered
    without the shards that do not answer, and fails only if none does.
    """

    blocking: bool

    def check(self) -> None:
        """Raise `BackendUnavailable` if the state store does not answer, or does not allow what joins need;
        `PartlyUnavailable` if that is true of some shards."""

    def obstacle(self) -> str | None:
        """Why this process must not have connections, as a sentence that says what to change; or `None`. Called off the
        loop, whether or not the backend is `blocking`."""

    def shards(self, *, with_counts: bool = False) -> tuple[ShardState, ...]:
        """The shards by label, each of them checked now; none if the service has no shards. Called off the loop too."""

    def disconnect(self, user_id: str | None, client_id: str | None, text: str) -> int:
        """Close, in every process, the connections that match (`None` matches any), and end the grace periods of their
        users. Returns how many connections have been closed and have left their channels."""

    def remove(self, channel: str, user_id: str, text: str) -> int:
        """Take a user's connections out of `channel`, in every process, and end the user's grace period there. Returns
        how many connections have left."""

    def recheck(self, user_id: str | None, channel: str | None) -> int:
        """`Listener.recheck` in every process. Returns how many connections match. If `user_id` is given, it also ends
        the user's grace periods, because a user without a connection cannot be rechecked."""

    def send_to_user(self, user_id: str, payload: bytes) -> int:
        """Send a frame's JSON to the connections of a user, in every process. Returns how many."""

    def is_online(self, user_id: str) -> bool:
        """Whether any process has a connection of the user."""

    def broadcast(self, channel: str, payload: bytes, exclude: str | None, *, keep: bool = False) -> int:
        """Like `Membership.publish`, for the server's own code. With `keep`, like `publish_kept` if the channel keeps
        messages."""

    def history(self, channel: str, limit: int, before: Position | None) -> Page:
        """The newest `limit` kept messages of a channel that are older than `before` (`None`: all)."""

    def clear_history(self, channel: str) -> int:
        """Forget the kept messages of a channel. Returns how many there were."""

    def history_size(self, channel: str | None) -> HistorySize | None:
        """What a channel keeps (`None`: all channels together). The outcome is `None` if the channel keeps no
        messages."""

    def get(self, name: str) -> Channel | None:
        """The channel with its members, or `None` if nobody is in it."""

    def channels(self, kind: ChannelType | None = None, prefix: str | None = None) -> ChannelList:
        """The channels of a type with names that begin with `prefix` (`None`: any), oldest first, without members."""

    def members(self, name: str) -> Sequence[Member]:
        """The members in order of joining. Empty for an unknown, a public, and a private channel."""

    def counts(self) -> ChannelCounts:
        """The sum of the channels' member counts, and the number of channels by type."""

    def connections(self) -> int:
        """How many connections are open, over the whole service."""

    def connections_of(self, name: str) -> Mapping[str, int]:
        """How many connections each member of a presence channel has, by user id; 0 during a grace period."""

    def survey(self) -> Survey:
        """The readings of all processes."""

    def watch(self, name: str | None = None) -> Iterator[tuple[ChannelName, Change] | None]:
        """The changes to the member list of one channel, or of all, from now on, without end.

        Yields `None` while nothing changes; a `blocking` backend waits up to a second before each. Changes are missed
        by a caller that does not keep up, and while the state store is unreachable.
        """


class Backend(Membership, Directory, Protocol):
    """Both, as `open_backend` returns it."""
