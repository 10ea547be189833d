"""The connections to Redis, for operations that may be waited for.

Law: made in the process and the thread that use them, after any fork; fail within seconds, as `BackendUnavailable`;
nothing is sent twice whose reply was lost.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Sequence
from typing import Any, Final, TypeVar

import redis
from redis.backoff import NoBackoff
from redis.connection import parse_url
from redis.exceptions import NoScriptError, RedisError, ResponseError
from redis.retry import Retry

from ...domain.errors import BackendUnavailable
from .operations import Call, Operation, Refused
from .scripts import script

T = TypeVar("T")

ANSWER_PATIENCE: Final = 1.0
CONNECT_PATIENCE: Final = 0.5
MAX_CONNECTIONS: Final = 8
REFUSALS_APART: Final = 60.0
"""Seconds between two log lines about errors that Redis answers with."""
OPTIONAL: Final = frozenset({"CONFIG", "INFO"})
"""Commands that an app's user of Redis may lack; nothing depends on them."""
_AWAY: Final = ("LOADING", "READONLY", "BUSY", "MASTERDOWN", "CLUSTERDOWN", "NOAUTH", "WRONGPASS")

log = logging.getLogger("flask_presence")


class Client:
    """Pools of connections. May be used by any thread or greenlet that the process has. `ValueError` for a bad URL."""

    def __init__(self, url: str) -> None:
        parse_url(url)  # type: ignore[no-untyped-call]
        self._url = url
        self._pools: dict[tuple[int, int], Any] = {}
        self._refused_at = -REFUSALS_APART

    @property
    def redis(self) -> Any:
        """The `redis.Redis` of this process (where gevent has patched sockets: of this thread, as each belongs to
        the hub of one)."""
        place = (os.getpid(), _thread() if _is_patched() else 0)
        known = self._pools.get(place)
        if known is None:
            pool = redis.BlockingConnectionPool.from_url(
                self._url,
                max_connections=MAX_CONNECTIONS,
                timeout=ANSWER_PATIENCE,
                socket_timeout=ANSWER_PATIENCE,
                socket_connect_timeout=CONNECT_PATIENCE,
                retry=Retry(NoBackoff(), 0),
                protocol=2,
            )
            known = self._pools[place] = redis.Redis(connection_pool=pool)
        return known

    def run(self, operation: Operation[T]) -> T:
        """Drive an operation to its end. Raises what it raises, and `BackendUnavailable`."""
        try:
            asked = next(operation)
            while True:
                replies = self.run_calls(asked if isinstance(asked, list) else [asked])
                problem = next((reply for reply in replies if isinstance(reply, BackendUnavailable)), None)
                if problem is not None:
                    asked = operation.throw(problem)
                else:
                    asked = operation.send(replies if isinstance(asked, list) else replies[0])
        except StopIteration as end:
            result: T = end.value
            return result

    def run_calls(self, calls: Sequence[Call]) -> list[Any]:
        """The replies to calls that are sent together, in one round trip; `BackendUnavailable` for one that failed."""
        if not calls:
            return []
        try:
            replies = self._send([_words(call) for call in calls])
            missing = [at for at, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
            if missing:  # then nothing has happened yet
                texts = self._send([_words(calls[at], with_text=True) for at in missing])
                for at, reply in zip(missing, texts, strict=True):
                    replies[at] = reply
        except (RedisError, OSError) as problem:
            away = BackendUnavailable(f"Redis does not answer: {problem}")
            away.__cause__ = problem
            return [away] * len(calls)
        return [
            self._refused(call, reply) if isinstance(reply, RedisError) else reply
            for call, reply in zip(calls, replies, strict=True)
        ]

    def listener(self, patience: float) -> Any:
        """A connection for subscriptions, a `redis.client.PubSub`, that waits for `patience` seconds at a time."""
        connection: Any = redis.Redis.from_url(
            self._url,
            socket_timeout=patience,
            socket_connect_timeout=CONNECT_PATIENCE,
            retry=Retry(NoBackoff(), 0),
            protocol=2,
        )
        return connection.pubsub()

    def ask(self, *words: str) -> Any:
        """The reply to a plain command; for the few that the pipeline has no use for, such as those that wait."""
        try:
            return self.redis.execute_command(*words)
        except (RedisError, OSError) as problem:
            raise BackendUnavailable(f"Redis does not answer: {problem}") from problem

    def close(self) -> None:
        for place, known in list(self._pools.items()):
            if place == (os.getpid(), _thread() if _is_patched() else 0):
                known.connection_pool.disconnect()  # `close` leaves a pool alone that it was given
                del self._pools[place]

    def _refused(self, call: Call, problem: RedisError) -> BackendUnavailable:
        if str(problem).startswith(_AWAY):
            return BackendUnavailable(f"Redis does not answer: {problem}")
        now = time.monotonic()
        if call.name not in OPTIONAL and now - self._refused_at >= REFUSALS_APART:
            self._refused_at = now
            log.error("Redis answers with an error; what needed it has failed: %s", problem)
        return Refused(f"Redis refuses: {problem}")

    def _send(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """The replies as they come, errors among them; redis-py's own pipelines cost several times as much."""
        pool = self.redis.connection_pool
        connection = _take_from(pool)
        try:
            connection.send_packed_command(connection.pack_commands(commands))
            return [_read_from(connection) for _ in commands]
        except BaseException:
            connection.disconnect()  # what has not been read would be taken for the answer to something else
            raise
        finally:
            pool.release(connection)


def _take_from(pool: Any) -> Any:
    try:
        return pool.get_connection()
    except TypeError:  # redis-py before 5.3
        return pool.get_connection("_")


def _read_from(connection: Any) -> Any:
    try:
        return connection.read_response()
    except ResponseError as problem:
        return problem


def _words(call: Call, *, with_text: bool = False) -> tuple[Any, ...]:
    if call.name.isupper():
        return (call.name, *call.keys, *call.arguments)
    wanted = script(call.name)
    how = ("EVAL", wanted.text) if with_text else ("EVALSHA", wanted.sha)
    return (*how, len(call.keys), *call.keys, *call.arguments)


def _is_patched() -> bool:
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("socket"))


def _thread() -> int:
    """Which real thread this is, whatever gevent has patched."""
    get_original = sys.modules["gevent.monkey"].get_original
    number: int = get_original("_thread", "get_ident")()
    return number
