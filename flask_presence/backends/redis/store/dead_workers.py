"""The removal of dead workers: their connections leave, and their users are announced or get a grace period.

Rule: sans IO; times are by Redis's clock. Any worker may remove a dead one. Doing it twice does no harm, and everyone
who has left is announced once.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from ....domain.channels import ChannelName
from ....domain.errors import BackendUnavailable
from ....domain.events import ChannelLeft, ClientDisconnected, Event, MemberLeft
from ....domain.members import User
from .calls import CHUNK, Call, Operation
from .counts import WorkerCounts
from .entries import parse_entry
from .grace import Graces
from .keys import Keys
from .workers import Workers, read_owners

CLAIM: Final = 5.0
"""Seconds that one worker has to remove another before the next may try."""
RENEW_EVERY: Final = 20
"""Channels after which the claim is renewed."""
ABNORMAL: Final = 1006
"""The close code of a connection that ended without a close frame (RFC 6455, section 7.4.1)."""

log = logging.getLogger("flask_presence")


class DeadWorkers:
    """Removes dead workers. `lease` and `grace` in seconds; with a `grace`, their users stay listed for that long."""

    def __init__(
        self, keys: Keys, workers: Workers, counts: WorkerCounts, graces: Graces, lease: float, grace: float
    ) -> None:
        self._keys = keys
        self._workers = workers
        self._counts = counts
        self._graces = graces
        self._lease = str(int(lease * 1000))
        self._grace = grace

    def claim(self, dead: Sequence[str], *, after: float | None = 0) -> Operation[str | None]:
        """Claim a worker for removal: one of `dead`, or one whose lease ended at least `after` seconds ago (`None`:
        none of these). Returns its id, or `None` if there is none."""
        keys = self._keys
        ended_for = "" if after is None else str(int(after * 1000))
        names = (keys.leases, keys.workers, keys.data_since, keys.claims)
        reply = yield Call("claim", names, (str(int(CLAIM * 1000)), self._lease, ended_for, *dead))
        return reply.decode() if reply else None

    def remove(self, worker_id: str) -> Operation[list[Event]]:
        """Take all of a worker's connections out of their channels. Returns the events that the application must hear.

        The worker is forgotten when there is nothing left to take: commands that it sent before it died may be carried
        out only after its first removal.
        """
        keys, events, taken = self._keys, list[Event](), 0
        # Before the connections are taken: if this worker is killed in between, nobody else would do it.
        stored = yield from self._workers.connections_of(worker_id)
        yield from self._workers.forget_users(worker_id, stored)
        owners = read_owners((yield Call("take_clients", (keys.worker_clients(worker_id),))))
        # Guests are not taken: another shard announces their ends, so here they only say who leaves the channels.
        guests = yield from self._workers.guests_of(worker_id)
        everybody = guests | owners
        try:
            for at, name in enumerate((yield from self._workers.channels_of(worker_id))):
                if at % RENEW_EVERY == RENEW_EVERY - 1:
                    until = (yield from self._workers.time()) + int(CLAIM * 1000)
                    yield Call("ZADD", (keys.claims,), (str(until), worker_id))
                taken += yield from self._remove_from(worker_id, ChannelName(name), everybody, events)
            if not taken and not owners:
                yield from self.forget(worker_id)
        except BackendUnavailable as problem:
            log.warning("a dead worker could not be removed, and will be later: %s", problem)
        events += [ClientDisconnected(client_id, user, ABNORMAL, "worker_lost") for client_id, user in owners.items()]
        counts = Counter(
            f"leaves|{event.type}" if isinstance(event, ChannelLeft) else f"closed|{ABNORMAL}"
            for event in events
            if isinstance(event, (ChannelLeft, ClientDisconnected))
        )
        try:
            yield self._counts.add(counts)
        except BackendUnavailable as problem:
            log.warning("the ends of a dead worker's connections are missing from the counts: %s", problem)
        return events

    def leave_to_others(self, worker_id: str, channels: list[str]) -> Operation[None]:
        """Note that this worker id is given up, and may still have connections in `channels`, so that other workers
        remove it. In one round trip: channels of a worker that is not listed would stay for ever."""
        listing = [Call("SADD", (self._keys.workers,), (worker_id,))]
        if channels:
            listing.insert(0, Call("SADD", (self._keys.worker_channels(worker_id),), tuple(channels)))
        yield listing

    def forget(self, worker_id: str) -> Operation[None]:
        """Delete what is left of a worker."""
        keys = self._keys
        yield [
            Call("DEL", (keys.worker_clients(worker_id), keys.worker_guests(worker_id))),
            Call("DEL", (keys.worker_channels(worker_id),)),
            Call("SREM", (keys.workers,), (worker_id,)),
            Call("ZREM", (keys.leases,), (worker_id,)),
            Call("ZREM", (keys.claims,), (worker_id,)),
            self._counts.absorb(),
        ]

    def _remove_from(
        self, worker_id: str, channel: ChannelName, owners: Mapping[str, User | None], events: list[Event]
    ) -> Operation[int]:
        """Take the worker's connections out of one channel, and add to `events`. Returns how many were looked at."""
        keys, taken, looked_at = self._keys, 0, CHUNK
        while looked_at == CHUNK:
            grace_end = ""
            if self._grace and channel.type == "presence":
                grace_end = yield from self._note_graces(worker_id, channel, owners)
            arguments = (keys.topic(channel), "0", worker_id, str(CHUNK), grace_end)
            names = (*keys.channel(channel), keys.own(channel, worker_id))
            looked_at, *gone = yield Call("remove_worker", names, arguments)
            taken += looked_at
            if grace_end:  # again, for connections that came since, and grace periods that were ended before they began
                clients = zip(gone[::3], gone[1::3], strict=True)
                yield self._graces.note_all(channel, clients, grace_end, owners)
            for client, entry in zip(gone[::3], gone[2::3], strict=True):
                user = owners.get(client.decode())
                events.append(ChannelLeft(client.decode(), user, channel, channel.type, "worker_lost"))
                if entry:
                    events.append(MemberLeft(client.decode(), user, channel, parse_entry(entry).member, "worker_lost"))
        return taken

    def _note_graces(self, worker_id: str, channel: ChannelName, owners: Mapping[str, User | None]) -> Operation[str]:
        """Note that the users of the worker's connections in a channel are about to get a grace period. Returns when it
        ends."""
        end = str((yield from self._workers.time()) + int(self._grace * 1000))
        own = yield Call("SMEMBERS", (self._keys.own(channel, worker_id),))
        if own:
            _, _, connections, *_ = self._keys.channel(channel)
            found = yield Call("HMGET", (connections,), tuple(own))
            clients = [(client, value.partition(b"\0")[0]) for client, value in zip(own, found, strict=True) if value]
            yield self._graces.note_all(channel, clients, end, owners)
        return end
