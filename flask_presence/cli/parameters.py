"""The parameters that several commands share, and how a command reports an error.

Rule: a bad parameter is a usage error (exit code 2), and its message says what a good one looks like.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable
from typing import Any, Final, TypeVar

import click

from ..domain.channels import ChannelName
from ..domain.errors import BackendUnavailable
from ..domain.history import Position, parse_position
from .sources import ServerSource, SourceFailed

F = TypeVar("F", bound=Callable[..., Any])

HEADER: Final = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t\x20-\x7e\xa0-\xff]*)")
"""The name and the value of an HTTP header: RFC 9110, sections 5.1 and 5.5."""

json_option: Final = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


def reports_errors(function: F) -> F:
    """Decorate a command so that its failures are one-line messages with exit code 1, not tracebacks."""

    @functools.wraps(function)
    def run(*arguments: Any, **options: Any) -> None:
        try:
            function(*arguments, **options)
        except SourceFailed as problem:
            raise click.ClickException(str(problem)) from None
        except BackendUnavailable as problem:
            raise click.ClickException(f"The state store of PRESENCE_BACKEND is unreachable: {problem}") from None
        except (TypeError, ValueError) as problem:
            raise click.ClickException(str(problem)) from problem

    return run  # type: ignore[return-value]


def reads_state(function: F) -> F:
    """Decorate a command that reads the state, from the state store or from a server: add its options."""
    decorators = [
        click.option("--url", callback=_parse_url, help="Ask the running server whose blueprint has this URL."),
        click.option(
            "--header",
            "headers",
            multiple=True,
            callback=_parse_headers,
            metavar="'NAME: VALUE'",
            help="Send this header to --url.",
        ),
        json_option,
        reports_errors,
    ]
    for decorate in reversed(decorators):
        function = decorate(function)
    return function


def parse_channel(_context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    if value is None:
        return None
    try:
        return str(ChannelName.parse(value))
    except Exception as problem:
        raise click.BadParameter(str(problem), param=parameter) from None


def parse_message_id(_context: click.Context, _parameter: click.Parameter, value: str | None) -> Position | None:
    """The id of a message that a channel keeps."""
    position = None if value is None else parse_position(value)
    if value is not None and position is None:
        raise click.BadParameter("must be the id of a message")
    return position


def parse_json(_context: click.Context, parameter: click.Parameter, value: str) -> Any:
    try:
        return json.loads(value)
    except ValueError as problem:
        text = f"is not valid JSON ({problem}); a string needs its own quotes: '\"hello\"'"
        raise click.BadParameter(text, param=parameter) from None


def _parse_url(_context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    try:
        if value is not None:
            ServerSource(value, {})
    except ValueError as problem:
        raise click.BadParameter(f"expected {problem}", param=parameter) from None
    return value


def _parse_headers(_context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for text in values:
        match = HEADER.fullmatch(text)
        if not match:
            message = f"must look like 'Name: value', in Latin-1 characters, not {text!r}"
            raise click.BadParameter(message, param=parameter)
        name, value = match[1].title(), match[2]
        if name in headers:
            message = f"{name} is given twice; put all cookies into one header: 'a=1; b=2'"
            raise click.BadParameter(message, param=parameter)
        headers[name] = value
    return headers
