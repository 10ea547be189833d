"""Kept messages survive faults: what was missed is made up for, or everybody concerned learns that it is lost."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
import redis
from websockets.exceptions import ConnectionClosed

from ..support.client import client
from ..support.pair import Borrow, Pair, lending_pairs
from ..support.redis_server import running_redis
from ..support.server import running
from .test_history_requests import hear, say

ROOM = "private-kept-room"
KEPT = 10


@pytest.fixture(scope="module")
def borrow(program: str) -> Iterator[Borrow]:
    with lending_pairs(program) as borrow:
        yield borrow


@pytest.fixture
def service(borrow: Borrow, name: str) -> Iterator[Pair]:
    options = {"PRESENCE_HISTORY": {"kept-*": (KEPT, 60)}, "PRESENCE_LEASE": 2.0, "PRESENCE_RATE_LIMIT": None}
    with borrow(f"private-kept-{name}", **options) as service:
        yield service


def test_a_worker_makes_up_for_what_its_subscription_missed(service: Pair) -> None:
    """Its clients get every message once, in order, whenever the subscription is cut."""
    (ann, _), (bob, _), (eve, _) = (
        service.enter("near", "ann"),
        service.enter("near", "bob"),
        service.enter("far", "eve"),
    )
    numbers = itertools.count()
    for _ in range(5):
        say(ann, service.channel, next(numbers), next(numbers))
        service.cut_subscriptions()
        say(ann, service.channel, next(numbers), next(numbers))
        count = next(numbers)
        say(ann, service.channel, count)
        heard = [event["data"] for one in (bob, eve) for event in hear(one, 5)]
        assert heard == [*range(count - 4, count + 1)] * 2


def test_a_worker_that_cannot_make_up_for_it_says_so(service: Pair) -> None:
    """It was cut off for longer than the messages are kept, so its clients are closed with 1011, and ask themselves."""
    (ann, _), (eve, joined) = service.enter("near", "ann"), service.enter("far", "eve")
    ids = say(ann, service.channel, "heard")
    assert hear(eve, 1)[0]["id"] == ids[0]
    service.cut_off(eve)
    say(ann, service.channel, *range(KEPT + 1))
    service.proxy.mend()
    assert eve.wait_closed() == (1011, "Messages were missed")
    _, answer = service.enter("far", "eve", since=joined["position"])
    assert (answer["recovered"], [message["data"] for message in answer["messages"]]) == (False, [*range(1, KEPT + 1)])


def test_a_worker_that_was_cut_off_reads_what_is_kept(service: Pair) -> None:
    (ann, _), (eve, _) = service.enter("near", "ann"), service.enter("far", "eve")
    say(ann, service.channel, "before")
    assert hear(eve, 1)[0]["data"] == "before"
    service.cut_off(eve)
    say(ann, service.channel, *range(KEPT))
    service.proxy.mend()
    assert [event["data"] for event in hear(eve, KEPT)] == [*range(KEPT)]


def test_an_emptied_redis_is_no_silent_gap(service: Pair) -> None:
    """Nobody knows what was lost with the data, so clients that come back do not recover."""
    (ann, joined), (eve, _) = service.enter("near", "ann"), service.enter("far", "eve")
    say(ann, service.channel, "lost")
    service.restart_redis()
    for one in (ann, eve):
        assert one.wait_closed() == (1011, "Messages were missed")
    ann, answer = service.enter("near", "ann", since=joined["position"])
    assert (answer["recovered"], answer["messages"]) == (False, [])
    _, answer = service.enter("far", "eve", since=answer["position"])
    assert answer["recovered"] is True
    say(ann, service.channel, "new")
    _, again = service.enter("far", "late", since=answer["position"])
    assert [message["data"] for message in again["messages"]] == ["new"]


def test_a_client_of_a_killed_worker_recovers_at_another(service: Pair) -> None:
    (ann, _), (eve, _) = service.enter("near", "ann"), service.enter("far", "eve")
    ids = say(ann, service.channel, "heard")
    assert hear(eve, 1)[0]["id"] == ids[0]
    service.far.kill()
    say(ann, service.channel, "one", "two")
    eve, answer = service.enter("near", "eve", since=ids[0])
    assert (answer["recovered"], [message["data"] for message in answer["messages"]]) == (True, ["one", "two"])
    say(ann, service.channel, "three")
    assert hear(eve, 1)[0]["data"] == "three"
    service.far.start()
    service.far.wait_until_ready()


def test_both_copies_of_a_message_go_out_once(service: Pair) -> None:
    """They race over two workers. Both get the same answer."""
    (near, _), (far, _), (bob, _) = (service.enter(*one) for one in (("near", "ann"), ("far", "ann"), ("near", "bob")))
    with ThreadPoolExecutor() as pool:
        for turn in range(30):
            sending = [pool.submit(one.say, service.channel, turn, messageId=f"m{turn}") for one in (near, far)]
            assert sending[0].result() == sending[1].result()
    assert [event["data"] for event in hear(bob, 30)] == [*range(30)]
    assert bob.silent()


def test_an_old_copy_of_the_data_is_no_silent_gap(program: str) -> None:
    """Redis and all workers start anew with data that was saved earlier. No place from before is known any longer, and
    no id is given again."""
    history = {"PRESENCE_HISTORY": {"kept-*": (50, 60)}}
    with running_redis(program) as redis_server:
        ids: list[str] = []
        for start in range(2):
            with running(PRESENCE_BACKEND=redis_server.url, **history) as server, client(server, "ann") as ann:
                if start:
                    for since in (ids[2], ids[4], ids[6]):
                        answer = ann.request("join", channel=ROOM, since=since)
                        assert answer["recovered"] is False
                        assert len(answer["messages"]) == 5
                ann.join(ROOM)
                ids += say(ann, ROOM, *range(5))
                if not start:
                    redis.Redis(port=redis_server.port).save()
                    ids += say(ann, ROOM, *range(5, 10))
                else:
                    for since in (ids[2], ids[4], ids[6], ids[9]):
                        assert ann.request("join", channel=ROOM, since=since)["recovered"] is False
                    assert ann.request("join", channel=ROOM, since=ids[10])["recovered"] is True
            redis_server.stop()
            redis_server.start()
        assert len(set(ids)) == 15


def flush(service: Pair) -> None:
    service.admin.flushall()


@pytest.mark.parametrize("fault", [Pair.cut_subscriptions, flush])
def test_a_client_that_recovers_misses_nothing_and_hears_nothing_twice(
    service: Pair, fault: Callable[[Pair], None]
) -> None:
    """Clients come and go while one writes and a fault strikes again and again."""
    writer, joined = service.enter("near", "ann")
    room, count, faults = service.channel, 200, 4
    confirmed: list[int] = []
    done = threading.Event()

    def write() -> None:
        one = writer
        for number in range(count):
            while True:
                with suppress(ConnectionClosed):
                    answer = one.request("channel:message", channel=room, data=number, messageId=f"m{number}")
                    if answer["type"] == "channel:sent":
                        confirmed.append(number)
                        break
                    continue
                one, _ = service.enter("near", "ann")
            if number % (count // faults) == count // faults // 2:
                fault(service)
        done.set()

    writing = threading.Thread(target=write)
    writing.start()
    seen, heard, since = joined["position"], list[int](), 0
    while not (done.is_set() and heard[-1:] == [count - 1]):
        reader, answer = service.enter("far", "eve", since=seen)
        if not answer["recovered"]:
            since, heard = since + 1, []
        seen = answer["position"]
        with suppress(ConnectionClosed):
            for message in [*answer["messages"], *reader.events()]:
                heard.append(message["data"])
                seen = message["id"]
        assert heard == [*range(heard[0], heard[0] + len(heard))] if heard else True
        reader.socket.close()
    writing.join()
    assert confirmed == [*range(count)]
