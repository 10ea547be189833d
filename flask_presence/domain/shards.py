"""The shards of a service: independent state stores, each of which has a part of the channels.

Rule: a label names a shard wherever somebody reads it; a URL never does.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ShardState:
    """One shard, by its label. `problem` is a sentence that anybody may read, or `None` if the shard answers.

    `is_control` says that the counts of all workers are there. `channels` and `workers` are how many there are, if that
    was asked and is known.
    """

    label: str
    problem: str | None
    is_control: bool
    channels: int | None = None
    workers: int | None = None
