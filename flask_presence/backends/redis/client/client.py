"""Speaking to Redis, for operations that may be waited for.

Law: connections are made in the process and the thread that use them, after any fork; what fails does so within
seconds, as `BackendUnavailable`; nothing is sent twice whose reply was lost.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Sequence
from typing import Any, Final, TypeVar

from redis.exceptions import AuthenticationError, NoScriptError, RedisError, ResponseError
from redis.exceptions import ConnectionError as ConnectionLost

from ....domain.errors import BackendUnavailable, OutcomeUnknown
from ..store.calls import Call, Operation, Refused
from ..store.scripts import all_scripts, script
from .address import Address
from .pool import Pool

T = TypeVar("T")

REFUSALS_APART: Final = 60.0
"""Seconds between two log lines about errors that Redis answers with."""
OPTIONAL: Final = frozenset({"CONFIG", "INFO"})
"""Commands that an app's user of Redis may lack; nothing depends on them."""
_AWAY: Final = ("LOADING", "READONLY", "BUSY", "MASTERDOWN", "CLUSTERDOWN")

log = logging.getLogger("flask_presence")


class ConnectionRefused(BackendUnavailable):
    """Redis is there, and does not let us in: it will not be better by waiting."""

    public_message = "Redis refuses the connection; the log says why"


class PasswordRefused(ConnectionRefused):
    """The password, or the user, is wrong, or missing."""

    public_message = "Redis refuses the password"


class Subscription:
    """A connection on which Redis says what is published. One may read while another writes; once it is lost it stays
    so, as redis-py would make another that hears nothing."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def send(self, *words: str) -> None:
        self._check()
        self._connection.send_command(*words, check_health=False)

    def read(self) -> Any:
        """What comes next, as a list. Raises redis-py's `TimeoutError` where nothing comes for long."""
        self._check()
        return self._connection.read_response(disconnect_on_error=False)

    def can_read(self, seconds: float) -> bool:
        """Whether something comes within so many seconds."""
        self._check()
        return bool(self._connection.can_read(timeout=seconds))

    def _check(self) -> None:
        if self._connection._sock is None:  # noqa: SLF001 (as in `Pool`)
            raise ConnectionLost("the connection was closed, so as to be made anew")

    def close(self) -> None:
        """Also while another reads, who then finds the connection lost."""
        self._connection.disconnect()


class Client:
    """One Redis. May be used by any thread or greenlet that the process has."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._pools: dict[tuple[int, int], Pool] = {}
        self._refused_at = -REFUSALS_APART

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
            if missing:  # these calls have done nothing yet
                again = [_words(calls[at], with_text=True) for at in missing]
                # The other scripts too: if Redis lost one, it lost all, and the next must not come late.
                loading = [("SCRIPT", "LOAD", one.text) for one in all_scripts()]
                for at, reply in zip(missing, self._send([*again, *loading]), strict=False):
                    replies[at] = reply
        except BackendUnavailable as away:
            return [away] * len(calls)
        return [
            self._refused(call, reply) if isinstance(reply, RedisError) else reply
            for call, reply in zip(calls, replies, strict=True)
        ]

    def subscription(self, timeout: float) -> Subscription:
        """A connection for subscriptions that waits for `timeout` seconds at a time. Raises `BackendUnavailable`."""
        connection = self._address.connection(socket_timeout=timeout)
        try:
            connection.connect()
        except (RedisError, OSError) as problem:
            raise _unreachable(problem) from problem
        return Subscription(connection)

    def ask(self, *words: str) -> Any:
        """The reply to a plain command; for the few that the pipeline has no use for, such as those that wait."""
        (reply,) = self.run_calls([Call(words[0], words[1:])])
        if isinstance(reply, BackendUnavailable):
            raise reply
        return reply

    def forked(self) -> None:
        """Let go of the connections of the process that this one was forked from, without a word to Redis."""
        for pool in self._pools.values():
            pool.forked()
        self._pools.clear()

    def close(self) -> None:
        pool = self._pools.pop(_place(), None)
        if pool is not None:
            pool.close()

    def _refused(self, call: Call, problem: RedisError) -> BackendUnavailable:
        if str(problem).startswith(_AWAY):
            return BackendUnavailable(f"Redis does not answer: {problem}")
        now = time.monotonic()
        if call.name not in OPTIONAL and now - self._refused_at >= REFUSALS_APART:
            self._refused_at = now
            log.error("Redis answers with an error; what needed it has failed: %s", problem)
        return Refused(f"Redis refuses: {problem}")

    def _send(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """The replies as they come, errors among them. Raises `OutcomeUnknown` once Redis may have been told, else
        `BackendUnavailable`. (redis-py's own pipelines cost several times as much.)"""
        pool = self._pools.get(_place())
        if pool is None:
            pool = self._pools[_place()] = Pool(self._address, _load_scripts)
        try:
            connection = pool.take()
        except (RedisError, OSError) as problem:
            raise _unreachable(problem) from problem
        try:
            connection.send_packed_command(connection.pack_commands(commands), check_health=False)
            return [_read_from(connection) for _ in commands]
        except BaseException as problem:
            connection.disconnect()  # what has not been read would be taken for the answer to something else
            if isinstance(problem, AuthenticationError):
                raise _unreachable(problem) from problem
            if isinstance(problem, (RedisError, OSError)):
                raise OutcomeUnknown(f"Redis went away before it had answered: {problem}") from problem
            raise
        finally:
            pool.give_back(connection)


def _unreachable(problem: Exception) -> BackendUnavailable:
    """Why Redis does not let us in, or is not there."""
    if isinstance(problem, AuthenticationError):
        return PasswordRefused(
            f"Redis refuses the password, or the user, that PRESENCE_BACKEND has for it, or wants one: {problem}"
        )
    if isinstance(problem, ResponseError):
        return ConnectionRefused(f"Redis refuses the connection: {problem}")
    return BackendUnavailable(f"Redis does not answer: {problem}")


def _place() -> tuple[int, int]:
    """Whose the connections are: this process's and, where gevent has patched sockets, this thread's, as each belongs
    to the hub of one."""
    return os.getpid(), _thread() if _is_patched() else 0


def _load_scripts(connection: Any) -> None:
    """Load the scripts that Redis does not have. If it had only some, those that it lacks, when they are sent again
    with their text, would come after calls that were made later."""
    scripts = all_scripts()
    connection.send_command("SCRIPT", "EXISTS", *(one.sha for one in scripts))
    known = _read_from(connection)
    if isinstance(known, ResponseError):
        return  # no permission; then scripts are sent with their text when they are missing
    missing = [one for one, is_known in zip(scripts, known, strict=True) if not is_known]
    if missing:
        commands = connection.pack_commands([("SCRIPT", "LOAD", one.text) for one in missing])
        connection.send_packed_command(commands, check_health=False)
        for _ in missing:
            _read_from(connection)


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
