"""The workers of the service: which are alive, what connections they have, and where each user is.

Rule: sans IO; times are by Redis's clock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple, cast

from ....domain.members import User
from .calls import Call, Operation, pairs
from .entries import decode_owner, encode_owner
from .keys import Keys, escape, unescape

BATCH: Final = 200
"""The maximum number of connections looked up in one round trip."""


class HeartbeatReply(NamedTuple):
    """When the data in Redis began, and what time it is there, in ms.

    `lease` is `held`; `late` if it had ended, but is renewed; `lost` if the worker must start again, with a
    new id unless Redis has lost its data; `refused` if workers that are alive have another layout. `last_start` differs
    from the last reply's if another worker on the host has started; after a refusal it is the other layout.
    `has_strays`: some worker has no lease, and nobody is removing it.
    """

    data_since: int
    now: int
    lease: Literal["held", "late", "lost", "refused"]
    last_start: str
    has_strays: bool


class Workers:
    """The workers under one prefix. A worker counts as dead if it is silent for `lease` seconds. `layout` is that of
    this process: see `layout.Shard`."""

    def __init__(self, keys: Keys, lease: float, layout: str = "") -> None:
        self._keys = keys
        self._lease = str(int(lease * 1000))
        self._layout = layout

    def heartbeat(self, worker_id: str, host: str = "", *, first: bool = False) -> Operation[HeartbeatReply]:
        """Renew the lease of a worker on a host. The first heartbeat takes one."""
        keys = self._keys
        names = (keys.leases, keys.workers, keys.data_since, keys.claims, keys.last_start(host), keys.layout)
        reply = yield Call("heartbeat", names, (worker_id, self._lease, "1" if first else "", self._layout))
        data_since, now, lease, last_start, has_strays = reply
        return HeartbeatReply(
            int(data_since), int(now), cast("Any", lease.decode()), last_start.decode(), bool(has_strays)
        )

    def time(self) -> Operation[int]:
        """The time in Redis, in ms."""
        seconds, micros = yield Call("TIME", ())
        return int(seconds) * 1000 + int(micros) // 1000

    def all(self) -> Operation[list[str]]:
        """All workers that may have connections, dead or alive."""
        return [worker_id.decode() for worker_id in (yield Call("SMEMBERS", (self._keys.workers,)))]

    def listed(self, worker_ids: Sequence[str]) -> Operation[list[str]]:
        """Those of some workers that are still among `all`."""
        found = yield Call("SMISMEMBER", (self._keys.workers,), tuple(worker_ids))
        return [worker_id for worker_id, is_listed in zip(worker_ids, found, strict=True) if is_listed]

    def channels_of(self, worker_id: str) -> Operation[list[str]]:
        """The channels in which the worker may have connections."""
        return [name.decode() for name in (yield Call("SMEMBERS", (self._keys.worker_channels(worker_id),)))]

    def add_connections(self, worker_id: str, clients: Mapping[str, User | None]) -> Operation[None]:
        """Store connections of a worker, and their users."""
        owners: list[str | bytes] = []
        for client_id, user in clients.items():
            owners += [client_id, encode_owner(user)]
        if owners:
            yield [
                Call("SADD", (self._keys.workers,), (worker_id,)),  # Redis may have lost it a moment ago
                Call("HSET", (self._keys.worker_clients(worker_id),), tuple(owners)),
                *(
                    Call("HSET", (self._keys.user(user.id),), (client_id, worker_id))
                    for client_id, user in clients.items()
                    if user is not None
                ),
            ]

    def remove_connection(self, worker_id: str, client_id: str, user: User | None) -> Operation[None]:
        """Delete what is stored about a connection: last the record from which the rest is found, if only the first of
        these calls are carried out, or get to the server that takes over."""
        calls = [Call("HDEL", (self._keys.worker_clients(worker_id),), (client_id,))]
        if user is not None:
            calls.insert(0, Call("HDEL", (self._keys.user(user.id),), (client_id,)))
        yield calls

    def add_guests(self, worker_id: str, guests: Mapping[str, User | None]) -> Operation[None]:
        """Store connections of a worker that have their home in another shard, and their users. They are not counted
        here, and their ends are not announced here."""
        owners: list[str | bytes] = []
        for client_id, user in guests.items():
            owners += [client_id, encode_owner(user)]
        if owners:
            yield [
                Call("SADD", (self._keys.workers,), (worker_id,)),
                Call("HSET", (self._keys.worker_guests(worker_id),), tuple(owners)),
            ]

    def remove_guests(self, worker_id: str, guests: Sequence[str]) -> Operation[None]:
        if guests:
            yield Call("HDEL", (self._keys.worker_guests(worker_id),), tuple(guests))

    def guests_of(self, worker_id: str) -> Operation[dict[str, User | None]]:
        """The stored guests of a worker, and their users."""
        return read_owners((yield Call("HGETALL", (self._keys.worker_guests(worker_id),))))

    def set_guests(self, worker_id: str, guests: Mapping[str, User | None]) -> Operation[None]:
        """Store all guests of a worker, in place of what is stored."""
        stored = yield from self.guests_of(worker_id)
        yield from self.add_guests(worker_id, guests)
        yield from self.remove_guests(worker_id, [client_id for client_id in stored if client_id not in guests])

    def set_connections(self, worker_id: str, clients: Mapping[str, User | None]) -> Operation[None]:
        """Store all connections of a worker, in place of what is stored. `clients` is read when the stored connections
        are known."""
        stored = yield from self.connections_of(worker_id)
        yield from self.add_connections(worker_id, clients)
        gone = {client: user for client, user in stored.items() if client not in clients}
        if gone:
            yield from self.forget_users(worker_id, gone)
            yield Call("HDEL", (self._keys.worker_clients(worker_id),), tuple(gone))

    def connections_of(self, worker_id: str) -> Operation[dict[str, User | None]]:
        """The stored connections of a worker, and their users."""
        return read_owners((yield Call("HGETALL", (self._keys.worker_clients(worker_id),))))

    def count_connections_of(self, worker_id: str) -> Operation[tuple[int, int]]:
        """How many connections and how many guests of a worker are stored."""
        keys = (self._keys.worker_clients(worker_id), self._keys.worker_guests(worker_id))
        connections, guests = yield [Call("HLEN", (key,)) for key in keys]
        return int(connections), int(guests)

    def count_alive(self) -> Operation[int]:
        """How many workers are alive."""
        now = yield from self.time()
        return int((yield Call("ZCOUNT", (self._keys.leases,), (str(now), "+inf"))))

    def living_layout(self) -> Operation[str | None]:
        """The layout of the workers that are alive; `None` if there are none."""
        layout = ((yield Call("GET", (self._keys.layout,))) or b"").decode()
        return str(layout) if (yield from self.count_alive()) else None

    def count_connections(self) -> Operation[int]:
        """The open connections of all workers that are alive."""
        now = yield from self.time()
        alive = yield Call("ZRANGEBYSCORE", (self._keys.leases,), (str(now), "+inf"))
        counts = yield [Call("HLEN", (self._keys.worker_clients(worker_id.decode()),)) for worker_id in alive]
        return sum(counts)

    def send_to_user(self, user_id: str, payload: bytes) -> Operation[int]:
        """Publish to the workers that have connections of a user, and to no others. Returns to how many connections."""
        workers = Counter(worker_id.decode() for worker_id in (yield Call("HVALS", (self._keys.user(user_id),))))
        message = encode_user_message(user_id, payload)
        heard = yield [Call("PUBLISH", (self._keys.inbox(worker_id),), (message,)) for worker_id in workers]
        return sum(number for number, hearers in zip(workers.values(), heard, strict=True) if hearers)

    def is_online(self, user_id: str) -> Operation[bool]:
        """Whether a worker that is alive has a connection of the user."""
        workers = {worker_id.decode() for worker_id in (yield Call("HVALS", (self._keys.user(user_id),)))}
        if not workers:
            return False
        now = yield from self.time()
        leases = yield [Call("ZSCORE", (self._keys.leases,), (worker_id,)) for worker_id in workers]
        return any(lease is not None and float(lease) >= now for lease in leases)

    def forget_users(self, worker_id: str, owners: Mapping[str, User | None]) -> Operation[None]:
        """Delete the records of where users are for connections that a worker no longer has. Records that now name
        another worker id stay."""
        mine = [(user.id, client) for client, user in owners.items() if user is not None]
        for at in range(0, len(mine), BATCH):
            yield [
                Call("forget_user", (self._keys.user(user_id),), (client, worker_id))
                for user_id, client in mine[at : at + BATCH]
            ]


def read_owners(flat: list[Any]) -> dict[str, User | None]:
    """Connections and their users, from the fields and values of a hash of connections."""
    return {client.decode(): decode_owner(owner) for client, owner in pairs(flat)}


def encode_user_message(user_id: str, payload: bytes) -> bytes:
    """Encode a message for a user, as a worker's inbox receives it."""
    return escape(user_id).encode() + b"\0" + payload


def decode_user_message(message: bytes) -> tuple[str, bytes]:
    """Decode what `encode_user_message` has encoded: the user id and the payload."""
    user, payload = message.split(b"\0", 1)
    return unescape(user.decode()), payload
