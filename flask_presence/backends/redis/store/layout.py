"""The shards of a service: which one a Redis is, and which other ones its workers know.

Rule: sans IO. All living workers of a service have the same layout; the first heartbeat of a worker compares it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from ....domain.errors import BackendUnavailable


class OtherLayout(BackendUnavailable):
    """Workers that are alive have another list of shards. Everybody may read the text, which names labels only."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.public_message = text


@dataclass(frozen=True, slots=True)
class Shard:
    """One shard, by its label, among all `labels`. Without a label, the service has no shards: its state is in this
    Redis alone. `records`: whether workers record here what they count."""

    label: str = ""
    labels: tuple[str, ...] = ()
    records: bool = True

    @property
    def layout(self) -> str:
        """What a worker writes into the shard; empty without a label."""
        return f"{self.label} {','.join(sorted(self.labels))}" if self.label else ""

    @property
    def name(self) -> str:
        """What the log calls this Redis."""
        return f"The Redis of shard {self.label!r}" if self.label else "Redis"

    def conflict(self, layout: str) -> OtherLayout:
        """The error for a worker that finds another layout here."""
        label, _, theirs = layout.partition(" ")
        other = theirs.split(",") if theirs else []
        if self.label and sorted(self.labels) == other:
            return OtherLayout(
                f"PRESENCE_BACKEND gives shard {self.label!r} the database that is shard {label!r} for workers that "
                "are alive: give each label a database of its own, the same one for all workers"
            )
        where = f" in shard {self.label!r}" if self.label else ""
        return OtherLayout(
            f"PRESENCE_BACKEND {_listed(self.labels)} here, and {_listed(other)} for workers that are alive{where}: "
            "give all workers the same value, and restart all of them"
        )


WHOLE: Final = Shard()
"""The only one, of a service without shards."""


def _listed(labels: Iterable[str]) -> str:
    names = ", ".join(map(repr, sorted(labels)))
    return f"has the shards {names}" if names else "is a single URL"
