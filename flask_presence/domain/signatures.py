"""The types of the functions that an app registers, for the type checkers of its authors.

Rule: a decorator returns the function that it gets. So each kind of function has a type variable, and its bound says
how such a function may be called, and what it may return.

A type checker cannot read a guard's pattern, so it does not know which variables the guard gets. It accepts any that a
converter can yield, as long as the guard has no more parameters than the longest one without variables.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from .channels import ChannelName
from .events import (
    ChannelJoined,
    ChannelLeft,
    ClientConnected,
    ClientDisconnected,
    MemberJoined,
    MemberLeft,
    MemberUpdated,
    MessageSent,
)
from .members import User

if TYPE_CHECKING:
    from uuid import UUID

    class _Value(str, int, float, UUID):  # type: ignore[misc]
        """What a converter may yield. As a subtype of all four, it fits a parameter that is declared as any of them."""

else:
    _Value = object

GuardResult = bool | Mapping[str, object] | None
"""What a guard returns: `True`, `False`, `None`, or the dict of `allow(…)` or `deny(…)`."""

GuardFunction = TypeVar(
    "GuardFunction",
    bound=Callable[[], GuardResult]
    | Callable[[User], GuardResult]
    | Callable[[User, ChannelName], GuardResult]
    | Callable[[User, ChannelName, dict[str, Any]], GuardResult]
    | Callable[[_Value], GuardResult]
    | Callable[[_Value, _Value], GuardResult]
    | Callable[[_Value, _Value, _Value], GuardResult]
    | Callable[[User, _Value], GuardResult]
    | Callable[[User, _Value, _Value], GuardResult]
    | Callable[[User, ChannelName, _Value], GuardResult],
)
MessageGuardFunction = TypeVar(
    "MessageGuardFunction",
    bound=Callable[[], GuardResult]
    | Callable[[User | None], GuardResult]
    | Callable[[User | None, ChannelName], GuardResult]
    | Callable[[User | None, ChannelName, str], GuardResult]
    | Callable[[User | None, ChannelName, str, Any], GuardResult]
    | Callable[[_Value], GuardResult]
    | Callable[[_Value, _Value], GuardResult]
    | Callable[[_Value, _Value, _Value], GuardResult]
    | Callable[[_Value, _Value, _Value, _Value], GuardResult]
    | Callable[[User | None, _Value], GuardResult]
    | Callable[[User | None, _Value, _Value], GuardResult]
    | Callable[[User | None, _Value, _Value, _Value], GuardResult]
    | Callable[[User | None, ChannelName, _Value], GuardResult]
    | Callable[[User | None, ChannelName, _Value, _Value], GuardResult],
)
LoaderFunction = TypeVar("LoaderFunction", bound=Callable[[], User | None])
StatsGuardFunction = TypeVar("StatsGuardFunction", bound=Callable[[], GuardResult])

OnClientConnected = TypeVar("OnClientConnected", bound=Callable[[ClientConnected], object] | Callable[[], object])
OnClientDisconnected = TypeVar(
    "OnClientDisconnected", bound=Callable[[ClientDisconnected], object] | Callable[[], object]
)
OnChannelJoined = TypeVar("OnChannelJoined", bound=Callable[[ChannelJoined], object] | Callable[[], object])
OnChannelLeft = TypeVar("OnChannelLeft", bound=Callable[[ChannelLeft], object] | Callable[[], object])
OnMemberJoined = TypeVar("OnMemberJoined", bound=Callable[[MemberJoined], object] | Callable[[], object])
OnMemberUpdated = TypeVar("OnMemberUpdated", bound=Callable[[MemberUpdated], object] | Callable[[], object])
OnMemberLeft = TypeVar("OnMemberLeft", bound=Callable[[MemberLeft], object] | Callable[[], object])
OnMessageSent = TypeVar("OnMessageSent", bound=Callable[[MessageSent], object] | Callable[[], object])
