"""Origins: a page may connect if its origin is the server's own or allowed by the setting."""

from __future__ import annotations

import re
import socket

import pytest
from flask import Flask

from flask_presence import ConfigurationError, Presence
from flask_presence.domain.origins import check_allowed, is_allowed

from ..conftest import Connect
from ..support.client import client
from ..support.handshake import refusal
from ..support.raw import upgrade_request
from ..support.server import Server, running


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("https://example.com", True),
        ("HTTPS://EXAMPLE.com", True),
        ("https://example.com:443", True),
        ("https://example.com:8443", False),
        ("http://example.com", False),
        ("https://evil-example.com", False),
        ("https://example.com.evil.com", False),
        ("https://sub.example.com", False),
        ("https://xn--exmple-cua.com", False),
        ("https://example.com/", False),
        ("https://example.com\n", False),
        ("https://example.com https://example.com", False),
        ("https://a@example.com", False),
        ("https://*.partner.org", False),
        ("https://a.partner.org", True),
        ("https://a.b.partner.org", True),
        ("https://partner.org", False),
        ("https://.partner.org", False),
        ("https://evilpartner.org", False),
        ("http://localhost:5000", True),
        ("http://localhost:5001", False),
        ("http://[::1]:80", False),
        ("null", False),
        ("", False),
        ("file://", False),
        ("https://", False),
    ],
)
def test_scheme_host_and_port_are_compared_as_a_whole(origin: str, allowed: bool) -> None:
    setting = ("https://*.partner.org", "http://localhost:5000")
    assert is_allowed(origin, "https", "example.com", setting) == allowed


APPS = [
    *("capacitor://localhost", "ionic://localhost", "tauri://localhost", "app://x", "http://tauri.localhost"),
    *("chrome-extension://abcdefghijklmnopabcdefghijklmnop", "moz-extension://1b2c-3d", "capacitor://localhost:8100"),
]


@pytest.mark.parametrize("origin", APPS)
def test_the_origin_of_an_app_shell_or_extension_is_compared_as_a_whole(origin: str) -> None:
    check_allowed(origin)
    assert is_allowed(origin, "https", "example.com", (origin,))
    assert is_allowed(origin.upper(), "https", "example.com", (origin,))
    for other in (f"{origin}x", f"x{origin}", f"{origin}:81", "https://localhost", "null"):
        assert not is_allowed(other, "https", "example.com", (origin,))
    assert not is_allowed(origin, "https", "example.com", ())


@pytest.mark.parametrize("origin", ["null", "file://"])
def test_a_page_without_an_origin_is_allowed_only_by_name(origin: str) -> None:
    assert is_allowed(origin, "https", "example.com", (origin,))
    assert not is_allowed("https://evil.example", "https", "example.com", (origin,))
    assert not is_allowed(origin, "https", "example.com", ("https://example.com",))


@pytest.mark.parametrize("entry", ["*", "null", "file://"])
def test_an_entry_that_allows_any_page_is_refused_if_cookies_log_in(entry: str) -> None:
    presence = Presence()
    presence.user_loader(lambda: None)
    app = Flask("origins")
    app.config["PRESENCE_ALLOWED_ORIGINS"] = ["https://example.com", entry]
    with pytest.raises(ConfigurationError, match=re.escape(repr(entry))):
        presence.init_app(app)


@pytest.mark.parametrize(
    "entry", ["example.com", "://x", "1x://y", "https://", "capacitor://", "app://x/y", "NULL", ""]
)
def test_an_entry_that_is_not_an_origin_raises_value_error(entry: str) -> None:
    with pytest.raises(ValueError, match="is not an origin"):
        check_allowed(entry)


def test_an_ipv6_host_is_its_own_origin() -> None:
    assert is_allowed("http://[::1]:5000", "http", "[::1]:5000", ())


def test_a_star_allows_any_origin() -> None:
    assert is_allowed("https://anywhere.example", "https", "example.com", ("*",))


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "http://evil.example",
        "http://evil-127.0.0.1",
        "http://127.0.0.1.evil.example",
        "http://127.0.0.1:1",
        "http://127.0.0.1",
        "https://{host}",
        "http://{host}.evil.example",
        "http://{host}/path",
        "http://user@{host}",
        "http://{host},http://evil.example",
        "",
    ],
)
def test_a_foreign_origin_is_refused_with_403(server: Server, origin: str) -> None:
    headers = {"Origin": origin.format(host=server.host)}
    assert refusal(server, headers=headers) == (403, "Origin not allowed")


def test_the_log_names_the_refused_origin_and_the_setting(server: Server, name: str) -> None:
    assert refusal(server, headers={"Origin": f"http://{name}.example"})[0] == 403
    line = next(line for line in server.log().splitlines() if f"{name}.example" in line)
    assert "PRESENCE_ALLOWED_ORIGINS" in line


def test_the_apps_own_origin_and_those_of_the_setting_may_connect(connect: Connect, server: Server) -> None:
    assert connect(headers={"Origin": server.origin.upper()}).connected["type"] == "connected"
    allowed = ["https://app.example.com", "https://*.example.org"]
    with running(PRESENCE_ALLOWED_ORIGINS=allowed) as own:
        for origin in ("https://app.example.com", "https://APP.example.com:443", "https://a.b.example.org"):
            with client(own, headers={"Origin": origin}):
                pass
        for origin in (
            "http://app.example.com",
            "https://example.org",
            "https://xexample.org",
            "https://a.example.com",
        ):
            assert refusal(own, headers={"Origin": origin})[0] == 403


def test_forwarded_headers_do_not_change_the_apps_own_origin(server: Server) -> None:
    """They count only if the app uses ProxyFix."""
    headers = {"Origin": "https://evil.example", "X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "https"}
    assert refusal(server, headers=headers)[0] == 403


def test_two_origin_headers_are_refused(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as raw:
        origins = f"\r\nOrigin: {server.origin}\r\nOrigin: http://evil.example\r\n\r\n"
        raw.sendall(upgrade_request(server.port).replace(b"\r\n\r\n", origins.encode()))
        assert raw.recv(4096).split()[1] in (b"400", b"403")
