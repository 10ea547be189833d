"""The metrics that Prometheus reads are what has happened."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from ..conftest import either_backend
from ..support.client import client
from ..support.metrics import OPENMETRICS, scrape, value
from ..support.raw import greet, masked, small_socket
from ..support.server import ROOT, Server, running, wait_until

DASHBOARD = ROOT / "example" / "grafana.json"


@pytest.fixture(params=["memory", "redis"])
def fresh(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server that has had no requests yet."""
    with running(**either_backend(request)) as server:
        yield server


@pytest.fixture(scope="module", params=["memory", "redis"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server that only the tests of this file use, one after the other."""
    options = {"PRESENCE_MAX_OUTBOX": 300_000, "PRESENCE_RATE_LIMIT": None, **either_backend(request)}
    with running(send_buffer=16_384, **options) as running_server:
        yield running_server


def test_everything_is_counted_exactly(fresh: Server) -> None:
    """Connections, joins, messages, bytes, guards, errors and closes."""
    before = scrape(fresh)
    assert value(before, "backend_up") == 1
    assert value(before, "connections_opened_total") == 0
    with client(fresh, "ann") as ann, client(fresh, "bob") as bob, client(fresh) as eve:
        ann.join("presence-room")
        bob.join("presence-room")
        assert bob.request("join", channel="private-denied-x")["code"] == "FORBIDDEN"
        assert bob.request("join", channel="private-broken-x")["code"] == "FORBIDDEN"
        assert bob.request("join", channel="private-closing-x")["type"] == "channel:joined"
        eve.join("news")
        assert ann.say("presence-room", "hello")["delivered"] == 1
        bob.event()
        assert eve.request("leave", channel="news")["type"] == "channel:left"
        samples = scrape(fresh)
        assert value(samples, "connections") == value(samples, "connections_opened_total") == 3
        assert {kind: value(samples, "channels", type=kind) for kind in ("public", "private", "presence")} == {
            "public": 0,
            "private": 1,
            "presence": 1,
        }
        assert value(samples, "members") == 3
        joins = {kind: value(samples, "joins_total", type=kind) for kind in ("public", "private", "presence")}
        assert joins == {"public": 1, "private": 1, "presence": 2}
        assert value(samples, "leaves_total", type="public") == 1
        assert value(samples, "messages_received_total") == 8
        assert value(samples, "messages_published_total") == 1
        assert value(samples, "answers_sent_total") == 3 + 8
        assert value(samples, "deliveries_total") == 2  # Bob's join to Ann, and Ann's message to Bob
        assert value(samples, "errors_total", code="FORBIDDEN") == 2
        guards = {o: value(samples, "guard_seconds_count", outcome=o) for o in ("allowed", "denied", "failed")}
        assert guards == {"allowed": 1, "denied": 1, "failed": 1}
        assert value(samples, "guard_seconds_bucket", outcome="allowed", le="+Inf") == 1
        assert value(samples, "received_bytes_total") > 8 * 20
        assert value(samples, "sent_bytes_total") > 13 * 20
    wait_until(lambda: value(scrape(fresh), "connections") == 0)
    after = scrape(fresh)
    assert value(after, "connections_closed_total", code="1000") == 3
    assert value(after, "leaves_total", type="presence") == 2
    wait_until(lambda: value(scrape(fresh), "loop_lag_seconds_count") > 0)


def test_refused_upgrades_are_counted_by_status(server: Server) -> None:
    before = scrape(server)
    attempts: dict[int, dict[str, Any]] = {401: {"token": "nonsense"}, 403: {"origin": "https://elsewhere.example"}}
    for status, options in attempts.items():
        with pytest.raises(InvalidStatus) as refused, client(server, **options):
            pass
        assert refused.value.response.status_code == status
    samples = scrape(server)
    for status in attempts:
        counted = [value(one, "upgrades_refused_total", status=str(status)) for one in (before, samples)]
        assert counted[1] == counted[0] + 1


def test_a_slow_client_is_shown_before_it_is_closed(server: Server) -> None:
    """It is shown with its user and its waiting bytes, and counted when it is closed."""
    before = scrape(server)
    closed = value(before, "slow_consumers_closed_total")
    with client(server, "ann") as ann, small_socket(server.port) as slow:
        ann.join("room")
        greet(slow, server.port, server.token("slow"))
        slow.sendall(masked(json.dumps({"type": "join", "channel": "room"}).encode()))
        wait_until(lambda: server.json("/presence/channels/room")["memberCount"] == 2)

        def is_blocked() -> bool:
            ann.say("room", "x" * 20_000)
            return value(scrape(server), "connections_blocked") == 1

        wait_until(is_blocked)
        outbox = server.json("/presence/activity")["outbox"]
        assert [one["userId"] for one in outbox["slowest"]] == ["slow"]
        assert 0 < outbox["slowest"][0]["waitingBytes"] == outbox["mostBytes"] <= outbox["limitBytes"]

        def is_closed() -> bool:
            ann.say("room", "x" * 20_000)
            return value(scrape(server), "slow_consumers_closed_total") == closed + 1

        wait_until(is_closed)
        by_code = [value(one, "connections_closed_total", code="1013") for one in (before, scrape(server))]
        assert by_code[1] == by_code[0] + 1
        assert server.json("/presence/activity")["outbox"]["closed"] == closed + 1


def test_openmetrics_and_the_text_format_say_the_same(server: Server) -> None:
    """Every metric has a help text and a type."""
    with client(server, "ann") as ann:
        ann.join("presence-room")
        plain, modern = scrape(server), scrape(server, OPENMETRICS)
        assert {name for name, _ in plain} == {name for name, _ in modern}
        _, _, body = server.get("/presence/metrics")
        assert scrape(server, "application/openmetrics-text; version=abc").keys() == plain.keys()
    names = {name for name, _ in plain}
    kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)$", body, re.MULTILINE))
    helps = set(re.findall(r"^# HELP (\S+) \S.*$", body, re.MULTILINE))
    assert kinds.keys() == helps
    assert {re.sub(r"_(bucket|sum|count)$", "", name) for name in names} == set(kinds)


def test_no_label_has_a_name_that_a_client_chose(server: Server) -> None:
    before = scrape(server)
    closed = value(before, "connections_closed_total", code="other")
    with client(server, "ann") as ann:
        for number in range(20):
            ann.join(f"channel-{number}")
        ann.socket.close(4999)
    wait_until(lambda: value(scrape(server), "connections_closed_total", code="other") == closed + 1)
    assert scrape(server).keys() == before.keys()


def test_the_dashboard_uses_only_metrics_that_exist(server: Server) -> None:
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name, _ in scrape(server)}
    dashboard = json.loads(Path(DASHBOARD).read_text())
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    assert len(expressions) > 10
    asked = {name for expression in expressions for name in re.findall(r"flask_presence_\w+", expression)}
    assert {re.sub(r"_(bucket|sum|count)$", "", name) for name in asked} <= families
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))
