"""The connection to Redis, for operations that may be waited for.

Law: made in the process that uses it, after any fork; fails within seconds, as `BackendUnavailable`; nothing is
sent twice whose reply was lost.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Final, TypeVar

import redis
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError, ResponseError
from redis.retry import Retry

from ...domain.errors import BackendUnavailable
from .operations import Call, Operation
from .scripts import script

T = TypeVar("T")

ANSWER_PATIENCE: Final = 1.0
CONNECT_PATIENCE: Final = 0.5
MAX_CONNECTIONS: Final = 8
_AWAY: Final = ("LOADING", "READONLY", "BUSY", "MASTERDOWN", "CLUSTERDOWN", "OOM", "MISCONF")


class Client:
    """A pool of connections. May be used by any thread or greenlet that the process has."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._pid = 0
        self._redis: Any = None

    @property
    def redis(self) -> Any:
        """The `redis.Redis` of this process."""
        if self._pid != os.getpid():
            pool = redis.BlockingConnectionPool.from_url(
                self._url,
                max_connections=MAX_CONNECTIONS,
                timeout=ANSWER_PATIENCE,
                socket_timeout=ANSWER_PATIENCE,
                socket_connect_timeout=CONNECT_PATIENCE,
                retry=Retry(NoBackoff(), 0),
            )
            self._redis, self._pid = redis.Redis(connection_pool=pool), os.getpid()
        return self._redis

    def run(self, operation: Operation[T]) -> T:
        """Drive an operation to its end. Raises what it raises, and `BackendUnavailable`."""
        try:
            call = next(operation)
            while True:
                call = operation.send(self._call(call))
        except StopIteration as end:
            result: T = end.value
            return result

    def run_calls(self, calls: Sequence[Call]) -> list[list[Any] | BackendUnavailable]:
        """The replies to calls that are sent together, in one round trip; those that failed failed alone."""
        try:
            replies = self._guarded(lambda: self._send(calls, [(script(call.script).sha, "EVALSHA") for call in calls]))
            missing = [at for at, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
            if missing:  # then nothing has happened yet
                again = [calls[at] for at in missing]
                texts = self._guarded(lambda: self._send(again, [(script(call.script).text, "EVAL") for call in again]))
                for at, reply in zip(missing, texts, strict=True):
                    replies[at] = reply
        except BackendUnavailable as problem:
            return [problem] * len(calls)
        return [BackendUnavailable(str(reply)) if isinstance(reply, RedisError) else reply for reply in replies]

    def _send(self, calls: Sequence[Call], how: Sequence[tuple[str, str]]) -> list[Any]:
        with self.redis.pipeline(transaction=False) as pipeline:
            for call, (code, command) in zip(calls, how, strict=True):
                pipeline.execute_command(command, code, len(call.keys), *call.keys, *call.arguments)
            replies: list[Any] = pipeline.execute(raise_on_error=False)
        return replies

    def ask(self, *command: str) -> Any:
        """The reply to a plain command that changes nothing."""
        return self._guarded(lambda: self.redis.execute_command(*command))

    def change(self, *command: str) -> None:
        """A plain command that may be done twice."""
        self._guarded(lambda: self.redis.execute_command(*command))

    def close(self) -> None:
        if self._redis is not None and self._pid == os.getpid():
            self._redis.close()

    def _call(self, call: Call) -> list[Any]:
        wanted = script(call.script)
        rest = (len(call.keys), *call.keys, *call.arguments)

        def evaluate() -> Any:
            try:
                return self.redis.execute_command("EVALSHA", wanted.sha, *rest)
            except NoScriptError:  # then nothing has happened yet
                return self.redis.execute_command("EVAL", wanted.text, *rest)

        reply: list[Any] = self._guarded(evaluate)
        return reply

    def _guarded(self, function: Any) -> Any:
        try:
            return function()
        except ResponseError as problem:
            if str(problem).startswith(_AWAY):
                raise BackendUnavailable(str(problem)) from problem
            raise
        except (RedisError, OSError) as problem:
            raise BackendUnavailable(f"Redis does not answer: {problem}") from problem
