"""Tables for people at a terminal.

Rule: text from users and apps is data. It cannot move the cursor or change colours.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from ..domain.channels import ChannelName
from ..stats.format import details, duration, size


def activity_table(activity: dict[str, Any]) -> Iterator[str]:
    """The most important numbers, one per line."""
    stats, outbox = activity["stats"], activity["outbox"]
    by_type = ", ".join(f"{number} {channel_type}" for channel_type, number in stats["byType"].items())
    busiest = ", ".join(f"{channel['name']} ({_rate(channel['rate'])} a second)" for channel in activity["busiest"])
    waiting = f"{size(outbox['waitingBytes'])} waiting to be sent"
    rows = [
        ("Connections", str(stats["connections"])),
        ("Channels", f"{stats['channels']} ({by_type})"),
        ("Memberships", str(stats["totalMembers"])),
        ("Messages in", f"{_rate(activity['received']['rate'])} a second"),
        ("Messages out", f"{_rate(activity['sent']['rate'])} a second"),
        ("Kept messages", f"{activity['history']['messages']} ({size(activity['history']['bytes'])})"),
        ("Busiest", busiest or "none"),
        ("Slow clients", f"{outbox['blocked']} now, {outbox['closed']} closed; {waiting}"),
        *(("", _slow_client(client)) for client in outbox["slowest"]),
        ("Event loop delay", duration(activity["lagSeconds"])),
        ("Backend", f"{activity['backend']['kind']}, {activity['workers']} worker(s)"),
        *(("Unavailable", f"shard {label}") for label in activity.get("unavailable", ())),
    ]
    return table([], rows)


def channels_table(channel_list: dict[str, Any]) -> Iterator[str]:
    rows = [
        (channel["name"], channel["type"], str(channel["memberCount"]), _rate(channel["rate"]), channel["createdAt"])
        for channel in channel_list["channels"]
    ]
    yield from table(["CHANNEL", "TYPE", "MEMBERS", "PER SECOND", "SINCE"], rows)
    for label in channel_list.get("unavailable", ()):
        yield f"The channels of shard {printable(label)} are missing, because it does not answer."


def members_table(channel: dict[str, Any]) -> Iterator[str]:
    counts = channel.get("connections", {})
    rows = [
        (
            member["id"],
            member["name"],
            str(counts.get(member["id"], "")),
            member["joinedAt"],
            _one_line(details(member)),
        )
        for member in channel["members"]
    ]
    return table(["USER", "NAME", "CONNECTIONS", "SINCE", "INFO"], rows)


def history_table(payload: dict[str, Any]) -> Iterator[str]:
    rows = [
        (
            message["id"],
            message["timestamp"],
            message["from"].get("userId", message["from"]["clientId"]),
            message["event"],
            json.dumps(message["data"], ensure_ascii=False),
        )
        for message in payload["messages"]
    ]
    return table(["ID", "WHEN", "FROM", "EVENT", "DATA"], rows)


def guards_table(guards: list[dict[str, str]]) -> Iterator[str]:
    rows = [(guard["pattern"], guard["kind"], guard["name"]) for guard in guards]
    return table(["PATTERN", "DECIDES ABOUT", "FUNCTION"], rows)


def layout_table(payload: dict[str, Any]) -> Iterator[str]:
    rows = [
        (
            shard["label"],
            shard["problem"] or "answers",
            *("-" if shard[key] is None else str(shard[key]) for key in ("channels", "workers")),
            "counts of the service" if shard["control"] else "",
        )
        for shard in payload["shards"]
    ]
    return table(["SHARD", "STATE", "CHANNELS", "WORKERS", "ALSO HAS"], rows)


def decisions_table(channel: ChannelName, decisions: dict[str, dict[str, Any]]) -> Iterator[str]:
    """Who may join a channel and who may send to it, and which guards decide that."""
    without_guard = {
        "join": "any visitor" if channel.type == "public" else "any logged-in user",
        "message": "everybody in the channel",
    }
    rows = []
    for kind, decision in decisions.items():
        if decision["pattern"] is None:
            text = f"no guard: {without_guard[kind]}"
        elif decision["guard"] is None:
            text = f"nobody: the name does not have the form that {decision['pattern']!r} expects"
        else:
            text = f"{decision['guard']} ({decision['pattern']})"
        rows.append((kind, text))
    return table([], rows)


def change_line(change: dict[str, Any], clock_time: str) -> str:
    """One change to a member list: its time and kind, the channel and the member."""
    member = change["member"]
    info = _one_line(details(member)) if change["change"] != "left" else ""
    line = f"{clock_time}  {change['change']:7}  {change['channel']}  {member['id']}  {member['name']}  {info}"
    return printable(line.rstrip())


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """The lines of a table with aligned columns."""
    lines = [[printable(cell) for cell in row] for row in ([heads] if heads else []) + list(rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        yield "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()


def printable(text: str) -> str:
    """`text` with its unprintable characters escaped, because a terminal would obey them."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def _slow_client(client: dict[str, Any]) -> str:
    user = client["userId"] or "anonymous"
    return f"{user} ({client['clientId']}): {size(client['waitingBytes'])} waiting to be sent"


def _rate(number: float | None) -> str:
    return "-" if number is None else f"{number:.1f}"


def _one_line(info: dict[str, Any]) -> str:
    return json.dumps(info, ensure_ascii=False) if info else ""
