"""The names of everything in Redis.

Rule: every name begins with the prefix; two channels, workers, users or prefixes never share one. In a cluster, a hash
tag belongs to the prefix, so that one server has all keys and topics of a shard. Redis publishes to all of its
databases, so the names of topics contain the number of the database.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

PREFIX: Final = re.compile(r"[A-Za-z0-9_.-]{1,32}(:\{[0-9]+\})?")
_ESCAPES: Final = str.maketrans({"%": "%25", "{": "%7B", "}": "%7D", "\0": "%00", "\1": "%01"})


def escape(name: str) -> str:
    """`name` without the characters that mean something in keys and entries. Two names never become the same."""
    return name.translate(_ESCAPES)


def unescape(name: str) -> str:
    """What was given to `escape`."""
    for mark, code in (("{", "%7B"), ("}", "%7D"), ("\0", "%00"), ("\1", "%01"), ("%", "%25")):
        name = name.replace(code, mark)
    return name


CACHED: Final = 1024
"""Channels whose names are kept, because every message needs them."""


def prefix_in(prefix: str, hash_tag: str) -> str:
    """The prefix of all names of a shard in a cluster; `prefix` itself without a hash tag."""
    return f"{prefix}:{{{hash_tag}}}" if hash_tag else prefix


@dataclass(frozen=True, slots=True)
class Keys:
    """The names under one prefix, which `prefix_in` may have made. Raises `ValueError` for a prefix that could be
    mistaken for another."""

    prefix: str
    db: int = 0

    def __post_init__(self) -> None:
        if not PREFIX.fullmatch(self.prefix):
            raise ValueError(f"a prefix is 1 to 32 letters, digits, '_', '.' or '-', not {self.prefix!r}")

    # Of one channel

    def channel(self, name: str) -> tuple[str, ...]:
        """State, members, connections, sessions and graces, in the order in which scripts take them."""
        return _channel_keys(self.prefix, name)

    def history(self, name: str) -> tuple[str, str]:
        """Stream: the kept messages. Hash: the keys by which repetitions of them are known."""
        tag = self._tag(name)
        return f"{tag}:log", f"{tag}:message_keys"

    def counting(self, name: str, *, listed: bool) -> tuple[str, str]:
        """State, and the key with as many entries as the channel has members."""
        tag = self._tag(name)
        return f"{tag}:state", f"{tag}:{'members' if listed else 'connections'}"

    def own(self, name: str, worker_id: str) -> str:
        """Set: the connections of one worker in the channel."""
        return f"{self._tag(name)}:own:{worker_id}"

    def topic(self, name: str) -> str:
        """Topic: the channel's events."""
        return _topic(self._topics, name)

    @property
    def all_topics(self) -> str:
        """A pattern that matches the topics of all channels, and other topics. The app's Redis user needs permission
        for exactly this pattern; a narrower one would need another permission."""
        return f"{self.prefix}:*"

    @property
    def changes(self) -> str:
        """Topic: the changes to the member lists of all channels, each after its channel's topic and a NUL. Only in a
        cluster, in which nobody can subscribe to `all_topics`."""
        return f"{self._topics}:changes"

    def channel_of(self, topic: str) -> str | None:
        """The channel whose events are published there; `None` if it is another topic."""
        start = f"{self._topics}:channel:{{"
        return unescape(topic[len(start) :].rpartition("}")[0]) if topic.startswith(start) else None

    # Of one worker

    def worker_channels(self, worker_id: str) -> str:
        """Set: the channels in which the worker may have connections; never too few."""
        return f"{self.prefix}:worker:{worker_id}:channels"

    def worker_clients(self, worker_id: str) -> str:
        """Hash: the worker's open connections and their users."""
        return f"{self.prefix}:worker:{worker_id}:clients"

    def worker_guests(self, worker_id: str) -> str:
        """Hash: the worker's connections that are in a channel here and belong to another shard, and their users."""
        return f"{self.prefix}:worker:{worker_id}:guests"

    def inbox(self, worker_id: str) -> str:
        """Topic: what one worker alone has to hear."""
        return f"{self._topics}:worker:{worker_id}:inbox"

    # Of the whole service

    @property
    def workers(self) -> str:
        """Set: all workers that may have connections."""
        return f"{self.prefix}:workers"

    @property
    def leases(self) -> str:
        """Sorted set: until when each worker counts as alive."""
        return f"{self.prefix}:leases"

    @property
    def claims(self) -> str:
        """Sorted set: the dead workers that are being removed, and until when nobody else may begin that."""
        return f"{self.prefix}:claims"

    def last_start(self, host: str) -> str:
        """String: when a worker on that host last took its first lease, in microseconds; it expires after a lease."""
        return f"{self.prefix}:host:{host}:last_start"

    @property
    def data_since(self) -> str:
        """String: when the data in this Redis began. It is lost together with the data."""
        return f"{self.prefix}:data_since"

    @property
    def layout(self) -> str:
        """String: the shards of the service, as the living workers know them; none if there is only this one."""
        return f"{self.prefix}:layout"

    @property
    def graces(self) -> str:
        """Sorted set: until when each user stays listed without a connection, over all channels."""
        return f"{self.prefix}:graces"

    @property
    def grace_owners(self) -> str:
        """Hash: the users of the lost connections that grace periods began with."""
        return f"{self.prefix}:grace_owners"

    @property
    def histories(self) -> str:
        """Sorted set: the channels that keep messages, and until when each of them may."""
        return f"{self.prefix}:histories"

    @property
    def worker_counts(self) -> str:
        """Hash: the reading of each worker."""
        return f"{self.prefix}:worker_counts"

    @property
    def absorbed_counts(self) -> str:
        """Hash: the sums of what removed workers had counted."""
        return f"{self.prefix}:absorbed_counts"

    @property
    def absorbed_traffic(self) -> str:
        """Hash: the messages that removed workers had received and sent, by time slot."""
        return f"{self.prefix}:absorbed_traffic"

    @property
    def control_log(self) -> str:
        """Sorted set: recent control messages, by time."""
        return f"{self.prefix}:control_log"

    @property
    def control(self) -> str:
        """Topic: control messages, for all workers."""
        return f"{self._topics}:control"

    def replies(self, message_id: str) -> str:
        """List: the workers' replies to a control message."""
        return f"{self.prefix}:replies:{message_id}"

    def user(self, user_id: str) -> str:
        """Hash: the open connections of a user, and the worker of each."""
        return f"{self.prefix}:user:{escape(user_id)}"

    @property
    def probe(self) -> str:
        """String and topic: written and published to find out whether Redis allows that."""
        return f"{self._topics}:probe"

    @property
    def _topics(self) -> str:
        return f"{self.prefix}:{self.db}"

    def _tag(self, name: str) -> str:
        return _tag(self.prefix, name)


def _tag(prefix: str, name: str) -> str:
    return f"{prefix}:channel:{{{escape(name)}}}"


@lru_cache(CACHED)
def _channel_keys(prefix: str, name: str) -> tuple[str, ...]:
    tag = _tag(prefix, name)
    return tuple(f"{tag}:{kind}" for kind in ("state", "members", "connections", "sessions", "graces"))


@lru_cache(CACHED)
def _topic(topics: str, name: str) -> str:
    return f"{topics}:channel:{{{escape(name)}}}:events"
