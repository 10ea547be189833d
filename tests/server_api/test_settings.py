"""Settings: defaults, wrong values, and combinations that raise."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import pytest

from flask_presence import ConfigurationError, Presence, PresenceTestError
from flask_presence.settings import load_settings

from ..conftest import on_redis
from ..support.flask_app import make_app, make_presence_app


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("PRESENCE_ENABLED", "yes"),
        ("PRESENCE_URL_PREFIX", "presence"),
        ("PRESENCE_URL_PREFIX", "/presence/"),
        ("PRESENCE_BACKEND", "postgres://"),
        ("PRESENCE_ALLOWED_ORIGINS", ["example.com"]),
        ("PRESENCE_ALLOWED_ORIGINS", ["https://example.com/path"]),
        ("PRESENCE_ALLOWED_ORIGINS", ["https://*.*.com"]),
        ("PRESENCE_ALLOWED_ORIGINS", 5),
        ("PRESENCE_MAX_CONNECTIONS", 0),
        ("PRESENCE_MAX_CONNECTIONS", True),
        ("PRESENCE_MAX_MEMBERS", 0),
        ("PRESENCE_MAX_MEMBERS", False),
        ("PRESENCE_MAX_MEMBERS", "10"),
        ("PRESENCE_MAX_MESSAGE_SIZE", 1.5),
        ("PRESENCE_MAX_OUTBOX", 65536),
        ("PRESENCE_RATE_LIMIT", 100),
        ("PRESENCE_RATE_LIMIT", (0, 10)),
        ("PRESENCE_RATE_LIMIT", (1, 2, 3)),
        ("PRESENCE_PING_INTERVAL", 0),
        ("PRESENCE_PING_TIMEOUT", "10"),
        ("PRESENCE_DRAIN", -1),
        ("PRESENCE_PING_INTERVALL", 5),
        ("PRESENCE_HISTORY", "room-*"),
        ("PRESENCE_HISTORY", {"room-*": 100}),
        ("PRESENCE_HISTORY", {"room-*": {"messages": 100}}),
        ("PRESENCE_HISTORY", {"room-*": {"messages": 100, "seconds": 60, "bytes": 1}}),
        ("PRESENCE_HISTORY", {"room-*": (0, 60)}),
        ("PRESENCE_HISTORY", {"room-*": (10_001, 60)}),
        ("PRESENCE_HISTORY", {"room-*": (1.5, 60)}),
        ("PRESENCE_HISTORY", {"room-*": (True, 60)}),
        ("PRESENCE_HISTORY", {"room-*": (100, 0)}),
        ("PRESENCE_HISTORY", {"room-*": (100, -1)}),
        ("PRESENCE_HISTORY", {"room-*": (100, 2_592_001)}),
        ("PRESENCE_HISTORY", {"room-*": (100, float("inf"))}),
        ("PRESENCE_HISTORY", {"room-<int:number>": (100, 60)}),
        ("PRESENCE_HISTORY", {"room 1": (100, 60)}),
        ("PRESENCE_HISTORY", {"": (100, 60)}),
        ("PRESENCE_HISTORY", {5: (100, 60)}),
    ],
)
def test_a_wrong_setting_raises_and_is_named(key: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=key):
        Presence(make_app(**{key: value}))


def test_an_unknown_argument_lists_the_valid_settings() -> None:
    with pytest.raises(ConfigurationError, match="PRESENCE_PING_INTERVAL"):
        Presence(make_app(), pingg=5)  # type: ignore[call-arg]


@pytest.mark.parametrize(("arguments", "config"), [({"url_prefix": "/a"}, {}), ({"url_prefix": "/b"}, {"URL": "/a"})])
def test_keyword_arguments_are_defaults_for_the_config(arguments: dict[str, Any], config: dict[str, str]) -> None:
    app = make_app(**({"PRESENCE_URL_PREFIX": config["URL"]} if config else {}))
    Presence(app, **arguments)
    assert app.test_client().get("/a/health").get_json() == {"status": "ok"}


def test_any_origin_raises_if_cookies_may_log_in() -> None:
    with pytest.raises(ConfigurationError, match="PRESENCE_ALLOWED_ORIGINS"):
        Presence(make_app(PRESENCE_ALLOWED_ORIGINS="*", JWT_TOKEN_LOCATION=["cookies"]))
    loading = Presence(allowed_origins=["*"])
    loading.user_loader(lambda: None)
    with pytest.raises(ConfigurationError, match="user_loader"):
        loading.init_app(make_app())
    Presence(make_app(PRESENCE_ALLOWED_ORIGINS="*"))


@pytest.mark.parametrize("backend", ["memory", "redis"])
def test_a_presence_channel_has_no_more_members_than_the_setting_says(
    request: pytest.FixtureRequest, backend: str
) -> None:
    more = on_redis(request.getfixturevalue("redis_server")) if backend == "redis" else {}
    presence, app = make_presence_app(PRESENCE_MAX_MEMBERS=2, **more)
    with ExitStack() as stack:
        ann, bob, cy, tab = (
            stack.enter_context(presence.test_client(user=user, app=app)) for user in ("ann", "bob", "cy", "ann")
        )
        ann.join("presence-room-1")
        bob.join("presence-room-1")
        with pytest.raises(PresenceTestError, match="The channel is full: it has 2 members") as caught:
            cy.join("presence-room-1")
        assert caught.value.code == "JOIN_FAILED"
        assert len(tab.join("presence-room-1")["members"]) == 2
        cy.join("presence-room-2")
        bob.leave("presence-room-1")
        assert len(cy.join("presence-room-1")["members"]) == 2


def test_without_a_maximum_a_presence_channel_takes_everybody() -> None:
    assert load_settings({"PRESENCE_MAX_MEMBERS": None}, {}).max_members is None
