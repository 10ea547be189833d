"""Redis behind Sentinel: the master is looked up for every connection, because it may change at any time.

Rule: of several answers, the one with the newest configuration counts, and what it names must say that it is the
master. An older one than before is believed only if most Sentinels answer. If none can tell, there is no connection.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlencode

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, RedisError, ResponseError
from redis.exceptions import ConnectionError as ConnectionLost
from redis.retry import Retry
from redis.sentinel import SentinelManagedConnection, SentinelManagedSSLConnection

from .address import CONNECT_TIMEOUT, PERCENT_ENCODE, Address, parse_address
from .server import Server, hide_arguments, split_url

SCHEMES: Final = {"redis+sentinel": "redis", "rediss+sentinel": "rediss"}
DEFAULT_PORT: Final = 26379
EXPECTED: Final = "it must look like redis+sentinel://host:26379,host2:26379/service/0"


class UnknownService(ConnectionLost):
    """The Sentinels that answer do not know the service. Waiting does not help."""


class Sentinels:
    """The Sentinels of a service. `master` is the master that they named last."""

    def __init__(self, servers: Iterable[Server], service: str, options: dict[str, Any]) -> None:
        self.master: Server | None = None
        self.servers = tuple(servers)
        self.service = service
        self._options = options
        self._epoch = -1

    def look_up(self) -> Server:
        """Ask all Sentinels for the master. Blocks. Raises redis-py's `ConnectionError` if there is none,
        `AuthenticationError` if they refuse the password, `ResponseError` if they refuse the question, and
        `UnknownService`."""
        answers: list[tuple[int, Server, str]] = []
        problems: list[str] = []
        kind: type[RedisError] = ConnectionLost
        for server in self.servers:
            try:
                answers.append(self._ask(server))
            except AuthenticationError as problem:
                kind = AuthenticationError
                problems.append(f"{server.host}:{server.port} refuses the password of the Sentinels: {problem}")
            except ResponseError as problem:
                hide_arguments(problem)
                is_unknown = "No such master" in str(problem)
                kind = UnknownService if is_unknown else ResponseError
                what = f"does not know the service {self.service!r}" if is_unknown else "refuses"
                problems.append(f"{server.host}:{server.port} {what}: {problem}")
            except (RedisError, OSError) as problem:
                problems.append(f"{server.host}:{server.port} does not answer: {problem}")
        if not answers:
            raise kind(f"no Sentinel names a master of {self.service!r}: {'; '.join(problems)}")
        epoch, master, flags = max(answers)
        if self.master is not None and epoch < self._epoch and 2 * len(answers) <= len(self.servers):
            return self.master  # those that answer have been cut off, or have lost their configuration
        if "o_down" in flags:
            raise ConnectionLost(f"the master of {self.service!r} is down, and the Sentinels have no other one yet")
        self.master, self._epoch = master, epoch
        return master

    def _ask(self, server: Server) -> tuple[int, Server, str]:
        """What one Sentinel says: the version of its configuration, the master, and the master's flags."""
        sentinel = Redis(server.host, server.port, protocol=2, **self._options)
        try:
            words = sentinel.execute_command("SENTINEL MASTER", self.service)  # type: ignore[no-untyped-call]
        finally:
            sentinel.close()
        state = words if isinstance(words, dict) else dict(zip(words[::2], words[1::2], strict=True))
        state = {_text(key): _text(value) for key, value in state.items()}
        return int(state["config-epoch"]), Server(state["ip"], int(state["port"])), state["flags"]


class _Pool:
    """What redis-py's connections need of a pool: where the master is."""

    is_master = True
    check_connection = False

    def __init__(self, sentinels: Sentinels) -> None:
        self.service_name = sentinels.service
        self.get_master_address = sentinels.look_up


class _MasterConnection(SentinelManagedConnection):
    """A connection that is made only if the server says that it is a master."""

    def connect_to(self, address: Any) -> None:
        super().connect_to(address)  # type: ignore[no-untyped-call]
        _check_role(self)


class _MasterSSLConnection(SentinelManagedSSLConnection):
    """The same with TLS."""

    def connect_to(self, address: Any) -> None:
        super().connect_to(address)  # type: ignore[no-untyped-call]
        _check_role(self)


@dataclass(frozen=True, slots=True)
class SentinelAddress(Address):
    """The address of a service that Sentinels watch."""

    sentinels: Sentinels = field(kw_only=True)

    def connection(self, **options: Any) -> Any:
        return self._connection_class(connection_pool=_Pool(self.sentinels), **(self._options | options))

    @property
    def database(self) -> object:
        return frozenset(self.sentinels.servers), self.sentinels.service, self.db

    @property
    def follows_master(self) -> bool:
        return True

    def is_outdated(self, connection: Any) -> bool:
        return self.sentinels.master is not None and (connection.host, connection.port) != self.sentinels.master

    def look_up_master(self) -> None:
        self.sentinels.look_up()


def parse_sentinel_address(url: str) -> SentinelAddress:
    """Read a URL like `redis+sentinel://user:password@host:26379,host2:26379/service/0`. The user and the password are
    for Redis; those of the Sentinels are options, `sentinel_username` and `sentinel_password`. Raises `ValueError`."""
    scheme, _, rest = url.partition("://")
    try:
        parts, userinfo, servers = split_url(f"{SCHEMES[scheme]}://{rest}", DEFAULT_PORT)
    except ValueError:
        raise ValueError(f"{EXPECTED}; {PERCENT_ENCODE}") from None
    service, _, db = parts.path.strip("/").partition("/")
    if not service or "/" in db:
        raise ValueError(f"{EXPECTED}; {PERCENT_ENCODE}")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    own = {name: options.pop(f"sentinel_{name}") for name in ("username", "password") if f"sentinel_{name}" in options}
    address = parse_address(f"{parts.scheme}://{userinfo}localhost/{db}?{urlencode(options)}")
    timeouts = {"socket_timeout": CONNECT_TIMEOUT, "socket_connect_timeout": CONNECT_TIMEOUT}
    tls = {name: value for name, value in address.options.items() if name.startswith("ssl")}
    if parts.scheme == "rediss":
        tls["ssl"] = True
    return SentinelAddress(
        *(address.db, address.max_connections, address.pool_timeout, address.max_idle),
        _MasterSSLConnection if parts.scheme == "rediss" else _MasterConnection,
        {name: value for name, value in address.options.items() if name not in ("host", "port")},
        sentinels=Sentinels(servers, unquote(service), timeouts | own | tls | {"retry": Retry(NoBackoff(), 0)}),
    )


def _check_role(connection: Any) -> None:
    """Raise `ConnectionError` if the server is not a master: the Sentinels may not know that yet."""
    connection.send_command("ROLE", check_health=False)
    try:
        role = connection.read_response()
    except ResponseError:
        return  # the user may not ask; then a write to a replica shows it
    if role[0] != b"master":
        connection.disconnect()
        raise ConnectionLost(f"{connection.host}:{connection.port} is not the master")


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
