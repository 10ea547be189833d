"""Who may join: patterns, the functions registered for them, and what their answers mean.

Law: everything that is not a plain yes is a no.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple, Protocol

import msgspec

from .callables import discard_coroutine, name_of, with_leading_arguments
from .channels import MAX_NAME_LENGTH, ChannelName
from .frozen import freeze
from .members import MAX_DEPTH, NOTHING, check_owned, depth
from .meter import GuardOutcome
from .text import sendable

Guard = Callable[..., Any]
Rank = tuple[bool, int, int]
"""Whether a pattern is exact; its literal characters; and minus the number of its `*`."""

MAX_REASON_LENGTH: Final = 200
_encode: Final = msgspec.json.Encoder().encode
_BAD_PATTERN = re.compile(r"[\s\x00-\x1f\x7f-\x9f]")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a guard's answer means. `owned` is what the guard gives of the member, as JSON has it; `mistake` is what the
    log should say about the guard itself; `seconds` how long it took, `None` where no guard was asked."""

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
    """For a guard to return: no, and the `reason` that the client is told."""
    return {"authorized": False} if reason is None else {"authorized": False, "reason": reason}


def allow(info: Mapping[str, Any] = NOTHING) -> dict[str, Any]:
    """For a guard to return: yes, and keys of the member that are the server's from now on.

    They stand in the member as they are, and no client can set, change or remove them; a key that is `None` is absent,
    and stays so. `name` and `avatar` may be among them. Encoded like Flask's own JSON.
    """
    return {"authorized": True, "userInfo": info}


def read_verdict(answer: Any, encode: Callable[[Any], bytes] = _encode) -> Verdict:
    """`True` and `{"authorized": True}` allow. All else denies; what is truthy and yet neither of
    those is a mistake in the guard, as is a `userInfo` of which `encode` makes no JSON object, or raises `TypeError`.
    """
    if answer is True:
        return Verdict(True)
    if answer is False or answer is None:
        return Verdict(False)
    if isinstance(answer, Mapping):
        authorized, reason = answer.get("authorized"), answer.get("reason")
        if authorized is True:
            return _allowed(answer["userInfo"], encode) if "userInfo" in answer else Verdict(True)
        told = sendable(reason[:MAX_REASON_LENGTH]) if isinstance(reason, str) and reason else None
        if not authorized:
            return Verdict(False, told)
        return Verdict(False, told, f"'authorized' must be True or False, not {authorized!r:.200}")
    if discard_coroutine(answer):
        return Verdict(False, None, "it gave a coroutine, which nobody awaits; a guard is an ordinary function")
    if not answer:
        return Verdict(False)
    return Verdict(False, None, f"a guard returns True, False or deny(reason), not {answer!r:.200}")


def _allowed(info: Any, encode: Callable[[Any], bytes]) -> Verdict:
    """Yes, with what the guard gives; or no, where that cannot be."""
    try:
        given = msgspec.json.decode(encode(info), type=dict[str, Any])
    except (TypeError, ValueError, RecursionError):
        return Verdict(False, None, f"what it gives of a member must be a dict of JSON, not {info!r:.200}")
    if depth(given) > MAX_DEPTH:
        return Verdict(False, None, f"what it gives of a member must not nest deeper than {MAX_DEPTH} levels")
    owned, dropped = check_owned(given)
    mistake = f"it gives what no guard can ({', '.join(dropped)}): that was dropped" if dropped else None
    return Verdict(True, mistake=mistake, owned=freeze(owned))


class Pattern:
    """A guard's pattern: `*` stands for any characters, the empty string included; all else is literal.

    Raises `ValueError` for what can match no channel name.
    """

    __slots__ = ("_parts", "rank", "text")

    variables: Final[tuple[str, ...]] = ()

    def __init__(self, text: str) -> None:
        if callable(text):
            raise TypeError("a guard needs a pattern: write @presence.guard('room-*'), not @presence.guard")
        if not isinstance(text, str) or not text:
            raise ValueError(f"a guard's pattern is a string that is not empty, not {text!r}")
        if _BAD_PATTERN.search(text):
            raise ValueError(f"guard pattern {text!r} has white space or control characters, which no channel name has")
        self.text = text
        self._parts = text.split("*")
        literal = sum(map(len, self._parts))
        if literal > MAX_NAME_LENGTH:
            raise ValueError(f"guard pattern {text!r} is longer than any channel name ({MAX_NAME_LENGTH})")
        self.rank: Rank = (len(self._parts) == 1, literal, 1 - len(self._parts))

    def match(self, name: str) -> dict[str, Any] | None:
        """What the guard gets beside the usual for `name`: nothing; `None` where the pattern does not match."""
        return {} if self.matches(name) else None

    def nearly_matches(self, name: str) -> bool:  # noqa: ARG002
        """Whether it would match but for a converter, of which this pattern has none."""
        return False

    def matches(self, name: str) -> bool:
        """In time linear in `name`, however many `*` there are."""
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
    """What decides which channels a guard is for. Of two that match, the one of the higher `rank` decides."""

    text: str
    rank: Rank

    @property
    def variables(self) -> tuple[str, ...]:
        """The names of the keyword arguments that `match` gives."""

    def match(self, name: str) -> dict[str, Any] | None: ...

    def nearly_matches(self, name: str) -> bool: ...


@dataclass(frozen=True, slots=True)
class GuardInfo:
    """A registered guard: its pattern, what it decides about, and the qualified name of its function."""

    pattern: str
    kind: Literal["join", "message"]
    name: str

    def to_dict(self) -> dict[str, str]:
        """`{pattern, kind, name}`."""
        return {"pattern": self.pattern, "kind": self.kind, "name": self.name}


class Match(NamedTuple):
    """The guard that decides about a channel, what it gets beside the usual, and the pattern that says so. `guard` is
    `None` where only a converter keeps the pattern from matching: the name is not of the form that it expects, and so
    open to nobody."""

    guard: Guard | None
    arguments: Mapping[str, Any]
    pattern: AnyPattern


class GuardRegistry:
    """The guards of one kind of one `Presence`. Owner of the list; the functions are called by somebody else.

    `version` grows whenever one is added.
    """

    def __init__(self, kind: Literal["join", "message"], most_arguments: int) -> None:
        self._kind = kind
        self._most = most_arguments
        self._guards: list[tuple[AnyPattern, Guard]] = []
        self.version = 0

    def add(self, pattern: AnyPattern, guard: Guard) -> None:
        """Register `guard` for `pattern`. `TypeError` for a function that cannot be called with the usual arguments, or
        the first of these, and the pattern's variables."""
        callable_guard = with_leading_arguments(guard, self._most, "a guard", keywords=pattern.variables)
        self._guards.append((pattern, callable_guard))
        self.version += 1

    def find(self, channel: ChannelName) -> Match | None:
        """The one guard that decides about `channel`: an exact pattern beats one with wildcards, more literal
        characters beat fewer, a converter beats `*`, the first registered wins a tie. `None` where none matches."""
        names = (channel.topic, str(channel))
        best: Match | None = None
        near: Match | None = None
        for pattern, guard in self._guards:
            if best is not None and pattern.rank <= best.pattern.rank:
                continue
            found = next((found for name in names if (found := pattern.match(name)) is not None), None)
            if found is not None:
                best = Match(guard, found, pattern)
            elif near is None and any(map(pattern.nearly_matches, names)):
                near = Match(None, {}, pattern)
        return best or near

    def decision(self, channel: ChannelName) -> dict[str, Any]:
        """Who decides about `channel`, in words for people: `{pattern, guard}`, of which `guard` is `None` where the
        pattern expects another form, so that nobody may; both are `None` where no guard is asked."""
        match = self.find(channel) if self._kind == "message" or channel.type != "public" else None
        guard = match.guard if match is not None else None
        return {
            "pattern": match.pattern.text if match is not None else None,
            "guard": name_of(guard) if guard is not None else None,
        }

    def list(self) -> list[GuardInfo]:
        """In the order in which they are looked up."""
        ordered = sorted(self._guards, key=lambda entry: entry[0].rank, reverse=True)
        return [GuardInfo(pattern.text, self._kind, name_of(guard)) for pattern, guard in ordered]
