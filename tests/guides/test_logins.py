"""The apps of `docs/logins.md`: logging in and out, with the test client and in a browser."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType

import pytest
from flask import Flask
from flask.testing import FlaskClient

from flask_presence import PresenceTestError, TestClient

from ..support.browser import Browser, Page, expect
from ..support.documents import ROOT
from ..support.guides import files_of, write
from ..support.server import running

FILES = files_of(ROOT / "docs/logins.md")


def app_of(name: str) -> Flask:
    """The app of a file of the document."""
    module = ModuleType(name)
    exec(compile(FILES[f"{name}.py"], f"{name}.py", "exec", dont_inherit=True), vars(module))
    app: Flask = module.app
    return app


Connect = Callable[[FlaskClient], TestClient]


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Opens the socket that a page of this browser would open."""
    with ExitStack() as stack:
        yield lambda http: stack.enter_context(http.application.extensions["presence"].test_client(http=http))


def logged_in(app: Flask, path: str = "/login", **form: str) -> FlaskClient:
    http = app.test_client()
    assert http.post(path, data=form).status_code == 200
    return http


def test_a_logout_of_flask_login_disconnects_the_user_everywhere(connect: Connect) -> None:
    app = app_of("login_app")
    phone, laptop, other = logged_in(app, id="1"), logged_in(app, id="1"), logged_in(app, id="2")
    clients = [connect(http) for http in (phone, laptop, other)]
    assert clients[0].join("presence-x")["me"]["name"] == "Ann"
    assert phone.post("/logout").status_code == 200
    assert [client.closed for client in clients] == [(4403, "Logged out"), (4403, "Logged out"), None]
    assert connect(laptop).join("presence-x")["me"]["name"] == "Ann"
    with pytest.raises(PresenceTestError, match="Authentication required"):
        connect(phone).join("presence-x")


def test_a_logout_ends_the_connections_of_one_browser(connect: Connect) -> None:
    app = app_of("one_browser_app")
    phone, laptop = logged_in(app, id="1"), logged_in(app, id="1")
    stolen = app.test_client()
    stolen.set_cookie("session", phone.get_cookie("session").value)  # type: ignore[union-attr]
    on_phone, on_laptop = connect(phone), connect(laptop)
    assert phone.post("/logout").status_code == 200
    assert on_phone.closed is not None
    assert on_phone.closed[0] == 4401
    assert on_laptop.closed is None
    with pytest.raises(PresenceTestError, match="Authentication required"):
        connect(stolen).join("presence-x")


def test_a_logout_with_a_table_of_logins_ends_the_connections_of_one_browser(
    connect: Connect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cookie from before there was the table is no login."""
    monkeypatch.setenv("FLASK_SQLALCHEMY_DATABASE_URI", f"sqlite:///{tmp_path}/accounts.db")
    app = app_of("login_table_app")
    db = app.extensions["sqlalchemy"]
    account = next(one.class_ for one in db.Model.registry.mappers if one.class_.__name__ == "Account")
    with app.app_context():
        db.create_all()
        db.session.add_all([account(id=1, name="Ann"), account(id=2, name="Bob")])
        db.session.commit()
    phone, laptop, other = logged_in(app, id="1"), logged_in(app, id="1"), logged_in(app, id="2")
    stolen, old = app.test_client(), app.test_client()
    stolen.set_cookie("session", phone.get_cookie("session").value)  # type: ignore[union-attr]
    with old.session_transaction() as session:
        session["_user_id"] = "1"
    on_phone, on_laptop, on_other = connect(phone), connect(laptop), connect(other)
    assert on_phone.join("presence-x")["me"]["name"] == "Ann"
    assert phone.post("/logout").status_code == 200
    assert on_phone.closed is not None
    assert on_phone.closed[0] == 4401
    assert on_laptop.closed is None
    assert on_other.closed is None
    assert laptop.post("/logout").status_code == 200
    assert on_laptop.closed is not None
    for http in (stolen, old):
        with pytest.raises(PresenceTestError, match="Authentication required"):
            connect(http).join("presence-x")
    with app.app_context():
        db.engine.dispose()


def test_a_session_is_a_login(connect: Connect) -> None:
    app = app_of("session_app")
    assert connect(logged_in(app, "/login/7")).join("presence-x")["me"]["id"] == "7"
    with pytest.raises(PresenceTestError, match="Authentication required"):
        connect(app.test_client()).join("presence-x")


def test_a_cookie_with_a_token_is_a_login_until_the_logout(connect: Connect) -> None:
    app = app_of("cookie_app")
    http = logged_in(app, name="ann")
    ann = connect(http)
    assert ann.join("presence-x")["me"]["id"] == "ann"
    csrf = http.get_cookie("csrf_access_token")
    assert csrf is not None
    assert http.post("/logout").status_code == 401, "a view still needs the CSRF token"
    assert http.post("/logout", headers={"X-CSRF-TOKEN": csrf.value}).status_code == 200
    assert ann.closed is not None
    assert ann.closed[0] == 4401


def test_a_logout_ends_all_tokens_of_one_login() -> None:
    app = app_of("token_app")
    presence = app.extensions["presence"]
    http = app.test_client()
    refresh = [http.post("/login", data={"name": "ann"}).json["refresh"] for _ in range(2)]  # type: ignore[index]
    bearers = [{"Authorization": f"Bearer {token}"} for token in refresh]
    with presence.test_client(app=app) as phone, presence.test_client(app=app) as laptop:
        for client, headers in zip((phone, laptop), bearers, strict=True):
            access = http.post("/token", headers=headers).json["access"]  # type: ignore[index]
            assert client.request({"type": "auth", "token": access})["user"] == {"id": "ann"}
        assert http.post("/logout", headers=bearers[0]).status_code == 200
        assert phone.closed == (4401, "Token revoked")
        assert laptop.closed is None
    assert [http.post("/token", headers=headers).status_code for headers in bearers] == [401, 200]


def test_a_page_renews_its_token_and_logs_out(browser: Browser, tmp_path: Path) -> None:
    """The token is so short that the client must renew it at once."""
    write(FILES, tmp_path)
    with running(
        app="token_app:app", arguments=("--chdir", str(tmp_path), "--access-logfile", "-"), JWT_ACCESS_TOKEN_EXPIRES=31
    ) as server:
        pages = [enter(browser, server.origin, name) for name in ("ann", "ann", "bob")]
        ann, second, bob = pages
        expect(bob.locator("#members")).to_have_text("Ann, Bob")
        with ann.expect_response("**/token", timeout=20_000) as renewal:
            pass
        assert renewal.value.ok
        assert ann.evaluate("presence.state") == "connected"

        ann.get_by_role("button", name="Log out").click()
        expect(ann.get_by_label("Name")).to_be_visible()
        expect(second.locator("#members")).to_have_text("Ann, Bob")
        second.get_by_role("button", name="Log out").click()
        expect(bob.locator("#members")).to_have_text("Bob")
        status = bob.evaluate("fetch('/token', {method: 'POST', ...bearer()}).then(({status}) => status)")
        assert status == 200
        assert "/presence/ws" in server.log()
        assert "eyJ" not in server.log(), "a token is in the access log"
        for page in pages:
            page.context.close()


def enter(browser: Browser, origin: str, name: str) -> Page:
    page = browser.new_context().new_page()
    page.goto(origin)
    page.get_by_label("Name").fill(name)
    page.get_by_role("button", name="Log in").click()
    expect(page.locator("#members")).to_contain_text(name.title())
    return page
