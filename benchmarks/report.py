"""Tables of the load client's reports.

Rule: every number is the median of its repeats; every ratio is ours divided by the peer's.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Final

from .peers import OURS, Peer
from .workloads import Metric, Workload

Report = dict[str, Any]
Row = list[str]

CPU: Final = Metric("cpu_s_per_100k", "CPU s", False)
MUST_BE_ZERO: Final = ("gaps", "errors", "lost", "unanswered")


@dataclass
class Results:
    """The reports by workload and server, and the failures."""

    reports: dict[tuple[str, str], list[Report]] = field(default_factory=lambda: defaultdict(list))
    failures: list[str] = field(default_factory=list)

    def add(self, workload: Workload, peer: Peer, report: Report) -> None:
        """Add a report. A gap or a loss in it is a failure."""
        self.reports[workload.name, peer.name].append(report)
        wrong = [f"{key} {report[key]}" for key in MUST_BE_ZERO if report.get(key)]
        if wrong:
            self.failures.append(f"{workload.name}, {peer.name}: {', '.join(wrong)}")

    def values(self, workload: Workload, peer: Peer, key: str) -> list[float]:
        return [float(report[key]) for report in self.reports.get((workload.name, peer.name), []) if key in report]

    @property
    def disturbed(self) -> list[str]:
        """The workloads and servers of runs in which another program used more than a tenth of a core."""
        return sorted(
            {
                " on ".join(key)
                for key, reports in self.reports.items()
                for report in reports
                if max(report.get("server_disturbed", 0), report.get("client_disturbed", 0)) > 0.1
            }
        )

    def ratio(self, workload: Workload, peer: Peer, key: str) -> float | None:
        ours, theirs = self.values(workload, OURS, key), self.values(workload, peer, key)
        if not ours or not theirs or not median(theirs):
            return None
        return median(ours) / median(theirs)


def comparison(results: Results, workloads: Sequence[Workload], peers: Sequence[Peer]) -> list[Row]:
    """A row for each workload's first metric and a column for each server, with the median and ours / theirs."""
    rows = [["workload", "unit", *(peer.title for peer in peers)]]
    for workload in workloads:
        rows.append(_compare(results, workload, peers, workload.metrics[0]))
        if any(results.values(workload, peer, CPU.key) for peer in peers) and workload.name.startswith("fanout"):
            rows.append(_compare(results, workload, peers, CPU))
    return rows


def details(results: Results, workloads: Sequence[Workload], peers: Sequence[Peer]) -> list[Row]:
    """A row for each workload and server, with the spread of every metric and the CPU shares."""
    head = ["workload", "server", "median (lowest to highest)", "CPU s / 100k", "server CPU", "client CPU"]
    return [head, *(row for workload in workloads for peer in peers for row in _describe(results, workload, peer))]


def format_text(rows: Sequence[Row]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "\n".join(lines)


def format_markdown(rows: Sequence[Row]) -> str:
    rule = ["---"] * len(rows[0])
    return "\n".join(f"| {' | '.join(row)} |" for row in (rows[0], rule, *rows[1:]))


def _compare(results: Results, workload: Workload, peers: Sequence[Peer], metric: Metric) -> Row:
    cells = []
    for peer in peers:
        values = results.values(workload, peer, metric.key)
        ratio = results.ratio(workload, peer, metric.key)
        shown = _number(median(values)) if values else "-"
        cells.append(f"{shown} ({ratio:.2f}x)" if ratio is not None and peer is not OURS else shown)
    unit = "server CPU s / 100k" if metric is CPU else metric.unit
    return [workload.title, f"{unit}, {'more' if metric.more_is_better else 'less'} is better", *cells]


def _describe(results: Results, workload: Workload, peer: Peer) -> Iterator[Row]:
    for metric in workload.metrics:
        values = results.values(workload, peer, metric.key)
        if not values:
            continue
        spread = f"{_number(median(values))} ({_number(min(values))} to {_number(max(values))}) {metric.unit}"
        rest = [_median(results.values(workload, peer, key)) for key in (CPU.key, "server_cpu", "client_cpu")]
        yield [workload.title, peer.title, spread, *rest]


def _median(values: Sequence[float]) -> str:
    return _number(median(values)) if values else "-"


def _number(value: float) -> str:
    if value >= 1_000_000:
        return f"{value / 1_000_000:.2f}M"
    if value >= 10_000:
        return f"{value / 1000:.0f}k"
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.2f}" if value >= 0.1 else f"{value:.3f}"
