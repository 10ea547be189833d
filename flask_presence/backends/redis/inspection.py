"""Whether the Redis that was named is fit for this: said once, in the log."""

from __future__ import annotations

import logging
import re
from typing import Final

from ...domain.errors import BackendUnavailable
from .operations import Call, Operation

OLDEST: Final = (6, 2)

log = logging.getLogger("flask_presence")


def inspect() -> Operation[None]:
    """Warn of a Redis that is too old, or that may throw away what it is given."""
    try:
        server = yield Call("INFO", (), ("server",))
        policy = yield Call("CONFIG", (), ("GET", "maxmemory-policy"))
    except BackendUnavailable as problem:
        log.info("Redis does not say how it is configured (its maxmemory-policy should be noeviction): %s", problem)
        return
    version = tuple(int(part) for part in re.findall(r"\d+", str(server.get("redis_version", "")))[:2])
    if version < OLDEST and "valkey_version" not in server:
        log.error("Redis %s is too old; 6.2 or newer, or Valkey, is needed", server.get("redis_version"))
    name = next(iter(_values(policy)), "noeviction")
    if name != "noeviction":
        log.warning(
            "Redis has maxmemory-policy %s, so it may throw members away when it is full: set noeviction, or use an "
            "instance for presence alone",
            name,
        )


def _values(reply: object) -> list[str]:
    """The values in an answer to CONFIG GET, which client libraries shape in several ways."""
    if isinstance(reply, dict):
        found = list(reply.values())
    else:
        found = list(reply)[1::2] if isinstance(reply, (list, tuple)) else []
    return [value.decode() if isinstance(value, bytes) else str(value) for value in found]
