"""The names of everything in Redis.

Law: all begin with the prefix, and two channels, two nodes or two prefixes never share one. A channel's keys have
its name as their hash tag, so that they stay together in a cluster. What is published goes to all databases of a
Redis, so the number of the database is in the name of every topic.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

PREFIX: Final = re.compile(r"[A-Za-z0-9_.-]{1,32}")
_ESCAPES: Final = str.maketrans({"%": "%25", "{": "%7B", "}": "%7D", "\0": "%00", "\1": "%01"})


def escape(name: str) -> str:
    """`name` without what has a meaning in keys and entries; no two names become the same."""
    return name.translate(_ESCAPES)


def unescape(name: str) -> str:
    """What `escape` was given."""
    for mark, code in (("{", "%7B"), ("}", "%7D"), ("\0", "%00"), ("\1", "%01"), ("%", "%25")):
        name = name.replace(code, mark)
    return name


@dataclass(frozen=True, slots=True)
class Keys:
    """The names under one prefix; `ValueError` for one that could be mistaken for something else."""

    prefix: str
    db: int = 0

    def __post_init__(self) -> None:
        if not PREFIX.fullmatch(self.prefix):
            raise ValueError(f"a prefix is 1 to 32 letters, digits, '_', '.' or '-', not {self.prefix!r}")

    def channel(self, name: str) -> tuple[str, ...]:
        """State, members, connections, sessions and held users, in the order in which scripts take them."""
        tag = self._tag(name)
        return tuple(f"{tag}:{kind}" for kind in ("state", "members", "connections", "sessions", "held"))

    def tally(self, name: str, *, listed: bool) -> tuple[str, str]:
        """State, and what has as many entries as the channel has members."""
        tag = self._tag(name)
        return f"{tag}:state", f"{tag}:{'members' if listed else 'connections'}"

    def own(self, name: str, node: str) -> str:
        """The connections of one node in a channel."""
        return f"{self._tag(name)}:own:{node}"

    def topic(self, name: str) -> str:
        """Where the channel's events are published."""
        return f"{self._heard}:channel:{{{escape(name)}}}:events"

    @property
    def all_topics(self) -> str:
        """A pattern for those of all channels, and others: the one that an app's user of Redis may subscribe to, as a
        narrower one would have to be allowed by itself."""
        return f"{self.prefix}:*"

    def channel_of(self, topic: str) -> str | None:
        """The name of the channel whose events are published there, if it is such a topic."""
        start = f"{self._heard}:channel:{{"
        return unescape(topic[len(start) :].rpartition("}")[0]) if topic.startswith(start) else None

    @property
    def nodes(self) -> str:
        """All nodes that may have connections."""
        return f"{self.prefix}:nodes"

    @property
    def leases(self) -> str:
        """Until when each node counts as alive."""
        return f"{self.prefix}:leases"

    @property
    def claims(self) -> str:
        """Which dead nodes are being reaped, and until when."""
        return f"{self.prefix}:claims"

    @property
    def birth(self) -> str:
        """When these data began; gone with them."""
        return f"{self.prefix}:birth"

    @property
    def holds(self) -> str:
        """Until when each user is held, over all channels."""
        return f"{self.prefix}:holds"

    @property
    def holders(self) -> str:
        """Whose the lost connections were because of which users are held."""
        return f"{self.prefix}:holders"

    @property
    def readings(self) -> str:
        """What each node has counted, and how it is."""
        return f"{self.prefix}:readings"

    @property
    def counts(self) -> str:
        """What nodes had counted that are no more."""
        return f"{self.prefix}:counts"

    @property
    def slots(self) -> str:
        """When they had."""
        return f"{self.prefix}:slots"

    @property
    def orders(self) -> str:
        """What all nodes were lately told to do."""
        return f"{self.prefix}:orders"

    @property
    def control(self) -> str:
        """Where all nodes hear what to do."""
        return f"{self._heard}:control"

    def replies(self, order: str) -> str:
        """What came of an order."""
        return f"{self.prefix}:replies:{order}"

    def user(self, user_id: str) -> str:
        """The open connections of a user, and which nodes have them."""
        return f"{self.prefix}:user:{escape(user_id)}"

    def index(self, node: str) -> str:
        """The channels in which a node may have connections: never too few."""
        return f"{self.prefix}:node:{node}:channels"

    def clients(self, node: str) -> str:
        """A node's open connections, in whatever channels, and whose they are."""
        return f"{self.prefix}:node:{node}:clients"

    def inbox(self, node: str) -> str:
        """Where one node hears itself."""
        return f"{self._heard}:node:{node}:inbox"

    @property
    def probe(self) -> str:
        """What is written to see whether it can be, and where the same is published."""
        return f"{self._heard}:probe"

    @property
    def _heard(self) -> str:
        return f"{self.prefix}:{self.db}"

    def _tag(self, name: str) -> str:
        return f"{self.prefix}:channel:{{{escape(name)}}}"
