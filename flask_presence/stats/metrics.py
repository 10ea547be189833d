"""The metrics of the whole service, for Prometheus. Any worker can answer for all of them.

Rule: no label is ever a channel or a user, so the number of time series stays bounded. Names and units follow
https://prometheus.io/docs/practices/naming/.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from ..domain.errors import BackendUnavailable
from ..domain.meter import BOUNDS, GUARD_OUTCOMES, Counts, Histogram, by_label, histogram
from ..domain.shards import ShardState
from ..hub.directory import Directory

PREFIX: Final = "flask_presence_"

COUNTERS: Final = {
    "connections_opened": ("opened", "WebSocket connections that were opened"),
    "slow_consumers_closed": ("slow", "Connections closed with 1013 because they read too slowly"),
    "messages_received": ("received", "WebSocket messages from clients"),
    "answers_sent": ("answers", "WebSocket messages to a single client: answers, and what the server tells it"),
    "deliveries": ("deliveries", "WebSocket messages to everybody in a channel, or to a user, one for each client"),
    "messages_published": ("published", "Messages that clients sent to a channel"),
    "received_bytes": ("bytes_received", "Bytes of WebSocket frames from clients"),
    "sent_bytes": ("bytes_sent", "Bytes of WebSocket frames that were written to clients' sockets"),
}
LABELLED_COUNTERS: Final = {
    "connections_closed": ("closed", "code", "Connections that ended, by WebSocket close code"),
    "upgrades_refused": ("refused", "status", "WebSocket upgrades that were refused, by HTTP status"),
    "joins": ("joins", "type", "Connections that joined a channel, by channel type"),
    "leaves": ("leaves", "type", "Connections that left a channel or ended while in it, by channel type"),
    "errors": ("errors", "code", "Requests that got an error, by error code"),
}


class PresenceCollector(Collector):
    """Reads the metrics at every scrape. While the state store is unreachable, `backend_up` is the only one, at 0.
    While a shard is, `shard_up` names it, and the counts that it has are missing."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory

    def collect(self) -> Iterator[Metric]:
        help_text = "Whether the state store answers (1) or not (0)"
        try:
            survey, stats = self._directory.survey(), self._directory.stats()
            history = self._directory.history_size()
        except BackendUnavailable:
            yield _gauge("backend_up", help_text, 0)
            return
        shards = self._directory.shards()
        yield _gauge("backend_up", help_text, float(all(shard.problem is None for shard in shards)))
        if shards:
            yield _shards_up(shards)
        yield _gauge("connections", "Open WebSocket connections", stats.connections)
        yield _gauge("members", "Members, summed over all channels", stats.total_members)
        channels = GaugeMetricFamily(f"{PREFIX}channels", "Channels that somebody is in, by type", labels=["type"])
        for channel_type, count in stats.by_type.items():
            channels.add_metric([channel_type], count)
        yield channels
        yield _gauge("history_messages", "Messages that channels keep", history.messages)
        yield _gauge("history_bytes", "Bytes of the messages that channels keep", history.bytes)
        if survey.unavailable:
            return  # a counter that falls and comes back would look like a burst
        outbox, counts = survey.outbox, survey.counts
        yield _gauge("workers", "Workers that have had connections", len(survey.readings))
        yield _gauge("outbox_bytes", "Bytes that wait to be sent, over all connections", outbox.waiting)
        yield _gauge("outbox_largest_bytes", "Bytes that wait to be sent to the slowest connection", outbox.most)
        yield _gauge("connections_blocked", "Connections whose socket accepts no more bytes for now", outbox.blocked)
        yield from _counters(counts)
        yield from _histograms(counts)


def metrics_text(directory: Directory, accept: str) -> tuple[bytes, str]:
    """All metrics in the format that the `Accept` header asks for, and the content type of that format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(PresenceCollector(directory))
    try:
        encode, content_type = choose_encoder(accept)
    except (TypeError, ValueError):  # the header names a version that is not a number
        encode, content_type = choose_encoder("")
    text: bytes = encode(registry)
    return text, content_type


def _gauge(name: str, help_text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"{PREFIX}{name}", help_text, value=value)


def _shards_up(shards: Sequence[ShardState]) -> Metric:
    family = GaugeMetricFamily(f"{PREFIX}shard_up", "Whether each shard answers (1) or not (0)", labels=["shard"])
    for shard in shards:
        family.add_metric([shard.label], float(shard.problem is None))
    return family


def _counters(counts: Counts) -> Iterator[Metric]:
    for name, (key, help_text) in COUNTERS.items():
        yield CounterMetricFamily(f"{PREFIX}{name}", help_text, value=counts[key])
    for name, (key, label, help_text) in LABELLED_COUNTERS.items():
        family = CounterMetricFamily(f"{PREFIX}{name}", help_text, labels=[label])
        for value, count in by_label(counts, key).items():
            family.add_metric([value], count)
        yield family


def _histograms(counts: Counts) -> Iterator[Metric]:
    guards = HistogramMetricFamily(f"{PREFIX}guard_seconds", "Time that guards took, by outcome", labels=["outcome"])
    for outcome in GUARD_OUTCOMES:
        times = histogram(counts, f"guards|{outcome}")
        guards.add_metric([outcome], _buckets(times), times.total)
    yield guards
    lag = histogram(counts, "lag")
    yield HistogramMetricFamily(
        f"{PREFIX}loop_lag_seconds",
        "How late event loops were, measured four times a second in each worker",
        buckets=_buckets(lag),
        sum_value=lag.total,
    )


def _buckets(times: Histogram) -> list[tuple[str, float]]:
    """Upper bounds and cumulative counts, in the form that Prometheus expects."""
    return list(zip((*map(str, BOUNDS), "+Inf"), accumulate(times.buckets), strict=True))
