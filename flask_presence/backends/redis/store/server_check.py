"""Checks of the Redis server: whether it is suitable, and whether it allows what joins need."""

from __future__ import annotations

import logging
import re
from typing import Final

from ....domain.errors import BackendUnavailable
from .calls import Call, Operation
from .keys import Keys

OLDEST: Final = (6, 2)
OLDEST_IN_CLUSTER: Final = (7, 0)
PROBE_KEPT_FOR: Final = 10_000
"""Milliseconds for which the probe is kept."""

log = logging.getLogger("flask_presence")


def try_writing(keys: Keys) -> Operation[None]:
    """Do what a join does: write and publish, in a script that has several keys, which a server of a cluster that is
    given as a Redis of its own refuses. Raises `BackendUnavailable` if Redis does not allow it."""
    yield Call("try_writing", (keys.probe, keys.leases), (keys.probe, str(PROBE_KEPT_FOR)))


def check_server(*, in_cluster: bool = False) -> Operation[None]:
    """Log a warning if Redis is too old, or may evict data, or if its cluster may stop because of one lost server."""
    try:
        server = yield Call("INFO", (), ("server",))
        policy = yield Call("CONFIG", (), ("GET", "maxmemory-policy"))
        coverage = (yield Call("CONFIG", (), ("GET", "cluster-require-full-coverage"))) if in_cluster else []
    except BackendUnavailable as problem:
        log.info("Redis does not say how it is configured (its maxmemory-policy should be noeviction): %s", problem)
        return
    found = re.search(rb"redis_version:(\d+)\.(\d+)", server)
    oldest = OLDEST_IN_CLUSTER if in_cluster else OLDEST
    if found and tuple(map(int, found.groups())) < oldest and b"valkey_version" not in server:
        log.error("Redis %s is too old; use %d.%d or newer, or Valkey", found[0].decode(), *oldest)
    name = policy[1].decode() if len(policy) > 1 else "noeviction"
    if name != "noeviction":
        log.warning(
            "Redis has maxmemory-policy %s, so it may evict members when it is full: set noeviction, or use an "
            "instance for presence alone",
            name,
        )
    if coverage[1:] == [b"yes"]:
        log.warning(
            "the cluster has cluster-require-full-coverage yes, so the loss of one server stops all shards: set no on "
            "all servers"
        )
