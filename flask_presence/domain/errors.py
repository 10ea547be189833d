"""Everything that this package raises, and every error that a client can be answered.

Law: one class per wire code; `message` is safe to send to a client, never text of an exception.

    PresenceError
    ├── RequestError            an `error` frame; the connection stays open
    │   ├── ChannelsDisabled    CHANNELS_DISABLED
    │   ├── InvalidRequest      INVALID_REQUEST
    │   ├── InvalidJSON         INVALID_JSON
    │   ├── UnknownMessageType  UNKNOWN_MESSAGE_TYPE
    │   ├── Forbidden           FORBIDDEN
    │   ├── Unauthorized        UNAUTHORIZED
    │   ├── Removed             REMOVED, in channel:removed
    │   ├── NotInChannel        NOT_IN_CHANNEL
    │   ├── NotFound            NOT_FOUND
    │   ├── NotMember           NOT_MEMBER
    │   ├── JoinFailed          JOIN_FAILED
    │   ├── LeaveFailed         LEAVE_FAILED
    │   ├── UpdateFailed        UPDATE_FAILED
    │   ├── SendFailed          SEND_FAILED
    │   ├── RateLimitExceeded   RATE_LIMIT_EXCEEDED
    │   └── InternalError       INTERNAL_ERROR
    ├── BackendUnavailable      the state store is away
    │   └── OutcomeUnknown      it went away in the middle
    ├── CredentialRejected      a token that was offered is no good (401, or UNAUTHORIZED)
    ├── PresenceTestError       an `error` answer, raised by the test client
    └── ConfigurationError      also a RuntimeError
"""

from __future__ import annotations

from typing import Any, ClassVar, Final


class PresenceError(Exception):
    """The root of this package's exceptions."""


class RequestError(PresenceError):
    """A request that is answered with an `error` frame."""

    code: ClassVar[str] = "INTERNAL_ERROR"
    default: ClassVar[str] = "Internal error"

    def __init__(self, message: str | None = None, *, retryable: bool = False) -> None:
        self.message = self.default if message is None else message
        self.retryable = retryable
        super().__init__(self.message)


class ChannelsDisabled(RequestError):
    code = "CHANNELS_DISABLED"
    default = "Channels feature is disabled"


class InvalidRequest(RequestError):
    code = "INVALID_REQUEST"
    default = "A JSON object was expected"


class InvalidJSON(RequestError):
    code = "INVALID_JSON"
    default = "Invalid JSON format"


class UnknownMessageType(RequestError):
    code = "UNKNOWN_MESSAGE_TYPE"
    default = "Unknown message type: undefined"


class Forbidden(RequestError):
    code = "FORBIDDEN"
    default = "Access denied"


class Removed(RequestError):
    """The server has taken the connection out of a channel. Sent as `channel:removed`, never as an answer."""

    code = "REMOVED"
    default = "Removed by the server"


class Unauthorized(RequestError):
    code = "UNAUTHORIZED"
    default = "Invalid token"


class NotInChannel(RequestError):
    code = "NOT_IN_CHANNEL"
    default = "You must join the channel first"


class NotFound(RequestError):
    code = "NOT_FOUND"
    default = "Channel not found"


class NotMember(RequestError):
    code = "NOT_MEMBER"
    default = "Not a member of this channel"


class JoinFailed(RequestError):
    code = "JOIN_FAILED"


class LeaveFailed(RequestError):
    code = "LEAVE_FAILED"


class UpdateFailed(RequestError):
    code = "UPDATE_FAILED"


class SendFailed(RequestError):
    code = "SEND_FAILED"


class RateLimitExceeded(RequestError):
    code = "RATE_LIMIT_EXCEEDED"
    default = "Too many requests"


class InternalError(RequestError):
    code = "INTERNAL_ERROR"


ERROR_CODES: Final[tuple[str, ...]] = tuple(
    sorted({kind.code for kind in RequestError.__subclasses__()} - {Removed.code})
)
"""Every code that an `error` frame may have."""


class BackendUnavailable(PresenceError):
    """The state store does not answer, or refuses. Unless it is an `OutcomeUnknown`, the operation did not happen."""

    sentence: str = "The state store is away"
    """What anybody may be told, in which no address stands."""


class OutcomeUnknown(BackendUnavailable):
    """The state store went away after it had been told: the operation may have happened or not."""


class CredentialRejected(PresenceError):
    """A credential was offered and is not valid: malformed, expired, revoked, or of the wrong kind."""


class ConfigurationError(PresenceError, RuntimeError):
    """A setting is wrong, or settings contradict each other; the text says what to change."""


class PresenceTestError(PresenceError):
    """The test client met an `error` answer (then with `code`, `message` and the whole `answer`), found
    nothing to receive, or was disconnected."""

    def __init__(self, text: str, answer: dict[str, Any] | None = None) -> None:
        self.answer = answer or {}
        self.code: str | None = self.answer.get("code")
        self.message: str = self.answer.get("message", text)
        super().__init__(text)
