"""A back end that calls the HTTP API of the Pusher dialect, by hand or with the SDK from PyPI, and a plain socket."""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

import pusher  # type: ignore[import-untyped]
from websockets.sync.client import ClientConnection, connect

from .server import DEADLINE, Server

API_KEY = "api-key"
API_SECRET = "a secret of a back end"
MASTER_KEY = "YSBrZXkgb2YgdGhpcnR5LXR3byBieXRlcyBsb25nISE="
API_SETTINGS = {
    "PRESENCE_PUSHER_KEY": API_KEY,
    "PRESENCE_PUSHER_SECRET": API_SECRET,
    "PRESENCE_PUSHER_APP_ID": "7",
    "PRESENCE_PUSHER_ENCRYPTION_KEY": MASTER_KEY,
}


class Response(NamedTuple):
    status: int
    headers: Mapping[str, str]
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)

    @property
    def error(self) -> tuple[int, str]:
        """The status, and the code of the error in the body, which must have a message."""
        error = self.json["error"]
        assert set(error) == {"code", "message"}
        assert error["message"]
        return self.status, error["code"]


def send(
    server: Server,
    method: str,
    path: str,
    body: bytes | Iterable[bytes] = b"",
    headers: Mapping[str, str] | None = None,
) -> Response:
    """A request as it is given. A body that is not bytes is sent in chunks, without its length."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=DEADLINE)
    try:
        chunked = not isinstance(body, bytes)
        extra = {"Transfer-Encoding": "chunked"} if chunked else {}
        connection.request(method, path, body or None, {**(headers or {}), **extra}, encode_chunked=chunked)
        answer = connection.getresponse()
        return Response(answer.status, dict(answer.headers), answer.read().decode())
    finally:
        connection.close()


def hmac_of(text: str, secret: str = API_SECRET) -> str:
    return hmac.new(secret.encode(), text.encode(), hashlib.sha256).hexdigest()


def signed_url(
    method: str,
    path: str,
    body: bytes = b"",
    *,
    parameters: Mapping[str, str | None] | None = None,
    secret: str = API_SECRET,
    signed_path: str | None = None,
) -> str:
    """The URL of a signed request. `parameters` are added to the query, or replace what is in it; `None` leaves one
    out. With `signed_path`, that is signed in place of the path."""
    given: dict[str, str | None] = {
        "auth_key": API_KEY,
        "auth_timestamp": str(int(time.time())),
        "auth_version": "1.0",
        **({"body_md5": hashlib.md5(body).hexdigest()} if body else {}),
        **(parameters or {}),
    }
    query = {name: value for name, value in given.items() if value is not None}
    signed = "&".join(f"{name}={value}" for name, value in sorted((n.lower(), v) for n, v in query.items()))
    if "auth_signature" not in given:
        query["auth_signature"] = hmac_of(f"{method}\n{signed_path or path}\n{signed}", secret)
    return f"{quote(path)}?{urlencode(query)}"


def call(server: Server, method: str, path: str, body: Any = None, **options: Any) -> Response:
    """A signed request, with a body as JSON if it is not bytes. The options are those of `signed_url`."""
    payload = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"} if payload else {}
    return send(server, method, signed_url(method, path, payload, **options), payload, headers)


def sdk(server: Server, **options: Any) -> Any:
    """The SDK from PyPI."""
    chosen = {"app_id": "7", "key": API_KEY, "secret": API_SECRET, **options}
    return pusher.Pusher(**chosen, host="127.0.0.1", port=server.port, ssl=False, timeout=DEADLINE)


class Socket:
    """A connection of the Pusher protocol."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self.id: str = json.loads(self.read()["data"])["socket_id"]

    def read(self) -> dict[str, Any]:
        """The next frame."""
        frame: dict[str, Any] = json.loads(self._connection.recv(timeout=DEADLINE))
        return frame

    def ask(self, event: str, **data: Any) -> dict[str, Any]:
        """Send a request, and return the next frame."""
        self._connection.send(json.dumps({"event": event, "data": data}))
        return self.read()

    def subscribe(self, channel: str, **fields: Any) -> dict[str, Any]:
        """Subscribe, which must succeed. Returns the data of the answer."""
        answer = self.ask("pusher:subscribe", channel=channel, **fields)
        assert answer["event"] == "pusher_internal:subscription_succeeded", answer
        data: dict[str, Any] = json.loads(answer["data"])
        return data

    def is_silent(self) -> bool:
        """Whether no frame comes before the answer to a ping."""
        return bool(self.ask("pusher:ping")["event"] == "pusher:pong")


@contextmanager
def open_socket(server: Server, path: str = "") -> Iterator[Socket]:
    url = f"ws://{server.host}{path}/app/{API_KEY}?protocol=7"
    with connect(url, open_timeout=DEADLINE, ping_interval=None, compression=None, max_queue=None) as connection:
        yield Socket(connection)
