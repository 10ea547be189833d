"""What the hub needs from the layers around it.

Rule: interfaces and plain values only. `transport` implements `Connection` and `Transport`, `app` implements
`Application`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ..domain.channels import ChannelName
from ..domain.events import Event, Reason
from ..domain.guards import Verdict
from ..domain.history import NO_RULES, HistoryRules
from ..domain.members import User
from ..domain.meter import Meter
from ..domain.pusher.signing import Signer
from ..domain.readings import Backlog

Login = str | bytes | None
"""What identifies a connection's user: its token; or the upgrade request that the `user_loader` read, in the
application's own encoding; or nothing."""


@dataclass(frozen=True, slots=True)
class Credential:
    """A verified token, its user, and when it expires: `expires_at` in epoch seconds, or `None` for never."""

    token: str
    user: User
    expires_at: float | None


@dataclass(frozen=True, slots=True)
class PusherPolicy:
    """The settings of the Pusher dialect. `activity_timeout` is in seconds. `client_events` is how many a client may
    send a second, and at once; `None` for no limit of their own."""

    signer: Signer
    activity_timeout: int = 30
    client_events: tuple[float, float] | None = (10, 10)
    user_required: bool = False


@dataclass(frozen=True, slots=True)
class Policy:
    """The settings that the hub obeys. Without a `pusher` policy, there is only the native dialect."""

    enabled: bool = True
    max_channels: int = 100
    max_user_info: int = 4096
    history: HistoryRules = NO_RULES
    rate_limit: tuple[float, float] | None = (100, 200)
    token_recheck: float = 60
    grace: float = 10
    grace_abrupt: float = 0
    pusher: PusherPolicy | None = None


class Connection(Protocol):
    """One socket, as the hub sees it. No method blocks or raises, whatever state the peer is in. `send` and `answer`
    never call back into the hub."""

    congested: bool
    """Whether so many answers wait to be sent that further requests have to wait too. When they are sent,
    `Session.proceed` is called."""

    def send(self, frame: bytes) -> None:
        """Queue a frame that others caused. If too many bytes of such frames wait, the connection ends with 1013."""

    def answer(self, frame: bytes) -> None:
        """Queue the answer to a request. If too many bytes of answers wait, the connection is not read from."""

    def close(self, code: int, text: str, reason: Reason) -> None:
        """Close with a code and a text. `Session.closed` has been called when this returns."""

    def pause(self) -> None:
        """Stop reading from the socket."""

    def resume(self) -> None:
        """Read from the socket again."""


class Transport(Protocol):
    """All connections of the process. `meter` counts their bytes."""

    meter: Meter

    def send_all(self, connections: Sequence[Any], frame: bytes, skipped: Any) -> None:
        """`Connection.send` for each of them except `skipped`. The sequence must never change."""

    def backlog(self) -> Backlog:
        """What is still to be sent."""


class Application(Protocol):
    """The application's own code. Unless it says otherwise, a method may block, and runs the code in a fresh app
    context."""

    @property
    def has_user_loader(self) -> bool:
        """Whether a `user_loader` identifies users, so that tokens are ignored. Does not block."""

    def authorize(self, login: Login, user: User | None, channel: ChannelName, user_info: Mapping[str, Any]) -> Verdict:
        """Verify the token again, if there is one, then ask the guard of a private or presence channel.

        Raises `CredentialRejected` if the token is no longer valid.
        """

    @property
    def message_guards_version(self) -> int:
        """A number that grows with every message guard that is registered; 0 if there is none. Does not block."""

    def has_message_guard(self, channel: ChannelName) -> bool:
        """Whether a message guard decides who may send to `channel`. Does not block."""

    def authorize_message(
        self, login: Login, user: User | None, channel: ChannelName, event: str, data: bytes
    ) -> Verdict:
        """Verify the token again, if there is one, then ask the message guard. Raises like `authorize`."""

    def load_user(self, upgrade: bytes) -> User | None:
        """Ask the `user_loader` again. Raises what it raises."""

    def identify(self, token: str) -> Credential:
        """Verify a token. Raises `CredentialRejected`."""

    def listens(self, event_name: str) -> bool:
        """Whether anybody would hear of such an event. Does not block."""

    def has_handlers(self, event_name: str) -> bool:
        """Whether `notify` would run anything for such an event. Does not block."""

    def observe(self, event: Event) -> None:
        """Note an event as it happens, in the order of the loop, if there is one. Does not block, and never raises."""

    def notify(self, event: Event, login: Login) -> None:
        """Run the handlers of an event. Never raises."""
