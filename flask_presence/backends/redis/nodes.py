"""Which processes are alive, and what becomes of those that are not.

Law: time is that of Redis. Any node may reap a dead one; doing it twice does no harm, and everybody who left is
announced once.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from .client import Client
from .keys import Keys
from .operations import Call, Operation

CLAIM: Final = 5.0
"""Seconds that one node has to reap another before the next may try."""
CHUNK: Final = 200
"""Connections that one script takes out, at the most, so that none takes long."""


class Beat(NamedTuple):
    """The answer to a heartbeat: since when these data exist, and whether the lease had held."""

    birth: int
    held: bool


class Nodes:
    """The nodes under one prefix. `lease`: seconds after which a silent one counts as dead."""

    def __init__(self, client: Client, keys: Keys, lease: float) -> None:
        self._client = client
        self._keys = keys
        self._lease = str(int(lease * 1000))

    def beat(self, node: str, *, begins: bool = False) -> Beat:
        """Say that `node` lives. One that begins has no lease to lose."""
        keys = self._keys
        call = Call("beat", (keys.leases, keys.nodes, keys.birth), (node, self._lease, "1" if begins else ""))
        birth, held = self._client.run(_once(call))
        return Beat(int(birth), bool(held))

    def enter(self, node: str, channel: str) -> None:
        """Write down that `node` may have connections in `channel`, before it has any."""
        self._client.change("SADD", self._keys.nodes, node)
        self._client.change("SADD", self._keys.index(node), channel)

    def claim(self) -> str | None:
        """A dead node that is now the caller's to reap."""
        keys = self._keys
        arguments = (str(int(CLAIM * 1000)), self._lease)
        reply = self._client.run(_once(Call("claim", (keys.leases, keys.nodes, keys.birth, keys.claims), arguments)))
        return reply.decode() if reply else None  # type: ignore[attr-defined]

    def reap(self, node: str, chunk: int = CHUNK) -> int:
        """Take all of a dead node's connections out of their channels; how many users have left with them."""
        keys, left = self._keys, 0
        for name in self._client.ask("SMEMBERS", keys.index(node)):
            channel = name.decode()
            call = Call(
                "reap", (*keys.channel(channel), keys.own(channel, node)), (keys.topic(channel), "0", str(chunk))
            )
            taken = chunk
            while taken == chunk:
                taken, gone = self._client.run(_once(call))
                left += gone
            self._client.change("SREM", keys.index(node), channel)
        if not self._client.ask("SCARD", keys.index(node)):
            self._client.change("SREM", keys.nodes, node)
            self._client.change("ZREM", keys.claims, node)
        return left


def _once(call: Call) -> Operation[list[int]]:
    reply: list[int] = yield call
    return reply
