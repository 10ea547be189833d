"""Apps that match routes by host: `PRESENCE_SUBDOMAIN` and `PRESENCE_HOST`."""

from __future__ import annotations

import re
from typing import Any

import pytest
from flask import Blueprint, Flask, url_for

from flask_presence import ConfigurationError, Presence

from ..support.handshake import UPGRADE, raw_upgrade
from ..support.server import running


def make_app(**config: Any) -> Flask:
    """An app that matches routes by `MATCHING`: `subdomain`, `host`, or neither."""
    options: dict[str, Any] = {}
    if config.get("MATCHING") == "subdomain":
        options = {"subdomain_matching": True}
    elif config.get("MATCHING") == "host":
        options = {"host_matching": True, "static_host": "static.example.com"}
    app = Flask("hosts", **options)
    app.config.update(PRESENCE_STATS_PUBLIC=True, **config)
    if options.get("subdomain_matching"):
        app.config["SERVER_NAME"] = "example.com"
    host: dict[str, Any] = {"host": "<any>"} if "host_matching" in options else {}
    app.add_url_rule("/ready", "ready", lambda: "yes", **host)
    Presence(app)
    return app


def create_app() -> Flask:
    """The app for a server, with settings from the environment."""
    outer = Flask("outer")
    outer.config.from_prefixed_env()
    wanted = {key: value for key, value in outer.config.items() if key == "MATCHING" or key.startswith("PRESENCE_")}
    app = make_app(**wanted)
    app.view_functions["ready"] = lambda **_: "yes"
    return app


CASES = [
    ("subdomain", {"PRESENCE_SUBDOMAIN": "live"}, ["live.example.com"], ["example.com", "other.example.com"]),
    ("subdomain", {"PRESENCE_SUBDOMAIN": "<tenant>"}, ["a.example.com", "b.example.com"], ["example.com"]),
    ("subdomain", {"PRESENCE_SUBDOMAIN": "<tenant>.live"}, ["a.live.example.com"], ["a.example.com"]),
    ("subdomain", {}, ["example.com"], ["a.example.com"]),
    ("host", {"PRESENCE_HOST": "live.example.org"}, ["live.example.org"], ["example.org"]),
    ("host", {"PRESENCE_HOST": "<host>"}, ["anything.at.all", "example.org:8000"], []),
]


@pytest.mark.parametrize(("matching", "settings", "here", "elsewhere"), CASES)
def test_the_socket_is_at_the_configured_hosts_only(
    matching: str, settings: dict[str, str], here: list[str], elsewhere: list[str]
) -> None:
    app = "tests.deployment.test_hosts:create_app()"
    with running(app=app, MATCHING=matching, **settings) as server:
        for host in here:
            assert raw_upgrade(server, UPGRADE | {"Host": host})[0] == 101, host
            assert raw_upgrade(server, UPGRADE | {"Host": host, "Origin": f"http://{host}"})[0] == 101, host
            assert raw_upgrade(server, UPGRADE | {"Host": host, "Origin": "http://evil.example"})[0] == 403, host
        for host in elsewhere:
            assert raw_upgrade(server, UPGRADE | {"Host": host, "Accept": "x"}, "/presence/health")[0] == 404, host


@pytest.mark.parametrize(("matching", "settings", "here", "_elsewhere"), CASES)
def test_the_pages_link_to_themselves_at_the_requested_host(
    matching: str, settings: dict[str, str], here: list[str], _elsewhere: list[str]
) -> None:
    app = make_app(MATCHING=matching, **settings)
    for host in here:
        visitor, base = app.test_client(), f"http://{host}"
        page = visitor.get("/presence/", base_url=base)
        assert page.status_code == 200, (host, page.text)
        text = page.text.replace(f"//{host}", "").replace("http:", "")
        assert re.search(r'href="/presence/stats\.[0-9a-f]{12}\.css"', text)
        assert visitor.get("/presence/channels/none", base_url=base).status_code == 404
        assert visitor.get("/presence/nothing-like-it", base_url=base).json["error"]["code"] == "NOT_FOUND"  # type: ignore[index]
        with app.test_request_context("/presence/stats", base_url=base):
            app.preprocess_request()
            assert re.search(r"/presence/presence\.[0-9a-f]{12}\.js$", url_for("presence.client"))


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"PRESENCE_SUBDOMAIN": "live"}, "subdomain_matching"),
        ({"PRESENCE_HOST": "live.example.com"}, "host_matching"),
        ({"MATCHING": "host"}, "PRESENCE_HOST"),
        ({"MATCHING": "host", "PRESENCE_HOST": "<nonsense"}, "PRESENCE_HOST"),
        ({"MATCHING": "host", "PRESENCE_HOST": "<unknown_converter:x>"}, "PRESENCE_HOST"),
        ({"MATCHING": "subdomain", "PRESENCE_SUBDOMAIN": "<name>"}, "PRESENCE_SUBDOMAIN"),
        ({"MATCHING": "subdomain", "PRESENCE_SUBDOMAIN": "a/b"}, "PRESENCE_SUBDOMAIN"),
        ({"PRESENCE_SUBDOMAIN": 5}, "PRESENCE_SUBDOMAIN"),
    ],
)
def test_a_setting_that_matches_no_host_raises(config: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        make_app(**config)


def test_another_blueprint_of_the_same_name_raises() -> None:
    app = Flask("clash")
    app.register_blueprint(Blueprint("presence", __name__))
    with pytest.raises(ConfigurationError, match="blueprint called 'presence'"):
        Presence(app)
