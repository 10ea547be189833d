"""Sends calls to Redis and waits for the replies.

Rule: a connection is used only by the process that created it and, if gevent has patched sockets, only by the thread.
Every failure is a `BackendUnavailable` within seconds. A call whose reply was lost is never sent again.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import time
from collections.abc import Generator, Sequence
from typing import Any, Final, TypeVar

from redis.exceptions import (
    AskError,
    AuthenticationError,
    ClusterCrossSlotError,
    ClusterDownError,
    MovedError,
    NoScriptError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as ConnectionLost

from ....domain.errors import BackendUnavailable, OutcomeUnknown
from ..store.calls import Call, Operation, Refused
from ..store.scripts import all_scripts, script
from .address import Address
from .cluster import NoCluster
from .pool import Pool
from .sentinel import UnknownService
from .server import hide_arguments

T = TypeVar("T")

Exchange = Generator[list[tuple[Any, ...]], list[Any], list[Any]]
"""Yields commands that are sent to Redis together, and is sent their replies. Returns the results."""

ERROR_LOG_INTERVAL: Final = 60.0
"""Seconds between two log lines about errors that Redis answers with."""
OPTIONAL: Final = frozenset({"CONFIG", "INFO"})
"""Commands for which the app's Redis user may lack permission, because nothing depends on them."""
_UNAVAILABLE_ERRORS: Final = ("LOADING", "BUSY", "MASTERDOWN", "ASK ", "TRYAGAIN")
_CLUSTER_ERRORS: Final = (MovedError, ClusterCrossSlotError, ClusterDownError)
_CLUSTER_ANSWERS: Final = ("MOVED", "CROSSSLOT", "CLUSTERDOWN")
_WRONG_SERVER: Final = (ReadOnlyError, MovedError, ClusterDownError)

log = logging.getLogger("flask_presence")


class ConnectionRefused(BackendUnavailable):
    """Redis answers, but refuses the connection. Waiting does not help."""

    public_message = "Redis refuses the connection; the log says why"


class PasswordRefused(ConnectionRefused):
    """The password or the user is wrong or missing."""

    public_message = "Redis refuses the password"


class ServiceUnknown(ConnectionRefused):
    """No Sentinel knows the service."""

    public_message = "No Sentinel knows the service in PRESENCE_BACKEND"


class ClusterUnknown(ConnectionRefused):
    """The servers are not a cluster."""

    public_message = "The Redis in PRESENCE_BACKEND is not a cluster"


class ServerOfCluster(ConnectionRefused):
    """The server is one of a cluster, but PRESENCE_BACKEND gives it as a Redis of its own."""

    public_message = "The Redis in PRESENCE_BACKEND is a server of a cluster, which needs a redis+cluster:// URL"


class Subscription:
    """A connection for subscriptions. One thread or greenlet may read while another one writes.

    Once it is lost, every method raises: redis-py would connect again without subscribing to anything.
    """

    def __init__(self, connection: Any, *, in_cluster: bool) -> None:
        self._connection = connection
        self._in_cluster = in_cluster

    def subscribe(self, topic: str) -> None:
        self.send("SSUBSCRIBE" if self._in_cluster else "SUBSCRIBE", topic)

    def send(self, *words: str) -> None:
        self._check()
        self._connection.send_command(*words, check_health=False)

    def read(self) -> Any:
        """Wait for the next reply, which is a list. Raises redis-py's `TimeoutError` if none arrives in time."""
        self._check()
        return self._connection.read_response(disconnect_on_error=False)

    def _check(self) -> None:
        if self._connection._sock is None:  # noqa: SLF001 (as in `Pool`)
            raise ConnectionLost("the connection was closed and has to be replaced")

    def close(self) -> None:
        """Close the connection. If another thread or greenlet is reading, its `read` raises."""
        self._connection.disconnect()


class Client:
    """One Redis. Any thread and greenlet of the process may use it; methods block."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self.in_cluster = bool(address.hash_tag)
        self._pools: dict[tuple[int, int], Pool] = {}
        self._error_logged_at = -ERROR_LOG_INTERVAL

    def run(self, operation: Operation[T]) -> T:
        """Run an operation. Returns its outcome, or raises what it raises, for instance `BackendUnavailable`."""
        try:
            request = next(operation)
            while True:
                replies = self.run_calls(request if isinstance(request, list) else [request])
                problem = next((reply for reply in replies if isinstance(reply, BackendUnavailable)), None)
                if problem is not None:
                    request = operation.throw(problem)
                else:
                    request = operation.send(replies if isinstance(request, list) else replies[0])
        except StopIteration as end:
            result: T = end.value
            return result

    def run_calls(self, calls: Sequence[Call]) -> list[Any]:
        """Send calls together, in one round trip. Returns their replies; the reply to a call that failed is a
        `BackendUnavailable`, which is not raised."""
        if not calls:
            return []
        exchange = self.exchange(calls)
        commands = next(exchange)
        try:
            while True:
                try:
                    replies = self._send(commands)
                except BackendUnavailable as problem:
                    return [problem] * len(calls)
                commands = exchange.send(replies)
        except StopIteration as end:
            results: list[Any] = end.value
            return results

    def exchange(self, calls: Sequence[Call]) -> Exchange:
        """The commands to send for calls, by whatever means. See `run_calls` for what it returns."""
        replies = yield [self._command(call) for call in calls]
        if not any(isinstance(reply, RedisError) for reply in replies):
            return replies
        missing = [at for at, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        if missing:  # these calls have done nothing yet
            again = [self._command(calls[at], with_text=True) for at in missing]
            # The other scripts too: if Redis lost one, it lost all, and no call must overtake an earlier one.
            loading = [("SCRIPT", "LOAD", one.text) for one in all_scripts(in_cluster=self.in_cluster)]
            for at, reply in zip(missing, (yield [*again, *loading]), strict=False):
                replies[at] = reply
        return [
            self._error_of(call, reply) if isinstance(reply, RedisError) else reply
            for call, reply in zip(calls, replies, strict=True)
        ]

    def connect(self, *, for_calls: bool) -> Any:
        """Open one of redis-py's connections, and load the scripts if it is for calls. Blocks. Raises
        `BackendUnavailable`."""
        return self._open(self._address.connection(), with_scripts=for_calls)

    def run_id(self, connection: Any) -> str:
        """The id of the run of Redis that a new connection for calls is to; `""` if Redis does not say. Blocks. Raises
        `BackendUnavailable`."""
        try:
            connection.send_command("INFO", "server", check_health=False)
            reply = _read_from(connection)
        except (RedisError, OSError) as problem:
            connection.disconnect()
            raise connection_problem(problem) from problem
        found = re.search(rb"run_id:(\w+)", reply) if isinstance(reply, bytes) else None
        return found[1].decode() if found else ""

    @property
    def follows_master(self) -> bool:
        """See `Address`."""
        return self._address.follows_master

    def look_up_master(self) -> None:
        """See `Address`. Raises `BackendUnavailable`."""
        try:
            self._address.look_up_master()
        except (RedisError, OSError) as problem:
            raise connection_problem(problem) from problem

    def is_outdated(self, connection: Any) -> bool:
        """See `Address`."""
        return self._address.is_outdated(connection)

    @property
    def timeout(self) -> float:
        """Seconds that Redis may take to answer."""
        return self._address.timeout

    def subscription(self, timeout: float) -> Subscription:
        """Open a connection for subscriptions. Its `read` waits for `timeout` seconds. Raises `BackendUnavailable`."""
        connection = self._address.connection(socket_timeout=timeout)
        return Subscription(self._open(connection, with_scripts=False), in_cluster=self.in_cluster)

    def _open(self, connection: Any, *, with_scripts: bool) -> Any:
        try:
            connection.connect()
            if with_scripts:
                self._load_scripts(connection)
        except (RedisError, OSError) as problem:
            connection.disconnect()
            raise connection_problem(problem) from problem
        return connection

    def ask(self, *words: str) -> Any:
        """Send one Redis command. Returns its reply, or raises `BackendUnavailable`."""
        (reply,) = self.run_calls([Call(words[0], words[1:])])
        if isinstance(reply, BackendUnavailable):
            raise reply
        return reply

    def close(self) -> None:
        """Close the idle connections that this thread may use."""
        pool = self._pools.pop(_pool_key(), None)
        if pool is not None:
            pool.close()

    def _error_of(self, call: Call, problem: RedisError) -> BackendUnavailable:
        """The error for a call that Redis has answered with an error."""
        if self._is_other_kind(problem):
            return _server_of_cluster(problem)
        is_away = isinstance(problem, (*_WRONG_SERVER, AskError, TryAgainError))
        if is_away or str(problem).startswith(_UNAVAILABLE_ERRORS):
            return BackendUnavailable(f"Redis does not answer: {problem}")
        now = time.monotonic()
        if call.name not in OPTIONAL and now - self._error_logged_at >= ERROR_LOG_INTERVAL:
            self._error_logged_at = now
            log.error("Redis answers with an error; a join, a message or another operation has failed: %s", problem)
        return Refused(f"Redis refuses: {problem}")

    def _send(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Send commands. Returns the replies, redis-py's errors included.

        Raises `OutcomeUnknown` if Redis may have carried out the commands, and `BackendUnavailable` if it has not.
        redis-py's own pipelines take several times as long.
        """
        pool = self._pools.get(_pool_key())
        if pool is None:
            pool = self._pools[_pool_key()] = Pool(self._address, self._load_scripts)
        try:
            connection = pool.take()
        except (RedisError, OSError) as problem:
            raise connection_problem(problem) from problem
        try:
            connection.send_packed_command(connection.pack_commands(commands), check_health=False)
            replies = [_read_from(connection) for _ in commands]
            if any(isinstance(reply, _WRONG_SERVER) for reply in replies):
                connection.disconnect()  # a new connection may find the right server
            return replies
        except BaseException as problem:
            connection.disconnect()  # otherwise an unread reply would be taken for the reply to a later command
            if isinstance(problem, (RedisError, OSError)):
                raise self.lost_reply(problem) from problem
            raise
        finally:
            pool.give_back(connection)

    def lost_reply(self, problem: Exception) -> BackendUnavailable:
        """The error for calls whose connection was lost before Redis answered."""
        if isinstance(problem, AuthenticationError):
            return connection_problem(problem)
        if self._is_other_kind(problem):
            return _server_of_cluster(problem)
        return OutcomeUnknown(f"the connection was lost before Redis answered: {problem}")

    def _is_other_kind(self, problem: Exception) -> bool:
        """Whether only a server of a cluster answers so, although no cluster was given."""
        is_of_cluster = isinstance(problem, _CLUSTER_ERRORS) or str(problem).startswith(_CLUSTER_ANSWERS)
        return is_of_cluster and not self.in_cluster

    def _command(self, call: Call, *, with_text: bool = False) -> tuple[Any, ...]:
        """The words of the Redis command for a call. A script is named by its hash, or sent `with_text`."""
        if call.name.isupper():
            name = "SPUBLISH" if self.in_cluster and call.name == "PUBLISH" else call.name
            return (name, *call.keys, *call.arguments)
        called = script(call.name, self.in_cluster)
        words = ("EVAL", called.text) if with_text else ("EVALSHA", called.sha)
        return (*words, len(call.keys), *call.keys, *call.arguments)

    def _load_scripts(self, connection: Any) -> None:
        """Load the scripts that Redis does not have. Otherwise a call whose script is missing would be sent again with
        the script's text, and later calls would overtake it."""
        scripts = all_scripts(in_cluster=self.in_cluster)
        connection.send_command("SCRIPT", "EXISTS", *(one.sha for one in scripts))
        known = _read_from(connection)
        if isinstance(known, ResponseError):
            return  # no permission; then a missing script's text is sent with the call
        missing = [one for one, is_known in zip(scripts, known, strict=True) if not is_known]
        if missing:
            commands = connection.pack_commands([("SCRIPT", "LOAD", one.text) for one in missing])
            connection.send_packed_command(commands, check_health=False)
            for _ in missing:
                _read_from(connection)


def connection_problem(problem: Exception) -> BackendUnavailable:
    """The error for a connection that could not be made."""
    hide_arguments(problem)
    if isinstance(problem, AuthenticationError):
        return PasswordRefused(
            f"Redis refuses the password or the user in PRESENCE_BACKEND, or requires one: {problem}"
        )
    if isinstance(problem, UnknownService):
        return ServiceUnknown(f"{problem}. Correct the name of the service in PRESENCE_BACKEND")
    if isinstance(problem, NoCluster):
        return ClusterUnknown(f"{problem}. Give PRESENCE_BACKEND a redis:// URL, or the servers of a cluster")
    if isinstance(problem, ResponseError):
        return ConnectionRefused(f"Redis refuses the connection: {problem}")
    return BackendUnavailable(f"Redis does not answer: {problem}")


def _server_of_cluster(problem: Exception) -> BackendUnavailable:
    return ServerOfCluster(
        f"Redis is a server of a cluster: {problem}. Give PRESENCE_BACKEND the URL of the cluster, "
        "redis+cluster://host:port/"
    )


def _pool_key() -> tuple[int, int]:
    """The process and, if gevent has patched sockets, the thread: each gevent socket belongs to one thread's hub."""
    return os.getpid(), _thread_id() if _is_patched() else 0


def _read_from(connection: Any) -> Any:
    try:
        return connection.read_response()
    except ResponseError as problem:
        return problem


def _is_patched() -> bool:
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("socket"))


def _thread_id() -> int:
    """The id of the operating system's thread, which gevent's patches hide."""
    get_original = sys.modules["gevent.monkey"].get_original
    thread_id: int = get_original("_thread", "get_ident")()
    return thread_id
