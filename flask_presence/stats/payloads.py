"""The JSON payloads that describe a service, for the stats page, the JSON API and the commands alike.

Rule: keys are camelCase and name their unit, unless the value is a plain count. A payload changes only if the service
does, so that ETags work.
"""

from __future__ import annotations

import json
import time
from bisect import bisect_left
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Protocol

from ..domain.channels import Channel, ChannelList, ChannelName, ChannelType, Stats
from ..domain.errors import PartlyUnavailable
from ..domain.history import HistorySize, Page, Position
from ..domain.meter import BOUNDS, GUARD_OUTCOMES, Histogram, by_label, histogram
from ..domain.readings import BUSIEST, BUSY_SLOTS, Backlog, Survey
from ..domain.roster import Change
from ..domain.shards import ShardState
from ..settings import Settings
from .query import ChannelQuery, HistoryQuery, MemberQuery

BUSIEST_SHOWN: Final = 5
"""How many of the busiest channels a payload names."""
MIN_LAG: Final = 0.01
"""Seconds. A smaller lag is shown as 0: it varies all the time, and would change every ETag."""


@dataclass(frozen=True, slots=True)
class ServiceInfo:
    """The settings of a service that payloads show."""

    backend: str
    max_outbox: int
    isolated_workers: bool

    @classmethod
    def from_settings(cls, settings: Settings) -> ServiceInfo:
        return cls("memory" if settings.in_memory else "redis", settings.max_outbox, settings.isolated_workers)


class StateReader(Protocol):
    """Reads the state that payloads show. The hub's `Directory` is one, `SharedAnswers` another."""

    def channels(self, kind: ChannelType | None = None, prefix: str | None = None) -> ChannelList: ...
    def channel(self, name: str) -> Channel | None: ...
    def connections_of(self, name: str) -> Mapping[str, int]: ...
    def stats(self) -> Stats: ...
    def survey(self) -> Survey: ...
    def history_size(self) -> HistorySize: ...
    def history_size_of(self, channel: str) -> HistorySize | None: ...
    def check(self) -> None: ...


class HistoryReader(Protocol):
    """Reads the messages that channels keep. See `hub.directory.Directory`."""

    def history(self, channel: str, limit: int, before: Position | None) -> Page: ...


def stats_payload(reader: StateReader) -> dict[str, Any]:
    """See `Stats.to_dict`."""
    return reader.stats().to_dict()


def channel_list_payload(reader: StateReader, query: ChannelQuery) -> dict[str, Any]:
    """`{channels: [{name, type, memberCount, createdAt, rate?}], total?, next?, unavailable?}`.

    If the query has `with_rate`, `rate` is events per second. It is known for the busiest channels only, and `None` for
    others. If the query has a `limit`, `next` is the offset of the next page, or `None` on the last one.
    """
    channels: Sequence[Channel] = (known := reader.channels(query.type, query.prefix))
    if query.search:
        search = query.search.casefold()
        channels = [channel for channel in channels if search in channel.name.casefold()]
    rates = reader.survey().busy if query.needs_rates else {}
    rows = [channel.to_dict() for channel in query.select(channels, rates)]
    if query.with_rate:
        default = 0.0 if len(rates) < BUSIEST else None
        for row in rows:
            row["rate"] = rates.get(row["name"], default)
    return {"channels": rows} | _paging(query.offset, query.limit, len(channels)) | _without(known.unavailable)


def channel_payload(reader: StateReader, name: str, query: MemberQuery) -> dict[str, Any] | None:
    """`{name, type, memberCount, createdAt, history?, members?, connections?, total?, next?}`; `None` for an empty
    channel.

    If the channel keeps messages, `history` is `{messages, bytes}`. If the query has `with_connections`, `connections`
    is the number of connections by user id, for the `members` of this page.
    """
    channel = reader.channel(name)
    if channel is None:
        return None
    payload = channel.to_dict() | _kept_by(reader, name)
    members = payload.get("members")
    if members is None:
        return payload
    total = len(members)
    payload["members"] = members[query.offset : None if query.limit is None else query.offset + query.limit]
    if query.with_connections:
        counts = reader.connections_of(name)
        payload["connections"] = {member["id"]: counts.get(member["id"], 0) for member in payload["members"]}
    return payload | _paging(query.offset, query.limit, total)


def empty_channel_payload(reader: StateReader, name: str) -> dict[str, Any]:
    """Like `channel_payload`, for a channel that nobody is in."""
    kind = ChannelName(name).type
    payload = {"name": name, "type": kind, "memberCount": 0, "createdAt": None} | _kept_by(reader, name)
    return payload | ({"members": [], "connections": {}, "total": 0, "next": None} if kind == "presence" else {})


def history_payload(reader: HistoryReader, query: HistoryQuery) -> dict[str, Any]:
    """The kept messages of a channel, as the frames that clients got: `{messages, more}`."""
    page = reader.history(query.channel, query.limit, query.before)
    return {"messages": [json.loads(frame) for frame in page.messages], "more": page.more}


def layout_payload(shards: Iterable[ShardState]) -> dict[str, Any]:
    """`{shards: [{label, problem, control, channels, workers}]}`. `problem` is `None` if the shard answers, and the
    numbers are `None` if it does not."""
    return {
        "shards": [
            {
                "label": shard.label,
                "problem": shard.problem,
                "control": shard.is_control,
                "channels": shard.channels,
                "workers": shard.workers,
            }
            for shard in shards
        ]
    }


def activity_payload(reader: StateReader, service_info: ServiceInfo) -> dict[str, Any]:
    """The activity of all workers. `docs/operations.md` describes the keys."""
    response_time = _response_time(reader)
    survey = reader.survey()
    counts = survey.counts
    received, sent = survey.rates(time.time())
    busiest = sorted(survey.busy.items(), key=lambda item: (-item[1], item[0]))[:BUSIEST_SHOWN]
    stats = reader.stats()
    return {
        "stats": stats.to_dict(),
        "backend": {"kind": service_info.backend, "withinSeconds": _upper_bound(response_time)},
        "workers": len(survey.readings),
        "isolatedWorkers": service_info.isolated_workers,
        "received": _flow(counts["received"], received),
        "sent": _flow(counts["answers"] + counts["deliveries"], sent),
        "history": reader.history_size()._asdict(),
        "deliveries": int(counts["deliveries"]),
        "published": int(counts["published"]),
        "receivedBytes": int(counts["bytes_received"]),
        "sentBytes": int(counts["bytes_sent"]),
        "opened": int(counts["opened"]),
        **{name: _integers(by_label(counts, name)) for name in ("joins", "leaves")},
        **{name: _largest_first(by_label(counts, name)) for name in ("closed", "errors", "refused")},
        "guards": {outcome: _times(histogram(counts, f"guards|{outcome}")) for outcome in GUARD_OUTCOMES},
        "outbox": _outbox(survey.outbox, service_info.max_outbox, closed=int(counts["slow"])),
        "lagSeconds": round(survey.lag, 2) if survey.lag >= MIN_LAG else 0.0,
        "busiest": [{"name": name, "rate": rate} for name, rate in busiest],
    } | _without((*stats.unavailable, *survey.unavailable))


def change_payloads(
    changes: Iterator[tuple[ChannelName, Change] | None],
) -> Generator[dict[str, Any] | None, None, None]:
    """`{change, channel, member}` for each change, and `None` for each `None`. `change` is `joined`, `updated` or
    `left`."""
    for item in changes:
        if item is None:
            yield None
        else:
            channel, change = item
            yield {"change": change.kind, "channel": str(channel), "member": change.member.to_dict()}


def _kept_by(reader: StateReader, channel: str) -> dict[str, Any]:
    """`{history?: {messages, bytes}}`."""
    size = reader.history_size_of(channel)
    return {} if size is None else {"history": size._asdict()}


def _paging(offset: int, limit: int | None, total: int) -> dict[str, Any]:
    if limit is None:
        return {}
    end = offset + limit
    return {"total": total, "next": end if end < total else None}


def _flow(total: float, history: list[float]) -> dict[str, Any]:
    recent = history[-BUSY_SLOTS:]
    return {
        "total": int(total),
        "rate": round(sum(recent) / len(recent), 1),
        "history": [round(rate, 1) for rate in history],
    }


def _outbox(backlog: Backlog, limit: int, closed: int) -> dict[str, Any]:
    return {
        "waitingBytes": backlog.waiting,
        "mostBytes": backlog.most,
        "limitBytes": limit,
        "blocked": backlog.blocked,
        "slowest": [
            {"clientId": client.client_id, "userId": client.user_id, "waitingBytes": client.waiting}
            for client in backlog.slowest
        ],
        "closed": closed,
    }


def _integers(counts: Mapping[str, float]) -> dict[str, int]:
    return {label: int(count) for label, count in counts.items()}


def _largest_first(counts: Mapping[str, float]) -> dict[str, int]:
    """The counts that are not 0, the largest first."""
    return {label: int(count) for label, count in sorted(counts.items(), key=lambda item: -item[1]) if count}


def _times(times: Histogram) -> dict[str, Any]:
    if not times.count:
        return {"count": 0, "meanSeconds": None, "p95Seconds": None}
    cumulative, bound = 0.0, None
    for index, count in enumerate(times.buckets):
        cumulative += count
        if cumulative >= 0.95 * times.count:
            bound = BOUNDS[index] if index < len(BOUNDS) else None
            break
    return {"count": int(times.count), "meanSeconds": round(times.total / times.count, 6), "p95Seconds": bound}


def _without(unavailable: Iterable[str]) -> dict[str, Any]:
    """`{unavailable?: [label]}`, for the shards that do not answer."""
    labels = sorted(set(unavailable))
    return {"unavailable": labels} if labels else {}


def _response_time(reader: StateReader) -> float:
    """How many seconds the state store takes to answer, or as much of it as answers."""
    started_at = time.monotonic()
    with suppress(PartlyUnavailable):
        reader.check()
    return time.monotonic() - started_at


def _upper_bound(seconds: float) -> float | None:
    """The smallest bound of a histogram that is not below `seconds`, if there is one. The exact time would change every
    ETag."""
    index = bisect_left(BOUNDS, seconds)
    return BOUNDS[index] if index < len(BOUNDS) else None
