"""Tables for people at a terminal.

Law: what others have written is data: it moves no cursor and colours nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from ..domain.channels import ChannelName
from ..stats.format import details, duration, size


def activity_table(activity: dict[str, Any]) -> Iterator[str]:
    """The numbers that matter, one to a line."""
    stats, outbox = activity["stats"], activity["outbox"]
    by_type = ", ".join(f"{number} {kind}" for kind, number in stats["byType"].items())
    rows = [
        ("Connections", str(stats["connections"])),
        ("Channels", f"{stats['channels']} ({by_type})"),
        ("Memberships", str(stats["totalMembers"])),
        ("Messages in", f"{_rate(activity['received']['rate'])} a second"),
        ("Messages out", f"{_rate(activity['sent']['rate'])} a second"),
        (
            "Busiest",
            ", ".join(f"{one['name']} ({_rate(one['rate'])} a second)" for one in activity["busiest"]) or "none",
        ),
        (
            "Slow clients",
            f"{outbox['blocked']} now, {outbox['closed']} closed; {size(outbox['waitingBytes'])} waiting to be sent",
        ),
        *(
            ("", f"{one['userId'] or 'anonymous'} ({one['clientId']}): {size(one['waitingBytes'])} waiting to be sent")
            for one in outbox["slowest"]
        ),
        ("Event loop delay", duration(activity["lagSeconds"])),
        ("Backend", f"{activity['backend']['kind']}, {activity['workers']} worker(s)"),
    ]
    return table([], rows)


def channels_table(listed: dict[str, Any]) -> Iterator[str]:
    rows = [
        (one["name"], one["type"], str(one["memberCount"]), _rate(one["rate"]), one["createdAt"])
        for one in listed["channels"]
    ]
    return table(["CHANNEL", "TYPE", "MEMBERS", "PER SECOND", "SINCE"], rows)


def members_table(channel: dict[str, Any]) -> Iterator[str]:
    counts = channel.get("connections", {})
    rows = [
        (one["id"], one["name"], str(counts.get(one["id"], "")), one["joinedAt"], _compact(details(one)))
        for one in channel["members"]
    ]
    return table(["USER", "NAME", "CONNECTIONS", "SINCE", "INFO"], rows)


def change_line(change: dict[str, Any], moment: str) -> str:
    """What happened, to whom, where."""
    member = change["member"]
    info = _compact(details(member)) if change["change"] != "left" else ""
    line = f"{moment}  {change['change']:7}  {change['channel']}  {member['id']}  {member['name']}  {info}"
    return printable(line.rstrip())


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Lines with their columns below each other."""
    lines = [[printable(cell) for cell in row] for row in ([heads] if heads else []) + list(rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        yield "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()


def printable(text: str) -> str:
    """`text` with everything escaped that is not seen, as a terminal would obey it."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def _rate(number: float | None) -> str:
    return "-" if number is None else f"{number:.1f}"


def _compact(info: dict[str, Any]) -> str:
    return json.dumps(info, ensure_ascii=False) if info else ""


def guards_table(listed: list[dict[str, str]]) -> Iterator[str]:
    rows = [(one["pattern"], one["kind"], one["name"]) for one in listed]
    return table(["PATTERN", "DECIDES ABOUT", "FUNCTION"], rows)


def decisions_table(channel: ChannelName, decided: dict[str, dict[str, Any]]) -> Iterator[str]:
    """What is decided about a channel, and by whom."""
    usual = {
        "join": "any visitor" if channel.type == "public" else "any logged-in user",
        "message": "whoever is in the channel",
    }
    rows = []
    for kind, who in decided.items():
        if who["pattern"] is None:
            says = f"no guard: {usual[kind]}"
        elif who["guard"] is None:
            says = f"nobody: the name is not of the form that {who['pattern']!r} expects"
        else:
            says = f"{who['guard']} ({who['pattern']})"
        rows.append((kind, says))
    return table([], rows)
