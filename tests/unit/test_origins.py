"""Origins: the very same one, and what the setting allows."""

from __future__ import annotations

import re

import pytest
from flask import Flask

from flask_presence import ConfigurationError, Presence
from flask_presence.domain.origins import check_allowed, is_allowed


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
def test_origin(origin: str, allowed: bool) -> None:
    """Scheme, host and port are compared whole."""
    setting = ("https://*.partner.org", "http://localhost:5000")
    assert is_allowed(origin, "https", "example.com", setting) == allowed


APPS = [
    *("capacitor://localhost", "ionic://localhost", "tauri://localhost", "app://x", "http://tauri.localhost"),
    *("chrome-extension://abcdefghijklmnopabcdefghijklmnop", "moz-extension://1b2c-3d", "capacitor://localhost:8100"),
]


@pytest.mark.parametrize("origin", APPS)
def test_origins_of_apps(origin: str) -> None:
    """What shells and extensions send is taken as it is written, and compared whole."""
    check_allowed(origin)
    assert is_allowed(origin, "https", "example.com", (origin,))
    assert is_allowed(origin.upper(), "https", "example.com", (origin,))
    for other in (f"{origin}x", f"x{origin}", f"{origin}:81", "https://localhost", "null"):
        assert not is_allowed(other, "https", "example.com", (origin,))
    assert not is_allowed(origin, "https", "example.com", ())


@pytest.mark.parametrize("origin", ["null", "file://"])
def test_pages_without_an_origin(origin: str) -> None:
    """They may be named, and nothing else stands for them."""
    assert is_allowed(origin, "https", "example.com", (origin,))
    assert not is_allowed("https://evil.example", "https", "example.com", (origin,))
    assert not is_allowed(origin, "https", "example.com", ("https://example.com",))


@pytest.mark.parametrize("entry", ["*", "null", "file://"])
def test_open_to_all_with_cookies(entry: str) -> None:
    """Entries that say nothing of where a page is from are refused where its visitors' cookies would be used."""
    presence = Presence()
    presence.user_loader(lambda: None)
    app = Flask("origins")
    app.config["PRESENCE_ALLOWED_ORIGINS"] = ["https://example.com", entry]
    with pytest.raises(ConfigurationError, match=re.escape(repr(entry))):
        presence.init_app(app)


@pytest.mark.parametrize(
    "entry", ["example.com", "://x", "1x://y", "https://", "capacitor://", "app://x/y", "NULL", ""]
)
def test_no_origins(entry: str) -> None:
    with pytest.raises(ValueError, match="is not an origin"):
        check_allowed(entry)


def test_ipv6() -> None:
    """An IPv6 host is its own origin."""
    assert is_allowed("http://[::1]:5000", "http", "[::1]:5000", ())


def test_any() -> None:
    """`"*"` is any."""
    assert is_allowed("https://anywhere.example", "https", "example.com", ("*",))
