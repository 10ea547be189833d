"""A real master, its replica and three Sentinels, on ports that were free."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final
from urllib.parse import quote

from redis import Redis
from redis.exceptions import ConnectionError as ConnectionLost
from redis.exceptions import ResponseError

from .ports import free_port
from .redis_server import RedisServer
from .server import wait_until

SERVICE = "presence"
DOWN_AFTER = 500
"""Milliseconds after which the Sentinels consider a silent master down."""

FAILOVER_DEADLINE: Final = 60.0
"""Seconds that a failover may take: the Sentinels may have to try again."""


class SentinelTrio:
    """Two servers, `servers`, of which the Sentinels make another one the master if they lose it."""

    def __init__(self, program: str, folder: Path, password: str | None, sentinel_password: str | None) -> None:
        self.password = password
        self._sentinel_password = sentinel_password
        at_once = ("--repl-diskless-sync-delay", "0")
        self.servers = [RedisServer(program, *at_once) for _ in range(2)]
        for server in self.servers:
            self._protect(server)
        with self.client(self.servers[1]) as client:
            client.replicaof("127.0.0.1", str(self.servers[0].port))
        self.ports = [free_port() for _ in range(3)]
        self._program, self._folder = program, folder
        self._sentinels = [self._start(port) for port in self.ports]
        wait_until(lambda: all(self._is_ready(port) for port in self.ports))

    @property
    def url(self) -> str:
        userinfo = f":{quote(self.password, safe='')}@" if self.password else ""
        hosts = ",".join(f"127.0.0.1:{port}" for port in self.ports)
        return f"redis+sentinel://{userinfo}{hosts}/{SERVICE}/0"

    @property
    def master_port(self) -> int:
        """The port of the master, as the first Sentinel sees it."""
        _, port = self._ask(self.ports[0], "SENTINEL GET-MASTER-ADDR-BY-NAME")
        return int(port)

    @property
    def master(self) -> RedisServer:
        port = self.master_port
        return next(server for server in self.servers if server.port == port)

    @property
    def replica(self) -> RedisServer:
        port = self.master_port
        return next(server for server in self.servers if server.port != port)

    def client(self, server: RedisServer) -> Redis:
        return Redis("127.0.0.1", server.port, password=self.password, decode_responses=True, socket_timeout=5)

    def fail_over(self) -> None:
        """Let the Sentinels make the replica the master, and wait until they have."""
        old = self.master_port

        def has_changed() -> bool:
            with suppress(ResponseError):  # a failover is under way, or the Sentinels do not trust the replica yet
                self._ask(self.ports[0], "SENTINEL FAILOVER")
            return self.master_port != old

        wait_until(has_changed, FAILOVER_DEADLINE)

    def restore(self) -> None:
        """Start the server that a test has stopped, and wait until everything is as it should be.

        The Sentinels would make it a replica too, but only after ten seconds and more.
        """
        wait_until(self._agree, FAILOVER_DEADLINE)
        master, replica = self.master, self.replica
        if replica.process.poll() is not None:
            replica.start()
            self._protect(replica)
        with self.client(replica) as client:
            client.replicaof("127.0.0.1", str(master.port))

        def has_caught_up() -> bool:
            with self.client(replica) as client:
                state = client.info("replication")
            return bool(state["role"] == "slave" and state["master_link_status"] == "up")

        wait_until(has_caught_up)
        wait_until(lambda: all(self._is_ready(port) for port in self.ports))

    def stop_sentinels(self) -> None:
        """Kill the Sentinels."""
        for sentinel in self._sentinels:
            sentinel.kill()
            sentinel.wait()

    def start_anew(self, at: int) -> None:
        """Start a Sentinel that knows only what all knew at first."""
        self._sentinels[at] = self._start(self.ports[at])

        def answers() -> bool:
            with suppress(ConnectionLost):
                return bool(self._ask(self.ports[at], "SENTINEL MASTER"))
            return False

        wait_until(answers)

    def close(self) -> None:
        self.stop_sentinels()
        for server in self.servers:
            server.close()

    def _protect(self, server: RedisServer) -> None:
        if self.password:
            with Redis("127.0.0.1", server.port) as client:
                client.config_set("masterauth", self.password)
                client.config_set("requirepass", self.password)

    def _start(self, port: int) -> subprocess.Popen[bytes]:
        path = self._folder / f"sentinel-{port}.conf"
        lines = [
            f"port {port}",
            "bind 127.0.0.1",
            f"dir {self._folder}",
            f"sentinel monitor {SERVICE} 127.0.0.1 {self.servers[0].port} 2",
            f"sentinel down-after-milliseconds {SERVICE} {DOWN_AFTER}",
            f"sentinel failover-timeout {SERVICE} 3000",
        ]
        if self.password:
            lines.append(f"sentinel auth-pass {SERVICE} {self.password}")
        if self._sentinel_password:
            lines += [f"requirepass {self._sentinel_password}", f"sentinel sentinel-pass {self._sentinel_password}"]
        path.write_text("\n".join(lines) + "\n")
        return subprocess.Popen([self._program, str(path), "--sentinel"], stdout=subprocess.DEVNULL)

    def _agree(self) -> bool:
        """Whether all Sentinels see the same master, and no failover is under way."""
        states = [self._state(port) for port in self.ports]
        return len({(state.get("port"), state.get("flags")) for state in states}) == 1 and (
            states[0].get("flags") == "master"
        )

    def _is_ready(self, port: int) -> bool:
        """Whether a Sentinel knows the replica and the other two."""
        state = self._state(port)
        return (state.get("num-slaves"), state.get("num-other-sentinels")) == ("1", "2")

    def _state(self, port: int) -> dict[str, str]:
        """What a Sentinel says about the master; nothing if it does not answer."""
        try:
            words = self._ask(port, "SENTINEL MASTER")
        except OSError:
            return {}
        except Exception as problem:
            if "onnect" in str(problem):
                return {}
            raise
        state = dict(zip(words[::2], words[1::2], strict=True)) if isinstance(words, list) else words
        return {str(key): str(value) for key, value in state.items()}

    def _ask(self, port: int, command: str) -> list[str]:
        password = self._sentinel_password
        with Redis("127.0.0.1", port, password=password, decode_responses=True, protocol=2) as sentinel:
            answer: list[str] = sentinel.execute_command(command, SERVICE)
            return answer


@contextmanager
def running_sentinels(
    program: str, *, password: str | None = None, sentinel_password: str | None = None
) -> Iterator[SentinelTrio]:
    """A service behind Sentinel for a `with` block."""
    with TemporaryDirectory() as folder:
        trio = SentinelTrio(program, Path(folder), password, sentinel_password)
        try:
            yield trio
        finally:
            trio.close()
