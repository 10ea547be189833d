"""Who may see the pages: debug mode, the stats guard, and nobody else."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask, abort, request
from werkzeug.datastructures import WWWAuthenticate

from flask_presence import deny

from ..support.flask_app import make_presence_app
from ..support.server import running

PAGES = ("/", "/stats", "/activity", "/channels", "/channels/x", "/members", "/history", "/metrics", "/watch")


def test_the_pages_return_403_until_the_app_allows_access() -> None:
    """The answer says how to allow it. `/health` is open."""
    with running(PRESENCE_STATS_PUBLIC=False) as server:
        for page in PAGES:
            status, headers, body = server.get(f"/presence{page}")
            assert status == 403
            assert "stats_guard" in json.loads(body)["error"]["message"]
            assert headers["Cache-Control"] == "no-store"
        assert server.json("/presence/health") == {"status": "ok"}


def app_with_guard(guard: Callable[[], Any]) -> Flask:
    presence, app = make_presence_app()
    presence.stats_guard(guard)
    return app


def fail() -> bool:
    raise RuntimeError("secret of the guard")


def coroutine() -> Any:
    async def answer() -> bool:
        return True

    return answer()


@pytest.mark.parametrize(
    ("guard", "told"),
    [
        (lambda: False, "stats_guard"),
        (lambda: None, "stats_guard"),
        (lambda: "yes", "stats_guard"),
        (lambda: 1, "stats_guard"),
        (lambda: deny("For operators only"), "For operators only"),
        (fail, "stats_guard"),
        (coroutine, "stats_guard"),
    ],
)
def test_every_answer_but_a_plain_yes_closes_every_page(guard: Callable[[], object], told: str) -> None:
    """The answer contains nothing of a failure."""
    visitor = app_with_guard(guard).test_client()
    for page in PAGES:
        response = visitor.get(f"/presence{page}")
        assert response.status_code == 403
        assert told in json.loads(response.text)["error"]["message"]
        assert "secret" not in response.text


def test_the_stats_guard_runs_once_for_each_request() -> None:
    """True and `{"authorized": True}` open the pages."""
    seen: list[str] = []

    def guard() -> bool:
        seen.append(request.path)
        return request.headers.get("X-Key") == "secret"

    visitor = app_with_guard(guard).test_client()
    for page in PAGES:
        status = {"/channels/x": 404, "/history": 400}.get(page, 200)  # nobody is in x, and no channel is given
        assert visitor.get(f"/presence{page}", headers={"X-Key": "secret"}).status_code == status
        assert visitor.get(f"/presence{page}", headers={"X-Key": "wrong"}).status_code == 403
    assert seen == [f"/presence{page}" for page in PAGES for _ in range(2)]
    assert app_with_guard(lambda: {"authorized": True}).test_client().get("/presence/").status_code == 200


def test_a_stats_guard_may_abort_with_its_own_answer() -> None:
    def guard() -> bool:
        abort(401, www_authenticate=WWWAuthenticate("basic", {"realm": "operators"}))

    response = app_with_guard(guard).test_client().get("/presence/")
    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"].startswith("Basic")


def test_a_stats_guard_opens_the_pages_with_true() -> None:
    """It runs in the request context of the page."""
    presence, app = make_presence_app()
    assert app.test_client().get("/presence/stats").status_code == 403
    presence.stats_guard(lambda: request.headers.get("X-Admin") == "yes" or "not quite")  # type: ignore[type-var]
    assert app.test_client().get("/presence/stats").status_code == 403
    assert app.test_client().get("/presence/stats", headers={"X-Admin": "yes"}).status_code == 200


def test_debug_mode_opens_the_pages() -> None:
    _, app = make_presence_app()
    app.debug = True
    assert app.test_client().get("/presence/").status_code == 200
