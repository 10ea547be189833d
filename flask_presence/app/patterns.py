"""Guard patterns with Werkzeug's converters, like those in routes: `room-<int:room_id>`.

Rule: a converter matches a text only if it turns the value back into that text. So `room-07` is not room 7.
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
"""The maximum number of converters and `*` in one pattern. With more, a hostile channel name could make matching
slow."""
RESERVED: Final = ("user", "channel", "user_info", "event", "data")
"""The names of the arguments that guards and message guards get anyway, which no variable of a pattern can have."""
_CONVERTER: Final = re.compile(r"<(?:(?P<kind>[a-zA-Z_]\w*)(?:\((?P<arguments>[^<>]*)\))?:)?(?P<name>[a-zA-Z_]\w*)>")


def compile_pattern(text: str) -> AnyPattern:
    """Returns the compiled pattern.

    Raises `ValueError` if it cannot match any channel name, if it has a converter that Werkzeug does not have by
    default, or if a variable has the name of an argument that guards get anyway.
    """
    if isinstance(text, str) and ("<" in text or ">" in text):
        return ConverterPattern(text)
    return Pattern(text)


class _Variable(NamedTuple):
    name: str
    converter: BaseConverter


class ConverterPattern:
    """A pattern with converters, and at most one `*`."""

    __slots__ = ("_regex", "_skeleton", "_variables", "rank", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        parts, self._variables, position = list[str](), list[_Variable](), 0
        for found in _CONVERTER.finditer(text):
            parts.append(text[position : found.start()])
            self._variables.append(self._variable(found))
            position = found.end()
        parts.append(text[position:])
        skeleton = "*".join(parts)
        self._skeleton = Pattern(skeleton)  # raises if it cannot match any channel name
        if "<" in skeleton or ">" in skeleton:
            raise ValueError(
                f"guard pattern {text!r} has a '<' or '>' that does not belong to a converter like <int:room_id>"
            )
        if len(set(self.variables)) < len(self.variables):
            raise ValueError(f"guard pattern {text!r} has two variables with the same name")
        taken = next((name for name in self.variables if name in RESERVED), None)
        if taken is not None:
            raise ValueError(
                f"guard pattern {text!r} has a variable named {taken!r}, which is the name of an argument "
                "that guards get anyway: give the variable another name"
            )
        stars = sum(part.count("*") for part in parts)
        if stars > 1 or stars + len(self._variables) > MAX_WILDCARDS:
            raise ValueError(
                f"guard pattern {text!r} has more than one '*', or more than {MAX_WILDCARDS} wildcards in total"
            )
        self.rank: Rank = (False, self._skeleton.rank[1], -stars)
        literals = [re.escape(part).replace(r"\*", ".*") for part in parts]
        groups = [f"({variable.converter.regex})" for variable in self._variables]
        self._regex = re.compile("".join(map("".join, zip(literals, [*groups, ""], strict=True))), re.DOTALL)

    @property
    def variables(self) -> tuple[str, ...]:
        return tuple(variable.name for variable in self._variables)

    def match(self, name: str) -> dict[str, Any] | None:
        """See `AnyPattern.match`."""
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
        """See `AnyPattern.nearly_matches`."""
        return self._skeleton.matches(name)

    @staticmethod
    def _variable(found: re.Match[str]) -> _Variable:
        kind = found["kind"] or "default"
        converter = DEFAULT_CONVERTERS.get(kind)
        if converter is None:
            raise ValueError(f"{kind!r} is not a converter of Werkzeug's; they are {', '.join(DEFAULT_CONVERTERS)}")
        arguments, options = parse_converter_args(found["arguments"]) if found["arguments"] else ((), {})
        try:
            return _Variable(found["name"], converter(Map(), *arguments, **options))
        except TypeError as problem:
            raise ValueError(f"converter {found[0]!r} has wrong arguments: {problem}") from None
