"""How much the tests with random input do: `TEST_EFFORT=10 pytest …` makes them ten times as thorough."""

from __future__ import annotations

import os

EFFORT = int(os.environ.get("TEST_EFFORT", "1"))


def at_effort(ordinary: int) -> int:
    """The number of examples, requests or rounds for a test that tries `ordinary` of them in an ordinary run."""
    return ordinary * EFFORT
