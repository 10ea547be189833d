"""Signatures: HMAC-SHA256 under the secret that the app shares with its signers.

Rule: every comparison takes constant time, and no text outside the alphabets that callers check is ever signed. The
secrets are in no `repr` and no error.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Signer:
    """The public `key`, and the secrets: `secret` signs, `encryption_key` (32 bytes or `None`) derives the secrets of
    encrypted channels."""

    key: str
    secret: str = field(repr=False)
    encryption_key: bytes | None = field(default=None, repr=False)

    def sign(self, text: str | bytes) -> str:
        """The signature of a text: HMAC-SHA256 of its UTF-8, in lower-case hex."""
        payload = text.encode() if isinstance(text, str) else text
        return hmac.new(self.secret.encode(), payload, hashlib.sha256).hexdigest()

    def is_signature(self, signature: str, text: str | bytes) -> bool:
        """Whether `signature` is that of `text`."""
        return hmac.compare_digest(signature.encode("utf-8", "replace"), self.sign(text).encode())

    def channel_auth(self, socket_id: str, channel: str, channel_data: str | None = None) -> str:
        """The `auth` with which a socket may subscribe to a channel, with this `channel_data`."""
        return f"{self.key}:{self.sign(_channel_text(socket_id, channel, channel_data))}"

    def user_auth(self, socket_id: str, user_data: str) -> str:
        """The `auth` with which a socket may sign in."""
        return f"{self.key}:{self.sign(_user_text(socket_id, user_data))}"

    def allows_channel(self, auth: str, socket_id: str, channel: str, channel_data: str | None) -> bool:
        """Whether `auth` lets the socket subscribe to the channel, with this `channel_data`."""
        return self._is_auth(auth, _channel_text(socket_id, channel, channel_data))

    def allows_user(self, auth: str, socket_id: str, user_data: str) -> bool:
        """Whether `auth` lets the socket sign in with this `user_data`."""
        return self._is_auth(auth, _user_text(socket_id, user_data))

    def shared_secret(self, channel: str) -> str:
        """The secret with which the clients of an encrypted channel encrypt, in base64. Needs an `encryption_key`."""
        assert self.encryption_key is not None, "the setting is checked before"
        digest = hashlib.sha256(channel.encode() + self.encryption_key).digest()
        return base64.b64encode(digest).decode()

    def _is_auth(self, auth: str, text: str) -> bool:
        key, _, signature = auth.partition(":")
        is_key = hmac.compare_digest(key.encode("utf-8", "replace"), self.key.encode())
        return self.is_signature(signature, text) and is_key


def _channel_text(socket_id: str, channel: str, channel_data: str | None) -> str:
    text = f"{socket_id}:{channel}"
    return text if channel_data is None else f"{text}:{channel_data}"


def _user_text(socket_id: str, user_data: str) -> str:
    return f"{socket_id}::user::{user_data}"
