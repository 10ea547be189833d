"""A short chaos test; `python -m benchmarks.chaos` runs longer."""

from __future__ import annotations

import pytest

from ..support.chaos import running_world
from ..support.effort import at_effort


@pytest.mark.parametrize(("seed", "shards"), [(1, 1), (2, 1), (1, 3)])
def test_every_view_is_right_after_random_faults(program: str, seed: int, shards: int) -> None:
    """Workers are killed, paused and reloaded, Redis is cut off, emptied and restarted, while clients join, leave and
    send. With several shards, that happens to one at a time. No client gets an impossible event, and nothing stays
    behind in Redis."""
    with running_world(program, seed, shards=shards) as world:
        world.play(rounds=at_effort(1))
