"""Backends: they keep track of who is in which channel. The scheme of a URL selects one."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from ..domain.errors import ConfigurationError
from ..domain.history import HistoryRules
from .base import Backend

if TYPE_CHECKING:
    from .redis.client.address import Address
    from .redis.shards.backend import CheckOthers, TellOthers
    from .redis.store.layout import Shard

SENTINEL_SCHEMES: Final = ("redis+sentinel", "rediss+sentinel")
CLUSTER_SCHEMES: Final = ("redis+cluster", "rediss+cluster")
REDIS_SCHEMES: Final = ("redis", "rediss", "unix", *SENTINEL_SCHEMES)
BACKENDS: Final = (
    "the backends are 'memory://', 'redis://localhost:6379/0', 'rediss://…', 'unix://…', "
    "'redis+sentinel://host:26379,host2:26379/service/0', 'redis+cluster://host:7000,host2:7000/?shards=16', "
    "and several of Redis, each with a label: "
    "{'a': 'redis://host-a:6379/0', 'b': 'redis://host-b:6379/0'}"
)
NAME: Final = "PRESENCE_BACKEND"


def open_backend(
    backend: str | Mapping[str, str],
    *,
    max_info: int,
    max_members: int | None,
    prefix: str,
    lease: float,
    grace_abrupt: float,
    history: HistoryRules,
) -> Backend:
    """Create the backend for a URL, or for the URLs of shards by label, without connecting to anything yet.

    `max_info` in bytes, `max_members` per presence channel, `lease` and `grace_abrupt` in seconds; `history` says which
    channels keep messages. Raises `ConfigurationError` if there is no such backend, or if its library is missing. The
    error repeats only labels and the scheme of a URL, because the rest may have a password.
    """
    if backend == "memory://":
        from .memory import MemoryBackend

        return MemoryBackend(max_info, max_members, history)
    options: dict[str, Any] = {"max_info": max_info, "max_members": max_members, "prefix": prefix, "lease": lease}
    options |= {"grace_abrupt": grace_abrupt, "history": history}
    addresses: Mapping[str, Address]
    if not isinstance(backend, str):
        addresses = {label: _address(f"{NAME}[{label!r}]", url) for label, url in backend.items()}
        _check_different(addresses)
    elif backend.partition("://")[0] in CLUSTER_SCHEMES:
        addresses = _cluster_addresses(backend)
    else:
        address = _address(NAME, backend)
        from .redis.backend import RedisBackend

        return RedisBackend(address, **options)
    from .redis.backend import RedisBackend
    from .redis.shards.backend import ShardedBackend

    def open_shard(shard: Shard, tell_others: TellOthers, check_others: CheckOthers) -> RedisBackend:
        hooks: dict[str, Any] = {"tell_others": tell_others, "check_others": check_others}
        return RedisBackend(addresses[shard.label], **options, shard=shard, **hooks)

    return ShardedBackend(list(addresses), open_shard)


def _address(name: str, url: str) -> Address:
    """Where the Redis of a URL is. `name` is what an error calls the setting."""
    scheme, mark, _ = url.partition("://")
    if scheme in CLUSTER_SCHEMES:
        raise ConfigurationError(f"{name} is a cluster, which has shards of its own: give it as PRESENCE_BACKEND alone")
    if scheme not in REDIS_SCHEMES or not mark:
        given = (
            f"begins with {scheme}://" if mark and re.fullmatch(r"[a-z][a-z0-9+.-]{0,20}", scheme) else "is not a URL"
        )
        raise ConfigurationError(f"{name} {given}; {BACKENDS}")
    with _url_errors(name, scheme):
        from .redis.client.address import parse_address
        from .redis.client.sentinel import parse_sentinel_address

        parse: Callable[[str], Address] = parse_sentinel_address if scheme in SENTINEL_SCHEMES else parse_address
        return parse(url)


def _cluster_addresses(url: str) -> Mapping[str, Address]:
    """Where the shards of a cluster are, by their labels."""
    with _url_errors(NAME, url.partition("://")[0]):
        from .redis.client.cluster import parse_cluster_addresses

        return parse_cluster_addresses(url)


@contextmanager
def _url_errors(name: str, scheme: str) -> Iterator[None]:
    """Turn what is wrong with a URL, or the lack of its library, into a `ConfigurationError`."""
    try:
        yield
    except ImportError as problem:
        raise ConfigurationError(
            f"{name} begins with '{scheme}://', which needs the package redis ({problem}): "
            "pip install 'flask-presence[redis]'"
        ) from problem
    except ValueError as problem:
        raise ConfigurationError(f"{name} ({scheme}://…) is not valid: {problem}") from None


def _check_different(addresses: Mapping[str, Address]) -> None:
    """Raise `ConfigurationError` if two shards are the same database. What their URLs do not tell, the layout in the
    shards does."""
    labels: dict[object, str] = {}
    for label, address in addresses.items():
        other = labels.setdefault(address.database, label)
        if other != label:
            raise ConfigurationError(
                f"{NAME} gives the shards {other!r} and {label!r} the same database; give each label one of its own"
            )
