"""Two servers on a Redis of their own: one is near it, and one reaches it through a proxy that can cut it off."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, Protocol

import redis

from .client import Client, client
from .proxy import running_proxy
from .redis_server import running_redis
from .server import Server, running, wait_until


class Pair:
    """The servers `near` and `far`, whose clients are in `channel`."""

    def __init__(self, program: str, stack: ExitStack, channel: str, options: dict[str, Any]) -> None:
        self.channel = channel
        self._stack = stack
        self.redis_server = stack.enter_context(running_redis(program))
        self.proxy = stack.enter_context(running_proxy(self.redis_server.port))
        self.near = stack.enter_context(running(PRESENCE_BACKEND=self.redis_server.url, **options))
        url = f"redis://127.0.0.1:{self.proxy.port}/0"
        self.far = stack.enter_context(running(PRESENCE_BACKEND=url, **options))

    @contextmanager
    def used_in(self, channel: str) -> Iterator[None]:
        """Use another channel in this block, and close the block's clients at its end. Returns once nobody is there."""
        self.channel = channel
        with ExitStack() as self._stack:
            yield
        self.proxy.mend()
        for server in (self.near, self.far):
            wait_until(lambda server=server: self._is_empty(server))  # type: ignore[misc]

    def _is_empty(self, server: Server) -> bool:
        status, _, body = server.get("/presence/stats")
        return status == 200 and json.loads(body)["connections"] == json.loads(body)["totalMembers"] == 0

    def enter(self, where: str, user: str, **fields: Any) -> tuple[Client, dict[str, Any]]:
        """A new client of one of the servers, and the answer to its join, which may have to be repeated."""
        one = self._stack.enter_context(client(getattr(self, where), user))
        answer: dict[str, Any] = {}

        def is_in() -> bool:
            answer.update(one.request("join", channel=self.channel, **fields))
            return bool(answer["type"] == "channel:joined")

        wait_until(is_in)
        return one, answer

    @property
    def admin(self) -> Any:
        return self._stack.enter_context(redis.Redis(port=self.redis_server.port, socket_timeout=5))

    def cut_subscriptions(self) -> None:
        self.admin.client_kill_filter(_type="pubsub")

    def cut_off(self, one: Client) -> None:
        """Cut the far server off from Redis. Returns once `one`, a client of it, notices."""
        self.proxy.cut()
        wait_until(lambda: one.request("channel:message", channel=self.channel, data=0)["type"] == "error")

    def restart_redis(self) -> None:
        """Restart Redis with the data that was saved, or without any."""
        self.redis_server.stop()
        self.redis_server.start()

    @contextmanager
    def far_stands_still(self) -> Iterator[None]:
        """The far server stands still in this block."""
        pids = self.far.worker_pids()
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)


@contextmanager
def running_pair(program: str, channel: str = "presence-room", **options: Any) -> Iterator[Pair]:
    with ExitStack() as stack:
        yield Pair(program, stack, channel, options)


class Borrow(Protocol):
    """A pair with these options for a `with` block: a running one, or a new one if there is none."""

    def __call__(self, channel: str = "presence-room", **options: Any) -> AbstractContextManager[Pair]: ...


@contextmanager
def lending_pairs(program: str) -> Iterator[Borrow]:
    """Pairs that run until the end of a `with` block. Each block that borrows one leaves it without clients and with
    its Redis in reach; if the block fails, nobody borrows that pair again."""
    pairs: dict[str, Pair] = {}
    with ExitStack() as stack:

        @contextmanager
        def borrow(channel: str = "presence-room", **options: Any) -> Iterator[Pair]:
            key = repr(sorted(options.items()))
            pair = pairs.pop(key, None) or Pair(program, stack, channel, options)
            try:
                with pair.used_in(channel):
                    yield pair
            except BaseException:
                print(pair.near.log(), pair.far.log())
                raise
            pairs[key] = pair

        yield borrow
