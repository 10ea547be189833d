"""A little chaos; `python -m benchmarks.chaos` has more of it."""

from __future__ import annotations

import pytest

from ..support.chaos import running_world


@pytest.mark.parametrize("seed", [1, 2])
def test_chaos(program: str, seed: int) -> None:
    """Workers are killed, paused and reloaded, Redis is cut off, emptied and restarted, while clients come, go and
    talk: nothing impossible is heard, and afterwards everybody's view is the truth, and nothing stays behind."""
    with running_world(program, seed) as world:
        world.play(rounds=3)
