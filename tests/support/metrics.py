"""The samples of `/metrics`, read by Prometheus's own parsers."""

from __future__ import annotations

from typing import Any

from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from .server import Server

OPENMETRICS = "application/openmetrics-text; version=1.0.0"
PARSE_OPENMETRICS: Any = parse_openmetrics
Sample = tuple[str, frozenset[tuple[str, str]]]


def scrape(server: Server, accept: str = "") -> dict[Sample, float]:
    """Every sample, by its name and labels."""
    status, headers, body = server.get("/presence/metrics", {"Accept": accept} if accept else None)
    assert status == 200, body
    families: Any = parse_text(body)
    if headers["Content-Type"].startswith("application/openmetrics-text"):
        families = PARSE_OPENMETRICS(body)
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def value(samples: dict[Sample, float], name: str, **labels: str) -> float:
    """The value of one sample, by its name without the prefix."""
    return samples[f"flask_presence_{name}", frozenset(labels.items())]
