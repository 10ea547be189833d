"""`flask presence …`: see who is where, and send or disconnect, from a shell.

Law: tables for people, `--json` for programs; 0 is success, 1 a failure with a sentence that says what to do, 2 a
wrong call.
"""

from __future__ import annotations

import functools
import json
import logging
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeVar

import click
from flask import Blueprint, current_app
from flask.blueprints import BlueprintSetupState

from ..app.service import Service
from ..domain.channels import CHANNEL_TYPES, ChannelName
from ..domain.errors import BackendUnavailable
from ..stats.payloads import ServiceInfo
from .sources import ServerSource, Source, SourceFailed, StoreSource
from .tables import activity_table, change_line, channels_table, decisions_table, guards_table, members_table

log = logging.getLogger("flask_presence")

Sources = Callable[[str, str | None, dict[str, str]], Source]
"""The source for a command (as it was written), a `--url` and the headers."""

F = TypeVar("F", bound=Callable[..., Any])

HEADER: Final = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t\x20-\x7e\xa0-\xff]*)")
"""RFC 9110, 5.1 and 5.5."""
IN_MEMORY: Final = (
    "PRESENCE_BACKEND is 'memory://', so who is where is known to the server's process alone, and this is another one. "
)
ASK_THE_SERVER: Final = (
    "Ask the running server: flask presence {command} --url http://127.0.0.1:8000/presence (and, where its pages are "
    "closed, --header 'Name: value' with what opens them)."
)
NEEDS_REDIS: Final = (
    "Do it in the server, with presence.{method}(…) in a view of yours, or set PRESENCE_BACKEND to a Redis URL, which "
    "every process can reach."
)


def add_commands(blueprint: Blueprint, service: Service, service_info: ServiceInfo) -> None:
    """Register the commands on the blueprint, so that they are `flask presence …`."""
    blueprint.record_once(_warn_of_another_group)
    group = blueprint.cli
    group.help = "See who is where, and send or disconnect."
    source = _sources(service, service_info)
    _add_lists(group, source)
    _add_watch(group, source)
    _add_orders(group, service_info)
    _add_guards(group, service)


def _warn_of_another_group(state: BlueprintSetupState) -> None:
    if state.blueprint.name in state.app.cli.commands:
        log.warning("the app's own command %r gives way to the one of flask_presence", state.blueprint.name)


def _sources(service: Service, service_info: ServiceInfo) -> Sources:
    """Whom a command asks."""

    def source(command: str, url: str | None, headers: dict[str, str]) -> Source:
        if url is not None:
            return ServerSource(url, headers)
        if service_info.backend == "memory":
            raise click.ClickException(IN_MEMORY + ASK_THE_SERVER.format(command=command))
        return StoreSource(service.hub.directory, service_info)

    return source


def _add_lists(group: click.Group, source: Sources) -> None:
    @group.command("stats")
    @_reading
    def stats(url: str | None, headers: dict[str, str], as_json: bool) -> None:
        """Counts of connections, channels and members, and what goes on."""
        activity = source("stats", url, headers).activity()
        _print(activity["stats"], lambda: activity_table(activity), as_json)

    @group.command("channels")
    @click.option("--type", type=click.Choice(CHANNEL_TYPES), help="Only channels of this type.")
    @click.option("--prefix", help="Only channels whose names begin so.")
    @_reading
    def channels(url: str | None, headers: dict[str, str], as_json: bool, type: str | None, prefix: str | None) -> None:
        """The channels that somebody is in, oldest first."""
        listed = source("channels", url, headers).channels(type, prefix, extras=not as_json)
        _print(listed, lambda: channels_table(listed), as_json)

    @group.command("members")
    @click.argument("channel", callback=_channel)
    @_reading
    def members(url: str | None, headers: dict[str, str], as_json: bool, channel: str) -> None:
        """Who is in CHANNEL, in order of joining."""
        if ChannelName(channel).type != "presence":
            raise click.ClickException(f"Only channels called presence-… list their members; {channel!r} is another.")
        found = source(f"members {channel}", url, headers).channel(channel, extras=not as_json)
        if found is None:
            raise click.ClickException(f"Nobody is in {channel!r}.")
        _print(found, lambda: members_table(found), as_json)


def _add_watch(group: click.Group, source: Sources) -> None:
    @group.command("watch")
    @click.argument("channel", required=False, callback=_channel)
    @_reading
    def watch(url: str | None, headers: dict[str, str], as_json: bool, channel: str | None) -> None:
        """Who joins, leaves or changes, in CHANNEL or anywhere, as it happens, until Ctrl-C.

        With --json, one object a line: {change, channel, member}.
        """
        if channel and ChannelName(channel).type != "presence":
            raise click.ClickException(
                f"Only channels called presence-… tell who comes and goes; {channel!r} is another."
            )
        place = f"watch {channel}" if channel else "watch"
        try:
            _follow(source(place, url, headers).watch(channel), as_json)
        except KeyboardInterrupt:
            click.echo("", err=True)


def _add_orders(group: click.Group, service_info: ServiceInfo) -> None:
    def presence(method: str) -> Any:
        if service_info.backend == "memory":
            raise click.ClickException(IN_MEMORY + NEEDS_REDIS.format(method=method))
        return current_app.extensions["presence"]

    @group.command("publish", context_settings={"ignore_unknown_options": True})
    @click.argument("channel", callback=_channel)
    @click.argument("event")
    @click.argument("data", metavar="JSON", callback=_json)
    @_json_option
    @_explained
    def publish(channel: str, event: str, data: Any, as_json: bool) -> None:
        """Send a channel:message from the server to everybody in CHANNEL."""
        _report("delivered", presence("publish").publish(channel, event, data), as_json)

    @group.command("broadcast")
    @click.argument("channel", callback=_channel)
    @click.argument("message", metavar="JSON", callback=_json)
    @_json_option
    @_explained
    def broadcast(channel: str, message: Any, as_json: bool) -> None:
        """Send a JSON object, as it is, to everybody in CHANNEL."""
        if not isinstance(message, dict):
            raise click.BadParameter('a broadcast is a JSON object, such as \'{"type": "news"}\'', param_hint="JSON")
        sent = presence("broadcast_to_channel").broadcast_to_channel(channel, message)
        _report("delivered", sent, as_json)

    @group.command("disconnect")
    @click.option("--user", "user_id", metavar="ID", help="All connections of this user.")
    @click.option("--client", "client_id", metavar="ID", help="The connection with this client id.")
    @click.option("--reason", default="", help="What the clients are told.")
    @_json_option
    @_explained
    def disconnect(user_id: str | None, client_id: str | None, reason: str, as_json: bool) -> None:
        """Close connections, with 4403: those clients stay away."""
        if (user_id is None) == (client_id is None):
            raise click.UsageError("Whom? Give either --user ID or --client ID.")
        closed = presence("disconnect").disconnect(user_id=user_id, client_id=client_id, reason=reason)
        _report("disconnected", closed, as_json)

    _add_orders_for_users(group, presence)


def _add_orders_for_users(group: click.Group, presence: Callable[[str], Any]) -> None:
    @group.command("send", context_settings={"ignore_unknown_options": True})
    @click.argument("user")
    @click.argument("event")
    @click.argument("data", metavar="JSON", callback=_json)
    @_json_option
    @_explained
    def send(user: str, event: str, data: Any, as_json: bool) -> None:
        """Send a user:message to all connections of USER."""
        _report("delivered", presence("send_to_user").send_to_user(user, event, data), as_json)

    @group.command("remove")
    @click.argument("channel", callback=_channel)
    @click.argument("user")
    @click.option("--reason", default="", help="What the clients are told.")
    @_json_option
    @_explained
    def remove(channel: str, user: str, reason: str, as_json: bool) -> None:
        """Take all connections of USER out of CHANNEL. They may come back if the guard lets them."""
        _report("removed", presence("remove").remove(channel, user, reason), as_json)

    @group.command("recheck")
    @click.option("--user", "user_id", metavar="ID", help="The connections of this user.")
    @click.option("--channel", callback=_channel, help="The connections in this channel.")
    @_json_option
    @_explained
    def recheck(user_id: str | None, channel: str | None, as_json: bool) -> None:
        """Have logins verified and guards asked again, for connections that are there already."""
        if user_id is None and channel is None:
            raise click.UsageError("Whom? Give --user ID, --channel NAME or both.")
        _report("rechecked", presence("recheck").recheck(user_id, channel), as_json)


def _add_guards(group: click.Group, service: Service) -> None:
    @group.command("guards")
    @click.argument("channel", required=False, callback=_channel)
    @_json_option
    def guards(channel: str | None, as_json: bool) -> None:
        """List the guards in the order in which they are looked up; with CHANNEL, those that decide about it."""
        registries = {"join": service.guards, "message": service.message_guards}
        if channel is None:
            listed = [info.to_dict() for registry in registries.values() for info in registry.list()]
            _print({"guards": listed}, lambda: guards_table(listed), as_json)
        else:
            name = ChannelName(channel)
            decided = {kind: registry.decision(name) for kind, registry in registries.items()}
            _print({"channel": channel, **decided}, lambda: decisions_table(name, decided), as_json)


def _reading(function: F) -> F:
    """The options of a command that asks."""
    decorators = [
        click.option("--url", callback=_url, help="Ask the running server whose blueprint is there."),
        click.option(
            "--header", "headers", multiple=True, callback=_headers, metavar="'NAME: VALUE'", help="With --url."
        ),
        _json_option,
        _explained,
    ]
    for decorate in reversed(decorators):
        function = decorate(function)
    return function


def _explained(function: F) -> F:
    """A command whose failures are sentences."""

    @functools.wraps(function)
    def run(*arguments: Any, **options: Any) -> None:
        try:
            function(*arguments, **options)
        except SourceFailed as problem:
            raise click.ClickException(str(problem)) from None
        except BackendUnavailable as problem:
            raise click.ClickException(f"The state store that PRESENCE_BACKEND names is away: {problem}") from None
        except (TypeError, ValueError) as problem:
            raise click.ClickException(str(problem)) from problem

    return run  # type: ignore[return-value]


_json_option: Final = click.option("--json", "as_json", is_flag=True, help="JSON, for programs.")


def _url(_context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    try:
        if value is not None:
            ServerSource(value, {})
    except ValueError as problem:
        raise click.BadParameter(f"expected {problem}", param=parameter) from None
    return value


def _headers(_context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for value in values:
        written = HEADER.fullmatch(value)
        if not written:
            text = f"is written 'Name: value', in Latin letters, not {value!r}"
            raise click.BadParameter(text, param=parameter)
        name, rest = written[1].title(), written[2]
        if name in headers:
            raise click.BadParameter(f"{name} is given twice; cookies go into one header: 'a=1; b=2'", param=parameter)
        headers[name] = rest
    return headers


def _channel(_context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    if value is None:
        return None
    try:
        return str(ChannelName.parse(value))
    except Exception as problem:
        raise click.BadParameter(str(problem), param=parameter) from None


def _json(_context: click.Context, parameter: click.Parameter, value: str) -> Any:
    try:
        return json.loads(value)
    except ValueError as problem:
        text = f"is no JSON ({problem}); a string needs its own quotes: '\"hello\"'"
        raise click.BadParameter(text, param=parameter) from None


def _follow(changes: Iterator[dict[str, Any] | None], as_json: bool) -> None:
    next(changes)
    click.echo("Watching; Ctrl-C ends it.", err=True)
    for change in changes:
        if change is not None:
            click.echo(json.dumps(change) if as_json else change_line(change, time.strftime("%H:%M:%S")))


def _print(payload: dict[str, Any], table: Callable[[], Iterator[str]], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(payload))
        return
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for line in table():
        click.echo(line if width is None or len(line) <= width else f"{line[: width - 1]}…")


def _report(what: str, number: int, as_json: bool) -> None:
    click.echo(json.dumps({what: number}) if as_json else f"{what}: {number}")
