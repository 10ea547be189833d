"""What channels keep: `/history`, `flask presence history`, and how much it is, in JSON, metrics and commands."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime
from typing import Any, NamedTuple
from urllib.parse import urlencode

import pytest

from flask_presence.backends.memory import MemoryBackend
from flask_presence.domain.history import HistoryRules, Retention
from flask_presence.domain.timestamps import from_epoch
from flask_presence.stats.format import size

from ..conftest import Connect, either_backend
from ..server_api.test_cli import run, succeed
from ..support.client import client
from ..support.metrics import scrape, value
from ..support.server import DEADLINE, Server, running, wait_until

KEPT = 3
"""How many messages the channels `kept-…` keep."""


class Service(NamedTuple):
    server: Server
    config: dict[str, Any]

    @property
    def sources(self) -> list[tuple[tuple[str, ...], dict[str, Any]]]:
        """The ways in which a command can ask: options and settings. The server, and Redis if there is one."""
        by_url = (("--url", f"{self.server.origin}/presence"), dict[str, Any]())
        return [by_url, ((), self.config)] if "PRESENCE_BACKEND" in self.config else [by_url]

    def total(self) -> dict[str, float]:
        """What all channels keep, by the metrics, which are not cached."""
        samples = scrape(self.server)
        return {unit: value(samples, f"history_{unit}") for unit in ("messages", "bytes")}

    def history(self, **query: Any) -> Any:
        return self.server.json(f"/presence/history?{urlencode(query)}")


@pytest.fixture(scope="module", params=["memory", "redis"])
def service(request: pytest.FixtureRequest) -> Iterator[Service]:
    """A server that only these tests use, so that they know its numbers."""
    rules = {"kept-*": {"messages": KEPT, "seconds": 600}, "brief-*": {"messages": 9, "seconds": 1}}
    config = {"PRESENCE_HISTORY": rules, **either_backend(request)}
    with running(**config) as server:
        yield Service(server, config)


@pytest.fixture
def server(service: Service) -> Server:
    return service.server


@pytest.fixture
def connect(server: Server) -> Iterator[Connect]:
    with ExitStack() as stack:
        yield lambda user=None, **options: stack.enter_context(client(server, user, **options))


def talk(connect: Connect, channel: str, *texts: str) -> list[dict[str, Any]]:
    """Send these texts. Returns the frames as another member gets them, with their `size` in bytes."""
    ann, bob = connect("ann"), connect("bob")
    bob.join(channel)
    ann.join(channel)
    if channel.startswith("presence-"):
        assert bob.event()["type"] == "presence:member_joined"
    frames = []
    for text in texts:
        ann.say(channel, text)
        raw = str(bob.socket.recv(timeout=DEADLINE))
        frames.append({**json.loads(raw), "size": len(raw.encode())})
    return frames


def test_every_figure_is_what_the_channels_keep(service: Service, connect: Connect, name: str) -> None:
    """The channel's own figure and the sum, in JSON, metrics and commands. Bytes are those of the frames' JSON."""
    server, before = service.server, service.total()
    frames = talk(connect, f"presence-kept-{name}", *("ä" * length for length in range(1, 6)))
    frames = frames[-KEPT:] + talk(connect, f"kept-{name}", "one", "two")
    kept = {"messages": KEPT, "bytes": sum(frame["size"] for frame in frames[:KEPT])}
    others = {"messages": 2, "bytes": sum(frame["size"] for frame in frames[KEPT:])}
    assert server.json(f"/presence/channels/presence-kept-{name}")["history"] == kept
    assert server.json(f"/presence/members?channel=kept-{name}")["history"] == others
    total = {unit: before[unit] + kept[unit] + others[unit] for unit in kept}
    assert service.total() == total
    wait_until(lambda: server.json("/presence/activity")["history"] == total)
    for options, config in service.sources:
        line = re.search(r"^Kept messages +(\d+) \((.+)\)$", succeed("stats", *options, **config), re.MULTILINE)
        assert line is not None
        assert (int(line[1]), line[2]) == (total["messages"], size(total["bytes"]))
        shown = json.loads(succeed("members", f"presence-kept-{name}", *options, "--json", **config))
        assert shown["history"] == kept


def test_a_channel_without_history_has_no_figure(service: Service, connect: Connect, name: str) -> None:
    before = service.total()
    talk(connect, f"presence-{name}", "hello")
    assert "history" not in service.server.json(f"/presence/channels/presence-{name}")
    assert "history" not in service.server.json(f"/presence/members?channel=nobody-{name}")
    assert service.total() == before


def test_messages_count_until_they_are_forgotten(service: Service, name: str) -> None:
    """They are of the server's own code, in a channel that nobody was ever in."""
    server, before, channel = service.server, service.total(), f"kept-{name}"
    for number in range(2):
        assert server.call("publish", name=channel, event="news", data=number) == 0
    assert server.get(f"/presence/channels/{channel}")[0] == 404
    figure = server.json(f"/presence/members?channel={channel}")["history"]
    assert figure["messages"] == 2
    assert service.total() == {unit: before[unit] + figure[unit] for unit in figure}
    assert server.call("clear_channel_history", name=channel) == 2
    assert server.json(f"/presence/members?channel={channel}")["history"] == {"messages": 0, "bytes": 0}
    assert service.total() == before


def test_messages_no_longer_count_when_their_time_is_over(service: Service, name: str) -> None:
    before, channel = service.total(), f"brief-{name}"
    service.server.call("publish", name=channel, event="news", data="hello")
    none = {"messages": 0, "bytes": 0}
    wait_until(lambda: service.server.json(f"/presence/members?channel={channel}")["history"] == none)
    wait_until(lambda: service.total() == before)
    service.server.call("publish", name=channel, event="news", data="again")
    assert service.total()["messages"] == before["messages"] + 1


def test_memory_counts_nothing_whose_time_is_over() -> None:
    """Also before the next tick, which forgets it."""

    class Listener:
        now = 1000.0

        def utc_now(self) -> datetime:
            return from_epoch(self.now)

        def deliver(self, *_: object) -> int:
            return 0

    listener: Any = Listener()
    backend = MemoryBackend(1000, history=HistoryRules({"kept-*": Retention(5, 60), "kept-long": Retention(5, 90)}))
    backend.bind(listener)
    sizes = {}
    for channel in ("kept-short", "kept-long"):
        backend.broadcast(channel, b'{"data":1}', None, keep=True)
        sizes[channel] = backend.history_size(channel)
    assert backend.history_size(None) == (2, sum(size.bytes for size in sizes.values() if size))
    listener.now += 60
    assert backend.history_size("kept-short") == (0, 0)
    assert backend.history_size(None) == backend.history_size("kept-long") == sizes["kept-long"]
    assert backend.history_size("kept-nobody") == (0, 0)
    assert backend.history_size("other") is None


def test_history_pages_backwards_through_what_is_kept(service: Service, connect: Connect, name: str) -> None:
    """The endpoint and the command return the frames that the members got."""
    channel = f"presence-kept-{name}"
    frames = talk(connect, channel, "one", "two", "three", "four")
    for frame in frames:
        del frame["size"]
    kept = frames[1:]
    assert service.history(channel=channel) == {"messages": kept, "more": False}
    assert service.history(channel=channel, limit=2) == {"messages": kept[1:], "more": True}
    assert service.history(channel=channel, limit=2, before=kept[1]["id"]) == {"messages": kept[:1], "more": False}
    assert service.history(channel=channel, limit=1, before=kept[2]["id"]) == {"messages": kept[1:2], "more": True}
    for options, config in service.sources:
        for query in ({}, {"limit": 2}, {"limit": 1, "before": kept[2]["id"]}):
            flags = [word for key, text in query.items() for word in (f"--{key}", str(text))]
            shown = succeed("history", channel, *flags, *options, "--json", **config)
            assert json.loads(shown) == service.history(channel=channel, **query)
        heads, *lines = succeed("history", channel, *options, **config).splitlines()
        assert heads.split() == ["ID", "WHEN", "FROM", "EVENT", "DATA"]
        rows = [[kept_one[key] for key in ("id", "timestamp")] for kept_one in kept]
        wanted = [[*row, "ann", "message", f'"{frame["data"]}"'] for row, frame in zip(rows, kept, strict=True)]
        assert [line.split() for line in lines] == wanted


def test_any_place_and_any_name_can_be_asked_for(service: Service, connect: Connect, name: str) -> None:
    """An id that is no longer kept, or never was, is a place all the same. An empty parameter counts as absent."""
    channel, nothing = f"kept-{name}/ä?#", {"messages": [], "more": False}
    frames = talk(connect, channel, "one", "two", "three", "four")
    epoch, number = map(int, frames[0]["id"].split("-"))
    everything = service.history(channel=channel)
    assert [message["data"] for message in everything["messages"]] == ["two", "three", "four"]
    for place in (
        "0-0",
        "0-1",
        "1-0",
        f"{epoch - 1}-{10**15}",
        f"{epoch}-0",
        f"{epoch}-{number}",
        f"{epoch}-{number + 1}",
    ):
        assert service.history(channel=channel, before=place) == nothing
    for place in ("", f"{epoch}-{number + 99}", f"{epoch + 1}-0", "9999999999999999-9999999999999999"):
        assert service.history(channel=channel, before=place, limit="") == everything
    assert service.history(channel=channel, limit=1000) == everything
    assert service.history(channel=f"kept-nobody-{name}") == service.history(channel=f"other-{name}") == nothing
    for options, config in service.sources:
        assert json.loads(succeed("history", channel, "--before", "0-0", *options, "--json", **config)) == nothing
        assert succeed("history", f"other-{name}", *options, **config).split() == [
            "ID",
            "WHEN",
            "FROM",
            "EVENT",
            "DATA",
        ]


BAD = [
    ({}, "channel must be a string of 1 to 200 characters"),
    ({"channel": ""}, "channel must be a string of 1 to 200 characters"),
    ({"channel": "a b"}, "without white space"),
    ({"channel": "a\0"}, "without white space and control characters"),
    ({"channel": "x" * 201}, "1 to 200 characters"),
    *(
        ({"limit": text}, "limit must be a whole number from 1 to 1000")
        for text in ("0", "-1", "1001", "1e3", "5.0", "x")
    ),
    ({"limit": "9" * 2000}, "limit must be a whole number from 1 to 1000"),
    ({"limit": "\u0665"}, "limit must be a whole number from 1 to 1000"),
    *(
        ({"before": text}, "before must be the id of a message")
        for text in ("5", "1-", "-1", "01-2", "1-2-3", "1 -2", "x")
    ),
    ({"before": "1" * 17 + "-1"}, "before must be the id of a message"),
    ({"before": "1-1" * 600}, "before must be the id of a message"),
    ({"before": "\u0661-\u0661"}, "before must be the id of a message"),
]


@pytest.mark.parametrize(("query", "told"), BAD, ids=lambda value: str(value)[:40])
def test_a_bad_parameter_gets_400_and_a_sentence(server: Server, query: dict[str, str], told: str) -> None:
    base = {} if not query or "channel" in query else {"channel": "kept-x"}
    status, headers, body = server.get(f"/presence/history?{urlencode(base | query)}")
    error = json.loads(body)["error"]
    assert (status, error["code"]) == (400, "INVALID_REQUEST")
    assert told in error["message"]
    assert len(body) < 300
    assert headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "Missing argument 'CHANNEL'"),
        (["a b"], "without white space"),
        (["kept-x", "--limit", "0"], "1<=x<=1000"),
        (["kept-x", "--limit", "1001"], "1<=x<=1000"),
        (["kept-x", "--limit", "many"], "not a valid integer"),
        (["kept-x", "--before", "5"], "must be the id of a message"),
        (["kept-x", "--before", ""], "must be the id of a message"),
    ],
)
def test_a_wrong_call_of_history_exits_with_2(service: Service, words: list[str], told: str) -> None:
    for options, config in service.sources:
        result = run("history", *words, *options, **config)
        assert (result.exit_code, result.stdout) == (2, "")
        assert told in result.stderr
