"""Kept messages and time, the rate limit, and the server's own calls, with the test client."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask

from flask_presence import Message, Presence, PresenceTestError, TestClient

CHANNEL = "presence-room"


@pytest.fixture
def app() -> Iterator[Flask]:
    app = Flask("history")
    app.config.update(PRESENCE_HISTORY={"room": {"messages": 100, "seconds": 60}}, PRESENCE_RATE_LIMIT=(1, 25))
    Presence(app)
    with app.app_context():
        yield app


@pytest.fixture
def presence(app: Flask) -> Presence:
    found: Presence = app.extensions["presence"]
    return found


@pytest.fixture
def ann(presence: Presence, app: Flask) -> Iterator[TestClient]:
    with presence.test_client("ann", app) as ann:
        ann.join(CHANNEL)
        yield ann


def join(one: TestClient, **fields: Any) -> dict[str, Any]:
    return one.request({"type": "join", "channel": CHANNEL, **fields})


def test_messages_are_kept_until_nothing_is_said_for_a_while(ann: TestClient, presence: Presence) -> None:
    """The time begins anew with each message, and then all are forgotten together."""
    position = join(ann)["position"]
    ann.send(CHANNEL, "chat", 1)
    ann.advance(59)
    ann.send(CHANNEL, "chat", 2)
    ann.advance(59)
    assert len(presence.get_channel_history(CHANNEL)) == 2
    assert join(ann, since=position)["recovered"] is True
    ann.advance(2)
    assert presence.get_channel_history(CHANNEL) == []
    answer = join(ann, since=position)
    assert (answer["recovered"], answer["messages"]) == (False, [])
    ann.send(CHANNEL, "chat", 3)
    assert [message["data"] for message in join(ann, since=answer["position"])["messages"]] == [3]


def test_messages_are_kept_while_nobody_is_in_the_channel(ann: TestClient, presence: Presence, app: Flask) -> None:
    first = ann.send(CHANNEL, "chat", 1)["id"]
    ann.close()
    with presence.test_client("bob", app) as bob:
        bob.advance(50)
        presence.publish(CHANNEL, "chat", 2)
        bob.advance(59)
        answer = join(bob, since=first)
        assert (answer["recovered"], [message["data"] for message in answer["messages"]]) == (True, [2])
        bob.leave(CHANNEL)
        bob.advance(61)
        assert join(bob, since=answer["position"]).get("messages") == []


def test_asking_for_many_messages_costs_more_of_the_rate(ann: TestClient) -> None:
    """One frame for every 50 messages."""
    ann.advance(30)
    page = {"type": "channel:history", "channel": CHANNEL, "limit": 1000}
    assert ann.request(page)["type"] == "channel:history"
    assert ann.request(page)["code"] == "RATE_LIMIT_EXCEEDED"
    ann.advance(20)
    assert join(ann, history=1000)["type"] == "channel:joined"
    ann.advance(30)
    for _ in range(25):
        assert ann.request({**page, "limit": 50})["type"] == "channel:history"
    assert ann.request(page)["code"] == "RATE_LIMIT_EXCEEDED"


def test_the_server_reads_decoded_messages(ann: TestClient, presence: Presence) -> None:
    ann.send(CHANNEL, "chat", {"text": "hello"})
    presence.publish(CHANNEL, "news", None)
    first, second = presence.get_channel_history(CHANNEL)
    assert isinstance(first, Message)
    assert (first.event, first.data, first.client_id, first.user_id) == (
        "chat",
        {"text": "hello"},
        ann.client_id,
        "ann",
    )
    assert (first.channel.type, first.timestamp.tzinfo is None) == ("presence", False)
    assert (second.event, second.data, second.client_id, second.user_id) == ("news", None, "server", None)
    assert second.to_dict().keys() == {"id", "channel", "event", "data", "clientId", "timestamp"}
    assert first.to_dict()["userId"] == "ann"
    assert presence.get_channel_history(CHANNEL, limit=1) == [second]
    assert presence.get_channel_history(CHANNEL, before=second.id) == [first]
    assert presence.get_channel_history("elsewhere") == []
    assert presence.clear_channel_history("elsewhere") == 0
    assert presence.clear_channel_history(CHANNEL) == 2


@pytest.mark.parametrize(
    "arguments",
    [{"limit": 0}, {"limit": 1001}, {"limit": "5"}, {"limit": True}, {"before": ""}, {"before": "x"}, {"name": "a b"}],
)
def test_bad_arguments_raise_value_error(ann: TestClient, presence: Presence, arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"limit|before|channel"):
        presence.get_channel_history(**({"name": CHANNEL} | arguments))


def test_a_refused_sender_keeps_nothing(ann: TestClient, presence: Presence) -> None:
    @presence.message_guard("room")
    def nobody() -> bool:
        return False

    for _ in range(2):
        with pytest.raises(PresenceTestError, match="Access denied"):
            ann.send(CHANNEL, "chat", 1)
        assert ann.request({"type": "channel:message", "channel": CHANNEL, "data": 1, "messageId": "a"})["code"] == (
            "FORBIDDEN"
        )
    assert presence.get_channel_history(CHANNEL) == []
