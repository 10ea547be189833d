"""Who hears a channel: the connections of this process that are in it.

Law: `everyone` is the same object until somebody comes or goes, so that who sends to it can tell.
"""

from __future__ import annotations

from .ports import Connection


class Audience:
    """The connections in one channel, by the ids of their clients."""

    __slots__ = ("_connections", "_everyone", "guarded", "guards_known")

    def __init__(self) -> None:
        self.guarded = False  # whether a message guard decides who may send
        self.guards_known = 0  # how many were registered when that was looked up
        self._connections: dict[str, Connection] = {}
        self._everyone: tuple[Connection, ...] | None = None

    def add(self, client_id: str, connection: Connection) -> None:
        self._connections[client_id] = connection
        self._everyone = None

    def remove(self, client_id: str) -> None:
        """`KeyError` for who is not there."""
        del self._connections[client_id]
        self._everyone = None

    def get(self, client_id: str | None) -> Connection | None:
        return self._connections.get(client_id) if client_id is not None else None

    def __len__(self) -> int:
        return len(self._connections)

    @property
    def everyone(self) -> tuple[Connection, ...]:
        if self._everyone is None:
            self._everyone = tuple(self._connections.values())
        return self._everyone
