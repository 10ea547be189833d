"""Chaos: several real servers on a real Redis, clients that act at random, and faults of every kind.

Rule: a client keeps its view by snapshots and events alone, none of which may be impossible. After the faults every
view is right again, as are the counts of every server and the data in Redis. Meanwhile a `Conversation` goes on.
"""

from __future__ import annotations

import itertools
import json
import os
import queue
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import redis
from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.sync.client import connect

from flask_presence.backends.redis.shards.sharding import Sharding

from .conversation import HISTORY, LISTENERS, WRITERS, Conversation
from .redis_server import RedisServer, running_redis
from .server import DEADLINE, Server, running, wait_until

CHANNELS = ["presence-a", "presence-b", "private-c"]
USERS = [f"user-{number}" for number in range(6)]
LEASE = 2.0
CALM = 2.5
"""Seconds after a fault until messages reach everybody again."""
HEALING_TIMEOUT = 25.0


class Participant:
    """A connection that replays its events, and records those that are impossible."""

    def __init__(self, server: Server, user: str, token: str) -> None:
        self.server = server
        self.user = user
        self.views: dict[str, dict[str, Any]] = {}
        self.wrong: list[str] = []
        self.events = 0
        self.heard: Counter[str] = Counter()
        self.open = True
        self._answers: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._ids = itertools.count(1)
        self._lock = threading.Lock()
        self._stack = ExitStack()
        self._socket = self._stack.enter_context(
            connect(
                f"ws://{server.host}/presence/ws?token={token}",
                open_timeout=DEADLINE,
                ping_interval=None,
                compression=None,
                max_queue=None,
            )
        )
        self.id = json.loads(self._socket.recv(DEADLINE))["clientId"]
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def request(self, type: str, **fields: Any) -> dict[str, Any] | None:
        """Send a request, and return its answer; `None` if the connection ends first."""
        with self._lock:
            request_id = next(self._ids)
            try:
                self._socket.send(json.dumps({"type": type, "requestId": request_id, **fields}))
            except ConnectionClosed:
                return None
            try:
                answer = self._answers.get(timeout=DEADLINE)
            except queue.Empty:
                self.wrong.append(f"no answer to {type} {fields}")
                return None
            if answer is not None and answer.get("requestId") != request_id:
                self.wrong.append(f"an answer to another request: {answer}")
            return answer

    def close(self) -> None:
        self._stack.close()
        self._reader.join(DEADLINE)

    def _read(self) -> None:
        try:
            while True:
                self._handle(json.loads(self._socket.recv()))
        except (ConnectionClosed, OSError):
            self.open = False
            self._answers.put(None)

    def _handle(self, frame: dict[str, Any]) -> None:
        kind, channel = frame["type"], frame.get("channel", "")
        if kind == "channel:joined":
            self.views[channel] = {member["id"]: member for member in frame.get("members", [])}
            if channel.startswith("presence-") and self.views[channel].get(self.user) != frame["me"]:
                self.wrong.append(f"a snapshot without this member: {frame}")
        elif kind == "channel:left":
            self.views.pop(channel, None)
        elif kind == "channel:updated":
            self.views[channel][self.user] = frame["member"]
        elif kind == "channel:message":
            self.heard[f"{channel} {frame['data']}"] += 1
            if channel not in self.views or self.heard[f"{channel} {frame['data']}"] > 1:
                self.wrong.append(f"a message twice, or from a channel not joined: {frame}")
        elif kind.startswith("presence:"):
            self._replay(kind, channel, frame["member"])
        if "requestId" in frame:
            self._answers.put(frame)

    def _replay(self, kind: str, channel: str, member: dict[str, Any]) -> None:
        self.events += 1
        view = self.views.get(channel)
        if view is None or (member["id"] in view) == (kind == "presence:member_joined"):
            self.wrong.append(f"{kind} of {member['id']} in {channel}, whose members are {sorted(view or ())}")
        elif kind == "presence:member_left":
            del view[member["id"]]
        if view is not None and kind != "presence:member_left":
            view[member["id"]] = member


class World:
    """The servers, the Redis, the participants, and a source of random numbers."""

    def __init__(self, seed: int, servers: list[Server], shards: dict[str, RedisServer], prefix: str) -> None:
        self.random = random.Random(seed)
        self.servers = servers
        self.shards = shards
        self._sharding = Sharding(shards)
        self.prefix = prefix
        self.participants: list[Participant] = []
        self.done: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.calm_at = 0.0
        self.log: list[str] = []
        self._numbers = itertools.count(1)
        self._tokens = {user: servers[0].token(user, name=user.title()) for user in USERS}
        self._pool = ThreadPoolExecutor(8)

    def admin(self, label: str) -> Any:
        return redis.Redis(port=self.shards[label].port, socket_timeout=5)

    def any_shard(self) -> str:
        return self.random.choice(sorted(self.shards))

    def connected(self) -> list[Participant]:
        """The participants whose connections are open; the others are removed."""
        for closed in [one for one in self.participants if not one.open]:
            self.participants.remove(closed)
            self.wrong += closed.wrong
        return self.participants

    def add(self, server: Server | None = None, user: str | None = None) -> Participant | None:
        """Connect another participant; `None` if the server refuses."""
        server, user = server or self.random.choice(self.servers), user or self.random.choice(USERS)
        try:
            one = Participant(server, user, self._tokens[user])
        except (OSError, EOFError, WebSocketException):
            self.done["connect failed"] += 1
            return None
        self.participants.append(one)
        self.done["connect"] += 1
        return one

    def act(self, count: int) -> None:
        """Send requests of random participants at the same time."""
        connected = self.connected()
        while len(connected) < 12:
            if self.add() is None:
                time.sleep(0.05)  # gunicorn replaces a worker
        chosen = [self.random.choice(connected) for _ in range(count)]
        requests = [self._plan(one) for one in chosen]
        list(self._pool.map(lambda request: request(), requests))

    def _plan(self, one: Participant) -> Callable[[], None]:
        what, channel, number = self.random.random(), self.random.choice(CHANNELS), next(self._numbers)
        if what < 0.35 or (channel not in one.views and what < 0.9):
            info = {"n": number} if self.random.random() < 0.3 else {}
            return lambda: self._record("join", one.request("join", channel=channel, userInfo=info))
        if what < 0.55:
            return lambda: self._record("leave", one.request("leave", channel=channel))
        if what < 0.7 and channel.startswith("presence-"):
            return lambda: self._record(
                "update", one.request("channel:update", channel=channel, userInfo={"n": number})
            )
        if what < 0.92:
            return lambda: self._record("message", one.request("channel:message", channel=channel, data=number))
        return partial(self._close, one)

    def _close(self, one: Participant) -> None:
        one.close()
        self._record("close", None)

    def _record(self, what: str, answer: dict[str, Any] | None) -> None:
        if answer is None:
            self.done[what if what == "close" else f"{what} unanswered"] += 1
        elif answer["type"] != "error":
            self.done[what] += 1
        else:
            self.done[f"{what} {answer['code']}"] += 1
            if what == "leave" and answer["code"] not in ("NOT_MEMBER", "NOT_FOUND", "LEAVE_FAILED"):
                self.wrong.append(f"leave failed: {answer}")
            if answer["message"] == "Internal error":
                self.wrong.append(f"an internal error: {answer}")

    def play(self, rounds: int, until: float = float("inf")) -> list[float]:
        """Play rounds of requests and faults, and check each. Return the seconds that each round needed to heal after
        its last fault. Stop early at `until`, in seconds of the monotonic clock."""
        healed: list[float] = []
        conversation = Conversation(self.random.randrange(2**32), self.servers, self._tokens)
        conversation.start()
        self.act(4)
        while len(healed) < rounds and time.monotonic() < until:
            for _ in range(self.random.randrange(1, 4)):
                for _ in range(self.random.randrange(10, 60)):
                    self.act(self.random.randrange(1, 6))
                self.fault()
            fault_over = self.calm_at - CALM
            for _ in range(self.random.randrange(20)):
                self.act(self.random.randrange(1, 6))
            self.check(others=WRITERS + LISTENERS)
            healed.append(time.monotonic() - fault_over)
        conversation.stop()
        self.check()
        self.done += conversation.counts
        wrong = list(conversation.problems())
        assert not wrong, "\n".join([f"a conversation with gaps after {self.log}:", *wrong[:20]])
        self.disconnect_all()
        return healed

    # Faults

    def kill_worker(self) -> None:
        os.kill(worker_of(self.random.choice(self.servers)), signal.SIGKILL)

    def pause_worker(self, seconds: float) -> None:
        pid = worker_of(self.random.choice(self.servers))
        os.kill(pid, signal.SIGSTOP)
        threading.Timer(seconds, os.kill, (pid, signal.SIGCONT)).start()

    def reload_worker(self) -> None:
        self.random.choice(self.servers).process.send_signal(signal.SIGHUP)

    def cut(self, *kinds: str) -> None:
        """Close the connections to Redis of these kinds, `pubsub` or `normal`."""
        admin = self.admin(self.any_shard())
        own = admin.client_id()
        for one in [one for kind in kinds for one in admin.client_list(_type=kind)]:
            if int(one["id"]) != own:
                admin.client_kill_filter(_id=one["id"])

    def flush(self) -> None:
        self.admin(self.any_shard()).flushall()

    def restart_redis(self, seconds: float) -> None:
        shard = self.shards[self.any_shard()]
        shard.stop()
        time.sleep(seconds)
        shard.start()

    def pause_redis(self, seconds: float) -> None:
        shard = self.shards[self.any_shard()]
        shard.process.send_signal(signal.SIGSTOP)
        time.sleep(seconds)
        shard.process.send_signal(signal.SIGCONT)

    def fault(self) -> str:
        """Cause a random fault, and return its name."""
        faults: dict[str, Callable[[], None]] = {
            "kill worker": self.kill_worker,
            "pause worker briefly": lambda: self.pause_worker(self.random.uniform(0.1, 0.8)),
            "pause worker past its lease": lambda: self.pause_worker(LEASE * 1.7),
            "reload worker": self.reload_worker,
            "cut pub/sub": lambda: self.cut("pubsub"),
            "cut commands": lambda: self.cut("normal"),
            "cut everything": lambda: self.cut("pubsub", "normal"),
            "flush": self.flush,
            "restart Redis": lambda: self.restart_redis(self.random.uniform(0, 1.5)),
            "pause Redis": lambda: self.pause_redis(self.random.uniform(0.2, 1.6)),
            "pause Redis past the lease": lambda: self.pause_redis(LEASE * 1.5),
        }
        name = self.random.choice(sorted(faults))
        faults[name]()
        self.calm_at = time.monotonic() + (CALM + LEASE * 1.7 if name.startswith("pause worker past") else CALM)
        self.done[f"fault: {name}"] += 1
        self.log.append(name)
        return name

    # Checks

    def check(self, others: int = 0) -> None:
        """Wait until every view, every server and Redis agree; fail with the differences. Up to so many `others` may be
        connected."""
        while time.monotonic() < self.calm_at:
            time.sleep(0.05)  # a message that is sent before this may be lost, as documented
        deadline = time.monotonic() + HEALING_TIMEOUT
        while problems := list(self._problems(others)):
            if time.monotonic() > deadline:
                raise AssertionError("\n".join([f"not healed after {self.log[-4:]}:", *problems[:20]]))
            time.sleep(0.1)
        self._check_messages()
        wrong = self.wrong + [text for one in self.connected() for text in one.wrong]
        assert not wrong, "\n".join(["impossible:", *wrong[:20]])

    def _problems(self, others: int) -> Iterator[str]:
        connected = self.connected()
        for channel in CHANNELS:
            inside = [one for one in connected if channel in one.views]
            users = {one.user for one in inside}
            try:
                entries = self._in_redis(channel)
                admin = self.admin(self._sharding.of_channel(channel))
                count = admin.hlen(f"{self.prefix}:channel:{{{channel}}}:connections")
            except redis.RedisError as problem:
                yield str(problem)
                continue
            if count != len(inside):
                yield f"{channel}: {count} connections in Redis, {len(inside)} expected"
            if channel.startswith("presence-"):
                if set(entries) != users:
                    yield f"{channel}: ghosts {set(entries) - users}, missing {users - set(entries)} in Redis"
                shapes = {json.dumps(one.views[channel], sort_keys=True) for one in inside}
                if len(shapes) > 1:
                    yield f"{channel}: the views differ: {shapes}"
                for one in inside:
                    seen = set(one.views.get(channel, ()))
                    if seen != users:
                        yield f"{channel}: {one.user} at {one.server.port} sees {sorted(seen)}, not {users}"
        stats = [server.get("/presence/stats") for server in self.servers]
        for status, _, body in stats:
            expected = range(len(connected), len(connected) + others + 1)
            if status != 200 or json.loads(body)["connections"] not in expected:
                yield f"stats: {status} {body}, {len(connected)} connections expected"

    def _in_redis(self, channel: str) -> list[str]:
        admin = self.admin(self._sharding.of_channel(channel))
        return [user.decode() for user in admin.hkeys(f"{self.prefix}:channel:{{{channel}}}:members")]

    def _check_messages(self) -> None:
        """Without a fault a message reaches everybody once, and `delivered` is right."""
        for channel in CHANNELS:
            inside = [one for one in self.connected() if channel in one.views]
            if not inside:
                continue
            sender, number = self.random.choice(inside), next(self._numbers)
            answer = sender.request("channel:message", channel=channel, data=number)
            assert answer is not None, "a connection was lost without a fault"
            assert answer["type"] == "channel:sent", f"{answer} from {sender.server.port} after {self.log[-4:]}"
            assert answer["delivered"] == len(inside) - 1, answer
            key, deadline = f"{channel} {number}", time.monotonic() + DEADLINE
            while missed := [one for one in inside if one is not sender and one.heard[key] != 1]:
                counts = [(one.user, one.server.port, one.heard[key]) for one in missed]
                text = (
                    f"a message on {channel} from {sender.server.port} did not arrive once: {counts}; {self.log[-4:]}"
                )
                assert time.monotonic() < deadline, text
                time.sleep(0.01)

    def disconnect_all(self) -> None:
        """Close every connection. Only the workers' own keys, and keys that expire, may stay in Redis."""
        for one in list(self.participants):
            one.close()
        self.connected()
        deadline = time.monotonic() + HEALING_TIMEOUT
        while left := self._left_behind():
            assert time.monotonic() < deadline, f"left behind: {left}"
            time.sleep(0.1)

    def _left_behind(self) -> list[str]:
        return [key for label in self.shards for key in self._left_in(self.admin(label))]

    def _left_in(self, admin: Any) -> list[str]:
        keys = [key.decode() for key in admin.scan_iter(f"{self.prefix}:*", count=1000)]
        return [key for key in keys if ":channel:" in key and admin.ttl(key) < 0] + [
            key for key in keys if key.endswith((":clients", ":guests"))
        ]


def worker_of(server: Server) -> int:
    """The pid of a server's one worker; waits until it has one."""
    wait_until(server.worker_pids)
    return server.worker_pids()[-1]


@contextmanager
def running_world(program: str, seed: int, servers: int = 3, shards: int = 1) -> Iterator[World]:
    """Servers on a Redis of their own, or on several that are shards. If the block fails, their logs are printed."""
    with ExitStack() as stack:
        stores = {f"shard-{number}": stack.enter_context(running_redis(program)) for number in range(shards)}
        urls = {label: store.url for label, store in stores.items()}
        prefix = f"chaos-{seed}"
        config = {
            "PRESENCE_BACKEND": urls if shards > 1 else next(iter(urls.values())),
            "PRESENCE_REDIS_PREFIX": prefix,
            "PRESENCE_LEASE": LEASE,
            "PRESENCE_GRACE": 1,
            "PRESENCE_GRACE_ABRUPT": 0 if seed % 2 else 1,
            "PRESENCE_DRAIN": 0.5,
            "PRESENCE_HISTORY": HISTORY,
        }
        started = [stack.enter_context(running(arguments=("--log-level", "warning"), **config)) for _ in range(servers)]
        yield World(seed, started, stores, prefix)
