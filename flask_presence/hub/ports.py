"""What the hub needs from the layers around it.

Law: interfaces only. The transport implements `Connection` (and the `Loop` of `backends`), the Flask glue
`Application`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ..domain.channels import ChannelName
from ..domain.events import Event, Reason
from ..domain.guards import Verdict
from ..domain.members import User
from ..domain.meter import Meter
from ..domain.readings import Outbox

Grounds = str | bytes | None
"""What a connection rests on: its token; the upgrade that a `user_loader` looked at, as the application has kept it; or
nothing."""


@dataclass(frozen=True, slots=True)
class Credential:
    """A verified token: whose it is, and when it ends (`expires_at` in epoch seconds, or never)."""

    token: str
    user: User
    expires_at: float | None


@dataclass(frozen=True, slots=True)
class Policy:
    """The limits and switches that the hub keeps, each of them a setting."""

    enabled: bool = True
    max_channels: int = 100
    max_user_info: int = 4096
    rate_limit: tuple[float, float] | None = (100, 200)
    token_recheck: float = 60
    grace: float = 10
    grace_abrupt: float = 0


class Connection(Protocol):
    """One socket, as the hub sees it. No method blocks or raises, whatever state the peer is in, and
    `send` and `answer` never call back into the hub."""

    def send(self, frame: bytes) -> None:
        """Queue what others caused; too much of it waiting ends the connection with 1013."""

    def answer(self, frame: bytes) -> None:
        """Queue what this connection asked for; too much of it waiting stops the reading."""

    def close(self, code: int, text: str, reason: Reason) -> None:
        """Say goodbye with a close code; `Session.closed` has been called when this returns."""

    def pause(self) -> None:
        """Stop reading from the socket."""

    def resume(self) -> None:
        """Read from the socket again."""


class Transport(Protocol):
    """All connections of the process. `meter` is the one that counts their bytes."""

    meter: Meter

    def send_all(self, connections: Sequence[Any], frame: bytes, skipped: Any) -> None:
        """`Connection.send` to each in the sequence, which never changes, but to `skipped`."""

    def outbox(self) -> Outbox:
        """What waits for them."""


class Application(Protocol):
    """The application's own code. Every method may block; each runs it in a fresh app context."""

    def authorize(
        self, grounds: Grounds, user: User | None, channel: ChannelName, user_info: Mapping[str, Any]
    ) -> Verdict:
        """Verify the token again, if there is one, then ask the guard of a private or presence channel.

        Raises `CredentialRejected` where the token is no longer good.
        """

    @property
    def message_guards(self) -> int:
        """A number that grows whenever a message guard is registered; 0 while there is none."""

    def has_message_guard(self, channel: ChannelName) -> bool:
        """Whether somebody must be asked who may send to `channel`. Does not block."""

    def authorize_message(
        self, grounds: Grounds, user: User | None, channel: ChannelName, event: str, data: bytes
    ) -> Verdict:
        """Verify the token again, if there is one, then ask the message guard. Raises as `authorize` does."""

    def load_user(self, upgrade: bytes) -> User | None:
        """Ask the `user_loader` again. Raises what goes wrong there."""

    def identify(self, token: str) -> Credential:
        """Verify a token. Raises `CredentialRejected`."""

    def listens(self, event_name: str) -> bool:
        """Whether anybody would hear of such an event. Does not block."""

    def notify(self, event: Event, grounds: Grounds) -> None:
        """Run the handlers of an event. Never raises."""
