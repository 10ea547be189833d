"""Read-only dictionaries and lists, for values that the app gets.

Rule: they are equal to plain ones and are encoded like them. `copy.deepcopy` makes a plain copy that can be changed.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Final, NoReturn


def _refuse(*_: Any, **__: Any) -> NoReturn:
    raise TypeError("this value is read-only; use copy.deepcopy(value) to get one that can be changed")


class FrozenDict(dict[str, Any]):
    """A read-only `dict`."""

    __slots__ = ()

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse

    def __deepcopy__(self, memo: dict[int, Any]) -> dict[str, Any]:
        return {key: copy.deepcopy(value, memo) for key, value in self.items()}

    def __reduce__(self) -> tuple[Any, ...]:
        return (freeze, (dict(self),))


class FrozenList(list[Any]):
    """A read-only `list`."""

    __slots__ = ()

    __setitem__ = __delitem__ = __iadd__ = __imul__ = _refuse
    append = clear = extend = insert = pop = remove = reverse = sort = _refuse

    def __deepcopy__(self, memo: dict[int, Any]) -> list[Any]:
        return [copy.deepcopy(value, memo) for value in self]

    def __reduce__(self) -> tuple[Any, ...]:
        return (freeze, (list(self),))


_EMPTY: Final = FrozenDict()
_CONSTANTS: Final = frozenset({str, bytes, int, float, bool, type(None)})


def freeze(value: Any) -> Any:
    """A copy of `value` in which all mappings and lists, at every depth, are read-only. Empty mappings are one object,
    because most are."""
    if isinstance(value, Mapping):
        return _EMPTY if not value else FrozenDict((key, freeze(inner)) for key, inner in value.items())
    if isinstance(value, list):
        return FrozenList(freeze(inner) for inner in value)
    return value


def is_constant(value: Any) -> bool:
    """Whether nothing in `value` can be changed, as far as is known, so that it need not be copied."""
    kind = type(value)
    if kind is FrozenDict:
        return all(map(is_constant, value.values()))
    return kind in _CONSTANTS or (kind is FrozenList and all(map(is_constant, value)))
