"""The exceptions of this package, and the errors that a client can get as an answer.

Rule: one class per error code of the protocol. `message` is safe to send: it never has the text of another exception.

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
    ├── BackendUnavailable      the state store cannot be reached, or refuses
    │   └── OutcomeUnknown      the state store was lost before it answered
    ├── CredentialRejected      a token is not valid (HTTP 401, or UNAUTHORIZED)
    ├── PresenceTestError       raised by the test client
    └── ConfigurationError      a wrong setting; also a RuntimeError
"""

from __future__ import annotations

from typing import Any, ClassVar, Final


class PresenceError(Exception):
    """The base class of this package's exceptions."""


class RequestError(PresenceError):
    """A request fails and is answered with an `error` frame. `retryable` tells the client to try again later."""

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
    """The server has removed the connection from a channel. Sent as `channel:removed`, never as an answer."""

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
"""The codes that an `error` frame can have."""


class BackendUnavailable(PresenceError):
    """The state store does not answer, or refuses. The operation did not happen, unless this is an `OutcomeUnknown`."""

    public_message: str = "The state store is unreachable"
    """A sentence that anybody may read, because it names no address. `str(error)` may name one."""


class PartlyUnavailable(BackendUnavailable):
    """Some shards do not answer, or refuse; the others go on."""


class OutcomeUnknown(BackendUnavailable):
    """The connection to the state store was lost before it answered: the operation may have happened, or not."""


class CredentialRejected(PresenceError):
    """A credential is not valid: malformed, expired, revoked, or of the wrong kind."""


class ConfigurationError(PresenceError, RuntimeError):
    """A setting is wrong, or two settings contradict each other. The text says what to change."""


class PresenceTestError(PresenceError):
    """The test client got an `error` answer, had nothing to receive, was refused, or was disconnected.

    After an `error` answer, `answer` is the decoded frame. After a refusal to open the WebSocket, `status` is the HTTP
    status, and `answer` is the error in the response's body. `code` and `message` are fields of `answer`. Otherwise
    `answer` is `{}`, `status` and `code` are `None`, and `message` is the error's text.
    """

    def __init__(self, text: str, answer: dict[str, Any] | None = None, status: int | None = None) -> None:
        self.status = status
        self.answer: dict[str, Any] = answer or {}
        self.code: str | None = self.answer.get("code")
        self.message: str = self.answer.get("message", text)
        super().__init__(text)
