"""Where Redis is and how it is spoken to, from a URL as redis-py takes it.

Law: what this package relies on wins over the URL; an option that it cannot take is an error, and no error repeats
anything that may be a password.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from redis.backoff import NoBackoff
from redis.connection import SSLConnection, parse_url
from redis.exceptions import RedisError
from redis.retry import Retry

ANSWER_TIMEOUT: Final = 1.0
CONNECT_TIMEOUT: Final = 0.5
MAX_CONNECTIONS: Final = 8
MAX_IDLE: Final = 30.0

_TIMES: Final = ("socket_timeout", "socket_connect_timeout", "socket_keepalive")
_FOR_CONNECTIONS: Final = frozenset(("db", "username", "password", "host", "port", "path", "client_name", *_TIMES))
_FOR_POOLS: Final = frozenset(("max_connections", "timeout", "health_check_interval"))
_OVERRULED: Final = frozenset(
    ("decode_responses", "encoding", "encoding_errors", "protocol", "retry_on_timeout", "retry_on_error")
)
ENCODE_IT: Final = (
    "a password with '#', '/', '?' or '@' in it must be percent-encoded, as urllib.parse.quote(…, safe='') does"
)


@dataclass(frozen=True, slots=True)
class Address:
    """`db` is the number of the database. `pool_timeout` is how long somebody waits for one of `max_connections`, and
    `max_idle` how long a connection may have been idle before it is used again, both in seconds."""

    db: int
    max_connections: int
    pool_timeout: float
    max_idle: float
    _connection_class: Any
    _options: dict[str, Any]

    def connection(self, **options: Any) -> Any:
        """A redis-py connection that is not connected yet."""
        return self._connection_class(**(self._options | options))


def parse_address(url: str) -> Address:
    """`ValueError` for a URL that names no Redis, or options that are none."""
    _check_parts(url)
    try:
        given = parse_url(url)  # type: ignore[no-untyped-call]
    except ValueError as problem:
        raise ValueError(_safe(str(problem))) from None
    connection_class = given.pop("connection_class", None)
    if connection_class is None:
        from redis.connection import Connection as connection_class  # noqa: N813
    tls = connection_class is SSLConnection
    known = _FOR_CONNECTIONS | _FOR_POOLS | _OVERRULED
    unknown = [name for name in given if name not in known and not (tls and name.startswith("ssl_"))]
    if unknown:
        only_tls = " (ssl_… goes with rediss://)" if unknown[0].startswith("ssl_") else ""
        raise ValueError(f"it has the option {unknown[0][:40]!r}, which cannot be taken here{only_tls}")
    ours = {"decode_responses": False, "encoding": "utf-8", "encoding_errors": "strict", "protocol": 2}
    defaults = {"socket_timeout": ANSWER_TIMEOUT, "socket_connect_timeout": CONNECT_TIMEOUT}
    options = {name: value for name, value in given.items() if name not in _FOR_POOLS | _OVERRULED}
    address = Address(
        db=_number(given, "db", 0, 0),
        max_connections=_number(given, "max_connections", MAX_CONNECTIONS, 1),
        pool_timeout=_number(given, "timeout", ANSWER_TIMEOUT, 0),
        max_idle=_number(given, "health_check_interval", 0, 0) or MAX_IDLE,
        _connection_class=connection_class,
        _options=defaults | options | ours | {"retry": Retry(NoBackoff(), 0)},
    )
    try:
        address.connection()
    except (TypeError, ValueError, RedisError) as problem:
        raise ValueError(f"its options are not understood ({type(problem).__name__})") from None
    return address


def _check_parts(url: str) -> None:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise ValueError(f"it has no valid port; {ENCODE_IT}") from None
    if parts.fragment or "@" in parts.path + parts.query:
        raise ValueError(ENCODE_IT)
    if parts.scheme != "unix" and parts.path.strip("/") and not parts.path.strip("/").isdigit():
        raise ValueError("its path must be the number of a database, as in redis://localhost:6379/0")
    if parts.scheme == "unix" and not parts.path:
        raise ValueError("it names no socket, as unix:///run/redis.sock does")


def _number(given: dict[str, Any], name: str, default: Any, least: int) -> Any:
    value = given.get(name, default)
    if not isinstance(value, (int, float)) or value < least:
        raise ValueError(f"its {name} must be a number, {least} or more")
    return value


def _safe(text: str) -> str:
    """redis-py's own words where they name nothing but an option."""
    return text if text.startswith("Invalid value for '") else f"it cannot be read; {ENCODE_IT}"
