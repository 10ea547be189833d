"""The upgrade to a socket of the Pusher protocol.

Rule: what is a WebSocket handshake is accepted, and a refusal follows as `pusher:error` and a close frame, because
clients tell their page nothing about an HTTP status.
"""

from __future__ import annotations

from typing import Final

from flask import Request, Response

from ...app.service import Service
from ...domain.pusher import wire
from ...hub.pusher.dialect import COME_BACK_LATER, NOT_AUTHORIZED
from ...hub.session import Session
from ...transport.codec import encode_close, encode_frame
from ...transport.takeover import offered_protocols
from ..upgrade import Upgrade, switching_protocols
from ..visitors import Refused

SUBPROTOCOLS: Final = tuple(f"pusher-channels-protocol-{version}" for version in (7, 6, 5))
VERSIONS: Final = ("5", "6", "7")
UNKNOWN_KEY: Final = 4001
DISABLED: Final = 4003
UNSUPPORTED_VERSION: Final = 4007
NO_VERSION: Final = 4008

_CODES: Final = {403: NOT_AUTHORIZED, 503: COME_BACK_LATER}
"""The codes for refusals that have an HTTP status natively."""


class PusherUpgrade(Upgrade):
    """One upgrade request to `/app/<key>`."""

    def __init__(self, service: Service, http_request: Request) -> None:
        super().__init__(service, http_request)
        self._refusal: bytes | None = None

    def complete(self) -> None:
        if self._refusal is None:
            super().complete()
        else:
            self._takeover.refuse(self._refusal)

    def _check(self) -> None:
        self._check_handshake()
        settings = self._service.settings
        if (self._request.view_args or {}).get("pusher_key") != settings.pusher_key:
            raise Refused(UNKNOWN_KEY, "UNKNOWN_KEY", "App key not in this cluster")
        if not settings.enabled:
            raise Refused(DISABLED, "CHANNELS_DISABLED", "Channels feature is disabled")
        self._check_version()
        self._check_service()
        self._reserve()
        self._check_origin()
        self._start()
        self._check_sockets()

    def _check_version(self) -> None:
        version = self._request.args.get("protocol")
        if version is None:
            raise Refused(NO_VERSION, "NO_VERSION", "The URL needs ?protocol=7")
        if version not in VERSIONS:
            raise Refused(UNSUPPORTED_VERSION, "UNSUPPORTED_VERSION", "Only the protocols 5, 6 and 7 are supported")

    def _session(self) -> Session:
        pusher = self._service.hub.pusher
        assert pusher is not None, "the route exists only if there is a key"
        return pusher.session()

    def _protocol(self) -> str | None:
        offered = offered_protocols(self._request.environ)
        return next((name for name in offered if name in SUBPROTOCOLS), None)

    def _refuse(self, refusal: Refused) -> Response | None:
        code = _CODES.get(refusal.status, refusal.status)
        if code < 4000 or not self._takeover.possible:
            if code >= 4000:
                refusal = Refused(503, refusal.code, refusal.message)
            return super()._refuse(refusal)
        self._count(refusal)
        error = encode_frame(wire.error(code, refusal.message))
        self._refusal = error + encode_close(code, refusal.message)
        if not self._takeover.needs_handshake:
            self._takeover.refuse(self._refusal)
            return switching_protocols()
        self._takeover.prepare_handshake(self._protocol())
        return None
