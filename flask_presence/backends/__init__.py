"""Backends: they keep track of who is in which channel. The scheme of a URL selects one."""

from __future__ import annotations

import re
from typing import Final

from ..domain.errors import ConfigurationError
from ..domain.history import HistoryRules
from .base import Backend

SENTINEL_SCHEMES: Final = ("redis+sentinel", "rediss+sentinel")
REDIS_SCHEMES: Final = ("redis", "rediss", "unix", *SENTINEL_SCHEMES)
BACKENDS: Final = (
    "the backends are 'memory://', 'redis://localhost:6379/0', 'rediss://…', 'unix://…' and "
    "'redis+sentinel://host:26379,host2:26379/service/0'"
)


def open_backend(
    url: str,
    *,
    max_info: int,
    max_members: int | None,
    prefix: str,
    lease: float,
    grace_abrupt: float,
    history: HistoryRules,
) -> Backend:
    """Create the backend for `url`, without connecting to anything yet.

    `max_info` in bytes, `max_members` per presence channel, `lease` and `grace_abrupt` in seconds; `history` says which
    channels keep messages. Raises `ConfigurationError` if there is no such backend, or if its library is missing. The
    error repeats only the scheme of the URL, because the rest may have a password.
    """
    scheme, mark, _ = url.partition("://")
    if url == "memory://":
        from .memory import MemoryBackend

        return MemoryBackend(max_info, max_members, history)
    if scheme not in REDIS_SCHEMES or not mark:
        given = (
            f"begins with {scheme}://" if mark and re.fullmatch(r"[a-z][a-z0-9+.-]{0,20}", scheme) else "is not a URL"
        )
        raise ConfigurationError(f"PRESENCE_BACKEND {given}; {BACKENDS}")
    try:
        from .redis.backend import RedisBackend
        from .redis.client.address import parse_address
        from .redis.client.sentinel import parse_sentinel_address
    except ImportError as problem:
        raise ConfigurationError(
            f"PRESENCE_BACKEND begins with '{scheme}://', which needs the package redis ({problem}): "
            "pip install 'flask-presence[redis]'"
        ) from problem
    parse = parse_sentinel_address if scheme in SENTINEL_SCHEMES else parse_address
    try:
        return RedisBackend(parse(url), prefix, lease, max_info, max_members, grace_abrupt, history)
    except ValueError as problem:
        raise ConfigurationError(f"PRESENCE_BACKEND ({scheme}://…) is not valid: {problem}") from None
