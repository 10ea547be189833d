"""What operations on Redis are made of: calls, and generators that yield them.

Rule: sans IO. An operation yields calls, is sent their replies, and returns its outcome. The caller may run it at once,
or in a pipeline.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any, Final, Generic, NamedTuple, TypeVar

from ....domain.errors import BackendUnavailable
from ....domain.history import Position

T = TypeVar("T")

CHUNK: Final = 200
"""The maximum number of connections that one script looks at, so that no script takes long."""


NOWHERE: Final = Position(0, 0)


class Call(NamedTuple):
    """A script, by its name, or a Redis command, in capitals; with its keys and arguments."""

    name: str
    keys: tuple[str, ...]
    arguments: tuple[str | bytes, ...] = ()


Operation = Generator[Call | list[Call], Any, T]
"""Yields a call and is sent its reply, or yields several that are sent to Redis together and is sent their replies."""


class Refused(BackendUnavailable):
    """Redis answers a call with an error: out of memory, no permission, a key of another type."""

    public_message = "Redis refuses what joins and messages need; the log says why"


class Lost(Exception):
    """Redis does not know something that the caller is certain of, so it has to be restored."""


@dataclass(frozen=True, slots=True)
class Placed(Generic[T]):
    """An outcome, and the position that the channel had reached by then, with the operation's own events included."""

    position: Position
    value: T


def pairs(flat: list[Any]) -> Iterator[tuple[Any, Any]]:
    """The elements of a reply, two by two: fields and values, for instance."""
    return zip(flat[::2], flat[1::2], strict=True)


def position_of(reply: list[Any]) -> Position:
    """The position with which a reply begins."""
    return Position(int(reply[0] or 0), int(reply[1]))
