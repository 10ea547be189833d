"""Remembers which tokens flask-jwt-extended has verified, because a connection's token is verified again and again.

Rule: only what cannot change is remembered: that the signature and the claims of a token are valid under the app's
settings. If a setting changes, everything is forgotten. The clock is read each time, and whatever the app itself
decides about a token is asked each time by the caller.
"""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final, NamedTuple

import msgspec
from flask import Flask, g
from flask_jwt_extended import JWTManager, default_callbacks

from ..hub.ports import Credential

try:  # not documented, and so perhaps not in every version
    from flask_jwt_extended.internal_utils import (
        custom_verification_for_token,
        verify_token_not_blocklisted,
        verify_token_type,
    )
    from flask_jwt_extended.view_decorators import _load_user
except ImportError:
    KNOWS_LIBRARY = False
else:
    KNOWS_LIBRARY = True
"""Whether flask-jwt-extended has the functions with which `VerifiedTokens.restore` asks the app."""

MAX_TOKENS: Final = 10000
MAX_SIZE: Final = 4194304
"""The size of all remembered tokens, in characters."""
MAX_TOKEN_SIZE: Final = 4096
"""Longer tokens are not remembered."""

_G_NAMES: Final = frozenset(f"_jwt_extended_jwt{suffix}" for suffix in ("", "_header", "_user", "_location"))
_PLAIN_TYPES: Final = (str, bytes, bool, int, float, timedelta, type(None))
_CONTAINERS: Final = (list, tuple, set, frozenset)
_FUNCTIONS: Final = ("_token_in_blocklist_callback", "_token_verification_callback", "_user_lookup_callback")


class Remembered(NamedTuple):
    """A token that is valid from `not_before` until `expires_at`, in epoch seconds, leeway included."""

    credential: Credential
    not_before: float
    expires_at: float


class Terms:
    """Settings that the verification depends on, the app's functions, and what was verified under them.

    The tokens are in two halves. When the newer half is full, it becomes the older one, whose tokens are forgotten
    unless they are used again meanwhile. So nothing is locked, which a fork could leave locked.
    """

    __slots__ = ("functions", "newer", "older", "settings", "size")

    def __init__(self, settings: list[Any], functions: list[Any]) -> None:
        self.settings = settings
        self.functions = functions
        self.newer: dict[bytes, Remembered] = {}
        self.older: dict[bytes, Remembered] = {}
        self.size = 0  # of the newer half

    def find(self, key: bytes) -> Remembered | None:
        found = self.newer.get(key)
        if found is None:
            found = self.older.get(key)
            if found is not None:
                self.add(key, found)
        return found

    def add(self, key: bytes, remembered: Remembered) -> None:
        size = len(remembered.credential.token)
        if len(self.newer) >= MAX_TOKENS // 2 or self.size + size > MAX_SIZE // 2:
            self.older, self.newer, self.size = self.newer, {}, 0
        self.newer[key] = remembered
        self.size += size

    def forget(self, key: bytes) -> None:
        self.newer.pop(key, None)
        self.older.pop(key, None)


class VerifiedTokens:
    """The tokens that flask-jwt-extended has verified for one app."""

    def __init__(self, app: Flask) -> None:
        self._app = app
        self._names: tuple[str, ...] = ()
        self._config_size = -1
        self._terms = Terms([], [])

    def terms(self) -> Terms | None:
        """What a token is verified under now. `None` if nothing may be remembered, because the app has a function that
        chooses the key, or settings or a manager of an unknown kind."""
        manager = self._app.extensions.get("flask-jwt-extended")
        own = vars(manager) if type(manager) is JWTManager else {}
        if own.get("_decode_key_callback") is not default_callbacks.default_decode_key_callback:
            return None
        config = self._app.config
        if len(config) != self._config_size:
            self._config_size = len(config)
            self._names = ("SECRET_KEY", *sorted(name for name in config if name.startswith("JWT_")))
        settings, functions = [*map(config.get, self._names)], [manager, *map(own.get, _FUNCTIONS)]
        terms = self._terms
        if settings != terms.settings or functions != terms.functions:
            if not all(map(_is_plain, settings)):
                return None
            terms = self._terms = Terms(copy.deepcopy(settings), functions)
        return terms

    def asks_app(self) -> bool:
        """Whether the app has functions of its own that decide about a token: its key, whether it is revoked, whose it
        is, or anything else. `True` if that cannot be found out."""
        manager = self._app.extensions.get("flask-jwt-extended")
        own = vars(manager) if type(manager) is JWTManager else {}
        return not (
            KNOWS_LIBRARY
            and own.get("_decode_key_callback") is default_callbacks.default_decode_key_callback
            and own.get("_token_in_blocklist_callback") is default_callbacks.default_blocklist_callback
            and own.get("_token_verification_callback") is default_callbacks.default_token_verification_callback
            and own.get("_user_lookup_callback", manager) is None
        )

    def find(self, token: str) -> Remembered | None:
        """What is known of a token that was verified under the current settings, and is valid now."""
        terms = self.terms()
        if terms is None or len(token) > MAX_TOKEN_SIZE:
            return None
        key = _key(token)
        found = terms.find(key)
        if found is not None and not found.not_before <= time.time() < found.expires_at:
            terms.forget(key)
            return None
        return found

    def add(self, terms: Terms | None, credential: Credential) -> None:
        """Remember a token that was verified just now. `terms` is what `terms()` returned before that."""
        token = credential.token
        if terms is None or terms is not self.terms() or len(token) > MAX_TOKEN_SIZE:
            return
        if "=" in token:  # what follows the padding of the signature is ignored, so one token has any number of forms
            return
        # Not the user's claims, which the app's functions may have changed:
        claims, leeway = _decode(token, 1), _seconds(self._app.config["JWT_DECODE_LEEWAY"])
        try:
            not_before = max(float(claims.get(name) or 0) for name in ("nbf", "iat")) - leeway
            end = claims.get("exp")
            expires_at = float("inf") if end is None else int(end) + leeway
        except (TypeError, ValueError, OverflowError):
            return  # no date that can be compared with the clock
        terms.add(_key(token), Remembered(credential, not_before, expires_at))

    @staticmethod
    def restore(token: str) -> None:
        """Do for a remembered token what `verify_jwt_in_request` does after it has decoded a token: check the type, ask
        the app's functions, and set what `get_jwt` and `current_user` read. In a request context. Raises like
        `verify_jwt_in_request`."""
        header, claims = _decode(token, 0), _decode(token, 1)
        claims.setdefault("type", "access")
        claims.setdefault("fresh", False)
        claims.setdefault("jti", None)
        verify_token_type(claims, False)
        verify_token_not_blocklisted(header, claims)
        custom_verification_for_token(header, claims)
        values = {"": claims, "_header": header, "_user": _load_user(header, claims), "_location": "headers"}
        for suffix, value in values.items():
            setattr(g, f"_jwt_extended_jwt{suffix}", value)

    @staticmethod
    def can_restore() -> bool:
        """Whether `restore` sets what this version of flask-jwt-extended sets. In the context of a verified token."""
        return KNOWS_LIBRARY and {name for name in g if name.startswith("_jwt_extended")} == _G_NAMES


def check_type(claims: Mapping[str, Any]) -> None:
    """Raise what flask-jwt-extended raises for a token that is not an access token."""
    verify_token_type(dict(claims), False)


def _key(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _decode(token: str, part: int) -> dict[str, Any]:
    """The header (0) or the claims (1) of a token whose signature has been verified, as an object of their own."""
    text = token.split(".")[part]
    payload = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    decoded: dict[str, Any]
    try:
        decoded = msgspec.json.decode(payload)  # a third of the time
    except Exception:  # it is stricter: NaN, lone surrogates, other encodings
        decoded = json.loads(payload)
    return decoded


def _seconds(leeway: float | timedelta) -> float:
    return leeway.total_seconds() if isinstance(leeway, timedelta) else float(leeway)


def _is_plain(value: Any) -> bool:
    """Whether a setting can be copied, and compared with its copy."""
    return type(value) in _PLAIN_TYPES or (type(value) in _CONTAINERS and all(map(_is_plain, value)))
