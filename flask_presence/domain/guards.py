"""Who may join: patterns, the functions registered for them, and what their answers mean.

Law: everything that is not a plain yes is a no.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from .callables import discard_coroutine, with_leading_arguments
from .channels import MAX_NAME_LENGTH, ChannelName
from .meter import GuardOutcome
from .text import sendable

Guard = Callable[..., Any]

MAX_REASON_LENGTH: Final = 200
_BAD_PATTERN = re.compile(r"[\s\x00-\x1f\x7f-\x9f]")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a guard's answer means. `mistake` is what the log should say about the guard itself; `seconds` how long it
    took, `None` where no guard was asked."""

    allowed: bool
    reason: str | None = None
    mistake: str | None = None
    seconds: float | None = None

    @property
    def outcome(self) -> GuardOutcome:
        if self.allowed:
            return "allowed"
        return "failed" if self.mistake else "denied"


def deny(reason: str | None = None) -> dict[str, Any]:
    """For a guard to return: no, and the `reason` that the client is told."""
    return {"authorized": False} if reason is None else {"authorized": False, "reason": reason}


def read_verdict(answer: Any) -> Verdict:
    """`True` and `{"authorized": True}` allow. All else denies; what is truthy and yet neither of
    those is a mistake in the guard."""
    if answer is True:
        return Verdict(True)
    if answer is False or answer is None:
        return Verdict(False)
    if isinstance(answer, Mapping):
        authorized, reason = answer.get("authorized"), answer.get("reason")
        if authorized is True:
            return Verdict(True)
        told = sendable(reason[:MAX_REASON_LENGTH]) if isinstance(reason, str) and reason else None
        if not authorized:
            return Verdict(False, told)
        return Verdict(False, told, f"'authorized' must be True or False, not {authorized!r:.200}")
    if discard_coroutine(answer):
        return Verdict(False, None, "it gave a coroutine, which nobody awaits; a guard is an ordinary function")
    if not answer:
        return Verdict(False)
    return Verdict(False, None, f"a guard returns True, False or deny(reason), not {answer!r:.200}")


class Pattern:
    """A guard's pattern: `*` stands for any characters, the empty string included; all else is literal.

    Raises `ValueError` for what can match no channel name.
    """

    __slots__ = ("_parts", "rank", "text")

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
        self.rank = (len(self._parts) == 1, literal)

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


class GuardRegistry:
    """The guards of one `Presence`. Owner of the list; the functions are called by somebody else."""

    def __init__(self) -> None:
        self._guards: list[tuple[Pattern, Guard]] = []

    def add(self, pattern: str, guard: Guard) -> None:
        """Register `guard` for `pattern`. `ValueError` for a bad pattern, `TypeError` for a function
        that cannot be called with `(user, channel, user_info)` or the first of these."""
        parsed = Pattern(pattern)
        self._guards.append((parsed, with_leading_arguments(guard, 3, "a guard")))

    def find(self, channel: ChannelName) -> Guard | None:
        """The one guard that decides about `channel`: an exact pattern beats one with `*`, more literal
        characters beat fewer, the first registered wins a tie. `None` where none matches."""
        topic, full = channel.topic, str(channel)
        best: tuple[Pattern, Guard] | None = None
        for candidate in self._guards:
            pattern = candidate[0]
            if (best is None or pattern.rank > best[0].rank) and (pattern.matches(topic) or pattern.matches(full)):
                best = candidate
        return best and best[1]
