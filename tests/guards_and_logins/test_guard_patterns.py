"""Guard patterns, and how a guard's answer is read."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_presence import Presence, deny
from flask_presence.app.patterns import compile_pattern
from flask_presence.domain.channels import ChannelName
from flask_presence.domain.guards import GuardRegistry, Pattern, read_verdict


def chosen(patterns: list[str], name: str) -> str | None:
    registry = GuardRegistry("join", 3)
    for pattern in patterns:
        registry.add(compile_pattern(pattern), lambda *_, pattern=pattern, **__: pattern)
    match = registry.find(ChannelName(name))
    if match is None:
        return None
    return "nobody" if match.guard is None else str(match.guard(None, None, None, **match.arguments))


@pytest.mark.parametrize(
    ("patterns", "name", "winner"),
    [
        (["room-*"], "private-room-1", "room-*"),
        (["room-*"], "presence-room-1", "room-*"),
        (["room-*"], "presence-room-", "room-*"),
        (["room-*"], "presence-room", None),
        (["room-*"], "presence-xroom-1", None),
        (["private-room-*"], "private-room-1", "private-room-*"),
        (["private-room-*"], "presence-room-1", None),
        (["room-1", "room-*"], "private-room-1", "room-1"),
        (["room-*", "room-1"], "private-room-1", "room-1"),
        (["*", "room-*"], "private-room-1", "room-*"),
        (["*"], "private-x", "*"),
        (["*-1", "room-*"], "private-room-1", "room-*"),
        (["r*", "ro*", "*"], "private-room", "ro*"),
        (["a*", "*b"], "private-ab", "a*"),
        (["*b", "a*"], "private-ab", "*b"),
        (["presence-room-*", "room-*"], "presence-room-1", "presence-room-*"),
        (["private-x"], "presence-private-x", "private-x"),
        (["room.*"], "private-room-1", None),
        (["room?"], "private-room1", None),
        (["[ab]"], "private-a", None),
        (["Room-*"], "private-room-1", None),
        (["a*b*c"], "private-aXbYc", "a*b*c"),
        (["a*b*c"], "private-abc", "a*b*c"),
        (["a*b*c"], "private-acb", None),
        (["aa*aa"], "private-aaa", None),
        ([], "private-x", None),
        (["room-<int:id>"], "private-room-7", "room-<int:id>"),
        (["room-<int:id>", "room-*"], "private-room-7", "room-<int:id>"),
        (["room-*", "room-<int:id>"], "private-room-7", "room-<int:id>"),
        (["room-<int:id>", "room-*"], "private-room-x", "room-*"),
        (["room-<int:id>"], "private-room-07", "nobody"),
        (["room-<int:id>"], "private-room-", "nobody"),
        (["room-<int:id>"], "private-room", None),
        (["room-<int:id>", "*"], "private-room-x", "*"),
        (["room-<int:id>", "room-7"], "private-room-7", "room-7"),
        (["<x>", "*"], "private-a", "<x>"),
        (["<x>", "*"], "private-a/b", "*"),
        (["<path:x>"], "private-a/b", "<path:x>"),
        (["<int:a>-<int:b>", "<int:a>-*"], "private-1-2", "<int:a>-<int:b>"),
        (["presence-<int:a>"], "presence-5", "presence-<int:a>"),
        (["presence-<int:a>"], "private-5", None),
        (["doc-<uuid:u>"], "private-doc-12345678-1234-1234-1234-1234567890ab", "doc-<uuid:u>"),
        (["doc-<uuid:u>"], "private-doc-12345678-1234-1234-1234-1234567890AB", "nobody"),
        (["c-<any(red, blue):x>"], "private-c-red", "c-<any(red, blue):x>"),
        (["c-<any(red, blue):x>"], "private-c-green", "nobody"),
        (["x-<float:f>"], "private-x-1.50", "nobody"),
        (["x-<int(fixed_digits=2):i>"], "private-x-07", "x-<int(fixed_digits=2):i>"),
        (["x.<int:i>"], "private-xy5", None),
    ],
)
def test_the_most_specific_pattern_wins(patterns: list[str], name: str, winner: str | None) -> None:
    """An exact pattern beats `*`, more literal characters beat fewer, and the first registered pattern wins a tie."""
    assert chosen(patterns, name) == winner


@given(st.text("ab*", min_size=1, max_size=8), st.text("ab", max_size=8))
def test_a_star_matches_any_characters(pattern: str, name: str) -> None:
    """It means what `.*` means in a regular expression."""
    expected = re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), name) is not None
    assert Pattern(pattern).matches(name) == expected


@given(st.permutations(["*", "a*", "ab*", "*b", "ab", "b"]), st.text("ab", min_size=1, max_size=4))
def test_the_order_of_registration_matters_only_for_ties(patterns: list[str], name: str) -> None:
    without_ties = [pattern for pattern in patterns if pattern != "*b"]
    assert chosen(without_ties, f"private-{name}") == chosen(sorted(without_ties), f"private-{name}")


@pytest.mark.parametrize("bad", ["", "a b", "a\n", "x" * 201, None, 5])
def test_a_pattern_that_can_match_nothing_raises_at_registration(bad: Any) -> None:
    with pytest.raises(ValueError, match="pattern"):
        compile_pattern(bad)


@pytest.mark.parametrize("variable", ["user", "channel", "user_info", "event", "data"])
def test_a_variable_with_the_name_of_an_argument_raises_at_registration(variable: str) -> None:
    """A guard could not get both values, or would take the one for the other."""
    presence = Presence()
    for register in (presence.guard, presence.message_guard):
        with pytest.raises(ValueError, match=f"variable named '{variable}'.*another name"):
            register(f"room-<int:{variable}>")
        register(f"room-<int:{variable}_id>")


def test_a_guard_with_the_wrong_arguments_raises_at_registration() -> None:
    for bad in (5, lambda a, b, c, d: True, lambda *, needed: True):
        with pytest.raises(TypeError):
            GuardRegistry("join", 3).add(Pattern("x"), bad)  # type: ignore[arg-type]


def test_a_guard_may_leave_out_its_last_arguments() -> None:
    seen: list[tuple[Any, ...]] = []
    guards: list[Any] = [
        lambda: seen.append(()),
        lambda user: seen.append((user,)),
        lambda user, channel: seen.append((user, channel)),
        lambda user, channel, info: seen.append((user, channel, info)),
        lambda *everything: seen.append(everything),
        lambda user, channel="default": seen.append((user, channel)),
    ]
    for guard in guards:
        registry = GuardRegistry("join", 3)
        registry.add(Pattern("*"), guard)
        found = registry.find(ChannelName("private-x"))
        assert found is not None
        assert found.guard is not None
        found.guard("u", "c", "i")
    assert seen == [(), ("u",), ("u", "c"), ("u", "c", "i"), ("u", "c", "i"), ("u", "c")]


@pytest.mark.parametrize(
    ("answer", "allowed", "reason", "is_mistake"),
    [
        (True, True, None, False),
        ({"authorized": True}, True, None, False),
        ({"authorized": True, "reason": "ignored"}, True, None, False),
        (False, False, None, False),
        (None, False, None, False),
        (0, False, None, False),
        ("", False, None, False),
        ({}, False, None, False),
        (1, False, None, True),
        ("yes", False, None, True),
        ([True], False, None, True),
        ({"authorized": 1}, False, None, True),
        ({"authorized": "false", "reason": "r"}, False, "r", True),
        ({"authorized": False, "reason": "r"}, False, "r", False),
        ({"authorized": False, "reason": 5}, False, None, False),
        ({"reason": "r"}, False, "r", False),
        (deny("r"), False, "r", False),
        (deny(), False, None, False),
        (deny("r" * 300), False, "r" * 200, False),
    ],
)
def test_only_a_plain_yes_allows(answer: Any, allowed: bool, reason: str | None, is_mistake: bool) -> None:
    """An answer that is only truthy is a mistake."""
    verdict = read_verdict(answer)
    assert (verdict.allowed, verdict.reason, verdict.mistake is not None) == (allowed, reason, is_mistake)
