"""Checks the arguments of the public methods.

Rule: a wrong argument raises before anything is sent or changed.
"""

from __future__ import annotations

from ..domain.channels import ChannelName
from ..domain.errors import InvalidRequest
from ..domain.members import User, UserId
from ..domain.text import sendable


def channel_name(name: str) -> str:
    """`name`, if a channel can have it. Raises `TypeError` if it is not a string, and `ValueError` if it is invalid."""
    if not isinstance(name, str):
        raise TypeError(f"a channel's name must be a string, not {name!r}")
    try:
        return str(ChannelName.parse(name))
    except InvalidRequest as problem:
        raise ValueError(problem.message) from None


def user_id(value: UserId) -> str:
    """A user's id as `User` has it. Raises `TypeError`."""
    return User(value).id


def reason_text(reason: str) -> str:
    """`reason` as text that can be sent. Raises `TypeError` if it is not a string."""
    if not isinstance(reason, str):
        raise TypeError(f"reason must be a string, not {reason!r}")
    return sendable(reason)
