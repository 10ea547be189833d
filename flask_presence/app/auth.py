"""Who a request or a token belongs to, by flask-jwt-extended's public functions or the app's loader.

Law: every token passes `verify_jwt_in_request`, so that signature, time, type, blocklist and the app's own
verification all count; `decode_token` alone would take revoked and refresh tokens.
"""

from __future__ import annotations

import logging
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from functools import cached_property
from typing import Any, Final

import msgspec
from flask import Flask, Request
from flask_jwt_extended import get_jwt, get_jwt_identity, verify_jwt_in_request
from flask_jwt_extended.exceptions import JWTExtendedException
from jwt.exceptions import PyJWTError

from ..domain.callables import discard_coroutine
from ..domain.errors import CredentialRejected
from ..domain.members import User
from ..hub.ports import Credential, Login
from ..settings import Settings
from ..transport.takeover import BEARER, offered_protocols
from .log_throttle import Complaints
from .stall_watch import StallWatch

_TOKEN: Final = re.compile(r"[A-Za-z0-9_.=-]+")
_EVERYDAY: Final = ("ExpiredSignatureError", "RevokedTokenError")
NO_JWT_MANAGER: Final = (
    "a token was refused, as the app has neither flask-jwt-extended's JWTManager nor a user_loader: call "
    "JWTManager(app), or register @presence.user_loader"
)
_KEPT: Final = frozenset(
    ("PATH_INFO", "SCRIPT_NAME", "QUERY_STRING", "SERVER_NAME", "SERVER_PORT", "REMOTE_ADDR", "wsgi.url_scheme")
)
_OF_THE_HANDSHAKE: Final = ("HTTP_SEC_WEBSOCKET_", "HTTP_UPGRADE", "HTTP_CONNECTION")
_END_OF_TIME: Final = 253402300799.0  # the last second of the year 9999

UserLoader = Callable[[], User | None]


class AuthenticationRequired(Exception):
    """No credential, where `PRESENCE_AUTH_REQUIRED` asks for one."""


class Visitor:
    """Who an upgrade request is from. `by_cookie`: nothing but a cookie says so. `upgrade` is what is kept of the
    request, where a `user_loader` has looked at it."""

    __slots__ = ("by_cookie", "credential", "upgrade", "user")

    def __init__(
        self,
        user: User | None,
        credential: Credential | None = None,
        *,
        upgrade: bytes | None = None,
        by_cookie: bool = False,
    ) -> None:
        self.user = user
        self.credential = credential
        self.upgrade = upgrade
        self.by_cookie = by_cookie


class Authenticator:
    """The authentication of one app. Its methods may block; none needs a context."""

    def __init__(
        self, app: Flask, settings: Settings, loader: Callable[[], UserLoader | None], stalls: StallWatch
    ) -> None:
        self._app = app
        self._settings = settings
        self._loader = loader
        self._stalls = stalls
        self._complaints = Complaints()

    @property
    def has_user_loader(self) -> bool:
        """Whether the app's `user_loader` decides who somebody is, and not flask-jwt-extended."""
        return self._loader() is not None

    @property
    def takes_tokens(self) -> bool:
        """Whether flask-jwt-extended decides who somebody is."""
        return not self.has_user_loader and "flask-jwt-extended" in self._app.extensions

    def identify_visitor(self, request: Request) -> Visitor:
        """Who opens a socket with `request`.

        Raises `CredentialRejected` for an explicit credential that is bad, `AuthenticationRequired` where
        there is none and one is required.
        """
        loader = self._loader()
        visitor = self._load_visitor(loader, request) if loader else self._verify_visitor(request)
        if visitor.user is None and self._settings.auth_required:
            raise AuthenticationRequired
        return visitor

    def verify(self, token: str) -> Credential:
        """Whose `token` is, and until when. Raises `CredentialRejected`."""
        if not _TOKEN.fullmatch(token):
            raise CredentialRejected("this is no token")
        with self.context(token):
            identity = get_jwt_identity()
            if identity is None or identity == "":
                raise CredentialRejected("the token names nobody")
            claims = dict(get_jwt())
        texts = {key: claims[key] for key in ("name", "email", "avatar") if isinstance(claims.get(key), str)}
        expires_at = _expiry(claims, self._app.config.get("JWT_DECODE_LEEWAY", 0))
        return Credential(token, User(str(identity), claims=claims, **texts), expires_at)

    def load_user(self, upgrade: bytes) -> User | None:
        """Ask the loader again about a connection. Raises what goes wrong in it."""
        loader = self._loader()
        if loader is None:
            raise RuntimeError("there is no user_loader any more")
        with self.context(upgrade), self._stalls.calling(loader, "the user_loader"):
            user: object = loader()
        if user is None or isinstance(user, User):
            return user
        discard_coroutine(user)
        raise TypeError(f"the user_loader must return a flask_presence.User or None, not {user!r:.200}")

    @contextmanager
    def context(self, login: Login) -> Iterator[None]:
        """A fresh app context in which a connection's login works as in a view: `current_user` and `get_jwt` for a
        token, which is verified; for a `user_loader` the request is the upgrade, so that Flask-Login's does.

        The outer app context makes the teardown run and `g` new even where another context is active.
        Raises `CredentialRejected` for a token that is no longer good.
        """
        with self._app.app_context():
            if isinstance(login, bytes):
                with self._app.request_context(self._blank_environ | _restored(login)):
                    yield
                return
            token = login
            if token is None:
                with self._anonymous_context():
                    yield
                return
            if "flask-jwt-extended" not in self._app.extensions:
                self._complaints.complain("no JWTManager", logging.ERROR, NO_JWT_MANAGER)
                raise CredentialRejected("the app has no JWTManager")
            with self._app.request_context(self._environ(token)):
                try:
                    verify_jwt_in_request(locations=["headers"])
                except (JWTExtendedException, PyJWTError) as problem:
                    self._log_refusal(problem)
                    raise CredentialRejected(type(problem).__name__) from None
                yield

    @contextmanager
    def _anonymous_context(self) -> Iterator[None]:
        if "flask-jwt-extended" not in self._app.extensions:
            yield
            return
        with self._app.request_context(self._environ(None)):
            verify_jwt_in_request(optional=True, locations=["headers"])
            yield

    def _environ(self, token: str | None) -> dict[str, Any]:
        config = self._app.config
        environ = dict(self._blank_environ)
        if token is not None:
            kind = config["JWT_HEADER_TYPE"]
            header = "HTTP_" + config["JWT_HEADER_NAME"].upper().replace("-", "_")
            environ[header] = f"{kind} {token}" if kind else token
        return environ

    @cached_property
    def _blank_environ(self) -> dict[str, Any]:
        environ = self._app.test_request_context(f"{self._settings.url_prefix}/ws").request.environ
        return {key: value for key, value in environ.items() if key != "werkzeug.request"}

    def _load_visitor(self, loader: UserLoader, request: Request) -> Visitor:
        # What belongs to this very request must not be found, and released, by the inner one.
        own = ("werkzeug.request", "flask_presence.upgrade")
        environ = {key: value for key, value in request.environ.items() if key not in own}
        user = self._load(loader, environ)
        by_cookie = False
        if user is not None and request.cookies and "Origin" not in request.headers:
            # A balancer's cookie is none of ours: was it a cookie that said who this is?
            del environ["HTTP_COOKIE"]
            try:
                without = self._load(loader, environ, quiet=True)
            except CredentialRejected:
                without = None
            by_cookie = without is None or without.id != user.id
        return Visitor(user, upgrade=_kept(request.environ), by_cookie=by_cookie)

    def _load(self, loader: UserLoader, environ: dict[str, Any], *, quiet: bool = False) -> User | None:
        complain = (lambda *_, **__: None) if quiet else self._complaints.complain
        try:
            with (
                self._app.app_context(),
                self._app.request_context(dict(environ)),
                self._stalls.calling(loader, "the user_loader"),
            ):
                user: object = loader()
        except BaseException as problem:
            text = f"the user_loader failed; the client was refused with 401{hint(self._app, problem)}"
            complain("user_loader", logging.ERROR, text, problem=problem)
            raise CredentialRejected("the user_loader failed") from problem
        if user is None or isinstance(user, User):
            return user
        discard_coroutine(user)
        complain(
            "user_loader", logging.ERROR, "the user_loader must return a flask_presence.User or None, not %.200r", user
        )
        raise CredentialRejected("the user_loader returned no User")

    def _verify_visitor(self, request: Request) -> Visitor:
        token = self._explicit_token(request)
        if token is not None:
            credential = self._verify_or_refuse(token)
            return Visitor(credential.user, credential)
        cookie = self._cookie_token(request)
        if cookie:
            try:
                credential = self._verify_or_refuse(cookie)
            except CredentialRejected:
                return Visitor(None)
            return Visitor(credential.user, credential, by_cookie=True)
        return Visitor(None)

    def _log_refusal(self, problem: Exception) -> None:
        """Say what a token was refused for: what happens to every token some day where that is wanted, else always."""
        kind = type(problem).__name__
        level = logging.INFO if kind in _EVERYDAY else logging.WARNING
        self._complaints.complain(f"token {kind}", level, "a token was refused: %s: %.200s", kind, problem)

    def _verify_or_refuse(self, token: str) -> Credential:
        try:
            return self.verify(token)
        except CredentialRejected:
            raise
        except Exception as problem:
            text = "a token could not be verified; it counts as invalid"
            self._complaints.complain("token", logging.ERROR, text, problem=problem)
            raise CredentialRejected("the verification failed") from problem

    def _explicit_token(self, request: Request) -> str | None:
        """The token that the client itself put into the request; `""` where there is a place but no token."""
        config, settings = self._app.config, self._settings
        if settings.token_in_query and request.args.get("token"):
            return request.args["token"]
        own_kind = str(config.get("JWT_HEADER_TYPE", "Bearer"))
        kind, _, token = request.headers.get("Authorization", "").strip().partition(" ")
        if kind and kind.lower() in ("bearer", own_kind.lower()):
            return token.strip()
        offered = offered_protocols(request.environ)
        if BEARER in offered:
            return next(iter(offered[offered.index(BEARER) + 1 :]), "")
        locations = self._locations()
        own_header = str(request.headers.get(config.get("JWT_HEADER_NAME", "Authorization"), "")).strip()
        if "headers" in locations and own_header:
            kind, _, token = own_header.rpartition(" ")
            if kind.lower() == own_kind.lower():
                return token
        if "query_string" in locations and settings.token_in_query:
            value = request.args.get(config.get("JWT_QUERY_STRING_NAME", "jwt"))
            if value:
                return value.removeprefix(config.get("JWT_QUERY_STRING_VALUE_PREFIX", ""))
        return None

    def _cookie_token(self, request: Request) -> str | None:
        if "cookies" not in self._locations():
            return None
        name: str = self._app.config.get("JWT_ACCESS_COOKIE_NAME", "access_token_cookie")
        return request.cookies.get(name)

    def _locations(self) -> list[str]:
        locations = self._app.config.get("JWT_TOKEN_LOCATION", "headers")
        return [locations] if isinstance(locations, str) else list(locations)


def _expiry(claims: dict[str, Any], leeway: float | timedelta) -> float | None:
    """The `exp` claim, which may be a number in a string, and the app's leeway after it; no later than the end of the
    calendar."""
    if claims.get("exp") is None:
        return None
    seconds = leeway.total_seconds() if isinstance(leeway, timedelta) else leeway
    return min(float(claims["exp"]) + seconds, _END_OF_TIME)


def _kept(environ: Mapping[str, Any]) -> bytes:
    """What a login may be read from: path, query, headers and addresses of a request; some hundred bytes."""
    kept = {
        key: value
        for key, value in environ.items()
        if key in _KEPT or (key.startswith("HTTP_") and not key.startswith(_OF_THE_HANDSHAKE))
    }
    return zlib.compress(msgspec.json.encode(kept), 1)


def _restored(upgrade: bytes) -> dict[str, Any]:
    """What `_kept` was given."""
    environ: dict[str, Any] = msgspec.json.decode(zlib.decompress(upgrade))
    return environ


def takes_cookies(app: Flask) -> bool:
    """Whether a browser's cookies may be a credential for `app`'s tokens."""
    return "cookies" in app.config.get("JWT_TOKEN_LOCATION", ())


def hint(app: Flask, problem: BaseException) -> str:
    """What to add to a log line about an app's function that has found nothing in `g`."""
    if isinstance(problem, AttributeError) and isinstance(problem.obj, app.app_ctx_globals_class):
        return (
            f". It reads g.{problem.name}, which is not there: functions of before_request do not run for it, so it "
            "must find the user itself, in the session, a cookie or a header"
        )
    return ""
