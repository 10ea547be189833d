"""The static files: the browser client (classic script, ES module, types), and the stats page's style and script.

Rule: everybody may load them, the client from any origin too. Browsers revalidate them by ETag, so no copy is stale.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Final, Literal

from flask import Request, Response

from .responses import harden

STATIC: Final = Path(__file__).parent / "static"
EXPORTS: Final = b"\nexport { Presence };\nexport default Presence;\n"

Form = Literal["script", "module", "types"]


@cache
def client_source(form: Form) -> bytes:
    """The browser client. The module is the script with exports, which a classic script cannot have."""
    if form == "types":
        return (STATIC / "presence.d.ts").read_bytes()
    script = (STATIC / "presence.js").read_bytes()
    return script if form == "script" else script + EXPORTS


def client_response(form: Form, request: Request) -> Response:
    """The browser client, or 304 if the browser has the current version."""
    response = Response(client_source(form), mimetype="text/plain" if form == "types" else "text/javascript")
    response.headers["Access-Control-Allow-Origin"] = "*"
    return _revalidated(response, request)


def asset_response(name: str, mimetype: str, request: Request) -> Response:
    """A static file, or 304 if the browser has the current version."""
    return _revalidated(Response(_read(name), mimetype=mimetype), request)


@cache
def _read(name: str) -> bytes:
    return (STATIC / name).read_bytes()


def _revalidated(response: Response, request: Request) -> Response:
    response.headers["Cache-Control"] = "public, no-cache"
    response.add_etag()
    response.make_conditional(request)
    return harden(response)
