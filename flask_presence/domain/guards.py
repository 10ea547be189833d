"""Guards: the functions that decide who may join or send, the patterns they are registered for, and their answers.

Rule: an answer that is not a plain yes denies.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple, Protocol

import msgspec

from .callables import discard_coroutine, fit_arguments, name_of
from .channels import MAX_NAME_LENGTH, ChannelName
from .frozen import freeze
from .members import MAX_DEPTH, NO_INFO, depth, split_owned
from .meter import GuardOutcome
from .text import sendable

Guard = Callable[..., Any]
Rank = tuple[bool, int, int]
"""How specific a pattern is: whether it is exact, how many literal characters it has, and minus how many `*`."""

MAX_REASON_LENGTH: Final = 200
_encode: Final = msgspec.json.Encoder().encode
_BAD_PATTERN = re.compile(r"[\s\x00-\x1f\x7f-\x9f]")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a guard's answer means.

    `reason` is what the client is told about a denial. `owned` are the keys of the member that the guard owns, as JSON
    values. `mistake` says what is wrong with the guard itself, for the log. `seconds` is how long the guard took, or
    `None` if no guard was asked.
    """

    allowed: bool
    reason: str | None = None
    mistake: str | None = None
    seconds: float | None = None
    owned: Mapping[str, Any] = field(default_factory=dict)

    @property
    def outcome(self) -> GuardOutcome:
        if self.allowed:
            return "allowed"
        return "failed" if self.mistake else "denied"


def deny(reason: str | None = None) -> dict[str, Any]:
    """The answer of a guard that denies. The client is told the `reason`, cut to 200 characters.

    Returns `{"authorized": False, "reason"?: reason}`.
    """
    return {"authorized": False} if reason is None else {"authorized": False, "reason": reason}


def allow(info: Mapping[str, Any] = NO_INFO) -> dict[str, Any]:
    """The answer of a guard that allows. In a presence channel, the server owns the keys in `info` from now on.

    The member has these keys as they are; no client can set, change or remove them. A key that is `None` is absent, and
    stays absent. `name` and `avatar` may be among them. The values are encoded like Flask's own JSON.

    Returns `{"authorized": True, "userInfo": info}`.
    """
    return {"authorized": True, "userInfo": info}


def read_verdict(answer: Any, encode: Callable[[Any], bytes] = _encode) -> Verdict:
    """Read a guard's answer. `True` and `{"authorized": True}` allow, and everything else denies.

    Another truthy answer is a mistake in the guard. So is a `userInfo` that `encode` does not turn into a JSON object.
    """
    if answer is True:
        return Verdict(True)
    if answer is False or answer is None:
        return Verdict(False)
    if isinstance(answer, Mapping):
        authorized, reason = answer.get("authorized"), answer.get("reason")
        if authorized is True:
            return _allowed(answer["userInfo"], encode) if "userInfo" in answer else Verdict(True)
        shown_reason = sendable(reason[:MAX_REASON_LENGTH]) if isinstance(reason, str) and reason else None
        if not authorized:
            return Verdict(False, shown_reason)
        return Verdict(False, shown_reason, f"'authorized' must be True or False, not {authorized!r:.200}")
    if discard_coroutine(answer):
        return Verdict(False, None, "it returned a coroutine, which nothing awaits; a guard is an ordinary function")
    if not answer:
        return Verdict(False)
    return Verdict(False, None, f"a guard returns True, False or deny(reason), not {answer!r:.200}")


def _allowed(info: Any, encode: Callable[[Any], bytes]) -> Verdict:
    """Allow, with the owned info of the answer; or deny, if that is not a JSON object."""
    try:
        values = msgspec.json.decode(encode(info), type=dict[str, Any])
    except (TypeError, ValueError, RecursionError):
        return Verdict(False, None, f"the userInfo that it returns must be a dict of JSON values, not {info!r:.200}")
    if depth(values) > MAX_DEPTH:
        return Verdict(False, None, f"the userInfo that it returns must not nest deeper than {MAX_DEPTH} levels")
    owned, dropped = split_owned(values)
    mistake = f"it returned keys that no guard can own, which were dropped: {', '.join(dropped)}" if dropped else None
    return Verdict(True, mistake=mistake, owned=freeze(owned))


class Pattern:
    """A guard's pattern. `*` matches any characters, or none; every other character is literal.

    Raises `ValueError` if it cannot match any channel name.
    """

    __slots__ = ("_parts", "rank", "text")

    variables: Final[tuple[str, ...]] = ()

    def __init__(self, text: str) -> None:
        if callable(text):
            raise TypeError("a guard needs a pattern: write @presence.guard('room-*'), not @presence.guard")
        if not isinstance(text, str) or not text:
            raise ValueError(f"a guard's pattern must be a non-empty string, not {text!r}")
        if _BAD_PATTERN.search(text):
            raise ValueError(f"guard pattern {text!r} has white space or control characters, which no channel name has")
        self.text = text
        self._parts = text.split("*")
        literal = sum(map(len, self._parts))
        if literal > MAX_NAME_LENGTH:
            raise ValueError(f"guard pattern {text!r} is longer than any channel name ({MAX_NAME_LENGTH})")
        self.rank: Rank = (len(self._parts) == 1, literal, 1 - len(self._parts))

    def match(self, name: str) -> dict[str, Any] | None:
        """See `AnyPattern.match`."""
        return {} if self.matches(name) else None

    def nearly_matches(self, name: str) -> bool:  # noqa: ARG002
        """See `AnyPattern.nearly_matches`. This pattern has no converters."""
        return False

    def matches(self, name: str) -> bool:
        """Whether the pattern matches. Takes time linear in the length of `name`, however many `*` there are."""
        head, *rest = self._parts
        if not rest:
            return name == head
        *middle, tail = rest
        if len(name) < len(head) + len(tail) or not (name.startswith(head) and name.endswith(tail)):
            return False
        position, end = len(head), len(name) - len(tail)
        for part in middle:
            found = name.find(part, position, end)
            if found < 0:
                return False
            position = found + len(part)
        return True


class AnyPattern(Protocol):
    """Says which channels a guard decides about. If several patterns match, the one with the highest `rank` decides."""

    text: str
    rank: Rank

    @property
    def variables(self) -> tuple[str, ...]:
        """The names of the keyword arguments that `match` returns."""

    def match(self, name: str) -> dict[str, Any] | None:
        """The keyword arguments that the guard gets for `name`, or `None` if the pattern does not match."""

    def nearly_matches(self, name: str) -> bool:
        """Whether the pattern would match `name` if its converters took any text."""


@dataclass(frozen=True, slots=True)
class GuardInfo:
    """A registered guard. Immutable.

    `kind` is `"join"` if it decides who may join, and `"message"` if it decides who may send. `name` is the qualified
    name of its function.
    """

    pattern: str
    kind: Literal["join", "message"]
    name: str

    def to_dict(self) -> dict[str, str]:
        """A JSON object: `{pattern, kind, name}`."""
        return {"pattern": self.pattern, "kind": self.kind, "name": self.name}


class Match(NamedTuple):
    """The guard that decides about a channel, its keyword arguments, and its pattern.

    `guard` is `None` if only a converter keeps the pattern from matching. The channel's name then does not have the
    form that the pattern expects, so everyone is denied.
    """

    guard: Guard | None
    arguments: Mapping[str, Any]
    pattern: AnyPattern


class GuardRegistry:
    """The guards of one kind, of one `Presence`. It finds guards and does not call them.

    `version` grows with every guard that is added.
    """

    def __init__(self, kind: Literal["join", "message"], max_arguments: int) -> None:
        self._kind = kind
        self._max_arguments = max_arguments
        self._guards: list[tuple[AnyPattern, Guard]] = []
        self.version = 0

    def add(self, pattern: AnyPattern, guard: Guard) -> None:
        """Register `guard` for `pattern`. Raises `TypeError` if it cannot be called with the first positional arguments
        of its kind and the pattern's variables."""
        callable_guard = fit_arguments(guard, self._max_arguments, "a guard", keywords=pattern.variables)
        self._guards.append((pattern, callable_guard))
        self.version += 1

    def find(self, channel: ChannelName) -> Match | None:
        """The guard that decides about `channel`, or `None` if no pattern matches.

        An exact pattern beats one with wildcards, more literal characters beat fewer, a converter beats `*`, and the
        guard that was registered first wins a tie.
        """
        names = (channel.topic, str(channel))
        best: Match | None = None
        near_miss: Match | None = None
        for pattern, guard in self._guards:
            if best is not None and pattern.rank <= best.pattern.rank:
                continue
            found = next((found for name in names if (found := pattern.match(name)) is not None), None)
            if found is not None:
                best = Match(guard, found, pattern)
            elif near_miss is None and any(map(pattern.nearly_matches, names)):
                near_miss = Match(None, {}, pattern)
        return best or near_miss

    def decision(self, channel: ChannelName) -> dict[str, Any]:
        """Which guard decides about `channel`, by name: `{pattern, guard}`.

        Both are `None` if no guard is asked. `guard` alone is `None` if everyone is denied, see `Match`.
        """
        match = self.find(channel) if self._kind == "message" or channel.type != "public" else None
        guard = match.guard if match is not None else None
        return {
            "pattern": match.pattern.text if match is not None else None,
            "guard": name_of(guard) if guard is not None else None,
        }

    def list(self) -> list[GuardInfo]:
        """The guards in the order in which they are tried: the most specific pattern first."""
        ordered = sorted(self._guards, key=lambda entry: entry[0].rank, reverse=True)
        return [GuardInfo(pattern.text, self._kind, name_of(guard)) for pattern, guard in ordered]
