"""The files that the extension serves: names, compression and caching, over HTTP."""

from __future__ import annotations

import gzip
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from flask import url_for

from ..support.apps import create_app
from ..support.server import DEADLINE, Server, running

FILES = ["presence.js", "presence.mjs", "presence.d.ts", "presence.d.mts", "stats.js", "stats.css"]
VERSIONED = {
    "presence.js": "client",
    "presence.mjs": "client_module",
    "stats.js": "script",
    "stats.css": "stylesheet",
}
"""The files with a versioned name, and their endpoints."""
FOR_EVER = "public, max-age=31536000, immutable"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running() as running_server:
        yield running_server


@pytest.fixture(scope="module")
def names() -> dict[str, str]:
    """The versioned names of the files, as `url_for` returns them to a page."""
    app = create_app()
    with app.test_request_context():
        return {name: url_for(f"presence.{endpoint}") for name, endpoint in VERSIONED.items()}


def fetch(server: Server, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    """The status, the headers and the bytes of the body. An underscore in the name of a header stands for a hyphen."""
    lines = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(f"{server.origin}{path}", headers=lines, method=method)
    try:
        with urllib.request.urlopen(request, timeout=DEADLINE) as response:
            return response.status, dict(response.headers), response.read()
    except urllib.error.HTTPError as problem:
        with problem:
            return problem.code, dict(problem.headers), problem.read()


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_compressed_if_the_client_accepts_it(server: Server, name: str) -> None:
    """Each encoding has its own ETag, and both say that the answer varies."""
    path = f"/presence/{name}"
    status, plain_headers, plain = fetch(server, path)
    assert status == 200
    assert "Content-Encoding" not in plain_headers
    status, headers, compressed = fetch(server, path, Accept_Encoding="gzip, deflate, br")
    assert (status, headers["Content-Encoding"]) == (200, "gzip")
    assert gzip.decompress(compressed) == plain
    assert len(compressed) == int(headers["Content-Length"]) < len(plain) == int(plain_headers["Content-Length"])
    assert headers["ETag"] != plain_headers["ETag"]
    for one in (headers, plain_headers):
        assert one["Vary"] == "Accept-Encoding"
        assert one["Cache-Control"] == "public, no-cache"
        assert one["X-Content-Type-Options"] == "nosniff"
        assert ("Access-Control-Allow-Origin" in one) == name.startswith("presence.")
    assert headers["Content-Type"] == plain_headers["Content-Type"]
    head = fetch(server, path, "HEAD", Accept_Encoding="gzip")
    assert (head[0], head[1]["Content-Length"], head[2]) == (200, headers["Content-Length"], b"")


@pytest.mark.parametrize(
    ("accepted", "encoding"),
    [
        ("gzip", "gzip"),
        ("GZIP;q=0.5", "gzip"),
        ("*", "gzip"),
        ("br;q=1, *;q=0.1", "gzip"),
        ("gzip, identity", "gzip"),
        ("identity", None),
        ("br", None),
        ("", None),
        ("gzip;q=0", None),
        ("gzip;q=0, *", None),
        ("gzip;q=0.5, identity", None),
        ("gzip;q=nonsense", None),
    ],
)
def test_the_preference_of_the_client_decides(server: Server, accepted: str, encoding: str | None) -> None:
    status, headers, _ = fetch(server, "/presence/presence.js", Accept_Encoding=accepted)
    assert (status, headers.get("Content-Encoding")) == (200, encoding)


def test_a_cached_file_is_revalidated_in_its_encoding(server: Server) -> None:
    """By strong and weak ETags, because proxies weaken them. A 304 says what the full answer would have said."""
    path = "/presence/presence.js"
    for accepted in ("gzip", "identity"):
        etag = fetch(server, path, Accept_Encoding=accepted)[1]["ETag"]
        for known in (etag, f"W/{etag}", f'"other", {etag}'):
            status, headers, body = fetch(server, path, Accept_Encoding=accepted, If_None_Match=known)
            assert (status, headers["ETag"], headers["Vary"], body) == (304, etag, "Accept-Encoding", b"")
        other = "identity" if accepted == "gzip" else "gzip"
        assert fetch(server, path, Accept_Encoding=other, If_None_Match=etag)[0] == 200


@pytest.mark.parametrize("name", VERSIONED)
def test_a_versioned_name_is_cacheable_for_ever(server: Server, names: dict[str, str], name: str) -> None:
    """It has the contents of the plain name. Another version's name has them too, but may not be cached under it."""
    stem, _, suffix = name.rpartition(".")
    path = names[name]
    assert path.startswith(f"/presence/{stem}.")
    assert path.endswith(f".{suffix}")
    plain = fetch(server, f"/presence/{name}")[2]
    for accepted in ("gzip", "identity"):
        status, headers, body = fetch(server, path, Accept_Encoding=accepted)
        assert (status, headers["Cache-Control"], headers["Vary"]) == (200, FOR_EVER, "Accept-Encoding")
        assert (gzip.decompress(body) if accepted == "gzip" else body) == plain
    status, headers, body = fetch(server, f"/presence/{stem}.0123456789ab.{suffix}")
    assert (status, headers["Cache-Control"], body) == (200, "public, no-cache", plain)


def test_the_pages_use_the_versioned_names(server: Server, names: dict[str, str]) -> None:
    page = fetch(server, "/presence/")[2].decode()
    assert names["stats.js"] in page
    assert names["stats.css"] in page
    assert names["presence.js"] in fetch(server, "/page")[2].decode()
