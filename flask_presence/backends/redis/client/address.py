"""Reads the URL of Redis, in the form that redis-py takes, and creates connections to it.

Rule: options that this package depends on cannot be changed by the URL. An unknown option raises. No error repeats
anything that may be a password.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

from redis.backoff import NoBackoff
from redis.connection import SSLConnection, parse_url
from redis.exceptions import RedisError
from redis.retry import Retry

SOCKET_TIMEOUT: Final = 1.0
"""Seconds that Redis may take to answer, and an operation may wait for a free connection."""
CONNECT_TIMEOUT: Final = 0.5
"""Seconds that connecting may take."""
MAX_CONNECTIONS: Final = 8
MAX_IDLE: Final = 30.0
"""Seconds after which an idle connection is not used again."""

_TIMEOUTS: Final = ("socket_timeout", "socket_connect_timeout", "socket_keepalive")
_CONNECTION_OPTIONS: Final = frozenset(
    ("db", "username", "password", "host", "port", "path", "client_name", *_TIMEOUTS)
)
_POOL_OPTIONS: Final = frozenset(("max_connections", "timeout", "health_check_interval"))
_IGNORED_OPTIONS: Final = frozenset(
    ("decode_responses", "encoding", "encoding_errors", "protocol", "retry_on_timeout", "retry_on_error")
)
PERCENT_ENCODE: Final = (
    "a password with '#', '%', '/', '?', '@', '[' or ']' in it must be percent-encoded, as by "
    "urllib.parse.quote(…, safe='')"
)


@dataclass(frozen=True, slots=True)
class Address:
    """Where Redis is, and how to connect to it.

    `db` is the number of the database. `pool_timeout` is how long to wait for one of `max_connections`, and `max_idle`
    is how long a connection may be idle and still be used again, both in seconds.
    """

    db: int
    max_connections: int
    pool_timeout: float
    max_idle: float
    _connection_class: Any
    _options: dict[str, Any] = field(repr=False)

    @property
    def timeout(self) -> float:
        """Seconds that Redis may take to answer."""
        return float(self._options["socket_timeout"])

    def connection(self, **options: Any) -> Any:
        """Create a redis-py connection, which is not connected yet."""
        return self._connection_class(**(self._options | options))

    @property
    def options(self) -> dict[str, Any]:
        """The arguments of redis-py's connections. They may have a password."""
        return dict(self._options)

    @property
    def database(self) -> object:
        """What is equal for two addresses of the same database, as far as their URLs tell."""
        options = self._options
        if "path" in options:
            return options["path"], self.db
        host = str(options.get("host", "localhost")).lower()
        return "127.0.0.1" if host == "localhost" else host, int(options.get("port", 6379)), self.db

    @property
    def hash_tag(self) -> str:
        """In a cluster, what all keys have in braces, so that one server has them; else empty."""
        return ""

    @property
    def follows_master(self) -> bool:
        """Whether the server to use may change, so that `is_outdated` has to be asked now and then."""
        return False

    def is_outdated(self, connection: Any) -> bool:  # noqa: ARG002
        """Whether a connection is to a server that is no longer the one to use, as far as is known."""
        return False

    def look_up_master(self) -> None:
        """Find out which server is the one to use. Blocks. Raises redis-py's errors."""


def parse_address(url: str) -> Address:
    """Read a URL. Raises `ValueError` if it is not the URL of a Redis, or has a wrong option."""
    _check_parts(url)
    try:
        given = parse_url(url)  # type: ignore[no-untyped-call]
    except ValueError as problem:
        raise ValueError(_without_password(str(problem))) from None
    connection_class = given.pop("connection_class", None)
    if connection_class is None:
        from redis.connection import Connection as connection_class  # noqa: N813
    tls = connection_class is SSLConnection
    known = _CONNECTION_OPTIONS | _POOL_OPTIONS | _IGNORED_OPTIONS
    unknown = [name for name in given if name not in known and not (tls and name.startswith("ssl_"))]
    if unknown:
        tls_hint = " (ssl_… needs rediss://)" if unknown[0].startswith("ssl_") else ""
        raise ValueError(f"it has the option {unknown[0][:40]!r}, which is not supported{tls_hint}")
    fixed = {"decode_responses": False, "encoding": "utf-8", "encoding_errors": "strict", "protocol": 2}
    defaults = {"socket_timeout": SOCKET_TIMEOUT, "socket_connect_timeout": CONNECT_TIMEOUT}
    options = {name: value for name, value in given.items() if name not in _POOL_OPTIONS | _IGNORED_OPTIONS}
    address = Address(
        db=_number(given, "db", 0, 0),
        max_connections=_number(given, "max_connections", MAX_CONNECTIONS, 1),
        pool_timeout=_number(given, "timeout", SOCKET_TIMEOUT, 0),
        max_idle=_number(given, "health_check_interval", 0, 0) or MAX_IDLE,
        _connection_class=connection_class,
        _options=defaults | options | fixed | {"retry": Retry(NoBackoff(), 0)},
    )
    try:
        address.connection()
    except (TypeError, ValueError, RedisError) as problem:
        raise ValueError(f"its options are not valid ({type(problem).__name__})") from None
    return address


def _check_parts(url: str) -> None:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise ValueError(f"it has no valid port; {PERCENT_ENCODE}") from None
    if parts.fragment or "@" in parts.path + parts.query:
        raise ValueError(PERCENT_ENCODE)
    if parts.scheme != "unix" and parts.path.strip("/") and not parts.path.strip("/").isdigit():
        raise ValueError("its path must be the number of a database, like in redis://localhost:6379/0")
    if parts.scheme == "unix" and not parts.path:
        raise ValueError("it must name a socket, like unix:///run/redis.sock")


def _number(given: dict[str, Any], name: str, default: Any, least: int) -> Any:
    value = given.get(name, default)
    if not isinstance(value, (int, float)) or value < least:
        raise ValueError(f"its {name} must be a number, {least} or more")
    return value


def _without_password(text: str) -> str:
    """redis-py's error text, if all that it repeats is the name of an option."""
    return text if text.startswith("Invalid value for '") else f"it cannot be read; {PERCENT_ENCODE}"
