"""Redis Cluster: each shard is one slot, and the server that owns the slot is looked up for every connection.

Rule: a server is used only if it says that the slot is its own. What the servers say of each other may be out of date,
so after every doubt another one is asked.
"""

from __future__ import annotations

import time
from binascii import crc_hqx
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl, urlencode

from redis.connection import Connection, SSLConnection
from redis.exceptions import AuthenticationError, RedisError, ResponseError
from redis.exceptions import ConnectionError as ConnectionLost

from .address import CONNECT_TIMEOUT, PERCENT_ENCODE, Address, parse_address
from .server import Server, hide_arguments, split_url

SCHEMES: Final = {"redis+cluster": "redis", "rediss+cluster": "rediss"}
DEFAULT_PORT: Final = 6379
EXPECTED: Final = "it must look like redis+cluster://host:7000,host2:7000/?shards=16"
DEFAULT_SHARDS: Final = 16
MAX_SHARDS: Final = 128
SLOTS: Final = 16384
REUSED_FOR: Final = 0.25
"""Seconds for which new connections use the same answer, because those of all shards are often made together."""
WATCHED_EVERY: Final = 1.0
"""Seconds for which the watches of the shards use the same answer."""


class NoCluster(ConnectionLost):
    """The servers that answer are not a cluster. Waiting does not help."""


def slot_of(tag: str) -> int:
    """The slot of all keys that have `tag` in braces."""
    return crc_hqx(tag.encode(), 0) % SLOTS


def tags(number: int) -> list[str]:
    """The tags of so many shards, a power of two up to `MAX_SHARDS`. Their slots are spread evenly, and those of fewer
    shards are among those of more: so only the new ones take channels, and workers with different numbers have shards
    in common, which tell them apart."""
    bits = MAX_SHARDS.bit_length() - 1
    return [_tags_by_range()[int(f"{at:0{bits}b}"[::-1], 2)] for at in range(number)]


@cache
def _tags_by_range() -> dict[int, str]:
    """For each of `MAX_SHARDS` equal ranges of slots, the first number whose slot is in the middle half of it."""
    width = SLOTS // MAX_SHARDS
    found: dict[int, str] = {}
    number = 0
    while len(found) < MAX_SHARDS:
        at, rest = divmod(slot_of(str(number)), width)
        if width // 4 <= rest < width * 3 // 4:
            found.setdefault(at, str(number))
        number += 1
    return found


class _Range(NamedTuple):
    """Slots that one server owns: the first, the last, where the server is, and its id in the cluster."""

    first: int
    last: int
    server: Server
    id: bytes


class Cluster:
    """What is known of a cluster: its servers, and which of them owns which slots. `connect` creates a redis-py
    connection to a server, which is not connected yet."""

    def __init__(self, seeds: Iterable[Server], connect: Callable[[Server], Any]) -> None:
        self.seeds = tuple(seeds)
        self._connect = connect
        self._servers = list(self.seeds)
        self._ranges: list[_Range] = []
        self._learned_at = float("-inf")

    def owner(self, slot: int) -> Server | None:
        """The server that owns a slot, as far as is known."""
        found = _range_of(slot, self._ranges)
        return None if found is None else found.server

    def doubt(self) -> None:
        """Note that what is known may be wrong: the next question goes to another server."""
        self._learned_at = float("-inf")
        self._servers = [*self._servers[1:], *self._servers[:1]]

    def look_up(self, max_age: float = 0) -> None:
        """Find out who owns the slots, unless that was done in the last `max_age` seconds. Blocks. Raises redis-py's
        `ConnectionError` if no server says, `AuthenticationError` if they refuse the password, and `NoCluster`."""
        if time.monotonic() - self._learned_at < max_age:
            return
        problems: list[str] = []
        kind: type[RedisError] = ConnectionLost
        for server in list(self._servers):
            where = f"{server.host}:{server.port}"
            try:
                ranges, servers = self._ask(server)
            except AuthenticationError as problem:
                kind = AuthenticationError
                problems.append(f"{where} refuses the password: {problem}")
            except ResponseError as problem:
                hide_arguments(problem)
                kind = NoCluster if "cluster support disabled" in str(problem) else ResponseError
                problems.append(f"{where} refuses: {problem}")
            except (RedisError, OSError) as problem:
                problems.append(f"{where} cannot tell: {problem}")
            else:
                if ranges:
                    self._learned_at = time.monotonic()
                    self._ranges = ranges
                    self._servers = list(dict.fromkeys([server, *servers, *self.seeds]))
                    return
                problems.append(f"{where} is in no cluster that has slots")
        raise kind(f"no server says who owns the slots of the cluster: {'; '.join(problems)}")

    def check(self, connection: Any, slot: int) -> None:
        """Raise `ConnectionError` if the server that `connection` has reached says that another one owns the slot."""
        expected = _range_of(slot, self._ranges)
        found = _range_of(slot, _read_ranges(connection, Server(connection.host, connection.port))[0])
        if expected is None or found is None or found.id != expected.id:
            raise ConnectionLost(f"{connection.host}:{connection.port} says that it does not own slot {slot}")

    def _ask(self, server: Server) -> tuple[list[_Range], list[Server]]:
        """What one server says: who owns which slots, and all servers."""
        connection = self._connect(server)
        try:
            connection.connect()
            return _read_ranges(connection, server)
        finally:
            connection.disconnect()


def _read_ranges(connection: Any, asked: Server) -> tuple[list[_Range], list[Server]]:
    """What the server at the other end says: who owns which slots, and all servers. Raises `ConnectionError` if it is
    cut off from most others: then it may be wrong, and would not carry out anything."""
    connection.send_command("CLUSTER", "INFO", check_health=False)
    if b"cluster_state:ok" not in connection.read_response():
        raise ConnectionLost("it says that the cluster is down")
    connection.send_command("CLUSTER", "SLOTS", check_health=False)
    reply = connection.read_response()

    def read(host: bytes | None, port: int, *_: Any) -> Server:
        name = (host or b"").decode()
        return Server(asked.host if name in ("", "?") else name, port)

    ranges = [_Range(first, last, read(*nodes[0]), nodes[0][2]) for first, last, *nodes in reply]
    return ranges, [read(*node) for _, _, *nodes in reply for node in nodes]


def _range_of(slot: int, ranges: Iterable[_Range]) -> _Range | None:
    return next((one for one in ranges if one.first <= slot <= one.last), None)


class _ToOwner:
    """Connects to the owner of a slot."""

    host: str
    port: int

    def __init__(self, *, address: ClusterAddress, **options: Any) -> None:
        super().__init__(**options)
        self._address = address

    def connect(self) -> None:
        address = self._address
        self.host, self.port = address.find_owner()
        try:
            super().connect()  # type: ignore[misc]
            address.cluster.check(self, slot_of(address.tag))
        except (RedisError, OSError):
            address.cluster.doubt()
            self.disconnect()  # type: ignore[attr-defined]
            raise


class _SlotConnection(_ToOwner, Connection):
    """A connection to the owner of a slot."""


class _SlotSSLConnection(_ToOwner, SSLConnection):
    """The same with TLS."""


@dataclass(frozen=True, slots=True)
class ClusterAddress(Address):
    """The address of a shard in a cluster: the slot of `tag`."""

    tag: str = field(kw_only=True)
    cluster: Cluster = field(kw_only=True)

    def connection(self, **options: Any) -> Any:
        return self._connection_class(address=self, **(self._options | options))

    @property
    def hash_tag(self) -> str:
        return self.tag

    @property
    def database(self) -> object:
        return frozenset(self.cluster.seeds), self.tag

    @property
    def follows_master(self) -> bool:
        return True

    def is_outdated(self, connection: Any) -> bool:
        owner = self.cluster.owner(slot_of(self.tag))
        return owner is not None and (connection.host, connection.port) != owner

    def look_up_master(self) -> None:
        self.cluster.look_up(WATCHED_EVERY)

    def find_owner(self) -> Server:
        """The server to connect to. Blocks. Raises redis-py's errors."""
        self.cluster.look_up(REUSED_FOR)
        owner = self.cluster.owner(slot_of(self.tag))
        if owner is None:
            self.cluster.doubt()
            raise ConnectionLost(f"no server of the cluster owns slot {slot_of(self.tag)}")
        return owner


def parse_cluster_addresses(url: str) -> dict[str, ClusterAddress]:
    """Read a URL like `redis+cluster://user:password@host:7000,host2:7000/?shards=16`. Returns the address of each
    shard by its tag. Raises `ValueError`."""
    scheme, _, rest = url.partition("://")
    try:
        parts, userinfo, seeds = split_url(f"{SCHEMES[scheme]}://{rest}", DEFAULT_PORT)
    except ValueError:
        raise ValueError(f"{EXPECTED}; {PERCENT_ENCODE}") from None
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    number = _number_of_shards(options.pop("shards", str(DEFAULT_SHARDS)))
    if parts.path.strip("/") not in ("", "0") or options.get("db", "0") != "0":
        raise ValueError(f"a cluster has only database 0, and {EXPECTED}")
    address = parse_address(f"{parts.scheme}://{userinfo}localhost/0?{urlencode(options)}")
    is_tls = parts.scheme == "rediss"
    own = {name: value for name, value in address.options.items() if name not in ("host", "port")}
    timeouts = {"socket_timeout": CONNECT_TIMEOUT, "socket_connect_timeout": CONNECT_TIMEOUT}
    plain_class = SSLConnection if is_tls else Connection

    def connect(server: Server) -> Any:
        return plain_class(host=server.host, port=server.port, **(own | timeouts))

    cluster = Cluster(seeds, connect)
    limits = (0, address.max_connections, address.pool_timeout, address.max_idle)
    slot_class = _SlotSSLConnection if is_tls else _SlotConnection
    return {tag: ClusterAddress(*limits, slot_class, own, tag=tag, cluster=cluster) for tag in tags(number)}


def _number_of_shards(text: str) -> int:
    allowed = [1 << bits for bits in range(MAX_SHARDS.bit_length())]
    if text not in map(str, allowed):
        raise ValueError(f"its shards must be {', '.join(map(str, allowed[:-1]))} or {MAX_SHARDS}")
    return int(text)
