"""What a message costs Redis by the number of workers that have its channel.

Rule: the workers are pretended: connections that subscribe to the channel's topic, and read what comes.
"""

from __future__ import annotations

import os
import selectors
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any, Final

import redis

from flask_presence.backends.redis.client.address import parse_address
from flask_presence.backends.redis.client.client import Client
from flask_presence.backends.redis.store.calls import Call, Operation
from flask_presence.backends.redis.store.keys import Keys
from flask_presence.backends.redis.store.store import Store
from tests.support.redis_server import RedisServer, running_redis

from .servers import SERVER_CORE

CHANNEL: Final = "presence-room"
MESSAGES: Final = 6400
MESSAGE: Final = b"x" * 150
"""About as long as a short message of a user."""


def message_cost(program: str, listeners: int, at_once: int) -> float:
    """The microseconds of CPU that Redis takes for a message that so many workers hear, with so many messages sent
    together."""
    with running_redis(program) as server, ExitStack() as stack:
        os.sched_setaffinity(server.process.pid, {SERVER_CORE})
        keys = Keys("fp")
        stack.enter_context(_listening(server, keys.topic(CHANNEL), listeners))
        client = stack.enter_context(closing(Client(parse_address(server.url))))
        admin: Any = stack.enter_context(redis.Redis(port=server.port))
        channels = Store(keys, lease=60, max_info=4096).channels("worker")

        def publish() -> Call:
            call = next(channels.publish(CHANNEL, MESSAGE, None))
            assert isinstance(call, Call)
            return call

        def send(count: int) -> Operation[None]:
            for _ in range(0, count, at_once):
                yield [publish() for _ in range(at_once)]

        client.run(send(at_once))
        before = _cpu(admin)
        client.run(send(MESSAGES))
        return (_cpu(admin) - before) / MESSAGES


@contextmanager
def _listening(server: RedisServer, topic: str, count: int) -> Iterator[None]:
    """So many connections that subscribe to `topic`, and a thread that reads from them."""
    with ExitStack() as stack, selectors.DefaultSelector() as selector:
        for _ in range(count):
            one = stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
            one.sendall(f"SUBSCRIBE {topic}\r\n".encode())
            one.recv(65536)
            selector.register(one, selectors.EVENT_READ)
        ended = threading.Event()
        reader = threading.Thread(target=_read, args=(selector, ended))
        reader.start()
        try:
            yield
        finally:
            ended.set()
            reader.join()


def _read(selector: selectors.BaseSelector, ended: threading.Event) -> None:
    while not ended.is_set():
        for key, _ in selector.select(timeout=0.1):
            key.fileobj.recv(1 << 20)  # type: ignore[union-attr]


def _cpu(admin: Any) -> float:
    used = admin.info("cpu")
    return float(used["used_cpu_user"] + used["used_cpu_sys"]) * 1e6
