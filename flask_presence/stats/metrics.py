"""What is counted, for Prometheus.

Law: numbers of the whole service, whichever worker answers; labels are the few that `domain.meter` and this module
name, never a channel or a user. Names and units follow https://prometheus.io/docs/practices/naming/.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from ..domain.errors import BackendUnavailable
from ..domain.meter import BOUNDS, GUARD_OUTCOMES, Counts, Histogram, by_label, histogram
from ..hub.directory import Directory

PREFIX: Final = "flask_presence_"

COUNTERS: Final = {
    "connections_opened": ("opened", "WebSocket connections that were opened"),
    "slow_consumers_closed": ("slow", "Connections closed with 1013, as too many bytes waited for them"),
    "messages_received": ("received", "WebSocket messages from clients"),
    "answers_sent": ("answers", "WebSocket messages to the client that asked"),
    "deliveries": ("deliveries", "WebSocket messages to clients in a channel, one for each of them"),
    "messages_published": ("published", "Messages that clients sent to a channel"),
    "received_bytes": ("bytes_received", "Bytes of WebSocket frames from clients"),
    "sent_bytes": ("bytes_sent", "Bytes of WebSocket frames that sockets have taken"),
}
LABELLED_COUNTERS: Final = {
    "connections_closed": ("closed", "code", "Connections that ended, by WebSocket close code"),
    "upgrades_refused": ("refused", "status", "Connections refused before they were opened, by HTTP status"),
    "joins": ("joins", "type", "Connections that came into a channel, by channel type"),
    "leaves": ("leaves", "type", "Connections that left a channel, or ended in it, by channel type"),
    "errors": ("errors", "code", "Requests answered with an error, by its code"),
}


class PresenceCollector(Collector):
    """Asks a hub when it is asked. Where the state store is away there is nothing but `backend_up`, at 0."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory

    def collect(self) -> Iterator[Metric]:
        try:
            survey, stats = self._directory.survey(), self._directory.stats()
        except BackendUnavailable:
            yield _gauge("backend_up", "Whether the state store answers", 0)
            return
        yield _gauge("backend_up", "Whether the state store answers", 1)
        yield _gauge("workers", "Processes that have had connections", len(survey.readings))
        yield _gauge("connections", "Open WebSocket connections", stats.connections)
        yield _gauge(
            "members", "Members of all channels: users in presence channels, else connections", stats.total_members
        )
        channels = GaugeMetricFamily(f"{PREFIX}channels", "Channels that somebody is in, by type", labels=["type"])
        for kind, count in stats.by_type.items():
            channels.add_metric([kind], count)
        yield channels
        outbox, counts = survey.outbox, survey.counts
        yield _gauge("outbox_bytes", "Bytes that wait for all connections", outbox.waiting)
        yield _gauge("outbox_largest_bytes", "Bytes that wait for the connection that is blocked worst", outbox.most)
        yield _gauge("connections_blocked", "Connections whose socket takes nothing more for now", outbox.blocked)
        yield from _counters(counts)
        yield from _histograms(counts)


def metrics_text(directory: Directory, accept: str) -> tuple[bytes, str]:
    """All metrics, in the format that an `Accept` header asks for, and its content type."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(PresenceCollector(directory))
    try:
        encode, content_type = choose_encoder(accept)
    except (TypeError, ValueError):  # a version that is none
        encode, content_type = choose_encoder("")
    text: bytes = encode(registry)
    return text, content_type


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"{PREFIX}{name}", text, value=value)


def _counters(counts: Counts) -> Iterator[Metric]:
    for name, (key, text) in COUNTERS.items():
        yield CounterMetricFamily(f"{PREFIX}{name}", text, value=counts[key])
    for name, (key, label, text) in LABELLED_COUNTERS.items():
        family = CounterMetricFamily(f"{PREFIX}{name}", text, labels=[label])
        for value, count in by_label(counts, key).items():
            family.add_metric([value], count)
        yield family


def _histograms(counts: Counts) -> Iterator[Metric]:
    guards = HistogramMetricFamily(
        f"{PREFIX}guard_seconds", "Time that guards took, by what came of it", labels=["outcome"]
    )
    for outcome in GUARD_OUTCOMES:
        of = histogram(counts, f"guards|{outcome}")
        guards.add_metric([outcome], _buckets(of), of.total)
    yield guards
    lag = histogram(counts, "lag")
    yield HistogramMetricFamily(
        f"{PREFIX}loop_lag_seconds",
        "How late event loops were, looked at four times a second in each worker",
        buckets=_buckets(lag),
        sum_value=lag.total,
    )


def _buckets(of: Histogram) -> list[tuple[str, float]]:
    """Cumulative, as Prometheus has them."""
    return list(zip((*map(str, BOUNDS), "+Inf"), accumulate(of.buckets), strict=True))
