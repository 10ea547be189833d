"""The life of connections over a real Redis: what holds in memory holds there."""

from __future__ import annotations

import secrets
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from ..support.redis_server import RedisServer
from ..unit.test_life import Life


@pytest.mark.parametrize("workers", [1, 3])
def test_life(redis_server: RedisServer, workers: int) -> None:
    """Connections of one process, and of several that know each other by Redis alone."""

    class RedisLife(Life):
        def configure(self) -> dict[str, Any]:
            return {"PRESENCE_BACKEND": redis_server.url, "PRESENCE_REDIS_PREFIX": f"test-{secrets.token_hex(8)}"}

        count = workers

        def disconnect_everywhere(self, user: str) -> int:
            with ThreadPoolExecutor(1) as elsewhere:
                closed = elsewhere.submit(super().disconnect_everywhere, user)
                while not closed.done():
                    self.settle(first=1)
                return closed.result()

    few = settings(
        max_examples=50,
        phases=[Phase.explicit, Phase.reuse, Phase.generate],
        stateful_step_count=30,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    run_state_machine_as_test(RedisLife, settings=few)
