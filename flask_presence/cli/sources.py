"""Where the commands get what they show: from the state store, or from a running server.

Law: both give the shapes of `shapes`. A server is only ever asked at the address that was given: credentials follow
no redirect, and go to no proxy.
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
from ..stats.payloads import ServiceInfo, activity_payload, change_payloads, channel_list_payload, channel_payload
from ..stats.query import MemberQuery, read_channel_query

PATIENCE: Final = 15.0
"""Seconds that a server may be silent, also while there is nothing to tell."""


WRONG_PLACE: Final = "is that the URL of the blueprint, which ends in /presence unless the app says otherwise?"


class SourceFailed(Exception):
    """What was asked for cannot be had; the text says why, and what to do."""


class Source(Protocol):
    """What can be asked. Raises `SourceFailed`, or `BackendUnavailable`. `extras`: rates of channels, connections of
    members."""

    def activity(self) -> dict[str, Any]: ...

    def channels(self, type: str | None, prefix: str | None, *, extras: bool) -> dict[str, Any]: ...

    def channel(self, name: str, *, extras: bool) -> dict[str, Any] | None: ...

    def watch(self, name: str | None) -> Iterator[dict[str, Any] | None]: ...


class StoreSource:
    """The state store, asked by this process."""

    def __init__(self, directory: Directory, service_info: ServiceInfo) -> None:
        self._directory = directory
        self._service_info = service_info

    def activity(self) -> dict[str, Any]:
        return activity_payload(self._directory, self._service_info)

    def channels(self, type: str | None, prefix: str | None, *, extras: bool) -> dict[str, Any]:
        return channel_list_payload(self._directory, read_channel_query(_asked(type, prefix, extras)))

    def channel(self, name: str, *, extras: bool) -> dict[str, Any] | None:
        return channel_payload(self._directory, name, MemberQuery(with_connections=extras))

    def watch(self, name: str | None) -> Iterator[dict[str, Any] | None]:
        return change_payloads(self._directory.watch(name))


class ServerSource:
    """A server's blueprint, at its URL (`http://127.0.0.1:8000/presence`, with `user:password@` for basic
    authentication). `ValueError` for a URL that is none."""

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise ValueError("a URL like http://127.0.0.1:8000/presence, without a query")
        host = parts.netloc.rpartition("@")[2]
        self._headers = {"Accept": "application/json", **headers}
        if parts.username is not None:
            secret = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
            self._headers.setdefault("Authorization", f"Basic {base64.b64encode(secret).decode()}")
        self._url = urlunsplit((parts.scheme, host, quote(parts.path.rstrip("/"), safe="/%"), "", ""))
        self._opener = build_opener(_NoRedirects, ProxyHandler({}))

    def activity(self) -> dict[str, Any]:
        return self._ask("/activity", "stats", "received", "sent", "outbox", "busiest", "backend")

    def channels(self, type: str | None, prefix: str | None, *, extras: bool) -> dict[str, Any]:
        return self._ask(f"/channels?{urlencode(_asked(type, prefix, extras))}", "channels")

    def channel(self, name: str, *, extras: bool) -> dict[str, Any] | None:
        asked = {"channel": name} | ({"include": "connections"} if extras else {})
        found = self._ask(f"/members?{urlencode(asked)}", "memberCount")
        return found if found["memberCount"] else None

    def watch(self, name: str | None) -> Iterator[dict[str, Any] | None]:
        with self._open(f"/watch?{urlencode({'channel': name})}" if name else "/watch") as response:
            try:
                for line in response:
                    yield self._read(line, "change", "channel", "member") if line.strip() else None
            except (OSError, HTTPException) as problem:
                raise SourceFailed(f"{self._url} is gone: {problem}") from problem
        raise SourceFailed(f"{self._url} has ended the stream, as it does when it stops")

    def _ask(self, path: str, *needed: str) -> dict[str, Any]:
        with self._open(path) as response:
            try:
                body = response.read()
            except (OSError, HTTPException) as problem:
                raise SourceFailed(f"{self._url} is gone: {problem}") from problem
        return self._read(body, *needed)

    def _open(self, path: str) -> Any:
        request = Request(f"{self._url}{path}", headers=self._headers)  # noqa: S310 (checked)
        try:
            return self._opener.open(request, timeout=PATIENCE)
        except HTTPError as problem:
            with problem:
                raise self._failure(problem) from None
        except (OSError, HTTPException) as problem:
            reason = getattr(problem, "reason", problem)
            raise SourceFailed(f"{self._url} does not answer ({reason}); is the server running?") from None

    def _failure(self, problem: HTTPError) -> SourceFailed:
        if problem.code in (301, 302, 303, 307, 308):
            where = problem.headers.get("Location")
            return SourceFailed(f"{self._url} redirects to {where}: give the URL that it means")
        try:
            message = str(json.loads(problem.read())["error"]["message"])
        except (ValueError, KeyError, TypeError, OSError):
            return SourceFailed(f"{self._url} answers {problem.code}; {WRONG_PLACE}")
        hint = " Give --header 'Name: value' with what lets you in." if problem.code in (401, 403) else ""
        return SourceFailed(f"{self._url} answers {problem.code}: {message.rstrip('.')}.{hint}")

    def _read(self, body: bytes, *needed: str) -> dict[str, Any]:
        try:
            payload = json.loads(body)
        except ValueError:
            payload = None
        if isinstance(payload, dict) and isinstance(payload.get("error"), dict):
            raise SourceFailed(f"{self._url} says: {payload['error'].get('message')}")
        if not isinstance(payload, dict) or not all(name in payload for name in needed):
            raise SourceFailed(f"{self._url} answers something else than was asked; {WRONG_PLACE}")
        return payload


def _asked(type: str | None, prefix: str | None, extras: bool) -> dict[str, str]:
    asked = {"type": type, "prefix": prefix, "include": "rate" if extras else None}
    return {name: value for name, value in asked.items() if value}


class _NoRedirects(HTTPRedirectHandler):
    """Makes an error of every redirect: headers that are meant for one server must not reach another."""

    def redirect_request(self, *_: Any) -> None:
        return None
