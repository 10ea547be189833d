"""The static files: the browser client (classic script, ES module, types), and the stats page's style and script.

Rule: everybody may load them, the client from any origin too. Under its versioned name, a file may be cached for ever;
under its plain name, browsers revalidate it by ETag. So no copy is stale.
"""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Final

from flask import Blueprint, Request, Response, request

from .responses import harden

STATIC: Final = Path(__file__).parent / "static"
EXPORTS: Final = b"\nexport { Presence };\nexport default Presence;\n"
GLOBAL_TYPES: Final = b"\ndeclare global {"
FOR_EVER: Final = "public, max-age=31536000, immutable"
REVALIDATED: Final = "public, no-cache"

MIMETYPES: Final = {".js": "text/javascript", ".mjs": "text/javascript", ".css": "text/css"}


@dataclass(frozen=True)
class Asset:
    """A file as it is sent, plain and compressed. `version` changes with the contents."""

    mimetype: str
    version: str
    plain: bytes
    compressed: bytes


def client_source(name: str) -> bytes:
    """A form of the browser client, by its file name.

    The module is the script with exports, which a classic script cannot have. Its types declare no global variable.
    """
    if name == "presence.mjs":
        return (STATIC / "presence.js").read_bytes() + EXPORTS
    if name == "presence.d.mts":
        return (STATIC / "presence.d.ts").read_bytes().partition(GLOBAL_TYPES)[0]
    return (STATIC / name).read_bytes()


@cache
def read_asset(name: str) -> Asset:
    source = client_source(name)
    mimetype = MIMETYPES.get(Path(name).suffix, "text/plain")
    return Asset(mimetype, sha256(source).hexdigest()[:12], source, gzip.compress(source, mtime=0))


def add_asset(blueprint: Blueprint, endpoint: str, name: str, any_origin: bool = False, versioned: bool = True) -> None:
    """Route a file under its plain name and, if `versioned`, under a versioned one, which `url_for` then returns."""

    def asset(version: str | None = None) -> Response:
        response = asset_response(read_asset(name), version, request)
        if any_origin:
            response.headers["Access-Control-Allow-Origin"] = "*"
        return response

    blueprint.add_url_rule(f"/{name}", endpoint, asset)
    if versioned:
        stem, _, suffix = name.rpartition(".")
        blueprint.add_url_rule(f"/{stem}.<version>.{suffix}", endpoint, asset)

        @blueprint.url_defaults
        def add_version(built: str, values: dict[str, object]) -> None:
            if built == f"{blueprint.name}.{endpoint}":
                values.setdefault("version", read_asset(name).version)


def asset_response(asset: Asset, version: str | None, request: Request) -> Response:
    """The file, compressed if the client accepts it, or 304 if the client has it.

    During a deployment, a worker may be asked for the version of another. It sends its own, and lets no cache keep
    that under the other version's name.
    """
    compressed = accepts_gzip(request)
    response = Response(asset.compressed if compressed else asset.plain, mimetype=asset.mimetype)
    if compressed:
        response.content_encoding = "gzip"
    response.vary.add("Accept-Encoding")
    response.headers["Cache-Control"] = FOR_EVER if version == asset.version else REVALIDATED
    response.add_etag()
    response.make_conditional(request)
    return harden(response)


def accepts_gzip(request: Request) -> bool:
    """Whether the client accepts gzip, and does not prefer the plain file (RFC 9110, section 12.5.3)."""
    qualities = {coding.lower(): quality for coding, quality in request.accept_encodings}
    quality = qualities.get("gzip", qualities.get("*", 0))
    return quality > 0 and quality >= qualities.get("identity", 0)
