"""The patterns of guards as they are written: with `*`, and with Werkzeug's converters as routes have them.

Law: a converter matches only the text that its own value gives back: `room-07` is not room 7.
"""

from __future__ import annotations

import re
from typing import Any, Final, NamedTuple
from urllib.parse import unquote

from werkzeug.routing import BaseConverter, Map
from werkzeug.routing.converters import DEFAULT_CONVERTERS
from werkzeug.routing.rules import parse_converter_args

from ..domain.guards import AnyPattern, Pattern, Rank

MAX_WILDCARDS: Final = 4
"""Converters and `*` in one pattern: more would take too long on names made for it."""
_CONVERTER: Final = re.compile(r"<(?:(?P<kind>[a-zA-Z_]\w*)(?:\((?P<arguments>[^<>]*)\))?:)?(?P<name>[a-zA-Z_]\w*)>")


def compile_pattern(text: str) -> AnyPattern:
    """The pattern; `ValueError` for one that can match no channel, or whose converters are not Werkzeug's own."""
    if isinstance(text, str) and ("<" in text or ">" in text):
        return ConverterPattern(text)
    return Pattern(text)


class _Variable(NamedTuple):
    name: str
    converter: BaseConverter


class ConverterPattern:
    """A pattern with converters, and at most one `*` beside them."""

    __slots__ = ("_near", "_regex", "_variables", "rank", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        parts, self._variables, position = list[str](), list[_Variable](), 0
        for found in _CONVERTER.finditer(text):
            parts.append(text[position : found.start()])
            self._variables.append(self._variable(found))
            position = found.end()
        parts.append(text[position:])
        around = "*".join(parts)
        self._near = Pattern(around)  # refuses what no name can have
        if "<" in around or ">" in around:
            raise ValueError(f"guard pattern {text!r} has a '<' or '>' that is no converter like <int:room_id>")
        if len(set(self.variables)) < len(self.variables):
            raise ValueError(f"guard pattern {text!r} has two variables of one name")
        stars = sum(part.count("*") for part in parts)
        if stars > 1 or stars + len(self._variables) > MAX_WILDCARDS:
            raise ValueError(f"guard pattern {text!r} has more than one '*', or than {MAX_WILDCARDS} wildcards in all")
        self.rank: Rank = (False, self._near.rank[1], -stars)
        literals = [re.escape(part).replace(r"\*", ".*") for part in parts]
        groups = [f"({variable.converter.regex})" for variable in self._variables]
        self._regex = re.compile("".join(map("".join, zip(literals, [*groups, ""], strict=True))), re.DOTALL)

    @property
    def variables(self) -> tuple[str, ...]:
        return tuple(variable.name for variable in self._variables)

    def match(self, name: str) -> dict[str, Any] | None:
        found = self._regex.fullmatch(name)
        if found is None:
            return None
        values: dict[str, Any] = {}
        for (variable, converter), text in zip(self._variables, found.groups(), strict=True):
            try:
                value = converter.to_python(text)
                canonical = unquote(converter.to_url(value))
            except ValueError:
                return None
            if canonical != text:
                return None
            values[variable] = value
        return values

    def nearly_matches(self, name: str) -> bool:
        return self._near.matches(name)

    @staticmethod
    def _variable(found: re.Match[str]) -> _Variable:
        kind = found["kind"] or "default"
        converter = DEFAULT_CONVERTERS.get(kind)
        if converter is None:
            raise ValueError(f"{kind!r} is no converter of Werkzeug's; they are {', '.join(DEFAULT_CONVERTERS)}")
        arguments, options = parse_converter_args(found["arguments"]) if found["arguments"] else ((), {})
        try:
            return _Variable(found["name"], converter(Map(), *arguments, **options))
        except TypeError as problem:
            raise ValueError(f"converter {found[0]!r} has wrong arguments: {problem}") from None
