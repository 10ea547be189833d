"""Hostile content of frames and tokens: it cannot forge a sender, a member or a log line, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.exceptions import InvalidStatus

from flask_presence.domain.members import RESERVED_KEYS

from ..conftest import Connect
from ..support.client import client
from ..support.raw import masked, split_frames, upgraded
from ..support.server import Server, running, wait_until

SERVER_TYPES = [
    *("connected", "channel:joined", "channel:left", "channel:sent", "channel:updated", "channel:message", "pong"),
    *("presence:member_joined", "presence:member_left", "presence:member_updated", "auth:ok", "auth:expiring", "error"),
]
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(0, 9) | st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text("abc", max_size=3), inner, max_size=2),
    max_leaves=5,
)


@pytest.mark.parametrize("type", SERVER_TYPES)
def test_a_client_cannot_forge_the_envelope_of_a_message(connect: Connect, name: str, type: str) -> None:
    """The others get a `channel:message` from that client."""
    ann, bob = connect("ann"), connect("bob")
    bob.join(name)
    ann.join(name)
    forged = {"member": {"id": "eve"}, "from": {"clientId": "server"}, "timestamp": "1970-01-01T00:00:00.000Z"}
    ann.say(name, {"type": type}, event=type, clientId="server", code="X", **forged)
    heard = bob.event()
    assert heard.keys() == {"type", "channel", "event", "data", "from", "timestamp"}
    assert (heard["type"], heard["event"], heard["data"]) == ("channel:message", type, {"type": type})
    assert heard["from"] == {"clientId": ann.id, "userId": "ann"}
    assert heard["timestamp"] > "2024"


@given(
    info=st.dictionaries(
        st.sampled_from(sorted(RESERVED_KEYS)) | st.sampled_from(["name", "avatar", "constructor", "prototype"]),
        JSON_VALUES,
        max_size=6,
    )
)
def test_user_info_cannot_change_the_fields_of_the_server(server: Server, info: dict[str, Any]) -> None:
    """This holds at a join and at an update."""
    with client(server, "mallory") as mallory:
        joined = mallory.join("presence-posing", **info)["me"]
        updated = mallory.update("presence-posing", **info)["member"]
        listed = server.json("/presence/channels/presence-posing")["members"][0]
        assert updated == listed
        for member in (joined, updated):
            assert (member["id"], member["clientId"]) == ("mallory", mallory.id)
            assert member["joinedAt"] == joined["joinedAt"] > "2024"
            assert "__proto__" not in member
            assert isinstance(member["name"], str)
            assert isinstance(member.get("avatar", ""), str)


def test_a_refusal_does_not_tell_whether_a_channel_is_empty(connect: Connect, name: str) -> None:
    eve, taken = connect("eve"), f"presence-team-{name}"
    nobody = eve.request("join", channel=f"presence-denied-{name}")
    connect("ann", claims={"teams": [name]}).join(taken)
    assert nobody == {"type": "error", "code": "FORBIDDEN", "message": "Access denied"}
    assert eve.request("join", channel=taken) == nobody
    assert eve.request("join", channel=f"presence-broken-{name}") == nobody
    anonymous = connect()
    assert anonymous.request("join", channel=taken) == anonymous.request("join", channel=f"presence-{name}-empty")


def test_a_client_cannot_begin_a_log_line_or_make_a_long_one(name: str) -> None:
    with running() as server, client(server, f"a\r\nFAKE {name}", claims={"name": "b\r\nFAKE"}) as one:
        for channel in (f"private-broken-{'x' * 180}", "private-broken-\u2028FAKE", "private-broken-\u009bFAKE"):
            one.request("join", channel=channel)
        one.request("x\r\nFAKE")
        with pytest.raises(InvalidStatus), client(server, headers={"Origin": f"http://{'FAKE' * 200}.example"}):
            pass
        log = server.log()
    assert "broken-" in log
    assert not [line for line in log.splitlines() if line.startswith("FAKE")]
    assert "FAKE" * 80 not in log


def test_endless_joins_leave_nothing_behind(name: str) -> None:
    """The server refuses some of them."""
    with running(PRESENCE_RATE_LIMIT=None) as server:
        status = Path(f"/proc/{server.worker_pids()[0]}/statm")
        before = 0
        for turn in range(5):
            with upgraded(server.port, server.token("mallory")) as raw:
                for kind in ("presence", "private-denied", ""):
                    ask(raw, [f"{kind}-{turn}-{number}-{name}" for number in range(2000)])
            wait_until(lambda: server.json("/presence/stats")["connections"] == 0)
            assert server.json("/presence/stats")["channels"] == 0
            pages = int(status.read_text().split()[1])
            before = before or pages
        assert (pages - before) * os.sysconf("SC_PAGESIZE") < 2_000_000


def ask(raw: socket.socket, channels: list[str]) -> None:
    """Ask to join every channel, and read an answer for each."""
    for start in range(0, len(channels), 500):
        part = channels[start : start + 500]
        raw.sendall(b"".join(masked(json.dumps({"type": "join", "channel": one}).encode()) for one in part))
        answers, rest = 0, b""
        while answers < len(part):
            frames, rest = split_frames(rest + raw.recv(65536))
            answers += len(frames)


def test_a_name_with_lone_surrogates_hurts_nobody(connect: Connect, name: str) -> None:
    """It is shown without them, to everybody who joins later too."""
    odd = connect("odd", claims={"name": "a\ud800b", "avatar": "\ud800", "email": "\udfff"})
    assert odd.join(f"presence-{name}")["me"]["name"] == "a?b"
    assert [member["id"] for member in connect("ann").join(f"presence-{name}")["members"]] == ["odd", "ann"]
    answer = odd.request("join", channel=f"private-surrogate-{name}")
    assert (answer["code"], answer["message"]) == ("FORBIDDEN", "?")


def test_a_handler_can_read_any_number(connect: Connect, server: Server, name: str) -> None:
    """Python reads a number that is too large as infinity."""
    one = connect()
    one.join(name)
    one.raw(f'{{"type":"channel:message","channel":"{name}","data":[1e999]}}')
    wait_until(lambda: "Infinity" in server.get(f"/heard/{one.id}")[2])
