"""A short chaos test; `python -m benchmarks.chaos` runs longer."""

from __future__ import annotations

import pytest

from ..support.chaos.world import running_world
from ..support.effort import at_effort


@pytest.mark.parametrize(("seed", "shards"), [(1, 1), (2, 1), (1, 3)])
def test_every_view_is_right_after_random_faults(program: str, seed: int, shards: int) -> None:
    """Workers are killed, paused and reloaded, Redis is cut off, emptied and restarted, while clients join, leave and
    send. With several shards, that happens to one at a time. No client gets an impossible event, and nothing stays
    behind in Redis."""
    with running_world(program, seed, shards=shards) as world:
        world.play(rounds=at_effort(1))


def test_a_shard_behind_sentinel_fails_over_and_the_others_notice_nothing(program: str) -> None:
    """The same with faults of Redis alone, of which the witnesses in the other shards hear nothing."""
    with running_world(program, seed=1, servers=2, shards=4, kind="sentinel") as world:
        world.play(at_effort(1), script=["pause the master until another one is chosen"])
        assert world.figures.messages > 0


def test_a_cluster_changes_and_the_shards_of_other_masters_notice_nothing(cluster_program: str) -> None:
    """A slot moves to a new server, and the master that had it is lost."""
    with running_world(cluster_program, seed=1, servers=2, kind="cluster") as world:
        world.play(at_effort(1), script=["a new server takes a slot", "kill a master"])
        assert world.figures.messages > 0
