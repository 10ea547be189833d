"""Which shard has a channel, a user, and what concerns the whole service.

Rule: pure. The labels alone decide, not their order and not the URLs, so that all processes agree. If a label is added
or removed, only what the new shard gets, or the old one had, moves.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from hashlib import blake2b
from typing import Final

CACHED: Final = 8192
"""Channels whose shards are kept, because every message needs them."""


class Sharding:
    """Places names on `labels` by rendezvous hashing: each label draws a number for the name, and the highest wins.

    `control` is the label of the shard that has what concerns the whole service: the first in alphabetical order.
    """

    def __init__(self, labels: Iterable[str]) -> None:
        self.labels: Final = tuple(sorted(labels))
        self.control: Final = self.labels[0]
        self.of_channel: Final = lru_cache(CACHED)(self._of_channel)

    def of_user(self, user_id: str) -> str:
        """The label of the shard that knows where a user is."""
        return self._highest(b"user", user_id)

    def home(self, client_id: str, user_id: str | None) -> str:
        """The label of the shard that counts a connection and announces its end: that of its user, if it has one."""
        return self._highest(b"client", client_id) if user_id is None else self.of_user(user_id)

    def _of_channel(self, name: str) -> str:
        return self._highest(b"channel", name)

    def _highest(self, kind: bytes, name: str) -> str:
        text = name.encode("utf-8", "surrogatepass")
        return max(self.labels, key=lambda label: _draw(kind, label, text))


def _draw(kind: bytes, label: str, text: bytes) -> bytes:
    # The salt has room for 16 bytes and a label for 32 characters, so the label is a part of the text.
    return blake2b(label.encode() + b"\0" + text, digest_size=8, person=kind).digest()
