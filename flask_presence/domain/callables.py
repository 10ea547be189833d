"""The functions that an app registers: which can be called at all, and with which arguments.

Law: a function that would never run as it is meant to is refused where it is registered.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any


def with_leading_arguments(
    function: Callable[..., Any], most: int, what: str, keywords: Sequence[str] = ()
) -> Callable[..., Any]:
    """`function`, callable with `most` positional arguments even where it takes only the first few of them, and with
    just these `keywords`.

    Raises `TypeError` for what is no function, for an async one, and for one that needs other arguments. `what` it is
    to be, for the text: "a guard".
    """
    if not callable(function):
        raise TypeError(f"{what} must be a function, not {function!r}")
    if is_async(function):
        raise TypeError(
            f"{what} cannot be async, as nobody would await {function!r}: make it an ordinary function, or wrap it in "
            "asgiref's async_to_sync(...)"
        )
    parameters = list(_signature(function, what).parameters.values())
    named = [p.name for p in parameters if p.name in keywords and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    lacking = [name for name in keywords if name not in named]
    if lacking and not any(p.kind is p.VAR_KEYWORD for p in parameters):
        raise TypeError(f"the pattern gives {', '.join(lacking)}, which {function!r} does not take")
    usual = [p for p in parameters if p.name not in named]
    positional = [p for p in usual if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    needed = [p for p in positional if p.default is p.empty]
    keyword_only = [p for p in usual if p.kind is p.KEYWORD_ONLY and p.default is p.empty]
    in_order = parameters[: len(positional)] == positional or not named
    if len(needed) > most or keyword_only or not in_order:
        behind = f", and then {', '.join(keywords)}" if keywords else ""
        raise TypeError(f"{what} takes up to {most} positional arguments{behind}; {function!r} needs others")
    if len(positional) >= most or any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return function

    def call(*arguments: Any, **variables: Any) -> Any:
        return function(*arguments[: len(positional)], **variables)

    call.__qualname__ = name_of(function)
    call.__wrapped__ = function  # type: ignore[attr-defined]
    call.__module__ = getattr(function, "__module__", call.__module__)
    return call


def is_async(function: Callable[..., Any]) -> bool:
    """Whether a call gives a coroutine or an asynchronous generator, as far as the function says."""
    while isinstance(function, functools.partial):
        function = function.func
    forms = (function, getattr(function, "__call__", None))  # noqa: B004 (the method, for objects that can be called)
    return any(inspect.iscoroutinefunction(form) or inspect.isasyncgenfunction(form) for form in forms)


def discard_coroutine(value: object) -> bool:
    """Whether an app's function has given a coroutine, which is ended, as nobody awaits it."""
    if inspect.iscoroutine(value):
        value.close()
        return True
    return inspect.isawaitable(value) or inspect.isasyncgen(value)


def name_of(function: Callable[..., Any]) -> str:
    """What people call the function: its qualified name, or that of what it wraps."""
    own = getattr(function, "__qualname__", None)
    inner = _awaited_by(function) or getattr(function, "func", None)
    if own is None and inner is not None:
        return name_of(inner)
    return repr(function) if own is None else str(own)


def _signature(function: Callable[..., Any], what: str) -> inspect.Signature:
    try:
        return inspect.signature(_awaited_by(function) or function)
    except ValueError:
        raise TypeError(f"{what} must say what arguments it takes; {function!r} does not") from None


def runs_a_loop(function: Callable[..., Any]) -> bool:
    """Whether the function is asgiref's `AsyncToSync`, which has an event loop run in its thread while it is called."""
    return _awaited_by(getattr(function, "__wrapped__", function)) is not None


def _awaited_by(function: Callable[..., Any]) -> Callable[..., Any] | None:
    """What asgiref's `AsyncToSync` object calls: it has no signature of its own."""
    inner = getattr(function, "awaitable", None)
    return inner if callable(inner) else None
