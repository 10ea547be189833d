"""Whether the Redis that was named is fit for this: said once, in the log."""

from __future__ import annotations

import logging
import re
from typing import Final

from ....domain.errors import BackendUnavailable
from .calls import Call, Operation
from .keys import Keys

OLDEST: Final = (6, 2)
PROBE_KEPT: Final = 10_000
"""Milliseconds."""

log = logging.getLogger("flask_presence")


def probe(keys: Keys) -> Operation[None]:
    """Do what a join does, to see whether Redis lets us: write and publish, in a script."""
    yield Call("probe", (keys.probe,), (keys.probe, str(PROBE_KEPT)))


def inspect() -> Operation[None]:
    """Warn of a Redis that is too old, or that may throw away what it is given."""
    try:
        server = yield Call("INFO", (), ("server",))
        policy = yield Call("CONFIG", (), ("GET", "maxmemory-policy"))
    except BackendUnavailable as problem:
        log.info("Redis does not say how it is configured (its maxmemory-policy should be noeviction): %s", problem)
        return
    found = re.search(rb"redis_version:(\d+)\.(\d+)", server)
    if found and tuple(map(int, found.groups())) < OLDEST and b"valkey_version" not in server:
        log.error("Redis %s is too old; 6.2 or newer, or Valkey, is needed", found[0].decode())
    name = policy[1].decode() if len(policy) > 1 else "noeviction"
    if name != "noeviction":
        log.warning(
            "Redis has maxmemory-policy %s, so it may throw members away when it is full: set noeviction, or use an "
            "instance for presence alone",
            name,
        )
