"""Kept messages as a client asks for them: at a join, in pages, and by sending again. With both backends."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from flask_presence.domain.history import MAX_ANSWER_BYTES

from ..conftest import Connect
from ..support.client import Client
from ..support.server import Server, wait_until

KEPT = 20
"""How many messages the shared server keeps in the channels `kept-…`."""
HISTORY_KEYS = {"position", "recovered", "messages"}


@pytest.fixture
def channel(name: str) -> str:
    return f"presence-kept-{name}"


def say(one: Client, channel: str, *what: Any) -> list[str]:
    """Send messages. Returns their ids."""
    return [one.say(channel, data)["id"] for data in what]


def rejoin(one: Client, channel: str, **fields: Any) -> dict[str, Any]:
    answer = one.request("join", channel=channel, **fields)
    assert answer["type"] == "channel:joined", answer
    return answer


def hear(one: Client, count: int) -> list[dict[str, Any]]:
    """The next so many messages that come as events."""
    heard: list[dict[str, Any]] = []
    while len(heard) < count:
        event = one.event()
        if event["type"] == "channel:message":
            heard.append(event)
    return heard


def data_of(answer: dict[str, Any]) -> list[Any]:
    return [message["data"] for message in answer["messages"]]


def test_a_message_has_the_same_id_for_everybody(connect: Connect, channel: str) -> None:
    ann, bob = connect("ann"), connect("bob")
    joined = ann.join(channel)
    bob.join(channel)
    ids = say(ann, channel, "one", "two")
    heard = hear(bob, 2)
    assert [event["id"] for event in heard] == ids
    assert len({joined["position"], *ids}) == 3
    assert ann.request("channel:history", channel=channel)["messages"] == heard


def test_a_joiner_gets_exactly_what_it_missed(connect: Connect, channel: str) -> None:
    """Each message is as it was sent to the others, and the user's own are among them."""
    ann, bob, watcher = connect("ann"), connect("bob"), connect("watcher")
    watcher.join(channel)
    bob.join(channel)
    position = ann.join(channel)["position"]
    for places in (position, *say(ann, channel, "mine")):
        assert rejoin(connect("ann"), channel, since=places)["recovered"] is True
    ann.socket.close()
    say(bob, channel, "one", "two")
    again = connect("ann")
    answer = rejoin(again, channel, since=position, history=1)
    assert (answer["recovered"], data_of(answer)) == (True, ["mine", "one", "two"])
    heard = hear(watcher, 3)
    assert answer["messages"] == heard
    say(bob, channel, "three")
    assert again.event()["data"] == "three"
    assert rejoin(again, channel, since=answer["position"])["messages"][0]["data"] == "three"
    assert data_of(rejoin(again, channel, since=heard[-1]["id"])) == ["three"]


def test_what_is_no_longer_kept_is_not_recovered(connect: Connect, channel: str) -> None:
    """The joiner learns that, and gets the newest messages."""
    ann = connect("ann")
    position = ann.join(channel)["position"]
    ids = say(ann, channel, *range(KEPT + 5))
    answer = rejoin(ann, channel, since=position)
    assert (answer["recovered"], data_of(answer)) == (False, list(range(5, KEPT + 5)))
    assert data_of(rejoin(ann, channel, since=position, history=3)) == [22, 23, 24]
    assert rejoin(ann, channel, since=ids[3])["recovered"] is False
    answer = rejoin(ann, channel, since=ids[4])
    assert (answer["recovered"], data_of(answer)) == (True, list(range(5, KEPT + 5)))


@pytest.mark.parametrize("since", ["", "x", "1-1", "0-0", "9999999999999-1", "-1", "NaN", "1" * 10_000, "é-é"])
def test_an_unknown_place_is_not_recovered(connect: Connect, channel: str, since: str) -> None:
    ann = connect("ann")
    ann.join(channel)
    say(ann, channel, "one", "two")
    answer = rejoin(ann, channel, since=since)
    assert (answer["recovered"], data_of(answer)) == (False, ["one", "two"])


def test_a_place_that_has_not_been_reached_is_unknown(connect: Connect, channel: str) -> None:
    ann = connect("ann")
    epoch = ann.join(channel)["position"].partition("-")[0]
    say(ann, channel, "one")
    answer = rejoin(ann, channel, since=f"{epoch}-1000000")
    assert (answer["recovered"], data_of(answer)) == (False, ["one"])


def test_a_new_page_asks_for_the_newest_messages(connect: Connect, channel: str) -> None:
    ann = connect("ann")
    ann.join(channel)
    say(ann, channel, *range(5))
    answer = rejoin(ann, channel, history=2)
    assert (data_of(answer), "recovered" in answer) == ([3, 4], False)
    assert HISTORY_KEYS & rejoin(ann, channel).keys() == {"position"}
    assert HISTORY_KEYS & rejoin(ann, channel, since=None, history=None).keys() == {"position"}
    assert data_of(rejoin(connect("bob"), channel, history=1000)) == list(range(5))


def test_pages_go_backwards(connect: Connect, channel: str) -> None:
    ann = connect("ann")
    ann.join(channel)
    ids = say(ann, channel, *range(5))
    page = ann.request("channel:history", channel=channel, limit=2)
    assert (data_of(page), page["more"]) == ([3, 4], True)
    page = ann.request("channel:history", channel=channel, limit=2, before=ids[3])
    assert (data_of(page), page["more"]) == ([1, 2], True)
    page = ann.request("channel:history", channel=channel, limit=None, before=ids[1])
    assert (data_of(page), page["more"]) == ([0], False)
    say(ann, channel, *range(5, 5 + KEPT))
    page = ann.request("channel:history", channel=channel, before=ids[1])
    assert (data_of(page), page["more"]) == ([], False)


@pytest.mark.parametrize(
    ("request_type", "field", "values", "message"),
    [
        ("join", "history", [0, -1, 1001, 1e9, "5", True, []], "history must be a whole number from 1 to 1000"),
        ("join", "since", [5, True, {}], "since must be a string: a position, or the id of a message"),
        ("channel:history", "limit", [0, -1, 1001, 1e9, "5"], "limit must be a whole number from 1 to 1000"),
        ("channel:history", "before", ["", "x", 5, "1-", "1" * 10_000], "before must be the id of a message"),
        ("channel:message", "messageId", ["", "x" * 65, 5, {}], "messageId must be a string of 1 to 64 characters"),
    ],
)
def test_bad_values_are_refused(
    connect: Connect, channel: str, request_type: str, field: str, values: list[Any], message: str
) -> None:
    """This is so in channels that keep nothing, too. The state does not change."""
    ann = connect("ann")
    for place in (channel, channel.replace("kept", "plain")):
        before = ann.join(place)
        for value in values:
            answer = ann.request(request_type, channel=place, data=1, **{field: value})
            assert (answer.get("code"), answer["message"]) == ("INVALID_REQUEST", message), value
        assert rejoin(ann, place) == before


def test_only_those_in_the_channel_see_its_pages(connect: Connect, channel: str) -> None:
    ann, bob = connect("ann"), connect("bob")
    ann.join(channel)
    say(ann, channel, "secret")
    assert bob.request("channel:history", channel=channel)["code"] == "NOT_IN_CHANNEL"
    assert bob.request("channel:history", channel="presence-kept-nowhere")["code"] == "NOT_IN_CHANNEL"
    assert bob.request("channel:history")["message"] == "Channel name is required"
    bob.join(channel)
    bob.request("leave", channel=channel)
    assert bob.request("channel:history", channel=channel)["code"] == "NOT_IN_CHANNEL"


def test_a_channel_that_keeps_nothing_shows_none_of_this(connect: Connect, name: str) -> None:
    ann, bob = connect("ann"), connect("bob")
    channel = f"presence-plain-{name}"
    assert HISTORY_KEYS & rejoin(ann, channel, since="1-1", history=5).keys() == set()
    bob.join(channel)
    for _ in range(2):
        assert "id" not in ann.say(channel, 1, messageId="same")
    assert [("id" in event, event["data"]) for event in hear(bob, 2)] == [(False, 1), (False, 1)]
    page = ann.request("channel:history", channel=channel, before="1-1")
    assert (page["messages"], page["more"]) == ([], False)


def test_a_repeated_message_goes_out_once(connect: Connect, server: Server, channel: str) -> None:
    """The answer is that of the first, and the app hears of one message. The user may have reconnected meanwhile."""
    ann, other, bob = connect("ann"), connect("ann"), connect("bob")
    for one in (ann, other, bob):
        one.join(channel)
    first = ann.say(channel, "hello", messageId="a")
    assert first["delivered"] == 2
    connect("late").join(channel)
    assert ann.say(channel, "hello again", messageId="a") == first
    assert other.say(channel, "from elsewhere", messageId="a") == first
    assert bob.say(channel, "of another user", messageId="a")["id"] != first["id"]
    ann.say(channel, "the next")
    assert [event["data"] for event in hear(bob, 2)] == ["hello", "the next"]
    wait_until(lambda: [event["name"] for event in server.json(f"/heard/{ann.id}")].count("message") == 2)
    assert [event["name"] for event in server.json(f"/heard/{other.id}")].count("message") == 0


def test_an_anonymous_connection_repeats_only_its_own_messages(connect: Connect, name: str) -> None:
    one, other = connect(), connect()
    channel = f"kept-{name}"
    one.join(channel)
    other.join(channel)
    first = one.say(channel, 1, messageId="a")
    assert one.say(channel, 1, messageId="a") == first
    assert other.say(channel, 1, messageId="a")["id"] != first["id"]


def test_the_message_id_of_one_user_is_not_that_of_another(connect: Connect, name: str) -> None:
    """However their ids and the message ids are put together."""
    channel, first = f"kept-{name}", "u\0 1"
    one, other = connect(first), connect("u")
    one.join(channel)
    other.join(channel)
    ids = {one.say(channel, 1, messageId="x")["id"]}
    for message_id in ("1\0x", " 1 x", "1 x", "\0 1 x", "x"):
        ids.add(other.say(channel, 1, messageId=message_id)["id"])
    assert len(ids) == 6


def test_requests_wait_until_the_answers_before_them_are_sent(connect: Connect, server: Server, name: str) -> None:
    """A client that asks for much at once and reads nothing costs little memory, and gets its answers when it reads."""
    channel = f"kept-{name}"
    ann = connect("ann")
    ann.join(channel)
    say(ann, channel, *(["x" * 60_000] * 5))
    before = memory_of(server)
    greedy = connect("eve")
    greedy.join(channel)
    request = {"type": "channel:history", "channel": channel, "limit": 5}
    for number in range(150):
        greedy.send({**request, "requestId": number})
    assert ann.say(channel, "still here?")["delivered"] == 1
    assert memory_of(server) - before < 20 * 1024
    answers = [greedy._read() for _ in range(151)]
    assert [answer["requestId"] for answer in answers if "requestId" in answer] == list(range(150))


def memory_of(server: Server) -> int:
    """The memory of the server's worker, in kB."""
    status = Path(f"/proc/{server.worker_pids()[-1]}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])


def test_a_message_that_is_no_longer_kept_may_be_sent_again(connect: Connect, channel: str) -> None:
    ann = connect("ann")
    ann.join(channel)
    first = ann.say(channel, 0, messageId="a")
    say(ann, channel, *range(KEPT))
    assert ann.say(channel, 0, messageId="a")["id"] != first["id"]


def test_an_answer_has_at_most_256_kib_of_messages(connect: Connect, channel: str) -> None:
    ann = connect("ann")
    position = ann.join(channel)["position"]
    say(ann, channel, *(["x" * 60_000] * 5))
    for answer in (
        ann.request("channel:history", channel=channel, limit=5),
        rejoin(ann, channel, history=5),
        rejoin(ann, channel, since=position),
        rejoin(connect("bob"), channel, since=position),
    ):
        assert len(answer["messages"]) == 4
        assert sum(len(str(message)) for message in answer["messages"]) <= MAX_ANSWER_BYTES
        assert answer.get("more", True) is True
        assert answer.get("recovered", False) is False


def test_the_server_reads_publishes_and_forgets(connect: Connect, server: Server, channel: str) -> None:
    """`publish` is kept, also if nobody is in the channel; `broadcast_to_channel` is not."""
    assert server.call("publish", name=channel, event="news", data={"a": 1}) == 0
    ann = connect("ann")
    first = rejoin(ann, channel, history=5)
    assert data_of(first) == [{"a": 1}]
    assert server.call("broadcast_to_channel", name=channel, message={"type": "reload"}) == 1
    assert ann.event() == {"type": "reload"}
    say(ann, channel, "hello")
    answer = rejoin(ann, channel, since=first["position"])
    assert (answer["recovered"], data_of(answer)) == (True, ["hello"])
    messages = server.json(f"/presence/history?channel={channel}&limit=1")
    assert (messages["messages"], messages["more"]) == (answer["messages"], True)
    assert server.call("clear_channel_history", name=channel) == 2
    assert ann.request("channel:history", channel=channel)["messages"] == []
    answer = rejoin(ann, channel, since=first["position"])
    assert (answer["recovered"], answer["messages"]) == (False, [])
    position = answer["position"]
    say(ann, channel, "after")
    answer = rejoin(ann, channel, since=position)
    assert (answer["recovered"], data_of(answer)) == (True, ["after"])


def test_nothing_is_missed_while_others_write(connect: Connect, name: str) -> None:
    """A client that comes and goes hears every message once, in order, by its joins and its events. (There are fewer
    messages than the rate limit admits at once.)"""
    writer, channel, count, heard = connect("writer"), f"private-long-{name}", 180, list[int]()
    writer.join(channel)
    seen = writer.join(channel)["position"]
    writing = threading.Thread(target=lambda: say(writer, channel, *range(count)))
    writing.start()
    while len(heard) < count:
        reader = connect("reader")
        answer = rejoin(reader, channel, since=seen)
        assert answer["recovered"] is True
        seen = answer["position"]
        for message in [*answer["messages"], *reader.events()]:
            heard.append(message["data"])
            seen = message["id"]
        reader.socket.close()
    writing.join()
    assert heard == list(range(count))
