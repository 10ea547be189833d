"""Where the membership lives: a backend, chosen by the scheme of a URL."""

from __future__ import annotations

import re
from typing import Final

from ..domain.errors import ConfigurationError
from .base import Backend

REDIS_SCHEMES: Final = ("redis", "rediss", "unix")
BACKENDS: Final = "the backends are 'memory://', 'redis://localhost:6379/0', 'rediss://…' and 'unix://…'"


def open_backend(url: str, *, max_info: int, prefix: str, lease: float, grace_abrupt: float) -> Backend:
    """The backend for `url`; `ConfigurationError` where there is none, or the library for it is missing.

    `max_info` in bytes, `lease` and `grace_abrupt` in seconds; nothing is connected to yet. No error has more of the
    URL than its scheme, as it may have a password.
    """
    scheme, mark, _ = url.partition("://")
    if url == "memory://":
        from .memory import MemoryBackend

        return MemoryBackend(max_info)
    if scheme not in REDIS_SCHEMES or not mark:
        given = f"begins with {scheme}://" if mark and re.fullmatch(r"[a-z][a-z0-9+.-]{0,20}", scheme) else "is no URL"
        raise ConfigurationError(f"PRESENCE_BACKEND {given}; {BACKENDS}")
    try:
        from .redis.backend import RedisBackend
        from .redis.client.address import parse_address
    except ImportError as problem:
        raise ConfigurationError(
            f"PRESENCE_BACKEND begins with '{scheme}://', which needs the package redis ({problem}): "
            "pip install 'flask-presence[redis]'"
        ) from problem
    try:
        return RedisBackend(parse_address(url), prefix, lease, max_info, grace_abrupt)
    except ValueError as problem:
        raise ConfigurationError(f"PRESENCE_BACKEND ({scheme}://…) is not taken: {problem}") from None
