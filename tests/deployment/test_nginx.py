"""The deployment of `example/deploy`: browsers, nginx, two gunicorns and one Redis."""

from __future__ import annotations

import json
import re
import shutil
import signal
import ssl
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from http.client import HTTPSConnection
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from flask_presence.backends.redis.client.watch import watch
from flask_presence.backends.redis.store.keys import Keys

from ..conftest import missing, on_redis
from ..support.browser import Browser, Page, expect
from ..support.deployment import ARGUMENTS, MODULE, settings
from ..support.handshake import UPGRADE
from ..support.metrics import scrape, value
from ..support.nginx import Nginx, running_nginx
from ..support.redis_server import RedisServer
from ..support.server import DEADLINE, Server, running, wait_until
from ..support.store import Client as RedisClient

PING_INTERVAL = 0.25
NGINX_TIMEOUT = 6
"""Seconds, in place of the 25 and the 90 of a deployment. nginx cuts a connection to a gunicorn that stands still for
the second, as one may while another starts on a busy machine."""


@dataclass
class Witness:
    """Reads in Redis which users join and leave, whichever gunicorn serves them."""

    url: str
    prefix: str
    changes: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._ended = threading.Event()
        self._changes = watch(RedisClient(self.url), Keys(self.prefix), None)
        next(self._changes)  # from now on, no change is missed
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        for change in self._changes:
            if change is not None:
                self.changes.append((change[1].kind, change[1].member.id))
            if self._ended.is_set():
                return

    def close(self) -> None:
        self._ended.set()
        self._thread.join(DEADLINE)
        self._changes.close()

    def of_staying(self, kind: str) -> list[str]:
        """Who of Ann and Bob has joined or left."""
        return sorted(user for what, user in self.changes if what == kind and user in ("ann", "bob"))


@pytest.fixture(scope="module")
def nginx_program() -> str:
    found = shutil.which("nginx")
    if found is None:
        missing("nginx")
    return found or ""


@pytest.fixture(scope="module")
def config(redis_server: RedisServer) -> dict[str, Any]:
    """The settings of `app.env`, with this test's Redis, a short ping interval, and time for a busy machine."""
    shipped = settings()
    own = {
        "JWT_SECRET_KEY": "shared by all workers and hosts",
        "PRESENCE_STATS_PUBLIC": True,
        "PRESENCE_PING_INTERVAL": PING_INTERVAL,
        "PRESENCE_GRACE": 40,
        "PRESENCE_GRACE_ABRUPT": 5 * shipped["PRESENCE_GRACE_ABRUPT"],
    }
    return shipped | own | on_redis(redis_server)


@pytest.fixture(scope="module")
def hosts(config: dict[str, Any]) -> Iterator[list[Server]]:
    """Two gunicorns, started as the systemd unit starts them."""
    with ExitStack() as stack:
        yield [
            stack.enter_context(running(app=MODULE, kind="gunicorn-gevent", arguments=ARGUMENTS, **config))
            for _ in range(2)
        ]


@pytest.fixture(scope="module")
def nginx(nginx_program: str, hosts: list[Server]) -> Iterator[Nginx]:
    timeout = {"_timeout 90s;": f"_timeout {NGINX_TIMEOUT}s;"}
    with running_nginx(nginx_program, [host.port for host in hosts], replacements=timeout) as running_server:
        yield running_server


@pytest.fixture(scope="module")
def witness(redis_server: RedisServer, config: dict[str, Any]) -> Iterator[Witness]:
    reader = Witness(redis_server.url, config["PRESENCE_REDIS_PREFIX"])
    yield reader
    reader.close()


@pytest.fixture(scope="module")
def requests() -> list[Any]:
    """Every message that a browser has sent to a gunicorn."""
    return []


@pytest.fixture(scope="module")
def pages(browser: Browser, nginx: Nginx, witness: Witness, requests: list[Any]) -> Iterator[list[Page]]:
    """The windows of Ann and Bob, in the same room during all tests. Both leave at the end, which the witness sees."""
    opened = [enter(browser, nginx, name, requests) for name in ("Ann", "Bob")]
    yield opened
    for page in opened:
        page.context.close()
    wait_until(lambda: witness.of_staying("left") == ["ann", "bob"])


def enter(browser: Browser, nginx: Nginx, name: str, requests: list[Any]) -> Page:
    page = browser.new_context().new_page()
    page.on("websocket", lambda socket: socket.on("framesent", lambda frame: requests.append(frame)))
    page.goto(nginx.origin)
    page.get_by_role("button", name=name).click()
    return page


def client_ids(pages: list[Page]) -> list[str]:
    return [page.evaluate("presence.clientId") for page in pages]


def check_that_they_talk(pages: list[Page], witness: Witness) -> None:
    """A message gets from Ann to Bob, and nobody was announced as left since they came."""
    ann, bob = pages
    for page in pages:
        expect(page.locator("#state")).to_have_text("", timeout=1000 * DEADLINE)
        expect(page.locator("#members li")).to_have_count(2)
        page.evaluate("room.joined")
    number = bob.locator("#log .message").count()
    ann.evaluate("room.send('message', {text: 'Hello'})")
    expect(bob.locator("#log .message")).to_have_count(number + 1)
    assert witness.of_staying("left") == []
    assert witness.of_staying("joined") == ["ann", "bob"]


def login(host: Server) -> str:
    """A token of the example."""
    with urllib.request.urlopen(f"{host.origin}/login", b"user=carol", timeout=DEADLINE) as response:
        return str(json.load(response)["access_token"])


def test_pings_keep_idle_browsers_connected(
    pages: list[Page], hosts: list[Server], witness: Witness, requests: list[Any]
) -> None:
    """Pings and their answers are all that passes nginx for longer than its timeout."""
    check_that_they_talk(pages, witness)
    ids, sent = client_ids(pages), len(requests)
    wait_until(lambda: value(scrape(hosts[0]), "messages_received_total") == sent)  # the hosts share what they count
    before = value(scrape(hosts[0]), "received_bytes_total")
    shortest = PING_INTERVAL / 2  # between two pings to a connection, by the granularity of the server's clock
    pongs = 6 * len(pages) * (NGINX_TIMEOUT / shortest + 1)  # in bytes

    wait_until(lambda: value(scrape(hosts[0]), "received_bytes_total") >= before + pongs)
    assert client_ids(pages) == ids
    assert len(requests) == sent
    check_that_they_talk(pages, witness)


def test_a_reload_of_nginx_keeps_every_connection(pages: list[Page], nginx: Nginx, witness: Witness) -> None:
    check_that_they_talk(pages, witness)
    ids = client_ids(pages)
    nginx.reload()
    assert client_ids(pages) == ids
    check_that_they_talk(pages, witness)
    assert client_ids(pages) == ids


def test_nobody_sees_a_user_leave_when_nginx_restarts(pages: list[Page], nginx: Nginx, witness: Witness) -> None:
    """All connections are cut, and the browsers are back within `PRESENCE_GRACE_ABRUPT`."""
    check_that_they_talk(pages, witness)
    ids = client_ids(pages)
    nginx.stop()
    for page in pages:
        expect(page.locator("#state")).not_to_have_text("")
    nginx.start()
    check_that_they_talk(pages, witness)
    assert set(client_ids(pages)).isdisjoint(ids)


def test_nobody_sees_a_user_leave_when_a_gunicorn_reloads(
    pages: list[Page], hosts: list[Server], nginx: Nginx, witness: Witness
) -> None:
    """Each browser hears 1001 when the gunicorn that it is connected to reloads. Both reload once more if a connection
    was cut before that, as a busy machine may do."""
    check_that_they_talk(pages, witness)
    for page in pages:
        page.evaluate("window.codes = []; presence.on('state', (state, {code}) => code && codes.push(code))")
    for host in [*hosts, *hosts]:
        if all(1001 in page.evaluate("codes") for page in pages):
            break
        old = set(host.worker_pids())
        host.process.send_signal(signal.SIGHUP)
        wait_until(lambda: not old & set(host.worker_pids()))  # noqa: B023
        check_that_they_talk(pages, witness)
    for page in pages:
        assert 1001 in page.evaluate("codes"), "\n".join([nginx.log("error.log"), *(host.log() for host in hosts)])


def test_nobody_sees_a_user_leave_when_a_gunicorn_restarts(
    pages: list[Page], hosts: list[Server], witness: Witness
) -> None:
    """Its port is closed meanwhile, and nginx sends everything to the other one."""
    for host in hosts:
        check_that_they_talk(pages, witness)
        host.stop()
        check_that_they_talk(pages, witness)
        host.start()
        host.wait_until_ready()
    check_that_they_talk(pages, witness)


def wait_for_line(line: str, hosts: list[Server], nginx: Nginx, *, of_hosts: bool = True) -> list[str]:
    """Wait until the access logs have a line of this form, and return them: that of nginx, and those of the hosts, in
    which all else that gunicorn and the app print is too."""
    logs: list[str] = []

    def is_logged() -> bool:
        logs[:] = [nginx.log("access.log"), *(host.log() for host in hosts)]
        return bool(re.search(line, logs[0]) and (not of_hosts or re.search(line, "".join(logs[1:]))))

    wait_until(is_logged)
    return logs


def test_no_log_contains_the_token_of_a_browser(
    browser: Browser, pages: list[Page], hosts: list[Server], nginx: Nginx, witness: Witness, requests: list[Any]
) -> None:
    """`presence.js` sends it as a subprotocol. nginx logs a connection when it has ended."""
    check_that_they_talk(pages, witness)
    carol = enter(browser, nginx, "Carol", requests)
    expect(carol.locator("#members li")).to_have_count(3)
    tokens = [page.evaluate("token") for page in (carol, *pages)]
    carol.context.close()
    wait_for_line(r'"POST /login HTTP/1.1" 200 ', hosts, nginx)
    logs = wait_for_line(r'"GET /presence/ws HTTP/1.1" 101 .* "Mozilla', hosts, nginx, of_hosts=False)
    for log in (*logs, nginx.log("error.log")):
        assert not [token for token in tokens if token in log]
        assert "eyJ" not in log  # what every token begins with


@pytest.mark.parametrize(("token", "status"), [("valid", 101), ("eyJ.forged.token", 401)])
def test_access_logs_have_no_query(hosts: list[Server], nginx: Nginx, token: str, status: int) -> None:
    """A client that sends its token as `?token=` leaves no trace of it either, whether it is let in or not."""
    query = f"?token={login(hosts[0]) if token == 'valid' else token}"
    headers = {"User-Agent": f"try-{status}"}
    request = urllib.request.Request(f"{nginx.origin}/presence/health{query}", headers=headers)
    with urllib.request.urlopen(request, timeout=DEADLINE) as response:
        assert response.status == 200
    url = f"ws://127.0.0.1:{nginx.port}/presence/ws{query}"
    options: dict[str, Any] = {"additional_headers": headers, "user_agent_header": None, "open_timeout": DEADLINE}
    if status == 101:
        with connect(url, **options):
            pass
    else:
        with (
            pytest.raises(InvalidStatus),
            connect(url, subprotocols=[Subprotocol("bearer"), Subprotocol(token)], **options),
        ):
            pass
    wait_for_line(rf'"GET /presence/health HTTP/1.1" 200 .*"try-{status}"', hosts, nginx)
    of_hosts = status != 101  # gunicorn logs no request whose socket the extension has taken over
    logs = wait_for_line(rf'"GET /presence/ws HTTP/1.1" {status} .*"try-{status}"', hosts, nginx, of_hosts=of_hosts)
    for log in logs:
        assert "eyJ" not in log
        assert "token=" not in log


def test_a_client_cannot_forge_lines_of_the_access_logs(hosts: list[Server], nginx: Nginx) -> None:
    with pytest.raises(urllib.error.HTTPError) as refusal:
        urllib.request.urlopen(f"{nginx.origin}/a%0Aforged%22line?secret", timeout=DEADLINE)
    refusal.value.close()
    wait_for_line('"GET /a%0Aforged%22line HTTP/1.1" 404 ', hosts, nginx)


def test_scripts_and_styles_are_compressed_and_revalidated(nginx: Nginx) -> None:
    """`presence.js` comes from the app, and `/static/` from the folder of nginx if it has the file."""
    for path in ("/presence/presence.js", "/static/room.js", "/static/room.css"):
        request = urllib.request.Request(nginx.origin + path, headers={"Accept-Encoding": "gzip"})
        with urllib.request.urlopen(request, timeout=DEADLINE) as response:
            assert response.headers["Content-Encoding"] == "gzip", path
            request.add_header("If-None-Match", response.headers["ETag"])
        with pytest.raises(urllib.error.HTTPError) as answer:
            urllib.request.urlopen(request, timeout=DEADLINE)
        answer.value.close()
        assert answer.value.code == 304, path


def test_a_full_gunicorn_passes_connections_on_and_tls_works(
    nginx_program: str, hosts: list[Server], config: dict[str, Any], tmp_path: Path
) -> None:
    """nginx tries the next gunicorn. Behind TLS the app knows its public scheme, by which it checks a page's origin."""
    certificate, key = tmp_path / "fullchain.pem", tmp_path / "privkey.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-out", str(certificate), "-keyout", str(key)]
    subprocess.run(command, check=True, capture_output=True)
    with ExitStack() as stack:
        options = config | {"PRESENCE_MAX_CONNECTIONS": 1}
        arguments = (*ARGUMENTS, "--forwarded-allow-ips", "192.0.2.1")  # as if nginx were another machine
        small = stack.enter_context(running(app=MODULE, kind="gunicorn-gevent", arguments=arguments, **options))
        nginx = stack.enter_context(
            running_nginx(
                nginx_program,
                [small.port, hosts[0].port],
                site="site-https.conf",
                replacements={"/etc/ssl/example.com": str(tmp_path)},
            )
        )
        origin = f"https://127.0.0.1:{nginx.port}"
        context = ssl.create_default_context(cafile=str(certificate))
        assert [open_over_tls(stack, nginx, context, origin) for _ in range(4)] == [101] * 4
        assert open_over_tls(stack, nginx, context, origin.replace("https", "http")) == 403


def open_over_tls(stack: ExitStack, nginx: Nginx, context: ssl.SSLContext, origin: str) -> int:
    """The status of a handshake on a connection that stays open. It is read and written in one thread, unlike those of
    the package websockets, because Python's TLS hangs now and then if two threads share a connection."""
    connection = HTTPSConnection("127.0.0.1", nginx.port, timeout=DEADLINE, context=context)
    stack.enter_context(closing(connection))
    connection.request("GET", "/presence/ws", headers=UPGRADE | {"Origin": origin})
    return connection.getresponse().status
