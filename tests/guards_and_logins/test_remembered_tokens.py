"""A token that has been verified is not decoded again, and all that may change about it is still noticed."""

from __future__ import annotations

import copy
import secrets
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from flask import Flask, request
from flask_jwt_extended import JWTManager, create_access_token, create_refresh_token, current_user, get_jwt
from jwt.api_jwt import PyJWT

from flask_presence.app import verified_tokens
from flask_presence.app.auth import Authenticator
from flask_presence.domain.errors import CredentialRejected
from flask_presence.extension import SERVICE

from ..support.flask_app import make_presence_app
from ..support.server import wait_until

SECRET = "a secret of thirty-two characters"


class World:
    """An app, its authenticator, and what its functions say about tokens. If `asks`, it has such functions."""

    def __init__(self, *, asks: bool = False, **config: Any) -> None:
        _, self.app = make_presence_app(**config)
        self.authenticator: Authenticator = self.app.extensions[SERVICE].authenticator
        self.manager: JWTManager = self.app.extensions["flask-jwt-extended"]
        self.is_revoked, self.is_approved, self.user = False, True, "Ann"
        if asks:
            self.manager.token_in_blocklist_loader(lambda _, claims: self.is_revoked or bool(claims.pop("name", "")))
            self.manager.token_verification_loader(lambda *_: self.is_approved)
            self.manager.user_lookup_loader(lambda *_: self.user or None)

    def token(self, make: Callable[..., str] = create_access_token, **options: Any) -> str:
        with self.app.app_context():
            return make("ann", **options)

    def verifies(self, token: str) -> bool:
        """Whether the token is accepted as a credential."""
        try:
            assert self.authenticator.verify(token).user.id == "ann"
        except CredentialRejected:
            return False
        return True

    def accepts(self, token: str) -> bool:
        """Whether the token is accepted both as a credential and as the login of a guard. Fails if these differ."""
        is_valid = self.verifies(token)
        try:
            with self.authenticator.context(token):
                assert get_jwt()["sub"] == "ann"
        except CredentialRejected:
            assert not is_valid
            return False
        assert is_valid
        return True


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The tokens that PyJWT has decoded."""
    tokens: list[str] = []
    decode = PyJWT.decode_complete

    def note(self: PyJWT, jwt: str, *arguments: Any, **options: Any) -> Any:
        tokens.append(jwt)
        return decode(self, jwt, *arguments, **options)

    monkeypatch.setattr(PyJWT, "decode_complete", note)
    return tokens


@pytest.mark.parametrize("asks", [False, True])
def test_a_verified_token_is_not_decoded_again(decoded: list[str], *, asks: bool) -> None:
    """Guards find the same login as in a view."""
    world = World(asks=asks)
    token = world.token(additional_claims={"rooms": ["blue"]})
    first = world.authenticator.verify(token)
    assert decoded
    with world.authenticator.context(token):  # the first one shows what this version of the library sets
        as_in_a_view = get_jwt()
    decoded.clear()
    assert world.authenticator.verify(token) == first
    with world.authenticator.context(token):
        assert get_jwt() == as_in_a_view == first.user.claims
        assert get_jwt()["rooms"] == ["blue"]
        if asks:
            assert current_user == "Ann"
    assert not decoded


def test_what_the_app_says_about_a_token_is_asked_each_time() -> None:
    world = World(asks=True)
    token = world.token()
    for name, value in (("is_revoked", True), ("is_approved", False), ("user", "")):
        before = getattr(world, name)
        assert world.accepts(token)
        setattr(world, name, value)
        assert not world.accepts(token)
        setattr(world, name, before)


def test_a_function_that_is_registered_later_is_asked() -> None:
    world = World()
    token = world.token()
    assert world.accepts(token)
    world.manager.token_in_blocklist_loader(lambda *_: True)
    assert not world.accepts(token)


def test_a_function_that_changes_the_claims_gets_them_as_they_were() -> None:
    """It does not decide about its own changes."""
    world = World(asks=True)
    token = world.token(additional_claims={"name": "Ann"})
    assert not world.accepts(token)
    world.manager.token_in_blocklist_loader(lambda _, claims: claims.pop("name") != "Ann" or claims.pop("exp") < 0)
    assert world.accepts(token)
    assert world.accepts(token)


def replace_keys(app: Flask) -> None:
    app.config["JWT_PUBLIC_KEY"] = pair()[1]


def pair() -> tuple[str, str]:
    """A private and a public key."""
    key = ec.generate_private_key(ec.SECP256R1())
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    return private, key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


PRIVATE, PUBLIC = pair()
NEW_SECRET = "another secret, of the same length"


@pytest.mark.parametrize(
    ("config", "change"),
    [
        ({}, lambda app: app.config.update(JWT_SECRET_KEY=NEW_SECRET)),
        ({"JWT_SECRET_KEY": None, "SECRET_KEY": SECRET}, lambda app: app.config.update(SECRET_KEY=NEW_SECRET)),
        ({"JWT_ALGORITHM": "ES256", "JWT_PRIVATE_KEY": PRIVATE, "JWT_PUBLIC_KEY": PUBLIC}, replace_keys),
        (
            {"JWT_ALGORITHM": "HS384", "JWT_SECRET_KEY": 2 * SECRET},
            lambda app: app.config.update(JWT_ALGORITHM="HS256"),
        ),
        ({"JWT_DECODE_ALGORITHMS": ["HS384", "HS256"]}, lambda app: app.config.update(JWT_ALGORITHM="HS384")),
        ({}, lambda app: app.config.update(JWT_DECODE_AUDIENCE="others")),
        ({"JWT_DECODE_AUDIENCE": ["us"]}, lambda app: app.config["JWT_DECODE_AUDIENCE"].__setitem__(0, "others")),
        ({}, lambda app: app.config.update(JWT_DECODE_ISSUER="others")),
        ({}, lambda app: app.config.update(JWT_IDENTITY_CLAIM="user")),
        ({"JWT_DECODE_LEEWAY": 60}, lambda app: app.config.update(JWT_DECODE_LEEWAY=timedelta(0))),
        ({}, lambda app: JWTManager(app).token_in_blocklist_loader(lambda *_: True)),
    ],
)
@pytest.mark.parametrize("asks", [False, True])
def test_a_changed_setting_counts_at_once(
    config: dict[str, Any], change: Callable[[Flask], object], *, asks: bool
) -> None:
    world = World(asks=asks, **({"JWT_ENCODE_AUDIENCE": "us"} if "JWT_DECODE_AUDIENCE" in config else {}))
    world.app.config.update(copy.deepcopy(config))
    lifetime = timedelta(seconds=-5) if "JWT_DECODE_LEEWAY" in config else timedelta(hours=1)
    token = world.token(expires_delta=lifetime)
    assert world.accepts(token)
    if "JWT_DECODE_ALGORITHMS" in config:
        world.app.config["JWT_DECODE_ALGORITHMS"].remove("HS256")
    change(world.app)
    assert not world.accepts(token)


@pytest.mark.parametrize("asks", [False, True])
def test_a_remembered_token_ends_when_it_expires(*, asks: bool) -> None:
    world = World(asks=asks)
    token = world.token(expires_delta=timedelta(seconds=3))
    assert world.verifies(token)
    wait_until(lambda: not world.verifies(token))
    assert not world.accepts(token)


def test_a_remembered_token_does_not_count_before_its_time(monkeypatch: pytest.MonkeyPatch, decoded: list[str]) -> None:
    """If the clock is set back, the library decides."""
    world = World()
    token = world.token()
    assert world.accepts(token)
    decoded.clear()
    now = time.time()
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: now - 3600)
        world.authenticator.verify(token)
    assert decoded


def test_a_function_that_chooses_the_key_is_asked_each_time() -> None:
    """It may read the request."""
    world = World()
    key = SECRET
    token = world.token()
    assert world.accepts(token)
    world.manager.decode_key_loader(lambda *_: key if request.method == "GET" else "")
    assert world.accepts(token)
    key = NEW_SECRET
    assert not world.accepts(token)


def test_nothing_is_remembered_under_settings_or_managers_of_an_unknown_kind(decoded: list[str]) -> None:
    class Issuers:
        def __contains__(self, issuer: object) -> bool:
            return issuer == "us"

        def __deepcopy__(self, _: object) -> Issuers:
            return self

    class Manager(JWTManager):
        pass

    for make in (lambda app: app.config.update(JWT_DECODE_ISSUER=Issuers()), Manager):
        world = World(JWT_ENCODE_ISSUER="us")
        make(world.app)
        token = world.token()
        world.authenticator.verify(token)
        decoded.clear()
        world.authenticator.verify(token)
        assert decoded


@pytest.mark.parametrize("asks", [False, True])
def test_refresh_tokens_and_tampered_tokens_are_refused_each_time(*, asks: bool) -> None:
    world = World(asks=asks)
    token = world.token()
    assert world.accepts(token)
    head, claims, signature = token.split(".")
    other = world.token(additional_claims={"admin": True}).split(".")[1]
    for bad in (world.token(create_refresh_token), f"{head}.{other}.{signature}", f"{head}.{claims}."):
        assert not world.accepts(bad)
        assert not world.accepts(bad)


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the number of tokens and by their size. Tokens that are refused, long ones, and other forms of a token are not
    remembered at all."""
    world = World()
    remembered = world.authenticator._verified

    def all_tokens() -> list[str]:
        terms = remembered.terms()
        assert terms is not None
        return [one.credential.token for one in {**terms.older, **terms.newer}.values()]

    for _ in range(50):
        assert not world.accepts(f"{world.token()}x")
    assert world.accepts(world.token(additional_claims={"long": secrets.token_hex(3000)}))
    assert world.accepts(f"{world.token()}=")
    assert all_tokens() == []

    monkeypatch.setattr(verified_tokens, "MAX_TOKENS", 10)
    favourite = world.token()
    for _ in range(50):
        assert world.accepts(world.token())
        assert world.accepts(favourite)
        assert len(all_tokens()) <= 10
    assert favourite in all_tokens()

    monkeypatch.setattr(verified_tokens, "MAX_TOKENS", 1000)
    monkeypatch.setattr(verified_tokens, "MAX_SIZE", 3000)
    for _ in range(50):
        assert world.accepts(world.token())
    assert sum(map(len, all_tokens())) <= 3000
