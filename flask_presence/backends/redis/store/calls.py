"""What operations on Redis are made of: calls, and generators that yield them.

Rule: sans IO. An operation yields calls, is sent their replies, and returns its outcome. Whatever drives it may do so
at once or in a pipeline.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any, Final, Generic, NamedTuple, TypeVar

from ....domain.errors import BackendUnavailable

T = TypeVar("T")

CHUNK: Final = 200
"""Connections that one script looks at, at the most, so that none takes long."""


class Position(NamedTuple):
    """A place in a channel's order. Epochs grow; within one, every event has the next number."""

    epoch: int
    number: int


NOWHERE: Final = Position(0, 0)


class Call(NamedTuple):
    """A script, by its name, or a command in capitals; with its keys and arguments."""

    name: str
    keys: tuple[str, ...]
    arguments: tuple[str | bytes, ...] = ()


Operation = Generator[Call | list[Call], Any, T]
"""Is sent the reply to a call, or the replies to calls that belong together and go out together."""


class Refused(BackendUnavailable):
    """Redis is there, and answers one call with an error: out of memory, no permission, a key of another type."""

    sentence = "Redis refuses what joins and messages need; the log says why"


class Lost(Exception):
    """Redis knows nothing of what the caller is sure of: it must be told again."""


@dataclass(frozen=True, slots=True)
class Placed(Generic[T]):
    """What has happened, and after which event of the channel."""

    position: Position
    value: T


def pairs(flat: list[Any]) -> Iterator[tuple[Any, Any]]:
    """What a reply has in turns: fields and values, or whatever belongs together."""
    return zip(flat[::2], flat[1::2], strict=True)


def position_of(reply: list[Any]) -> Position:
    return Position(int(reply[0] or 0), int(reply[1]))
