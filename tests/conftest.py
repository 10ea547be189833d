"""Fixtures. A test that needs a program which this machine lacks is skipped with the reason; in CI it fails."""

from __future__ import annotations

import itertools
import os
import secrets
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest
from hypothesis import HealthCheck, settings

from .support import cluster
from .support.client import Client, client
from .support.cluster import Cluster, running_cluster
from .support.redis_server import RedisServer, find, running_redis
from .support.server import Server, running
from .support.store import Client as RedisClient

if TYPE_CHECKING:
    from .support.browser import Browser

CHROMIUM = ["chromium-headless-shell", "chromium", "google-chrome"]
"""Names of the browser's program. The first, which has no windows, needs the least time."""

# Every server and every worker of pytest imports the same modules, which take long to compile.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

BACKENDS = os.environ.get("TEST_BACKENDS", "memory,redis,sharded").split(",")
"""What the shared server runs on, one after the other; `cluster` is another choice."""

_names = itertools.count(1)

settings.register_profile("shared machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared machine")


LONGEST = [
    "stats/test_stats_page.py",
    "redis/test_several_workers.py",
    "client/test_presence_js.py",
    "deployment/test_shutdown.py",
    "redis/test_chaos.py",
    "redis/test_shards.py",
    "redis/test_cluster.py",
    "deployment/test_nginx.py",
    "redis/test_sentinel.py",
    "guards_and_logins/test_tokens.py",
    "server_api/test_types.py",
    "repository/test_packaging.py",
    "guides/test_tutorial.py",
    "redis/test_state_machine.py",
    "stats/test_watch_stream.py",
    "pusher/test_webhooks.py",
    "client/test_frontends.py",
    "transport/test_autobahn.py",
    "deployment/test_wsgi_servers.py",
    "stats/test_counts_across_workers.py",
    "redis/test_redis_outage.py",
    "client/test_example_app.py",
    "server_api/test_cli.py",
    "deployment/test_health.py",
    "guards_and_logins/test_guards.py",
    "pusher/test_connecting.py",
    "pusher/test_real_clients.py",
    "client/test_missed_messages.py",
    "redis/test_control_messages.py",
    "repository/test_documents.py",
    "pusher/test_http_api.py",
    "pusher/test_values.py",
    "deployment/test_surrounding_app.py",
    "membership/test_state_machine.py",
    "history/test_recovery.py",
    "transport/test_limits_and_slow_clients.py",
    "transport/test_idle_memory.py",
    "deployment/test_redis_deployment.py",
    "guards_and_logins/test_permission_races.py",
    "hostile/test_hostile_content.py",
    "hostile/test_hostile_clients.py",
    "transport/test_handshake.py",
    "redis/test_shared_redis.py",
    "guards_and_logins/test_user_loaders.py",
    "stats/test_metrics.py",
    "guides/test_recipes.py",
    "redis/test_redis_connections.py",
    "redis/test_channel_operations.py",
    "redis/test_long_lists.py",
    "hostile/test_fuzz.py",
    "hostile/test_pusher_fuzz.py",
    "guides/test_logins.py",
]
"""The files that take longest, which start first, so that no worker runs one of them while the others have ended."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first."""
    order = {Path(__file__).parent / name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path, len(order)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Four workers for each core, because the tests mostly wait; but not more than memory has room for."""
    return min(4 * (os.cpu_count() or 1), 16)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object:
    """Run the tests of a file in one worker, because they share servers."""
    from xdist.scheduler import LoadFileScheduling

    config.option.loadscopereorder = False
    return LoadFileScheduling(config, log)


class Share(Protocol):
    """Returns a server, which is the same one for equal options."""

    def __call__(self, **options: Any) -> Server: ...


class Connect(Protocol):
    """Opens a connection that ends with the test."""

    def __call__(self, user: str | None = None, **options: Any) -> Client: ...


KeptFolder = Callable[[str], Path]
"""Returns a folder in pytest's cache, whose content later runs find again."""


@pytest.fixture(scope="session")
def kept_folder(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> KeptFolder:
    """Folders for what takes longer to make than to use."""
    cache: pytest.Cache | None = getattr(pytestconfig, "cache", None)
    return cache.mkdir if cache is not None else tmp_path_factory.mktemp


@pytest.fixture(scope="session")
def program() -> str:
    """The path of a Redis server's program."""
    found = find()
    if found is None:
        missing("A Redis server")
        raise AssertionError
    return found


@pytest.fixture(scope="session")
def redis_server(program: str) -> Iterator[RedisServer]:
    """A Redis for all tests that neither stop nor empty it."""
    with running_redis(program) as server:
        yield server


@pytest.fixture(scope="session")
def redis_shards(program: str, redis_server: RedisServer) -> Iterator[dict[str, RedisServer]]:
    """Three of these, by label."""
    with running_redis(program) as second, running_redis(program) as third:
        yield {"a": redis_server, "b": second, "c": third}


@pytest.fixture(scope="session")
def cluster_program(program: str) -> str:
    """The path of a Redis server's program that can make a cluster."""
    if (reason := cluster.missing(program)) is not None:
        missing(reason)
    return program


@pytest.fixture(scope="session")
def redis_cluster(cluster_program: str) -> Iterator[Cluster]:
    """A cluster for all tests that do it no harm."""
    with running_cluster(cluster_program) as whole:
        yield whole


@pytest.fixture(scope="session")
def redis_client(redis_server: RedisServer) -> Iterator[RedisClient]:
    """A client of the shared Redis."""
    redis_client = RedisClient(redis_server.url)
    yield redis_client
    redis_client.close()


@pytest.fixture
def prefix() -> str:
    """A prefix for names in Redis that no other test uses."""
    return f"test-{secrets.token_hex(8)}"


def on_redis(server: RedisServer) -> dict[str, Any]:
    """Settings for a service that no other test uses."""
    return {"PRESENCE_BACKEND": server.url, "PRESENCE_REDIS_PREFIX": f"test-{secrets.token_hex(8)}"}


def on_shards(servers: dict[str, RedisServer]) -> dict[str, Any]:
    """The same, for a service with shards."""
    return on_redis(servers["a"]) | {"PRESENCE_BACKEND": {label: server.url for label, server in servers.items()}}


def on_cluster(whole: Cluster) -> dict[str, Any]:
    """The same, for a service on a cluster: with few shards, of which some share a master."""
    return on_redis(whole.nodes[0]) | {"PRESENCE_BACKEND": f"{whole.url}?shards=4"}


def either_backend(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Settings for the fixture's parameter, `memory`, `redis` or `sharded`."""
    if request.param == "sharded":
        return on_shards(request.getfixturevalue("redis_shards"))
    return on_redis(request.getfixturevalue("redis_server")) if request.param == "redis" else {}


@contextmanager
def sharing_servers() -> Iterator[Share]:
    """Servers that run until the end of a `with` block."""
    servers: dict[str, Server] = {}
    with ExitStack() as stack:

        def share(**options: Any) -> Server:
            key = repr(sorted(options.items()))
            if key not in servers:
                servers[key] = stack.enter_context(running(**options))
            return servers[key]

        yield share


@pytest.fixture(scope="session")
def shared_by_all() -> Iterator[Share]:
    """Servers that the tests of all files share."""
    with sharing_servers() as share:
        yield share


@pytest.fixture(scope="module")
def shared() -> Iterator[Share]:
    """Servers that the tests of a file share, because starting one is most of the work of a short test."""
    with sharing_servers() as share:
        yield share


@pytest.fixture(scope="session")
def shared_service(redis_server: RedisServer) -> dict[str, Any]:
    """Settings for the service on Redis that the tests of all files share."""
    return on_redis(redis_server)


@pytest.fixture(scope="session")
def shared_sharded_service(redis_shards: dict[str, RedisServer]) -> dict[str, Any]:
    """The same, with shards."""
    return on_shards(redis_shards)


@pytest.fixture(scope="session")
def shared_clustered_service(redis_cluster: Cluster) -> dict[str, Any]:
    """The same, on a cluster."""
    return on_cluster(redis_cluster)


@pytest.fixture(scope="session", params=BACKENDS)
def server(request: pytest.FixtureRequest, shared_by_all: Share) -> Server:
    """A server that tests share, once with each backend: `gunicorn -k gevent`."""
    history = {"kept-*": (20, 60), "long-*": (1000, 60)}
    services = {
        "redis": "shared_service",
        "sharded": "shared_sharded_service",
        "cluster": "shared_clustered_service",
    }
    backend = request.getfixturevalue(services[request.param]) if request.param in services else {}
    return shared_by_all(PRESENCE_HISTORY=history, **backend)


@pytest.fixture
def connect(server: Server) -> Iterator[Connect]:
    """Connections to the shared server."""
    with ExitStack() as stack:
        yield lambda user=None, **options: stack.enter_context(client(server, user, **options))


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A Chromium without a window."""
    from .support.browser import Error, sync_playwright

    with sync_playwright() as playwright:
        try:
            chromium = playwright.chromium.launch(
                executable_path=next(filter(None, map(shutil.which, CHROMIUM)), None),
                args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
            )
        except Error:
            missing("Chromium")
            raise
        yield chromium
        chromium.close()


@pytest.fixture
def name() -> str:
    """A word that no other test uses, for channels and users."""
    return f"{os.getpid()}-{next(_names)}"


def missing(what: str) -> None:
    """Skip the test because `what` is missing; in CI, fail."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{what} is missing, and CI must have it")
    pytest.skip(f"{what} is missing on this machine")
