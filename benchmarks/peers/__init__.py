"""The servers of the comparison: how to install, start and address each.

Rule: every peer has an environment of its own below `benchmarks/.peers/`; nothing is installed anywhere else.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

HERE: Final = Path(__file__).parent
BENCHMARKS: Final = HERE.parent
ENVIRONMENTS: Final = BENCHMARKS / ".peers"

GUNICORN: Final = (
    *("-m", "gunicorn", "--bind", "127.0.0.1:{port}"),
    *("--worker-connections", "20000", "--no-control-socket"),
)

Dialect = Literal["presence", "socketio"]


@dataclass(frozen=True, slots=True)
class Peer:
    """A server of the comparison.

    `command` starts it in `directory`, and `{port}` in it stands for the port. `install` makes its environment. A peer
    that `has_presence` verifies tokens and keeps a roster.
    """

    name: str
    title: str
    command: Sequence[str]
    directory: Path
    install: Callable[[Path], None]
    path: str = "/ws"
    dialect: Dialect = "presence"
    has_presence: bool = False
    answers_http: bool = True

    @property
    def environment(self) -> Path:
        return ENVIRONMENTS / self.name

    @property
    def installed(self) -> bool:
        return (self.environment / "installed").exists()


def install_peer(peer: Peer) -> None:
    """Make the peer's environment anew. Raises `CalledProcessError` if that fails."""
    shutil.rmtree(peer.environment, ignore_errors=True)
    peer.environment.mkdir(parents=True)
    peer.install(peer.environment)
    (peer.environment / "installed").touch()


def python_of(environment: Path) -> str:
    """The interpreter of a virtual environment."""
    return str(environment / "bin" / "python")


def _pip(*packages: str) -> Callable[[Path], None]:
    def install(environment: Path) -> None:
        subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
        subprocess.run([python_of(environment), "-m", "pip", "install", "--quiet", *packages], check=True)

    return install


def _npm(versions: dict[str, str]) -> Callable[[Path], None]:
    manifest = {"private": True, "dependencies": versions}

    def install(environment: Path) -> None:
        (environment / "package.json").write_text(json.dumps(manifest))
        command = ["npm", "install", "--ignore-scripts", "--legacy-peer-deps", "--no-audit", "--no-fund"]
        subprocess.run(command, cwd=environment, check=True)

    return install


def _s3db(environment: Path) -> None:
    """Install the published package with only the dependencies that its plugin needs."""
    _npm({"ws": "8.23.0", "jose": "6.2.17", "pino": "10.2.1", "pino-pretty": "13.1.3"})(environment)
    packed = ["npm", "pack", "--silent", "s3db.js@19.5.10"]
    archive = subprocess.run(packed, cwd=environment, check=True, capture_output=True, text=True).stdout.split()[-1]
    package = environment / "node_modules" / "s3db.js"
    package.mkdir()
    extract = ["tar", "-xzf", archive, "-C", str(package), "--strip-components", "1"]
    subprocess.run(extract, cwd=environment, check=True)
    (environment / archive).unlink()


def compile_c(source: Path, program: Path) -> None:
    """Compile one C file. Raises `CalledProcessError` if that fails."""
    command = ["cc", "-O2", "-Wall", "-Wextra", "-o", str(program), str(source)]
    subprocess.run(command, check=True)


def _bare(environment: Path) -> None:
    compile_c(HERE / "bare.c", environment / "bare")


OURS: Final = Peer(
    name="flask_presence",
    title="flask_presence",
    command=(sys.executable, *GUNICORN, "-k", "gevent", "benchmarks.server:create_app()"),
    directory=BENCHMARKS.parent,
    install=lambda _environment: None,
    path="/presence/ws",
    has_presence=True,
)

BARE: Final = Peer(
    name="bare",
    title="bare epoll loop in C",
    command=(str(ENVIRONMENTS / "bare" / "bare"), "{port}"),
    directory=HERE,
    install=_bare,
    answers_http=False,
)

NODE_WS: Final = Peer(
    name="node-ws",
    title="Node ws",
    command=("node", str(HERE / "node_ws.cjs"), "{port}"),
    directory=ENVIRONMENTS / "node-ws",
    install=_npm({"ws": "8.23.0"}),
)

UWS: Final = Peer(
    name="uws",
    title="uWebSockets.js",
    command=("node", str(HERE / "uws.cjs"), "{port}"),
    directory=ENVIRONMENTS / "uws",
    install=_npm({"uWebSockets.js": "npm:@trufflesuite/uws-js-unofficial@20.30.0-unofficial.0"}),
    answers_http=False,  # not HTTP/1.0
)

NODE_WS_REDIS: Final = Peer(
    name="node-ws-redis",
    title="Node ws, ioredis",
    command=("node", str(HERE / "node_ws_redis.cjs"), "{port}"),
    directory=ENVIRONMENTS / "node-ws-redis",
    install=_npm({"ws": "8.23.0", "ioredis": "6.0.0"}),
)

NODE_SOCKETIO_REDIS: Final = Peer(
    name="node-socketio-redis",
    title="Socket.IO, Redis adapter",
    command=("node", str(HERE / "node_socketio_redis.cjs"), "{port}"),
    directory=ENVIRONMENTS / "node-socketio-redis",
    install=_npm({"socket.io": "4.8.4", "@socket.io/redis-adapter": "8.3.0", "ioredis": "6.0.0"}),
    path="/socket.io/?EIO=4&transport=websocket",
    dialect="socketio",
)

S3DB: Final = Peer(
    name="s3db",
    title="s3db.js WebSocket plugin",
    command=("node", str(HERE / "s3db.mjs"), "{port}"),
    directory=ENVIRONMENTS / "s3db",
    install=_s3db,
    has_presence=True,
)

FLASK_SOCKETIO: Final = Peer(
    name="flask-socketio",
    title="Flask-SocketIO",
    command=(
        python_of(ENVIRONMENTS / "flask-socketio"),
        *GUNICORN,
        "-k",
        "geventwebsocket.gunicorn.workers.GeventWebSocketWorker",
        "flask_socketio_app:app",
    ),
    directory=HERE,
    install=_pip(
        "flask-socketio==5.7.0", "gunicorn[gevent]", "gevent-websocket==0.10.1", "wsaccel==0.6.7", "redis==8.1.0"
    ),
    path="/socket.io/?EIO=4&transport=websocket",
    dialect="socketio",
)

FLASK_SOCK: Final = Peer(
    name="flask-sock",
    title="flask-sock",
    command=(python_of(ENVIRONMENTS / "flask-sock"), *GUNICORN, "-k", "gevent", "flask_sock_app:app"),
    directory=HERE,
    install=_pip("flask-sock==0.7.0", "gunicorn[gevent]"),
)

PEERS: Final = {peer.name: peer for peer in (BARE, UWS, NODE_WS, S3DB, FLASK_SOCKETIO, FLASK_SOCK)}
"""Compared as single servers."""

REDIS_PEERS: Final = {peer.name: peer for peer in (NODE_WS_REDIS, NODE_SOCKETIO_REDIS, FLASK_SOCKETIO)}
"""Compared as several servers that share the Redis in the environment variable `BENCHMARK_REDIS`."""
