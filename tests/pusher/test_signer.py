"""The app's own signer: who gets a signature, what is in it, and which pages may ask."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import pytest
from flask import Flask, request
from hypothesis import given, settings
from hypothesis import strategies as st

from flask_presence import BackendUnavailable, ChannelName, Presence, User, allow

from ..conftest import Share
from ..support.client import client
from ..support.effort import at_effort
from ..support.pusher_api import API_KEY, API_SETTINGS, MASTER_KEY, Response, hmac_of, open_socket, sdk, send
from ..support.server import Server, running, wait_until

CHANNEL, USER = "/presence/pusher/auth", "/presence/pusher/user-auth"
FORM = "application/x-www-form-urlencoded"
PARTNER = "https://a.partner.example"
SOCKET = "12.34"
COOKIE = "access_token_cookie"


@pytest.fixture(scope="session")
def app_server(shared_by_all: Share) -> Server:
    """An app with tokens in headers and cookies, whose CSRF protection is on, and pages of another origin."""
    return shared_by_all(
        JWT_TOKEN_LOCATION=["headers", "cookies"],
        PRESENCE_ALLOWED_ORIGINS=["https://*.partner.example"],
        **API_SETTINGS,
    )


def ask(
    server: Server,
    fields: dict[str, Any],
    token: str | None = None,
    *,
    path: str = CHANNEL,
    as_json: bool = False,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Ask for a signature, with the token in a header."""
    body = json.dumps(fields) if as_json else urlencode(fields)
    sent = {"Content-Type": "application/json" if as_json else FORM, **(headers or {})}
    if token is not None:
        sent["Authorization"] = f"Bearer {token}"
    return send(server, "POST", path, body.encode(), sent)


def auth_of(text: str) -> str:
    return f"{API_KEY}:{hmac_of(text)}"


def for_channel(channel: str, **fields: Any) -> dict[str, Any]:
    return {"socket_id": SOCKET, "channel_name": channel, **fields}


def member_of(response: Response) -> dict[str, Any]:
    """The `user_info` in the answer for a presence channel."""
    assert response.status == 200, response.text
    data = json.loads(response.json["channel_data"])
    assert set(data) == {"user_id", "user_info"}
    assert data["user_info"]["id"] == data["user_id"]
    info: dict[str, Any] = data["user_info"]
    return info


@pytest.mark.parametrize("as_json", [False, True])
def test_a_signature_lets_the_socket_subscribe(app_server: Server, name: str, as_json: bool) -> None:
    token = app_server.token("ann", name="Ann", avatar="/ann.png")
    with open_socket(app_server) as socket, open_socket(app_server) as other:
        for channel in (f"private-{name}", f"private-encrypted-{name}", f"private-cache-{name}"):
            answer = ask(app_server, for_channel(channel) | {"socket_id": socket.id}, token, as_json=as_json).json
            assert socket.subscribe(channel, auth=answer["auth"]) == {}
            refused = other.ask("pusher:subscribe", channel=channel, auth=answer["auth"])
            assert refused["event"] == "pusher:subscription_error"
            if "cache" in channel:
                assert socket.read()["event"] == "pusher:cache_miss"
        channel = f"presence-{name}"
        answer = ask(app_server, for_channel(channel) | {"socket_id": socket.id}, token, as_json=as_json).json
        assert set(answer) == {"auth", "channel_data"}
        members = socket.subscribe(channel, **answer)["presence"]
        assert members["hash"] == {"ann": {"id": "ann", "name": "Ann", "avatar": "/ann.png"}}


def test_a_signed_member_is_the_native_member(app_server: Server, name: str) -> None:
    """The same user, in either dialect, has the same name and the same keys."""
    channel, token = f"presence-{name}", app_server.token("ann", name="Ann")
    fields = for_channel(channel, user_info=json.dumps({"color": "red", "joinedAt": 1}))
    with open_socket(app_server) as socket, client(app_server, "bob") as bob:
        socket.subscribe(channel, **ask(app_server, fields | {"socket_id": socket.id}, token).json)
        ann, _ = bob.join(channel)["members"]
        assert (ann["id"], ann["name"], ann["color"]) == ("ann", "Ann", "red")
        assert ann["clientId"] == socket.id


def test_a_signature_signs_in(app_server: Server, name: str) -> None:
    """Afterwards a presence channel needs no `channel_data`."""
    token, channel = app_server.token("ann", name="Ann"), f"presence-{name}"
    with open_socket(app_server) as socket:
        answer = ask(app_server, {"socket_id": socket.id}, token, path=USER)
        assert answer.status == 200
        assert json.loads(answer.json["user_data"]) == {"id": "ann", "user_info": {"id": "ann", "name": "Ann"}}
        assert socket.ask("pusher:signin", **answer.json)["event"] == "pusher:signin_success"
        assert socket.subscribe("#server-to-user-ann") == {}
        auth = auth_of(f"{socket.id}:{channel}")
        assert socket.subscribe(channel, auth=auth)["presence"]["hash"] == {"ann": {"id": "ann", "name": "Ann"}}


def test_the_signatures_are_those_of_the_sdk(app_server: Server, name: str) -> None:
    token, back_end = app_server.token("ann"), sdk(app_server, encryption_master_key_base64=MASTER_KEY)
    for kind in ("private-", "private-encrypted-"):
        answer = ask(app_server, for_channel(kind + name), token).json
        signed = back_end.authenticate(kind + name, SOCKET)
        assert answer == {
            key: str(value, "ascii") if key == "shared_secret" else value for key, value in signed.items()
        }
    assert set(answer) == {"auth", "shared_secret"}
    answer = ask(app_server, for_channel(f"presence-{name}"), token).json
    assert answer["auth"] == auth_of(f"{SOCKET}:presence-{name}:{answer['channel_data']}")
    answer = ask(app_server, {"socket_id": SOCKET}, token, path=USER).json
    assert answer["auth"] == auth_of(f"{SOCKET}::user::{answer['user_data']}")


@pytest.mark.parametrize(
    ("claims", "given", "owned", "expected"),
    [
        ({}, {}, {}, {"name": "Anonymous"}),
        ({}, {"name": "Eve", "avatar": "/e.png"}, {}, {"name": "Eve", "avatar": "/e.png"}),
        ({}, {"name": 1, "avatar": ["x"]}, {}, {"name": "Anonymous"}),
        ({"name": "Ann"}, {"name": "Eve", "avatar": "/e.png"}, {}, {"name": "Ann", "avatar": "/e.png"}),
        ({"name": "Ann", "avatar": "/a.png"}, {"avatar": "/e.png"}, {}, {"name": "Ann", "avatar": "/a.png"}),
        ({"name": "Ann"}, {"a": 1, "b": None}, {}, {"name": "Ann", "a": 1}),
        ({"name": "Ann"}, {"role": "admin", "a": 1}, {"role": "guest"}, {"name": "Ann", "a": 1, "role": "guest"}),
        ({"name": "Ann"}, {"role": "admin"}, {"role": None}, {"name": "Ann"}),
        ({"name": "Ann"}, {}, {"name": "Dr. Ann", "avatar": "/o.png"}, {"name": "Dr. Ann", "avatar": "/o.png"}),
        ({"name": "Ann", "avatar": "/a.png"}, {}, {"name": None, "avatar": None}, {}),
        (
            {"name": "Ann"},
            {"id": "eve", "clientId": "x", "joinedAt": 1, "updatedAt": 1, "__proto__": {}, "ok": True},
            {"id": "eve", "__proto__": {}},
            {"name": "Ann", "ok": True},
        ),
    ],
)
def test_what_the_guard_owns_beats_the_login_and_that_beats_the_page(
    app_server: Server, name: str, claims: Any, given: Any, owned: Any, expected: Any
) -> None:
    channel = f"presence-owned-{name}"
    app_server.post(f"/own/{channel}", allow(owned))
    token = app_server.token("ann", **claims)
    for user_info, as_json in ((json.dumps(given), False), (json.dumps(given), True), (given, True)):
        response = ask(app_server, for_channel(channel, user_info=user_info), token, as_json=as_json)
        assert member_of(response) == {"id": "ann", **expected}


def test_a_form_may_have_several_parts(app_server: Server) -> None:
    lines = "".join(
        f'--x\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'
        for key, value in for_channel("presence-x", user_info='{"a":1}').items()
    )
    headers = {"Content-Type": "multipart/form-data; boundary=x", "Authorization": f"Bearer {app_server.token('ann')}"}
    response = send(app_server, "POST", CHANNEL, f"{lines}--x--\r\n".encode(), headers)
    assert member_of(response) == {"id": "ann", "name": "Anonymous", "a": 1}


def test_the_guard_is_asked_as_at_a_native_join(app_server: Server) -> None:
    """With the token, `current_user` and the page's part; what it does to this changes nothing."""
    fields = for_channel("presence-context-x", user_info='{"name":"Ann"}')
    assert member_of(ask(app_server, fields, app_server.token("ann")))["name"] == "Ann"
    assert ask(app_server, for_channel("private-team-red"), app_server.token("ann", teams=["red"])).status == 200
    assert ask(app_server, for_channel("private-team-blue"), app_server.token("ann", teams=["red"])).status == 403


@pytest.mark.parametrize(
    ("topic", "message"),
    [
        ("denied-x", "Access denied"),
        ("reason-x", "Not on Mondays"),
        ("broken-x", "Access denied"),
        ("truthy-x", "Access denied"),
        ("none-x", "Access denied"),
        ("exit-x", "Access denied"),
        ("timeout-x", "Access denied"),
        ("number-x", "Access denied"),
        ("number-31", "Too large"),
        ("abort-404", "Access denied"),
    ],
)
@pytest.mark.parametrize("kind", ["private-", "presence-"])
def test_only_a_plain_yes_of_the_guard_gets_a_signature(
    app_server: Server, kind: str, topic: str, message: str
) -> None:
    response = ask(app_server, for_channel(kind + topic), app_server.token("ann"))
    assert response.error == (403, "FORBIDDEN")
    assert response.json["error"]["message"] == message


def test_the_verdicts_of_guards_are_counted(app_server: Server) -> None:
    def denied() -> str:
        lines = app_server.get("/presence/metrics")[2].splitlines()
        return next(line for line in lines if "guard" in line and 'outcome="denied"' in line and "_count" in line)

    app_server.token("ann")
    with client(app_server, "ann"):  # so that the process reports its counts
        before = denied()
        ask(app_server, for_channel("private-denied-x"), app_server.token("ann"))
        wait_until(lambda: denied() != before)


BAD_FIELDS: list[dict[str, Any]] = [
    {},
    {"socket_id": SOCKET},
    {"channel_name": "private-x"},
    *(for_channel("private-x") | {"socket_id": one} for one in ("", "1", "1.2:x", "1.2.3", "a.b", " 1.2", "1.2\n")),
    for_channel("private-x") | {"socket_id": "1.2::user::{}"},
    *map(for_channel, ("", "x", "cache-x", "room-1", "Private-x", "#server-to-user-ann", "private-a b", "private-é")),
    *map(for_channel, (":user::{}", 'presence-x:{"user_id":"1"}', f"private-{'x' * 193}", "private-x\n")),
    *(for_channel("presence-x", user_info=one) for one in ("", "x", "1", "[]", "null", '"x"', '{"a":', "[{}]")),
    for_channel("presence-x", user_info=json.dumps({"a": "x" * 4096})),
    for_channel("presence-x", user_info='{"a":' * 70 + "1" + "}" * 70),
]
NO_OBJECTS: list[Any] = [1, [], True, [{}]]
BAD_JSON: list[Any] = [
    [],
    "text",
    None,
    for_channel("private-x") | {"socket_id": 1.2},
    for_channel("private-x") | {"channel_name": ["private-x"]},
    *(for_channel("presence-x", user_info=one) for one in NO_OBJECTS),
]


@pytest.mark.parametrize("fields", BAD_FIELDS, ids=[repr(one)[:60] for one in BAD_FIELDS])
@pytest.mark.parametrize("as_json", [False, True])
def test_bad_fields_get_no_signature(app_server: Server, fields: dict[str, Any], as_json: bool) -> None:
    response = ask(app_server, fields, app_server.token("ann"), as_json=as_json)
    assert response.error == (400, "INVALID_REQUEST")


@pytest.mark.parametrize("body", BAD_JSON, ids=[repr(one)[:60] for one in BAD_JSON])
def test_bad_json_gets_no_signature(app_server: Server, body: Any) -> None:
    response = ask(app_server, body, app_server.token("ann"), as_json=True)
    assert response.error == (400, "INVALID_REQUEST")


@pytest.mark.parametrize("socket_id", ["", "1", "1.2::user", "1.2:private-x"])
def test_a_bad_socket_id_does_not_sign_in(app_server: Server, socket_id: str) -> None:
    response = ask(app_server, {"socket_id": socket_id}, app_server.token("ann"), path=USER)
    assert response.error == (400, "INVALID_REQUEST")


@pytest.mark.parametrize("body", [b"{", b"\xff", b"", b"[" * 100_000, b"x" * 1_000_000])
def test_a_body_that_is_no_json_gets_no_signature(app_server: Server, body: bytes) -> None:
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {app_server.token('ann')}"}
    assert send(app_server, "POST", CHANNEL, body, headers).error == (400, "INVALID_REQUEST")
    assert send(app_server, "POST", CHANNEL, iter([body, b" "]), headers).error == (400, "INVALID_REQUEST")


def test_a_member_that_would_be_too_large_gets_no_signature(app_server: Server, name: str) -> None:
    """The subscription would be refused."""
    channel = f"presence-owned-{name}"
    app_server.post(f"/own/{channel}", allow({"a": "x" * 4000}))
    fields = for_channel(channel, user_info=json.dumps({"b": "x" * 100}))
    response = ask(app_server, fields, app_server.token("ann"))
    assert response.error == (400, "INVALID_REQUEST")
    assert "4096" in response.json["error"]["message"]


def test_an_encrypted_channel_needs_the_setting(shared: Share) -> None:
    server = shared(**API_SETTINGS | {"PRESENCE_PUSHER_ENCRYPTION_KEY": None})
    response = ask(server, for_channel("private-encrypted-x"), server.token("ann"))
    assert response.error == (400, "INVALID_REQUEST")
    assert "PRESENCE_PUSHER_ENCRYPTION_KEY" in response.json["error"]["message"]


@pytest.mark.parametrize("path", [CHANNEL, USER])
def test_without_a_valid_credential_there_is_no_signature(app_server: Server, name: str, path: str) -> None:
    """Even though anonymous visitors may open native connections."""
    fields = for_channel("private-x")
    refresh, expired = app_server.token("ann", refresh=True), app_server.token("ann", exp=1)
    revoked = app_server.token(name)
    assert ask(app_server, fields, revoked, path=path).status == 200
    app_server.get(f"/revoke/{name}")
    for token in (None, "", "x", "a.b.c", refresh, expired, revoked, app_server.token("ann")[:-3] + "xyz"):
        response = ask(app_server, fields, token, path=path)
        assert response.error == (401, "UNAUTHORIZED"), token
        assert response.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize("path", [CHANNEL, USER])
def test_a_cookie_counts_only_with_an_origin_that_is_allowed(app_server: Server, path: str) -> None:
    fields, cookie = for_channel("private-x"), f"{COOKIE}={app_server.token('ann')}"
    for origin in (app_server.origin, PARTNER):
        assert ask(app_server, fields, path=path, headers={"Cookie": cookie, "Origin": origin}).status == 200
    assert ask(app_server, fields, path=path, headers={"Cookie": cookie}).error == (403, "FORBIDDEN")
    bad = ask(app_server, fields, path=path, headers={"Cookie": f"{COOKIE}=x", "Origin": app_server.origin})
    assert bad.error == (401, "UNAUTHORIZED")


@pytest.mark.parametrize(
    "origin", ["null", "https://evil.example", "https://partner.example", "http://127.0.0.1", "", "file://"]
)
def test_a_page_of_another_origin_gets_no_signature(app_server: Server, origin: str) -> None:
    """Not even with a token, and its browser does not let it read the answer."""
    token = app_server.token("ann")
    for path in (CHANNEL, USER):
        response = ask(app_server, for_channel("private-x"), token, path=path, headers={"Origin": origin})
        assert response.error == (403, "FORBIDDEN")
        assert "Access-Control-Allow-Origin" not in response.headers
        asked = send(app_server, "OPTIONS", path, headers={"Origin": origin, "Access-Control-Request-Method": "POST"})
        assert asked.error == (403, "FORBIDDEN")
        assert "Access-Control-Allow-Origin" not in asked.headers


def test_the_log_names_the_origin_that_was_refused(app_server: Server, name: str) -> None:
    ask(app_server, for_channel("private-x"), headers={"Origin": f"https://{name}.evil.example"})
    line = f"refused to sign for a page of the origin 'https://{name}.evil.example'"
    wait_until(lambda: line in app_server.log())


def test_an_allowed_page_of_another_origin_may_read_every_answer(app_server: Server) -> None:
    token = app_server.token("ann")
    for fields, credential, status in (
        (for_channel("private-x"), token, 200),
        (for_channel("x"), token, 400),
        (for_channel("private-x"), None, 401),
        (for_channel("private-denied-x"), token, 403),
    ):
        response = ask(app_server, fields, credential, headers={"Origin": PARTNER})
        assert response.status == status
        assert response.headers["Access-Control-Allow-Origin"] == PARTNER
        assert response.headers["Access-Control-Allow-Credentials"] == "true"
        assert "Origin" in response.headers["Vary"]


def test_a_preflight_of_an_allowed_page_is_answered(app_server: Server) -> None:
    headers = {
        "Origin": PARTNER,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type,x-csrf-token",
    }
    for path in (CHANNEL, USER):
        response = send(app_server, "OPTIONS", path, headers=headers)
        assert (response.status, response.text) == (204, "")
        assert response.headers["Access-Control-Allow-Origin"] == PARTNER
        assert response.headers["Access-Control-Allow-Credentials"] == "true"
        assert response.headers["Access-Control-Allow-Methods"] == "POST"
        assert response.headers["Access-Control-Allow-Headers"] == "authorization,content-type,x-csrf-token"


def test_a_signature_is_never_cached(app_server: Server) -> None:
    response = ask(app_server, for_channel("private-x"), app_server.token("ann"))
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["Content-Type"] == "application/json"


def test_a_session_of_flask_login_gets_a_signature() -> None:
    """`current_user` works in the loader and in the guard."""
    with running(app="tests.support.flask_login_app:create_app()", **API_SETTINGS) as server:
        cookie = server.get("/login/ann")[1]["Set-Cookie"].split(";")[0]
        same = {"Cookie": cookie, "Origin": server.origin}
        response = ask(server, for_channel("presence-of-ann"), headers=same)
        assert member_of(response) == {"id": "ann", "name": "Ann"}
        assert ask(server, {"socket_id": SOCKET}, path=USER, headers=same).status == 200
        assert ask(server, for_channel("presence-of-bob"), headers=same).error == (403, "FORBIDDEN")
        assert ask(server, for_channel("presence-of-ann"), headers={"Cookie": cookie}).error == (403, "FORBIDDEN")
        assert ask(server, for_channel("presence-of-ann"), headers={"Origin": server.origin}).error == (
            401,
            "UNAUTHORIZED",
        )
        broken = ask(server, for_channel("presence-of-ann"), path=f"{CHANNEL}?break=1", headers=same)
        assert broken.error == (401, "UNAUTHORIZED")


def small_app(**config: Any) -> tuple[Flask, Presence]:
    """An app that knows its users by a header."""
    app = Flask("signer")
    app.config.update(API_SETTINGS, **config)
    presence = Presence(app)

    @presence.user_loader
    def load() -> User | None:
        return User(request.headers["User"]) if "User" in request.headers else None

    return app, presence


def test_a_user_loader_sees_a_request_without_a_body() -> None:
    """As at a native upgrade, whose request has none, so that a protection against forged requests is not in its
    way."""
    app, presence = small_app()
    seen: list[Any] = []

    @presence.user_loader
    def load() -> User:
        seen.append((request.method, request.path, request.get_data(), dict(request.form), request.content_length))
        return User("ann")

    assert app.test_client().post(CHANNEL, data=for_channel("private-x")).status_code == 200
    assert seen == [("GET", CHANNEL, b"", {}, None)]


def test_an_app_may_have_read_the_body_before() -> None:
    app, _ = small_app()

    @app.before_request
    def read() -> None:
        assert request.form or request.get_json()

    for kind in ("data", "json"):
        answer = app.test_client().post(CHANNEL, headers={"User": "ann"}, **{kind: for_channel("private-x")})
        assert answer.status_code == 200


def test_guards_see_who_asks_and_what_the_page_says() -> None:
    app, presence = small_app()
    seen: list[Any] = []

    @presence.guard("*")
    def guard(user: User | None, channel: ChannelName, user_info: dict[str, Any]) -> bool:
        seen.append((user and user.id, str(channel), channel.type, dict(user_info)))
        user_info["added"] = True
        return True

    fields = for_channel("private-encrypted-x", user_info='{"a":1,"id":"eve"}')
    answer = app.test_client().post(CHANNEL, headers={"User": "ann"}, data=fields)
    assert set(answer.json or {}) == {"auth", "shared_secret"}
    fields["channel_name"] = "presence-x"
    answer = app.test_client().post(CHANNEL, headers={"User": "ann"}, data=fields)
    assert "added" not in (answer.json or {})["channel_data"]
    assert seen == [
        ("ann", "private-encrypted-x", "private", {"a": 1}),
        ("ann", "presence-x", "presence", {"a": 1}),
    ]


def test_any_origin_and_cookies_together_get_no_signature() -> None:
    """The `user_loader` was registered after the settings were checked."""
    app, _ = small_app(PRESENCE_ALLOWED_ORIGINS=["*"])
    headers = {"User": "ann", "Origin": "https://anywhere.example"}
    answer = app.test_client().post(CHANNEL, headers=headers, data=for_channel("private-x"))
    assert answer.status_code == 503
    assert "PRESENCE_ALLOWED_ORIGINS" in (answer.json or {})["error"]["message"]


@pytest.mark.parametrize(
    ("problem", "status", "code"),
    [
        (RuntimeError("secret"), 500, "INTERNAL_ERROR"),
        (BackendUnavailable("redis://secret"), 503, "SERVICE_UNAVAILABLE"),
    ],
)
def test_a_fault_tells_the_page_nothing_but_its_kind(problem: Exception, status: int, code: str) -> None:
    app, _ = small_app()

    @app.before_request
    def fail() -> None:
        raise problem

    answer = app.test_client().post(CHANNEL, headers={"Origin": "http://localhost"}, data=for_channel("private-x"))
    assert (answer.status_code, (answer.json or {})["error"]["code"]) == (status, code)
    assert "secret" not in answer.text
    assert answer.headers["Access-Control-Allow-Origin"] == "http://localhost"


@settings(max_examples=at_effort(100))
@given(st.text(max_size=30), st.sampled_from(["private-", "presence-", ""]))
def test_nothing_outside_the_alphabet_is_ever_signed(text: str, prefix: str) -> None:
    name = prefix + text
    answer = HTTP.post(CHANNEL, headers={"User": "ann"}, json=for_channel(name))
    good = prefix and name.isascii() and all(one.isalnum() or one in "_-=@,.;" for one in name)
    assert answer.status_code == (200 if good else 400)


HTTP = small_app()[0].test_client()
