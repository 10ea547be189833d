"""Where the membership lives, chosen by the scheme of a URL.

Law: a backend decides each change in one place, says what changed, and tells every hub in the same step.
Nothing here knows a connection, only client ids.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, Protocol, TypeVar

from ..domain.channels import Channel, ChannelName, ChannelType
from ..domain.errors import ConfigurationError
from ..domain.events import Event, Reason
from ..domain.members import NOTHING, Member, Profile, User
from ..domain.readings import Reading, Survey
from ..domain.roster import Change, Joined, Updated
from ..loops.pending import Pending

T = TypeVar("T")


class Listener(Protocol):
    """The hub of this process, as a backend sees it. Called in the event loop."""

    def deliver(self, channel: str, payload: bytes, exclude: str | None) -> int:
        """Send a frame's JSON to this process's connections in `channel` but `exclude`; how many."""

    def announce(self, channel: ChannelName, change: Change, exclude: str | None, now: datetime) -> None:
        """Tell this process's connections in `channel` but `exclude` what changed."""

    def close_matching(self, user_id: str | None, client_id: str | None, text: str) -> int | Pending[int]:
        """Close this process's connections of that user and with that id, with 4403; how many, once they have left."""

    def take_out(self, channel: str, user_id: str, text: str) -> int | Pending[int]:
        """Take this process's connections of that user out of `channel`; how many, once they have left."""

    def ask_again(self, user_id: str | None, channel: str | None) -> int:
        """Have the application asked again about this process's connections of that user and in that channel, beside
        the loop; how many they are."""

    def tell_user(self, user_id: str, payload: bytes) -> int:
        """Send a frame's JSON to this process's connections of that user; how many."""

    def is_here(self, user_id: str) -> bool:
        """Whether this process has a connection of that user."""

    def notice(self, event: Event) -> None:
        """Have the application hear of what happened to a connection that no process has any more."""

    def reading(self) -> Reading:
        """What this process has counted, and how it is."""


class Loop(Protocol):
    """The event loop in which a backend's changes are made."""

    def run(self, function: Callable[[], T]) -> T:
        """Call `function` in the loop, from any thread, and give what it returns or raises."""

    def spawn(self, function: Callable[..., object], *arguments: Any) -> None:
        """Call `function`, which may block, beside the loop."""

    def sleep(self, seconds: float) -> None:
        """Wait, beside the loop."""

    def soon(self, callback: Callable[[], object]) -> None:
        """Call `callback` in the loop, in its next turn."""

    def attend(self, source: Source) -> None:
        """Have `source` heard beside the loop for as long as the process lives."""


class Source(Protocol):
    """Where a backend hears of what others do. `ended`: there will be nothing more."""

    @property
    def ended(self) -> bool: ...

    def listen(self) -> None:
        """Hear and pass on, for ever; may block."""

    def catch_up(self, *, patient: bool) -> bool:
        """Pass on what has come, and, if `patient`, wait a while for what is known to be on its way; whether there was
        anything."""


class Backend(Protocol):
    """Who is in which channel, over the whole service.

    Every change is atomic: it happens as a whole, and the others hear of it in the order in which things
    happened. Changes are made in the event loop and never hold it up: what must wait for a server is
    `Pending`, and settled at the change's own place among what this process hears of the channel. Questions
    may wait where the backend is `blocking`, and are then asked beside the loop, else in it. A state store
    that is away raises `BackendUnavailable`. `outlives`: the state outlives this process.
    """

    blocking: bool
    outlives: bool

    def bind(self, listener: Listener) -> None:
        """Who hears of changes in this process."""

    def start(self, loop: Loop) -> None:
        """Changes are made in `loop` from now on; called before the first, in the loop's process."""

    def tick(self, now: float) -> None:
        """Do what is due at `now`, in epoch seconds; called in the loop a few times a second."""

    def close(self) -> None:
        """There are no connections left and will be none. May wait, beside the loop."""

    def forked(self) -> None:
        """This process is a child of the one that has the connections, and has none itself."""

    def check(self) -> None:
        """Raise `BackendUnavailable` where the state store does not answer. May wait, like a question."""

    def opened(self, client_id: str, user: User | None) -> None:
        """A connection was opened, or belongs to another user now."""

    def closed(self, client_id: str) -> None:
        """A connection is gone, and out of every channel."""

    def join(
        self,
        channel: ChannelName,
        client_id: str,
        user: User | None,
        info: Mapping[str, Any] | None,
        now: datetime,
        owned: Mapping[str, Any] = NOTHING,
    ) -> Joined | Pending[Joined]:
        """As `Roster.join`; the change has been announced to all but `client_id`."""

    def leave(
        self, channel: ChannelName, client_id: str, now: datetime, reason: Reason, *, hold: float = 0
    ) -> Change | Pending[Change | None] | None:
        """As `Roster.leave`; the change has been announced, with its `reason`.

        With a `hold`, in seconds, the user stays listed for so long without a connection; what becomes of it is
        the backend's to announce and to `notice`.
        """

    def update(
        self,
        channel: ChannelName,
        client_id: str,
        info: Mapping[str, Any],
        now: datetime,
        owned: Mapping[str, Any] | None = None,
    ) -> Updated | Pending[Updated]:
        """As `Roster.update`; the change has been announced to all but `client_id`."""

    def publish(self, channel: str, payload: bytes, exclude: str | None) -> int | Pending[int]:
        """Send a frame's JSON to all connections in `channel` but `exclude`; how many they are."""

    def disconnect(self, user_id: str | None, client_id: str | None, text: str) -> int:
        """Close, in every process, the connections of that user and with that id (`None` stands for any); how many.

        They have left their channels, and nobody is held for them any longer. May wait, like a question.
        """

    def remove(self, channel: str, user_id: str, text: str) -> int:
        """Take, in every process, the connections of that user out of `channel`; how many. The user is held there no
        longer. May wait, like a question."""

    def recheck(self, user_id: str | None, channel: str | None) -> int:
        """`Listener.ask_again` in every process; how many. May wait, like a question."""

    def tell(self, user_id: str, payload: bytes) -> int:
        """Send a frame's JSON to the connections of that user in every process; how many. May wait, like a question."""

    def is_online(self, user_id: str) -> bool:
        """Whether any process has a connection of that user. May wait, like a question."""

    def profile(self, channel: ChannelName, client_id: str) -> Profile | None:
        """What is said of the user of one of this process's connections in a presence channel; asked in the loop."""

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

    def connections(self) -> int:
        """All open connections of the service."""

    def connections_of(self, name: str) -> Mapping[str, int]:
        """How many connections each member has in a presence channel, by user id; 0 for one who is held."""

    def survey(self) -> Survey:
        """What all processes of the service are doing."""

    def watch(self, name: str | None = None) -> Iterator[tuple[ChannelName, Change] | None]:
        """The changes of the member list of one channel, or of all, from now on and without end; `None` while there
        are none, before which a `blocking` backend has waited for up to a second. Some may be missed, by who does not
        keep up, and while the state store is cut off."""


REDIS_SCHEMES: Final = ("redis", "rediss", "unix")
BACKENDS: Final = "the backends are 'memory://', 'redis://localhost:6379/0', 'rediss://…' and 'unix://…'"


def open_backend(url: str, *, max_info: int, prefix: str, lease: float, grace_abrupt: float) -> Backend:
    """The backend for `url`; `ConfigurationError` where there is none, or the library for it is missing.

    `max_info` in bytes, `lease` and `grace_abrupt` in seconds; nothing is connected to yet. No error has more of the
    URL than its scheme, as it may have a password.
    """
    scheme, mark, _ = url.partition("://")
    if url == "memory://":
        from .memory import MemoryBackend

        return MemoryBackend(max_info)
    if scheme not in REDIS_SCHEMES or not mark:
        given = f"begins with {scheme}://" if mark and re.fullmatch(r"[a-z][a-z0-9+.-]{0,20}", scheme) else "is no URL"
        raise ConfigurationError(f"PRESENCE_BACKEND {given}; {BACKENDS}")
    try:
        from .redis.backend import RedisBackend
        from .redis.client.address import parse_address
    except ImportError as problem:
        raise ConfigurationError(
            f"PRESENCE_BACKEND begins with '{scheme}://', which needs the package redis ({problem}): "
            "pip install 'flask-presence[redis]'"
        ) from problem
    try:
        return RedisBackend(parse_address(url), prefix, lease, max_info, grace_abrupt)
    except ValueError as problem:
        raise ConfigurationError(f"PRESENCE_BACKEND ({scheme}://…) is not taken: {problem}") from None
