"""The functions that an app registers: checks them, and fits them to the arguments that they are called with.

Rule: a function that cannot be called as intended raises when it is registered, not when it is called.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any


def fit_arguments(
    function: Callable[..., Any], max_positional: int, role: str, keywords: Sequence[str] = ()
) -> Callable[..., Any]:
    """Returns `function` so that it can be called with `max_positional` positional arguments, and with `keywords`.

    If it takes fewer positional arguments, it gets the first of them. Raises `TypeError` if it is not a function, if
    it is async, and if it needs other arguments. `role` names it in the error: "a guard".
    """
    if not callable(function):
        raise TypeError(f"{role} must be a function, not {function!r}")
    if is_async(function):
        raise TypeError(
            f"{role} cannot be async, because nothing would await {function!r}: make it an ordinary function, or wrap "
            "it in asgiref's async_to_sync(...)"
        )
    parameters = list(_signature(function, role).parameters.values())
    named = [p.name for p in parameters if p.name in keywords and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    missing = [name for name in keywords if name not in named]
    if missing and not any(p.kind is p.VAR_KEYWORD for p in parameters):
        raise TypeError(f"the pattern has variables that {function!r} does not take: {', '.join(missing)}")
    others = [p for p in parameters if p.name not in named]
    positional = [p for p in others if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    required = [p for p in positional if p.default is p.empty]
    keyword_only = [p for p in others if p.kind is p.KEYWORD_ONLY and p.default is p.empty]
    positional_first = parameters[: len(positional)] == positional or not named
    if len(required) > max_positional or keyword_only or not positional_first:
        then = f", and then {', '.join(keywords)}" if keywords else ""
        raise TypeError(f"{role} takes up to {max_positional} positional arguments{then}; {function!r} needs others")
    if len(positional) >= max_positional or any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return function

    def call(*arguments: Any, **variables: Any) -> Any:
        return function(*arguments[: len(positional)], **variables)

    call.__qualname__ = name_of(function)
    call.__wrapped__ = function  # type: ignore[attr-defined]
    call.__module__ = getattr(function, "__module__", call.__module__)
    return call


def is_async(function: Callable[..., Any]) -> bool:
    """Whether a call returns a coroutine or an async generator, as far as `function` is declared as such."""
    while isinstance(function, functools.partial):
        function = function.func
    forms = (function, getattr(function, "__call__", None))  # noqa: B004 (the method of callable objects)
    return any(inspect.iscoroutinefunction(form) or inspect.isasyncgenfunction(form) for form in forms)


def discard_coroutine(value: object) -> bool:
    """Whether an app's function has returned an awaitable. A coroutine is closed, because nothing awaits it."""
    if inspect.iscoroutine(value):
        value.close()
        return True
    return inspect.isawaitable(value) or inspect.isasyncgen(value)


def name_of(function: Callable[..., Any]) -> str:
    """The function's qualified name, or that of the function it wraps."""
    own = getattr(function, "__qualname__", None)
    wrapped = _wrapped_async(function) or getattr(function, "func", None)
    if own is None and wrapped is not None:
        return name_of(wrapped)
    return repr(function) if own is None else str(own)


def _signature(function: Callable[..., Any], role: str) -> inspect.Signature:
    try:
        return inspect.signature(_wrapped_async(function) or function)
    except ValueError:
        raise TypeError(f"{role} must have a signature that names its arguments; {function!r} has none") from None


def runs_asyncio(function: Callable[..., Any]) -> bool:
    """Whether the function is asgiref's `AsyncToSync`, which runs an asyncio event loop in the calling thread."""
    return _wrapped_async(getattr(function, "__wrapped__", function)) is not None


def _wrapped_async(function: Callable[..., Any]) -> Callable[..., Any] | None:
    """The async function inside asgiref's `AsyncToSync` object, which has no signature of its own."""
    wrapped = getattr(function, "awaitable", None)
    return wrapped if callable(wrapped) else None
