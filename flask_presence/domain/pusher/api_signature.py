"""The signatures of requests to the HTTP API: the query says who signed, and when, and the body's digest.

Rule: a request counts only if all of its signature is right. Nothing here reads the time: callers pass it.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl

from .signing import Signer

MAX_AGE: Final = 600
"""By how many seconds a request's timestamp may differ from the server's time."""
VERSION: Final = "1.0"

_MAX_DIGITS: Final = 15


class BadSignature(Exception):
    """A part of a request's signature is absent or wrong. The text says which, and reveals no secret."""


@dataclass(frozen=True, slots=True)
class SignedRequest:
    """A request, as it was signed. `path` is decoded, and has the prefix under which the app is mounted. `parameters`
    are those of the query, with names in lower case."""

    method: str
    path: str
    parameters: Mapping[str, str]

    @property
    def text(self) -> str:
        """What the client has signed."""
        signed = sorted(pair for pair in self.parameters.items() if pair[0] != "auth_signature")
        return "\n".join((self.method, self.path, "&".join(f"{name}={value}" for name, value in signed)))

    def check(self, signer: Signer, now: float) -> None:
        """Raise `BadSignature` if the signature is not that of `signer`, made at about `now`, in epoch seconds."""
        given = {name: self._required(name) for name in ("auth_key", "auth_timestamp", "auth_version")}
        if not hmac.compare_digest(_bytes(given["auth_key"]), signer.key.encode()):
            raise BadSignature("auth_key is not the key of this app")
        if given["auth_version"] != VERSION:
            raise BadSignature(f"auth_version must be {VERSION}")
        if not signer.is_signature(self._required("auth_signature"), _bytes(self.text)):
            raise BadSignature(f"Invalid signature: it must be the HMAC-SHA256, in hex, of {self.text!r}")
        timestamp = given["auth_timestamp"]
        if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= _MAX_DIGITS):
            raise BadSignature("auth_timestamp must be a whole number of seconds since 1970")
        if abs(now - int(timestamp)) > MAX_AGE:
            raise BadSignature(
                f"auth_timestamp differs by more than {MAX_AGE} seconds from the time of this server, {int(now)}: "
                "check the clocks of both"
            )

    def check_body(self, body: bytes) -> None:
        """Raise `BadSignature` if the digest in the query is not that of `body`, or if there is a body without one."""
        digest = self.parameters.get("body_md5")
        if digest is None:
            if body:
                raise BadSignature("body_md5 is required with a body")
            return
        if not hmac.compare_digest(_bytes(digest), hashlib.md5(body, usedforsecurity=False).hexdigest().encode()):
            raise BadSignature("body_md5 is not the MD5, in hex, of the body")

    def _required(self, name: str) -> str:
        value = self.parameters.get(name)
        if value is None:
            raise BadSignature(f"{name} is required")
        return value


def read_request(method: str, path: str, query: str) -> SignedRequest:
    """A request with its query as it was sent. Raises `BadSignature` if a parameter is there twice, because nobody
    could say which of them counts."""
    parameters: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name.lower() in parameters:
            raise BadSignature(f"The parameter {name.lower()!r} is there twice")
        parameters[name.lower()] = value
    return SignedRequest(method.upper(), path, parameters)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "replace")
