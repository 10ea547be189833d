"""Authentication: finds out which user a request or a token belongs to, with flask-jwt-extended or a `user_loader`.

Rule: of every token, the signature, the expiry, the type, the blocklist and the app's own conditions are checked, as
`verify_jwt_in_request` does. `decode_token` alone would accept revoked tokens and refresh tokens, so it is used only if
the app has no conditions, and together with the check of the type.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from functools import cached_property
from typing import Any, Final

from flask import Flask, Request
from flask_jwt_extended import decode_token, get_jwt, verify_jwt_in_request
from flask_jwt_extended.exceptions import JWTExtendedException
from jwt.exceptions import PyJWTError

from ..domain.callables import discard_coroutine
from ..domain.errors import CredentialRejected
from ..domain.members import User
from ..domain.text import is_sendable
from ..hub.ports import Credential, Login
from ..settings import Settings
from .log_throttle import LogThrottle
from .stall_watch import StallWatch
from .tokens import cookie_token, explicit_token
from .upgrade_environ import decode_upgrade, encode_upgrade
from .verified_tokens import VerifiedTokens, check_type

_TOKEN: Final = re.compile(r"[A-Za-z0-9_.=-]+")
_ROUTINE_PROBLEMS: Final = ("ExpiredSignatureError", "RevokedTokenError")
NO_JWT_MANAGER: Final = (
    "a token was refused, because the app has neither flask-jwt-extended's JWTManager nor a user_loader: call "
    "JWTManager(app), or register @presence.user_loader"
)
MAX_CLAIM_NAMES: Final = 256
_LATEST_EXPIRY: Final = 253402300799.0  # the last second of the year 9999, the end of `datetime`

UserLoader = Callable[[], User | None]


class AuthenticationRequired(Exception):
    """The request has no credential, and `PRESENCE_AUTH_REQUIRED` is set."""


class Visitor:
    """Who a request is from: `user` is `None` if the visitor is anonymous.

    `credential` is the visitor's verified token. If the `user_loader` was asked, `upgrade` is the request in the form
    of `encode_upgrade`. `by_cookie` says that a cookie alone identifies the visitor.
    """

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

    @property
    def login(self) -> Login:
        """What identifies the user, see `Login`."""
        return self.credential.token if self.credential else self.upgrade


class Authenticator:
    """The authentication of one app. Its methods may block, and none needs a context.

    `find_loader` returns the app's `user_loader`, if there is one.
    """

    def __init__(
        self, app: Flask, settings: Settings, find_loader: Callable[[], UserLoader | None], stall_watch: StallWatch
    ) -> None:
        self._app = app
        self._settings = settings
        self._find_loader = find_loader
        self._stall_watch = stall_watch
        self._log_throttle = LogThrottle()
        self._claim_names: dict[str, str] = {}
        self._verified = VerifiedTokens(app)
        self._restores = False

    @property
    def has_user_loader(self) -> bool:
        """Whether the app's `user_loader` identifies users, so that flask-jwt-extended does not."""
        return self._find_loader() is not None

    @property
    def takes_tokens(self) -> bool:
        """Whether flask-jwt-extended identifies users."""
        return not self.has_user_loader and "flask-jwt-extended" in self._app.extensions

    def identify_visitor(self, request: Request) -> Visitor:
        """Identify who sends a request: an upgrade, or a question for a signature.

        Raises `CredentialRejected` if an explicit credential is not valid, and `AuthenticationRequired` if the visitor
        is anonymous and must not be.
        """
        loader = self._find_loader()
        visitor = self._load_visitor(loader, request) if loader else self._verify_visitor(request)
        if visitor.user is None and self._settings.auth_required:
            raise AuthenticationRequired
        return visitor

    def verify(self, token: str) -> Credential:
        """Verify a token. Returns its user and when it expires. Raises `CredentialRejected`."""
        if not _TOKEN.fullmatch(token):
            raise CredentialRejected("the text does not have the form of a token")
        verified = self._verified
        if "flask-jwt-extended" in self._app.extensions and not verified.asks_app():
            known = verified.find(token)
            if known is not None:
                return known.credential
            terms = verified.terms()
            with self._app.app_context():
                credential = self._credential(token, self._decode(token))
                verified.add(terms, credential)
            return credential
        terms = verified.terms()
        with self.context(token):
            credential = self._credential(token, get_jwt())
            verified.add(terms, credential)
        return credential

    def _decode(self, token: str) -> dict[str, Any]:
        """The claims of a valid token. In an app context. Only for apps that have no functions of their own to ask."""
        try:
            claims = decode_token(token)
            check_type(claims)
        except (JWTExtendedException, PyJWTError) as problem:
            self._log_refusal(problem)
            raise CredentialRejected(type(problem).__name__) from None
        return claims

    def _credential(self, token: str, verified_claims: Mapping[str, Any]) -> Credential:
        """The credential of a verified token."""
        identity = verified_claims.get(self._app.config["JWT_IDENTITY_CLAIM"])
        if identity is None or str(identity) == "":
            raise CredentialRejected("the token has no identity")
        if not is_sendable(str(identity)):
            raise CredentialRejected("the identity has lone surrogates")
        claims = {self._claim_name(name): value for name, value in verified_claims.items()}
        texts = {key: claims[key] for key in ("name", "email", "avatar") if isinstance(claims.get(key), str)}
        expires_at = _expiry(claims, self._app.config.get("JWT_DECODE_LEEWAY", 0))
        return Credential(token, User(str(identity), claims=claims, **texts), expires_at)

    def load_user(self, upgrade: bytes) -> User | None:
        """Ask the `user_loader` again about an open connection. Raises what it raises."""
        loader = self._find_loader()
        if loader is None:
            raise RuntimeError("there is no user_loader any more")
        with self.context(upgrade), self._stall_watch.calling(loader, "the user_loader"):
            user: object = loader()
        if user is None or isinstance(user, User):
            return user
        discard_coroutine(user)
        raise TypeError(f"the user_loader must return a flask_presence.User or None, not {user!r:.200}")

    @contextmanager
    def context(self, login: Login) -> Iterator[None]:
        """A fresh app and request context in which a connection's login works like in a view.

        A token is verified, so that flask-jwt-extended's `current_user` and `get_jwt` work. For a `user_loader`, the
        request is the upgrade, so that Flask-Login's `current_user` works. Raises `CredentialRejected` if the token is
        no longer valid.
        """
        with self._app.app_context():  # a new one even if one is active: `g` is new, and teardown functions run
            if isinstance(login, bytes):
                with self._app.request_context(self._blank_environ | decode_upgrade(login)):
                    yield
                return
            if login is None:
                with self._anonymous_context():
                    yield
                return
            if "flask-jwt-extended" not in self._app.extensions:
                self._log_throttle.log("no JWTManager", logging.ERROR, NO_JWT_MANAGER)
                raise CredentialRejected("the app has no JWTManager")
            with self._app.request_context(self._environ(login)):
                try:
                    if self._restores and self._verified.find(login) is not None:
                        self._verified.restore(login)
                    else:
                        verify_jwt_in_request(locations=["headers"])
                        self._restores = self._verified.can_restore()
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

    def _claim_name(self, name: str) -> str:
        """`name`, as one object for all tokens, because connections keep their claims."""
        if len(self._claim_names) < MAX_CLAIM_NAMES:
            return self._claim_names.setdefault(name, name)
        return self._claim_names.get(name, name)

    def _load_visitor(self, loader: UserLoader, request: Request) -> Visitor:
        # The inner context must not find the outer request's objects: it would close them when it ends.
        own = ("werkzeug.request", "flask_presence.upgrade")
        environ = {key: value for key, value in request.environ.items() if key not in own}
        user = self._load(loader, environ)
        by_cookie = False
        if user is not None and request.cookies and "Origin" not in request.headers:
            # The cookies may be a load balancer's. Load without them, to see whether one of them identifies the user.
            del environ["HTTP_COOKIE"]
            try:
                user_without_cookies = self._load(loader, environ, quiet=True)
            except CredentialRejected:
                user_without_cookies = None
            by_cookie = user_without_cookies is None or user_without_cookies.id != user.id
        return Visitor(user, upgrade=encode_upgrade(request.environ), by_cookie=by_cookie)

    def _load(self, loader: UserLoader, environ: dict[str, Any], *, quiet: bool = False) -> User | None:
        log = (lambda *_, **__: None) if quiet else self._log_throttle.log
        try:
            with (
                self._app.app_context(),
                self._app.request_context(dict(environ)),
                self._stall_watch.calling(loader, "the user_loader"),
            ):
                user: object = loader()
        except BaseException as problem:
            text = f"the user_loader failed; the client was refused with 401{hint(self._app, problem)}"
            log("user_loader", logging.ERROR, text, problem=problem)
            raise CredentialRejected("the user_loader failed") from problem
        if user is None or isinstance(user, User):
            return user
        discard_coroutine(user)
        log("user_loader", logging.ERROR, "the user_loader must return a flask_presence.User or None, not %.200r", user)
        raise CredentialRejected("the user_loader returned something that is not a User")

    def _verify_visitor(self, request: Request) -> Visitor:
        config = self._app.config
        token = explicit_token(request, config, in_query=self._settings.token_in_query)
        if token is not None:
            credential = self._verify_or_refuse(token)
            return Visitor(credential.user, credential)
        cookie = cookie_token(request, config)
        if cookie:
            try:
                credential = self._verify_or_refuse(cookie)
            except CredentialRejected:
                return Visitor(None)
            return Visitor(credential.user, credential, by_cookie=True)
        return Visitor(None)

    def _log_refusal(self, problem: Exception) -> None:
        """Log why a token was refused: as information if it has expired or was revoked, otherwise as a warning."""
        kind = type(problem).__name__
        level = logging.INFO if kind in _ROUTINE_PROBLEMS else logging.WARNING
        self._log_throttle.log(f"token {kind}", level, "a token was refused: %s: %.200s", kind, problem)

    def _verify_or_refuse(self, token: str) -> Credential:
        try:
            return self.verify(token)
        except CredentialRejected:
            raise
        except Exception as problem:
            text = "a token could not be verified; it counts as invalid"
            self._log_throttle.log("token", logging.ERROR, text, problem=problem)
            raise CredentialRejected("the verification failed") from problem


def _expiry(claims: dict[str, Any], leeway: float | timedelta) -> float | None:
    """When a token expires, in epoch seconds: its `exp` claim, which may be a number in a string, plus the leeway."""
    if claims.get("exp") is None:
        return None
    seconds = leeway.total_seconds() if isinstance(leeway, timedelta) else leeway
    return min(float(claims["exp"]) + seconds, _LATEST_EXPIRY)


def hint(app: Flask, problem: BaseException) -> str:
    """What to add to the log line about a function of the app that failed because `g` lacks an attribute."""
    if isinstance(problem, AttributeError) and isinstance(problem.obj, app.app_ctx_globals_class):
        return (
            f". It reads g.{problem.name}, which is not set: no before_request function runs before it, so it must "
            "find the user itself, in the session, a cookie or a header"
        )
    return ""
