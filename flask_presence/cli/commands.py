"""The commands `flask presence …`: they show who is in which channel, send messages, and disconnect clients; and one
writes the browser client.

Rule: a command prints tables for people and, with `--json`, JSON for programs. Its exit code is 0 for success, 1 for a
failure, with a message that says what to do, and 2 for a usage error.
"""

from __future__ import annotations

import json
import logging
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import click
from flask import Blueprint, current_app
from flask.blueprints import BlueprintSetupState

from ..app.service import Service
from ..domain.channels import CHANNEL_TYPES, ChannelName
from ..domain.history import DEFAULT_LIMIT, MAX_LIMIT, Position
from ..stats.payloads import ServiceInfo, layout_payload
from ..stats.query import HistoryQuery
from .package_directory import write_package
from .parameters import json_option, parse_channel, parse_json, parse_message_id, reads_state, reports_errors
from .sources import ServerSource, Source, StoreSource
from .tables import (
    activity_table,
    change_line,
    channels_table,
    decisions_table,
    guards_table,
    history_table,
    layout_table,
    members_table,
)

log = logging.getLogger("flask_presence")

SourceFactory = Callable[[str, str | None, dict[str, str]], Source]
"""Returns the source for a command. Takes the command as the user typed it, its `--url` and its headers."""

IN_MEMORY: Final = (
    "PRESENCE_BACKEND is 'memory://', so only the server's process knows who is in which channel, and this is another "
    "process. "
)
ASK_THE_SERVER: Final = (
    "Ask the running server: flask presence {command} --url http://127.0.0.1:8000/presence (and, if access to its "
    "pages is restricted, --header 'Name: value' with your credentials)."
)
NEEDS_REDIS: Final = (
    "Call presence.{method}(…) in the server's process, for example in a view, or set PRESENCE_BACKEND to a Redis URL, "
    "which every process can reach."
)

NO_SHARDS: Final = (
    "PRESENCE_BACKEND is the URL of a single Redis, so there are no shards. For several, set it to a mapping of labels "
    "to URLs."
)


def add_commands(
    blueprint: Blueprint,
    service: Service,
    service_info: ServiceInfo,
    client_files: Callable[[], Mapping[str, bytes]],
) -> None:
    """Register the commands on the blueprint, as the group `flask presence`.

    `client_files` returns the files of the browser client's npm package, by name.
    """
    blueprint.record_once(_warn_of_name_clash)
    group = blueprint.cli
    group.help = "Show who is in which channel, send messages, and disconnect clients."
    new_source = _source_factory(service, service_info)
    presence = _presence_getter(service_info)
    _add_queries(group, new_source)
    _add_history(group, new_source)
    _add_watch(group, new_source)
    _add_sending(group, presence)
    _add_moderation(group, presence)
    _add_guards(group, service)
    _add_layout(group, service, service_info)
    _add_client(group, client_files)


def _warn_of_name_clash(state: BlueprintSetupState) -> None:
    if state.blueprint.name in state.app.cli.commands:
        log.warning("the command group of flask_presence replaces the app's own command %r", state.blueprint.name)


def _source_factory(service: Service, service_info: ServiceInfo) -> SourceFactory:
    def new_source(command: str, url: str | None, headers: dict[str, str]) -> Source:
        if url is not None:
            return ServerSource(url, headers)
        if service_info.backend == "memory":
            raise click.ClickException(IN_MEMORY + ASK_THE_SERVER.format(command=command))
        return StoreSource(service.hub.directory, service_info)

    return new_source


def _presence_getter(service_info: ServiceInfo) -> Callable[[str], Any]:
    """A function that returns the app's `Presence`, for a command that calls the given method of it."""

    def presence(method: str) -> Any:
        if service_info.backend == "memory":
            raise click.ClickException(IN_MEMORY + NEEDS_REDIS.format(method=method))
        return current_app.extensions["presence"]

    return presence


def _add_queries(group: click.Group, new_source: SourceFactory) -> None:
    @group.command("stats")
    @reads_state
    def stats(url: str | None, headers: dict[str, str], as_json: bool) -> None:
        """Show the number of connections and channels, and the traffic."""
        activity = new_source("stats", url, headers).activity()
        _print(activity["stats"], lambda: activity_table(activity), as_json)

    @group.command("channels")
    @click.option("--type", type=click.Choice(CHANNEL_TYPES), help="Only channels of this type.")
    @click.option("--prefix", help="Only channels whose names begin with this.")
    @reads_state
    def channels(url: str | None, headers: dict[str, str], as_json: bool, type: str | None, prefix: str | None) -> None:
        """List the channels that somebody is in, oldest first."""
        channel_list = new_source("channels", url, headers).channels(type, prefix, extras=not as_json)
        _print(channel_list, lambda: channels_table(channel_list), as_json)

    @group.command("members")
    @click.argument("channel", callback=parse_channel)
    @reads_state
    def members(url: str | None, headers: dict[str, str], as_json: bool, channel: str) -> None:
        """List the members of CHANNEL, in order of joining."""
        _check_is_presence(channel, "list their members")
        payload = new_source(f"members {channel}", url, headers).channel(channel, extras=not as_json)
        if payload is None:
            raise click.ClickException(f"Nobody is in {channel!r}.")
        _print(payload, lambda: members_table(payload), as_json)


def _add_history(group: click.Group, new_source: SourceFactory) -> None:
    @group.command("history")
    @click.argument("channel", callback=parse_channel)
    @click.option("--limit", type=click.IntRange(1, MAX_LIMIT), default=DEFAULT_LIMIT, help="How many messages.")
    @click.option(
        "--before", metavar="ID", callback=parse_message_id, help="Only messages before the one with this id."
    )
    @reads_state
    def history(
        url: str | None, headers: dict[str, str], as_json: bool, channel: str, limit: int, before: Position | None
    ) -> None:
        """Show the newest messages that CHANNEL keeps, oldest first."""
        payload = new_source(f"history {channel}", url, headers).history(HistoryQuery(channel, limit, before))
        _print(payload, lambda: history_table(payload), as_json)


def _add_watch(group: click.Group, new_source: SourceFactory) -> None:
    @group.command("watch")
    @click.argument("channel", required=False, callback=parse_channel)
    @reads_state
    def watch(url: str | None, headers: dict[str, str], as_json: bool, channel: str | None) -> None:
        """Show who joins, changes and leaves, as it happens.

        In CHANNEL or, without it, in all channels. Ctrl-C ends the command. With --json, it prints one object per line:
        {change, channel, member}.
        """
        if channel:
            _check_is_presence(channel, "report who joins and leaves")
        command = f"watch {channel}" if channel else "watch"
        try:
            _follow(new_source(command, url, headers).watch(channel), as_json)
        except KeyboardInterrupt:
            click.echo("", err=True)


def _check_is_presence(channel: str, what: str) -> None:
    if ChannelName(channel).type != "presence":
        raise click.ClickException(f"Only presence channels (presence-…) {what}; {channel!r} is not one.")


def _add_sending(group: click.Group, presence: Callable[[str], Any]) -> None:
    @group.command("publish", context_settings={"ignore_unknown_options": True})
    @click.argument("channel", callback=parse_channel)
    @click.argument("event")
    @click.argument("data", metavar="JSON", callback=parse_json)
    @json_option
    @reports_errors
    def publish(channel: str, event: str, data: Any, as_json: bool) -> None:
        """Send a channel:message to everybody in CHANNEL."""
        _report("delivered", presence("publish").publish(channel, event, data), as_json)

    @group.command("broadcast")
    @click.argument("channel", callback=parse_channel)
    @click.argument("message", metavar="JSON", callback=parse_json)
    @json_option
    @reports_errors
    def broadcast(channel: str, message: Any, as_json: bool) -> None:
        """Send a JSON object, unchanged, to everybody in CHANNEL."""
        if not isinstance(message, dict):
            raise click.BadParameter('must be a JSON object, such as \'{"type": "news"}\'', param_hint="JSON")
        sent = presence("broadcast_to_channel").broadcast_to_channel(channel, message)
        _report("delivered", sent, as_json)

    @group.command("send", context_settings={"ignore_unknown_options": True})
    @click.argument("user")
    @click.argument("event")
    @click.argument("data", metavar="JSON", callback=parse_json)
    @json_option
    @reports_errors
    def send(user: str, event: str, data: Any, as_json: bool) -> None:
        """Send a user:message to all connections of USER."""
        _report("delivered", presence("send_to_user").send_to_user(user, event, data), as_json)


def _add_moderation(group: click.Group, presence: Callable[[str], Any]) -> None:
    @group.command("disconnect")
    @click.option("--user", "user_id", metavar="ID", help="All connections of this user.")
    @click.option("--client", "client_id", metavar="ID", help="The connection with this client id.")
    @click.option("--reason", default="", help="A reason to send to the clients.")
    @json_option
    @reports_errors
    def disconnect(user_id: str | None, client_id: str | None, reason: str, as_json: bool) -> None:
        """Close connections with 4403.

        Clients do not reconnect after this close code.
        """
        if (user_id is None) == (client_id is None):
            raise click.UsageError("Give either --user ID or --client ID.")
        closed = presence("disconnect").disconnect(user_id=user_id, client_id=client_id, reason=reason)
        _report("disconnected", closed, as_json)

    @group.command("remove")
    @click.argument("channel", callback=parse_channel)
    @click.argument("user")
    @click.option("--reason", default="", help="A reason to send to the clients.")
    @json_option
    @reports_errors
    def remove(channel: str, user: str, reason: str, as_json: bool) -> None:
        """Remove all connections of USER from CHANNEL. They may join again if the guard allows it."""
        _report("removed", presence("remove").remove(channel, user, reason), as_json)

    @group.command("recheck")
    @click.option("--user", "user_id", metavar="ID", help="The connections of this user.")
    @click.option("--channel", callback=parse_channel, help="The connections in this channel.")
    @json_option
    @reports_errors
    def recheck(user_id: str | None, channel: str | None, as_json: bool) -> None:
        """Verify logins and ask guards again, for open connections."""
        if user_id is None and channel is None:
            raise click.UsageError("Give --user ID, --channel NAME or both.")
        _report("rechecked", presence("recheck").recheck(user_id, channel), as_json)


def _add_guards(group: click.Group, service: Service) -> None:
    @group.command("guards")
    @click.argument("channel", required=False, callback=parse_channel)
    @json_option
    def guards(channel: str | None, as_json: bool) -> None:
        """List the guards, in the order of lookup.

        With CHANNEL, show which guards decide about that channel.
        """
        registries = {"join": service.guards, "message": service.message_guards}
        if channel is None:
            infos = [info.to_dict() for registry in registries.values() for info in registry.list()]
            _print({"guards": infos}, lambda: guards_table(infos), as_json)
        else:
            name = ChannelName(channel)
            decisions = {kind: registry.decision(name) for kind, registry in registries.items()}
            _print({"channel": channel, **decisions}, lambda: decisions_table(name, decisions), as_json)


def _add_layout(group: click.Group, service: Service, service_info: ServiceInfo) -> None:
    @group.command("layout")
    @json_option
    @reports_errors
    def layout(as_json: bool) -> None:
        """List the shards: whether they answer, and how many channels and workers they have."""
        if service_info.backend == "memory":
            raise click.ClickException("PRESENCE_BACKEND is 'memory://', which has no shards.")
        shards = service.hub.directory.shards(with_counts=True)
        if not shards:
            raise click.ClickException(NO_SHARDS)
        payload = layout_payload(shards)
        _print(payload, lambda: layout_table(payload), as_json)


def _add_client(group: click.Group, client_files: Callable[[], Mapping[str, bytes]]) -> None:
    @group.command("client")
    @click.argument("directory", type=click.Path(path_type=Path))
    @json_option
    def client(directory: Path, as_json: bool) -> None:
        """Write the browser client as an npm package into DIRECTORY.

        For bundlers: the module, its types, and hooks for React and Vue. Run it again after an upgrade.
        """
        files = client_files()
        changed = write_package(directory, files)
        version = json.loads(files["package.json"])["version"]
        if as_json:
            click.echo(json.dumps({"directory": str(directory), "version": version, "changed": changed}))
            return
        files_changed = f"{len(changed) or 'no'} file{'' if len(changed) == 1 else 's'} changed"
        click.echo(f"{directory} has the client {version}: {files_changed}.")
        click.echo(f"In your frontend's folder: npm install {_npm_path(directory)}")


def _npm_path(directory: Path) -> str:
    """The directory as npm takes it in the frontend's folder: the nearest one above it that has a `package.json`, or
    the one that holds it. Without a dot in front, it would be the name of a package."""
    path = directory.resolve()
    frontend = next((one for one in path.parents if (one / "package.json").is_file()), path.parent)
    return shlex.quote(f"./{path.relative_to(frontend).as_posix()}")


def _follow(changes: Iterator[dict[str, Any] | None], as_json: bool) -> None:
    next(changes)
    click.echo("Watching. Press Ctrl-C to stop.", err=True)
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


def _report(key: str, number: int, as_json: bool) -> None:
    click.echo(json.dumps({key: number}) if as_json else f"{key}: {number}")
