"""What can be seen of a service, as JSON shapes: one place, whether a page, a program or a person asks.

Law: names are in camelCase, units are part of a name where they are not plain counts, and nothing in a shape changes
while nothing happens, so that an ETag can say so.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from ..domain.channels import Channel, ChannelName, ChannelType, Stats
from ..domain.meter import BOUNDS, GUARD_OUTCOMES, Histogram, by_label, histogram
from ..domain.readings import BUSIEST, BUSY_SLOTS, Survey
from ..domain.roster import Change
from ..settings import Settings
from .query import ChannelQuery, MemberQuery

BUSIEST_SHOWN: Final = 5
LEAST_LAG: Final = 0.01
"""Seconds of lag below which it is no news."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a service besides what its processes count."""

    backend: str
    max_outbox: int
    isolated_workers: bool


def facts_of(settings: Settings) -> Facts:
    return Facts("memory" if settings.in_memory else "redis", settings.max_outbox, settings.isolated_workers)


class Questions(Protocol):
    """What payloads are made from: the hub's `Directory`, or `SharedAnswers`."""

    def channels(self, kind: ChannelType | None = None, prefix: str | None = None) -> list[Channel]: ...
    def channel(self, name: str) -> Channel | None: ...
    def connections_of(self, name: str) -> Mapping[str, int]: ...
    def stats(self) -> Stats: ...
    def survey(self) -> Survey: ...
    def check(self) -> None: ...


def stats_shape(questions: Questions) -> dict[str, Any]:
    """See `Stats.to_dict`."""
    return questions.stats().to_dict()


def channel_list_shape(questions: Questions, query: ChannelQuery) -> dict[str, Any]:
    """`{channels: [{name, type, memberCount, createdAt, rate?}], total?, next?}`.

    `rate`, where it was asked for, is events a second, or `None` for a channel that is not among the busiest, of
    which alone it is known. `total` and `next`, the offset of what follows or `None`, are there where a `limit` is.
    """
    found = questions.channels(query.type, query.prefix)
    if query.search:
        wanted = query.search.casefold()
        found = [channel for channel in found if wanted in channel.name.casefold()]
    rates = questions.survey().busy if query.needs_rates else {}
    rows = [channel.to_dict() for channel in query.part(found, rates)]
    if query.with_rate:
        unknown = 0.0 if len(rates) < BUSIEST else None
        for row in rows:
            row["rate"] = rates.get(row["name"], unknown)
    return {"channels": rows} | _paging(query.offset, query.limit, len(found))


def channel_shape(questions: Questions, name: str, query: MemberQuery) -> dict[str, Any] | None:
    """`{name, type, memberCount, createdAt, members?, connections?, total?, next?}`, or `None` where nobody is in it.

    `connections`, where it was asked for, is the number of connections by user id, of the members that are shown.
    """
    channel = questions.channel(name)
    if channel is None:
        return None
    shape = channel.to_dict()
    members = shape.get("members")
    if members is None:
        return shape
    total = len(members)
    shape["members"] = members[query.offset : None if query.limit is None else query.offset + query.limit]
    if query.with_connections:
        counts = questions.connections_of(name)
        shape["connections"] = {member["id"]: counts.get(member["id"], 0) for member in shape["members"]}
    return shape | _paging(query.offset, query.limit, total)


def nobody_shape(name: str) -> dict[str, Any]:
    """As `channel_shape`, of a channel that nobody is in: there is no such thing, but it can be looked at."""
    kind = ChannelName(name).type
    shape = {"name": name, "type": kind, "memberCount": 0, "createdAt": None}
    return shape | ({"members": [], "connections": {}, "total": 0, "next": None} if kind == "presence" else {})


def activity_shape(questions: Questions, facts: Facts) -> dict[str, Any]:
    """What goes on, over all workers: see docs/operations.md for its fields."""
    began = time.monotonic()
    questions.check()
    answered = time.monotonic() - began
    survey = questions.survey()
    counts, outbox = survey.counts, survey.outbox
    came, went = survey.rates(time.time())
    busy = sorted(survey.busy.items(), key=lambda item: (-item[1], item[0]))[:BUSIEST_SHOWN]
    return {
        "stats": stats_shape(questions),
        "backend": {"kind": facts.backend, "withinSeconds": _within(answered)},
        "workers": len(survey.readings),
        "isolatedWorkers": facts.isolated_workers,
        "received": _flow(counts["received"], came),
        "sent": _flow(counts["answers"] + counts["deliveries"], went),
        "deliveries": int(counts["deliveries"]),
        "published": int(counts["published"]),
        "receivedBytes": int(counts["bytes_received"]),
        "sentBytes": int(counts["bytes_sent"]),
        "opened": int(counts["opened"]),
        **{name: _whole(by_label(counts, name)) for name in ("joins", "leaves")},
        **{name: _some(by_label(counts, name)) for name in ("closed", "errors", "refused")},
        "guards": {outcome: _times(histogram(counts, f"guards|{outcome}")) for outcome in GUARD_OUTCOMES},
        "outbox": {
            "waitingBytes": outbox.waiting,
            "mostBytes": outbox.most,
            "limitBytes": facts.max_outbox,
            "blocked": outbox.blocked,
            "slowest": [
                {"clientId": one.client_id, "userId": one.user_id, "waitingBytes": one.waiting}
                for one in outbox.slowest
            ],
            "closed": int(counts["slow"]),
        },
        "lagSeconds": _lag(survey),
        "busiest": [{"name": name, "rate": rate} for name, rate in busy],
    }


def change_shapes(
    changes: Iterator[tuple[ChannelName, Change] | None],
) -> Generator[dict[str, Any] | None, None, None]:
    """`{change, channel, member}` for every change, `change` one of `joined`, `updated`, `left`."""
    for found in changes:
        if found is None:
            yield None
        else:
            channel, change = found
            yield {"change": change.kind, "channel": str(channel), "member": change.member.to_dict()}


def _paging(offset: int, limit: int | None, total: int) -> dict[str, Any]:
    if limit is None:
        return {}
    following = offset + limit
    return {"total": total, "next": following if following < total else None}


def _flow(total: float, history: list[float]) -> dict[str, Any]:
    recent = history[-BUSY_SLOTS:]
    return {
        "total": int(total),
        "rate": round(sum(recent) / len(recent), 1),
        "history": [round(rate, 1) for rate in history],
    }


def _whole(counts: Mapping[str, float]) -> dict[str, int]:
    return {label: int(count) for label, count in counts.items()}


def _some(counts: Mapping[str, float]) -> dict[str, int]:
    """Those that have been counted at all, most first."""
    return {label: int(count) for label, count in sorted(counts.items(), key=lambda item: -item[1]) if count}


def _times(of: Histogram) -> dict[str, Any]:
    if not of.count:
        return {"count": 0, "meanSeconds": None, "p95Seconds": None}
    seen, bound = 0.0, None
    for at, count in enumerate(of.buckets):
        seen += count
        if seen >= 0.95 * of.count:
            bound = BOUNDS[at] if at < len(BOUNDS) else None
            break
    return {"count": int(of.count), "meanSeconds": round(of.total / of.count, 6), "p95Seconds": bound}


def _within(seconds: float) -> float | None:
    at = bisect_left(BOUNDS, seconds)
    return BOUNDS[at] if at < len(BOUNDS) else None


def _lag(survey: Survey) -> float:
    return round(survey.lag, 2) if survey.lag >= LEAST_LAG else 0.0
