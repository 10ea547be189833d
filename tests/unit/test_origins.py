"""Origins: the very same one, and what the setting allows."""

from __future__ import annotations

import pytest

from flask_presence.origins import is_allowed


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


def test_ipv6() -> None:
    """An IPv6 host is its own origin."""
    assert is_allowed("http://[::1]:5000", "http", "[::1]:5000", ())


def test_any() -> None:
    """`"*"` is any."""
    assert is_allowed("https://anywhere.example", "https", "example.com", ("*",))
