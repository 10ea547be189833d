"""Which processes are alive, what they have open, and what becomes of those that are dead.

Law: sans IO; time is that of Redis. Any node may reap a dead one; doing it twice does no harm, and everybody who left
is announced once.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from ....domain.channels import ChannelName
from ....domain.errors import BackendUnavailable
from ....domain.events import ChannelLeft, ClientDisconnected, Event, MemberLeft
from ....domain.members import User
from .calls import CHUNK, Call, Operation, pairs
from .counts import Readings
from .entries import decode_owner, encode_owner, parse_entry
from .grace import Graces
from .keys import Keys, escape

CLAIM: Final = 5.0
"""Seconds that one node has to reap another before the next may try."""
ABNORMAL: Final = 1006
BATCH: Final = 200
"""Most users of gone connections that are looked up in one round trip."""
RENEW_EVERY: Final = 20
"""Channels of a dead node after which its claim is renewed."""

log = logging.getLogger("flask_presence")


class Beat(NamedTuple):
    """The answer to a heartbeat: since when these data exist, the time, in ms, and what became of the lease."""

    birth: int
    now: int
    verdict: str


class Nodes:
    """The nodes under one prefix.

    `lease`: seconds after which a silent one counts as dead; `grace`: seconds for which its users stay listed.
    """

    def __init__(self, keys: Keys, lease: float, grace: float = 0) -> None:
        self._keys = keys
        self._lease = str(int(lease * 1000))
        self._grace = grace
        self.readings = Readings(keys)
        self.graces = Graces(keys)

    def beat(self, node: str, *, begins: bool = False) -> Operation[Beat]:
        """Say that `node` lives. One that begins has no lease to lose."""
        keys = self._keys
        names = (keys.leases, keys.nodes, keys.birth, keys.claims)
        birth, now, verdict = yield Call("beat", names, (node, self._lease, "1" if begins else ""))
        return Beat(int(birth), int(now), verdict.decode())

    def opened(self, node: str, clients: Mapping[str, User | None]) -> Operation[None]:
        """Write down connections of `node`, and whose they are."""
        owners: list[str | bytes] = []
        for client_id, user in clients.items():
            owners += [client_id, encode_owner(user)]
        if owners:
            yield [
                Call("SADD", (self._keys.nodes,), (node,)),  # Redis may have lost it a moment ago
                Call("HSET", (self._keys.clients(node),), tuple(owners)),
                *(
                    Call("HSET", (self._keys.user(user.id),), (client_id, node))
                    for client_id, user in clients.items()
                    if user is not None
                ),
            ]

    def closed(self, node: str, client_id: str, user: User | None) -> Operation[None]:
        """A connection of `node` is gone."""
        calls = [Call("HDEL", (self._keys.clients(node),), (client_id,))]
        if user is not None:
            calls.append(Call("HDEL", (self._keys.user(user.id),), (client_id,)))
        yield calls

    def reopened(self, node: str, clients: Mapping[str, User | None]) -> Operation[None]:
        """Write down all connections of `node`, as they are in `clients` by then, and that there are no others."""
        noted = _owners((yield Call("HGETALL", (self._keys.clients(node),))))
        yield from self.opened(node, clients)
        gone = {client: user for client, user in noted.items() if client not in clients}
        if gone:
            yield Call("HDEL", (self._keys.clients(node),), tuple(gone))
            yield from self._forget_users(node, gone)

    def open_connections(self, node: str) -> Operation[int]:
        """How many of `node` are written down."""
        return int((yield Call("HLEN", (self._keys.clients(node),))))

    def all(self) -> Operation[list[str]]:
        """All nodes that may have connections, dead or alive."""
        return [node.decode() for node in (yield Call("SMEMBERS", (self._keys.nodes,)))]

    def connections(self) -> Operation[int]:
        """The open connections of the nodes that are alive."""
        now = yield from self.time()
        alive = yield Call("ZRANGEBYSCORE", (self._keys.leases,), (str(now), "+inf"))
        counts = yield [Call("HLEN", (self._keys.clients(node.decode()),)) for node in alive]
        return sum(counts)

    def send_to_user(self, user_id: str, payload: bytes) -> Operation[int]:
        """Send something to the nodes that have connections of a user, and to no others; to how many connections."""
        nodes = Counter(node.decode() for node in (yield Call("HVALS", (self._keys.user(user_id),))))
        letter = escape(user_id).encode() + b"\0" + payload
        heard = yield [Call("PUBLISH", (self._keys.inbox(node),), (letter,)) for node in nodes]
        return sum(number for number, hearers in zip(nodes.values(), heard, strict=True) if hearers)

    def is_online(self, user_id: str) -> Operation[bool]:
        """Whether a node that is alive has a connection of the user."""
        nodes = {node.decode() for node in (yield Call("HVALS", (self._keys.user(user_id),)))}
        if not nodes:
            return False
        now = yield from self.time()
        leases = yield [Call("ZSCORE", (self._keys.leases,), (node,)) for node in nodes]
        return any(lease is not None and float(lease) >= now for lease in leases)

    def _forget_users(self, node: str, owners: Mapping[str, User | None]) -> Operation[None]:
        """Connections that `node` had are gone: so that their users are not looked for there. Another node, or the same
        one by another name, may have some of them by now."""
        mine = [(user.id, client) for client, user in owners.items() if user is not None]
        for at in range(0, len(mine), BATCH):
            places = [(self._keys.user(user_id), client) for user_id, client in mine[at : at + BATCH]]
            found = yield [Call("HGET", (key,), (client,)) for key, client in places]
            over = [place for place, holder in zip(places, found, strict=True) if holder == node.encode()]
            if over:
                yield [Call("HDEL", (key,), (client,)) for key, client in over]

    def claim(self, dead: list[str], *, after: float | None = 0) -> Operation[str | None]:
        """A dead node that is now the caller's to reap: one of `dead`, or one whose lease has ended `after` seconds
        ago or earlier (`None`: none of these)."""
        keys = self._keys
        patience = "" if after is None else str(int(after * 1000))
        names = (keys.leases, keys.nodes, keys.birth, keys.claims)
        reply = yield Call("claim", names, (str(int(CLAIM * 1000)), self._lease, patience, *dead))
        return reply.decode() if reply else None

    def reap(self, node: str) -> Operation[list[Event]]:
        """Take all of a dead node's connections out of their channels; what the application should hear of it.

        The node is forgotten when there was nothing to take: what it had asked for before it died may have been done
        only after somebody had reaped it.
        """
        keys, events, taken = self._keys, list[Event](), 0
        # Before they are taken, as nobody else would do it after a reaper that is killed in between.
        noted = yield Call("HGETALL", (keys.clients(node),))
        yield from self._forget_users(node, _owners(noted))
        owners = _owners((yield Call("take", (keys.clients(node),))))
        try:
            for at, name in enumerate((yield Call("SMEMBERS", (keys.index(node),)))):
                if at % RENEW_EVERY == RENEW_EVERY - 1:
                    until = (yield from self.time()) + int(CLAIM * 1000)
                    yield Call("ZADD", (keys.claims,), (str(until), node))
                taken += yield from self._reap_channel(node, ChannelName(name.decode()), owners, events)
            if not taken and not owners:
                yield from self.forget(node)
        except BackendUnavailable as problem:
            log.warning("a dead process could not be seen to, and will be again: %s", problem)
        events += [ClientDisconnected(client_id, user, ABNORMAL, "worker_lost") for client_id, user in owners.items()]
        counts = Counter(
            f"leaves|{event.type}" if isinstance(event, ChannelLeft) else f"closed|{ABNORMAL}"
            for event in events
            if isinstance(event, (ChannelLeft, ClientDisconnected))
        )
        try:
            yield self.readings.add(counts)
        except BackendUnavailable as problem:
            log.warning("what a dead process could not count itself is not counted: %s", problem)
        return events

    def abandon(self, node: str, channels: list[str]) -> Operation[None]:
        """A node has another name now; what it may yet have in `channels` by this one is left to the reapers."""
        if channels:
            yield Call("SADD", (self._keys.index(node),), tuple(channels))
        yield Call("SADD", (self._keys.nodes,), (node,))

    def forget(self, node: str) -> Operation[None]:
        """Nothing is left of `node`."""
        keys = self._keys
        yield [
            Call("DEL", (keys.clients(node),)),
            Call("DEL", (keys.index(node),)),
            Call("SREM", (keys.nodes,), (node,)),
            Call("ZREM", (keys.leases,), (node,)),
            Call("ZREM", (keys.claims,), (node,)),
            self.readings.fold(),
        ]

    def _reap_channel(
        self, node: str, channel: ChannelName, owners: Mapping[str, User | None], events: list[Event]
    ) -> Operation[int]:
        """How many connections were looked at; what the application should hear is added to `events`."""
        keys, taken, looked_at = self._keys, 0, CHUNK
        while looked_at == CHUNK:
            until = ""
            if self._grace and channel.type == "presence":
                until = yield from self._hold_own(node, channel, owners)
            arguments = (keys.topic(channel), "0", node, str(CHUNK), until)
            looked_at, *gone = yield Call("reap", (*keys.channel(channel), keys.own(channel, node)), arguments)
            taken += looked_at
            if until:  # once more, for who has come since, or was let go before the hold had begun
                yield self.graces.notes(channel, zip(gone[::3], gone[1::3], strict=True), until, owners)
            for client, entry in zip(gone[::3], gone[2::3], strict=True):
                user = owners.get(client.decode())
                events.append(ChannelLeft(client.decode(), user, channel, channel.type, "worker_lost"))
                if entry:
                    events.append(MemberLeft(client.decode(), user, channel, parse_entry(entry).member, "worker_lost"))
        return taken

    def _hold_own(self, node: str, channel: ChannelName, owners: Mapping[str, User | None]) -> Operation[str]:
        """Write down that the users of a dead node's connections in a channel are about to be held; until when."""
        until = str((yield from self.time()) + int(self._grace * 1000))
        own = yield Call("SMEMBERS", (self._keys.own(channel, node),))
        if own:
            _, _, connections, *_ = self._keys.channel(channel)
            whose = yield Call("HMGET", (connections,), tuple(own))
            users = [(client, value.partition(b"\0")[0]) for client, value in zip(own, whose, strict=True) if value]
            yield self.graces.notes(channel, users, until, owners)
        return until

    def time(self) -> Operation[int]:
        """That of Redis, in ms."""
        seconds, micros = yield Call("TIME", ())
        return int(seconds) * 1000 + int(micros) // 1000


def _owners(flat: list[Any]) -> dict[str, User | None]:
    """The connections that a node has written down, and whose each is, from the fields and values of that hash."""
    return {client.decode(): decode_owner(owner) for client, owner in pairs(flat)}
