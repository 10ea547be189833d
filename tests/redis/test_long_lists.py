"""Lists that are too long for one step: they are read in slices, while members come and go."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, TypeVar

import pytest

from flask_presence.backends.redis.store.calls import CHUNK, Operation
from flask_presence.backends.redis.store.channels import WHOLE, LiveConnection
from flask_presence.backends.redis.store.entries import Entry, Listing
from flask_presence.backends.redis.store.keys import Keys
from flask_presence.domain.channels import ChannelName
from flask_presence.domain.members import User
from flask_presence.domain.roster import Joiner

from ..conftest import on_redis
from ..support.client import Client as Member
from ..support.client import client
from ..support.redis_server import RedisServer, running_redis
from ..support.server import Server, running
from ..support.store import Client, store_of
from .test_channel_operations import NOW

T = TypeVar("T")
ROOM = ChannelName("presence-room")
MANY = 6 * WHOLE


@pytest.fixture
def pair(redis_server: RedisServer, redis_client: Client) -> Iterator[tuple[Server, Server]]:
    """Two servers, of which the first has somebody in a room of very many members."""
    config = on_redis(redis_server)
    keys = Keys(config["PRESENCE_REDIS_PREFIX"])
    operations = store_of(keys.prefix).channels("elsewhere")
    for number in range(MANY):
        user = User(f"user-{number}", name=f"User {number}")
        redis_client.run(operations.join(Joiner(ROOM, f"client-{number}", user, {"n": number}, NOW), with_list=False))
    with ExitStack() as stack:
        servers = [stack.enter_context(running(PRESENCE_LEASE=60, **config)) for _ in range(2)]
        yield servers[0], servers[1]


def view_of(one: Member, joined: dict[str, Any]) -> dict[str, Any]:
    """The list that a client has, after all events that have arrived."""
    view = {member["id"]: member for member in joined["members"]}
    for event in one.events():
        member = event["member"]
        if event["type"] == "presence:member_left":
            del view[member["id"]]
        else:
            view[member["id"]] = member
    return view


def test_a_long_list_is_whole_and_in_order(pair: tuple[Server, Server]) -> None:
    """This holds for a client whose worker has no copy yet, for one whose worker has a copy, and for the app."""
    first, second = pair
    with client(first, "ann", max_size=None) as ann, client(second, "bob", max_size=None) as bob:
        expected = [f"user-{number}" for number in range(MANY)]
        members = ann.join(ROOM)["members"]
        assert [member["id"] for member in members] == [*expected, "ann"]
        assert members[7] == {
            "id": "user-7",
            "clientId": "client-7",
            "joinedAt": members[7]["joinedAt"],
            "name": "User 7",
            "n": 7,
        }
        assert [member["id"] for member in bob.join(ROOM)["members"]] == [*expected, "ann", "bob"]
        assert [event["member"]["id"] for event in ann.events()] == ["bob"]
        assert second.json(f"/presence/channels/{ROOM}")["memberCount"] == MANY + 2


def test_members_who_come_and_go_while_the_list_is_read_are_right(pair: tuple[Server, Server]) -> None:
    """The answer and the events after it add up to the same list for everybody."""
    first, second = pair
    with ExitStack() as stack:
        busy = [stack.enter_context(client(first, f"busy-{number}", max_size=None)) for number in range(8)]
        for one in busy:
            one.join(ROOM)
        late = stack.enter_context(client(second, "late", max_size=None))
        late.send({"type": "join", "channel": ROOM})
        for turn in range(6):
            for number, one in enumerate(busy):
                if number % 2:
                    one.update(ROOM, turn=turn)
                else:
                    one.request("leave", channel=ROOM)
                    one.join(ROOM, turn=turn)
        joined = late.event()
        assert joined["type"] == "channel:joined"
        with client(second, "last", max_size=None) as last:
            end = {member["id"]: member for member in last.join(ROOM)["members"]}
            assert view_of(late, joined) == end
        assert len(end) == MANY + len(busy) + 2


def run_until_a_loss(store: Client, operation: Operation[T], slices: int) -> T:
    """The outcome of an operation. Redis loses all data before it answers with the last of so many slices."""
    reply: Any = None
    while True:
        try:
            wanted = operation.send(reply)
        except StopIteration as end:
            outcome: T = end.value
            return outcome
        calls = wanted if isinstance(wanted, list) else [wanted]
        if calls[0].name == "HSCAN":
            slices -= 1
            if slices == 0:
                store.redis.flushall()
        replies = store.run_calls(calls)
        reply = replies if isinstance(wanted, list) else replies[0]


def test_a_list_that_redis_loses_while_it_is_read_is_read_again(program: str) -> None:
    """Otherwise a part of the list would count as the whole, and all others as gone. A heal restores the worker's own
    members before that."""
    with running_redis(program) as server:
        store = Client(server.url)
        here, elsewhere = store_of("lost").channels("here"), store_of("lost").channels("elsewhere")
        store.run(here.join(Joiner(ROOM, "mine", User("me"), {}, NOW)))
        for number in range(2 * WHOLE):
            joiner = Joiner(ROOM, f"client-{number}", User(f"user-{number}"), {}, NOW)
            store.run(elsewhere.join(joiner, with_list=False))
        before = store.run(here.snapshot(ROOM))
        live = [LiveConnection("mine", "me", before.value.entries["me"])]
        healing = here.heal(ROOM, lambda: live, lambda: {"mine"}, (), {}, before.position, NOW)
        healed = run_until_a_loss(store, healing, slices=3)
        assert healed.value.snapshot is not None
        assert list(healed.value.snapshot.entries) == ["me"]
        assert healed.position.epoch > before.position.epoch
        for number in range(2 * WHOLE):
            joiner = Joiner(ROOM, f"client-{number}", User(f"user-{number}"), {}, NOW)
            store.run(elsewhere.join(joiner, with_list=False))
        asked = run_until_a_loss(store, here.snapshot(ROOM), slices=3)
        assert asked.value.created_at is None
        assert asked.value.entries == {}
        store.close()


def test_a_heal_of_many_connections_takes_small_steps(redis_client: Client, prefix: str) -> None:
    """It progresses at each, and does not look at all connections for each of them."""
    operations = store_of(prefix).channels("here")
    names = [f"client-{number}" for number in range(WHOLE)]
    for name in [*names, "gone"]:
        redis_client.run(operations.join(Joiner(ROOM, name, User(f"user of {name}"), {}, NOW), with_list=False))
    before = redis_client.run(operations.snapshot(ROOM))
    live = [LiveConnection(name, f"user of {name}", before.value.entries[f"user of {name}"]) for name in names]
    asked, steps = [], []

    def possible() -> set[str]:
        asked.append(1)
        return set(names)

    healing = operations.heal(
        *(ROOM, lambda: live, possible, (), {}, before.position, NOW), progressed=lambda: steps.append(1)
    )
    healed = redis_client.run(healing).value
    assert list(healed.left) == ["gone"]
    assert healed.snapshot is not None
    assert len(healed.snapshot.entries) == WHOLE
    assert len(steps) >= WHOLE / CHUNK
    assert len(asked) <= 2 * WHOLE / CHUNK + 2


def test_slices_in_any_order_become_one_list() -> None:
    document = b'{"id":"x","client_id":"c","joined_at":"2024-01-15T10:30:00Z","info":{}}'
    entries = [(f"user-{number}", Entry(number, number, document)) for number in range(1000)]
    listing = Listing()
    for first in range(7):
        listing.add(entries[first::7])
    found = listing.entries()
    assert list(found.items()) == entries


def test_a_member_who_is_read_twice_is_where_they_joined_last() -> None:
    document = b'{"id":"x","client_id":"c","joined_at":"2024-01-15T10:30:00Z","info":{}}'
    listing = Listing()
    listing.add([("ann", Entry(1, 1, document)), ("bob", Entry(2, 2, document))])
    listing.add([("ann", Entry(3, 3, document))])
    assert [(user, entry.place) for user, entry in listing.entries().items()] == [("bob", 2), ("ann", 3)]
