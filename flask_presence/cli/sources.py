"""Where the commands read the state: in the state store, or from a running server.

Rule: both return the payloads of `stats.payloads`. A command sends credentials to the given server only: it follows no
redirect and uses no proxy.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from http.client import HTTPException
from typing import Any, Final, Protocol
from urllib.error import HTTPError
from urllib.parse import quote, unquote, urlencode, urlsplit, urlunsplit
from urllib.request import HTTPRedirectHandler, ProxyHandler, Request, build_opener

from ..hub.directory import Directory
from ..stats.payloads import (
    ServiceInfo,
    activity_payload,
    change_payloads,
    channel_list_payload,
    channel_payload,
    history_payload,
)
from ..stats.query import HistoryQuery, MemberQuery, read_channel_query

READ_TIMEOUT: Final = 15.0
"""Seconds without a byte from the server after which reading fails. A stream without changes sends empty lines more
often."""
WRONG_URL: Final = "is that the URL of the blueprint? By default it ends in /presence"


class SourceFailed(Exception):
    """The state cannot be read. The text says why, and what to do."""


class Source(Protocol):
    """Returns payloads. Raises `SourceFailed` or `BackendUnavailable`. `extras` adds the rates of channels, or the
    number of connections of members."""

    def activity(self) -> dict[str, Any]: ...

    def channels(self, type: str | None, prefix: str | None, *, extras: bool) -> dict[str, Any]: ...

    def channel(self, name: str, *, extras: bool) -> dict[str, Any] | None: ...

    def history(self, query: HistoryQuery) -> dict[str, Any]: ...

    def watch(self, name: str | None) -> Iterator[dict[str, Any] | None]: ...


class StoreSource:
    """Reads the state store, in this process."""

    def __init__(self, directory: Directory, service_info: ServiceInfo) -> None:
        self._directory = directory
        self._service_info = service_info

    def activity(self) -> dict[str, Any]:
        return activity_payload(self._directory, self._service_info)

    def channels(self, type: str | None, prefix: str | None, *, extras: bool) -> dict[str, Any]:
        return channel_list_payload(self._directory, read_channel_query(_channels_query(type, prefix, extras)))

    def channel(self, name: str, *, extras: bool) -> dict[str, Any] | None:
        return channel_payload(self._directory, name, MemberQuery(with_connections=extras))

    def history(self, query: HistoryQuery) -> dict[str, Any]:
        return history_payload(self._directory, query)

    def watch(self, name: str | None) -> Iterator[dict[str, Any] | None]:
        return change_payloads(self._directory.watch(name))


class ServerSource:
    """Asks a server's blueprint at its URL, such as `http://127.0.0.1:8000/presence`.

    The URL may have `user:password@`, for basic authentication. Raises `ValueError` if it is invalid.
    """

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise ValueError("a URL like http://127.0.0.1:8000/presence, without a query")
        host = parts.netloc.rpartition("@")[2]
        self._headers = {"Accept": "application/json", **headers}
        if parts.username is not None:
            credentials = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
            self._headers.setdefault("Authorization", f"Basic {base64.b64encode(credentials).decode()}")
        self._url = urlunsplit((parts.scheme, host, quote(parts.path.rstrip("/"), safe="/%"), "", ""))
        self._opener = build_opener(_NoRedirects, ProxyHandler({}))

    def activity(self) -> dict[str, Any]:
        return self._get("/activity", "stats", "received", "sent", "history", "outbox", "busiest", "backend")

    def channels(self, type: str | None, prefix: str | None, *, extras: bool) -> dict[str, Any]:
        return self._get(f"/channels?{urlencode(_channels_query(type, prefix, extras))}", "channels")

    def channel(self, name: str, *, extras: bool) -> dict[str, Any] | None:
        query = {"channel": name} | ({"include": "connections"} if extras else {})
        payload = self._get(f"/members?{urlencode(query)}", "memberCount")
        return payload if payload["memberCount"] else None

    def history(self, query: HistoryQuery) -> dict[str, Any]:
        fields = {"channel": query.channel, "limit": query.limit} | ({"before": query.before} if query.before else {})
        return self._get(f"/history?{urlencode(fields)}", "messages", "more")

    def watch(self, name: str | None) -> Iterator[dict[str, Any] | None]:
        with self._open(f"/watch?{urlencode({'channel': name})}" if name else "/watch") as response:
            try:
                for line in response:
                    yield self._read(line, "change", "channel", "member") if line.strip() else None
            except (OSError, HTTPException) as problem:
                raise SourceFailed(f"the connection to {self._url} was lost: {problem}") from problem
        raise SourceFailed(f"{self._url} has ended the stream, probably because the server is stopping")

    def _get(self, path: str, *required: str) -> dict[str, Any]:
        with self._open(path) as response:
            try:
                body = response.read()
            except (OSError, HTTPException) as problem:
                raise SourceFailed(f"the connection to {self._url} was lost: {problem}") from problem
        return self._read(body, *required)

    def _open(self, path: str) -> Any:
        request = Request(f"{self._url}{path}", headers=self._headers)  # noqa: S310 (`__init__` has checked the scheme)
        try:
            return self._opener.open(request, timeout=READ_TIMEOUT)
        except HTTPError as problem:
            with problem:
                raise self._failure(problem) from None
        except (OSError, HTTPException) as problem:
            reason = getattr(problem, "reason", problem)
            raise SourceFailed(f"{self._url} does not answer ({reason}); is the server running?") from None

    def _failure(self, problem: HTTPError) -> SourceFailed:
        if problem.code in (301, 302, 303, 307, 308):
            location = problem.headers.get("Location")
            return SourceFailed(f"{self._url} redirects to {location}: give that URL instead")
        try:
            message = str(json.loads(problem.read())["error"]["message"])
        except (ValueError, KeyError, TypeError, OSError):
            return SourceFailed(f"{self._url} answers {problem.code}: {WRONG_URL}")
        hint = " Give --header 'Name: value' with your credentials." if problem.code in (401, 403) else ""
        return SourceFailed(f"{self._url} answers {problem.code}: {message.rstrip('.')}.{hint}")

    def _read(self, body: bytes, *required: str) -> dict[str, Any]:
        try:
            payload = json.loads(body)
        except ValueError:
            payload = None
        if isinstance(payload, dict) and isinstance(payload.get("error"), dict):
            raise SourceFailed(f"{self._url} reports: {payload['error'].get('message')}")
        if not isinstance(payload, dict) or not all(name in payload for name in required):
            raise SourceFailed(f"{self._url} does not answer like a server of flask_presence: {WRONG_URL}")
        return payload


def _channels_query(type: str | None, prefix: str | None, extras: bool) -> dict[str, str]:
    query = {"type": type, "prefix": prefix, "include": "rate" if extras else None}
    return {name: value for name, value in query.items() if value}


class _NoRedirects(HTTPRedirectHandler):
    """Turns every redirect into an error, because headers for one server must not reach another."""

    def redirect_request(self, *_: Any) -> None:
        return None
