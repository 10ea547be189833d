"""What browsers load, as the blueprint serves it: the client (classic script, ES module, types), and what the stats
page looks and moves by.

Law: open to all (the client from any origin); never stale, as browsers ask again and an ETag answers.
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
    """The client; the module is the script and two exports, as a file can only be the one or the other."""
    if form == "types":
        return (STATIC / "presence.d.ts").read_bytes()
    script = (STATIC / "presence.js").read_bytes()
    return script if form == "script" else script + EXPORTS


def client_response(form: Form, request: Request) -> Response:
    """The client, or 304 where the browser has it."""
    response = Response(client_source(form), mimetype="text/plain" if form == "types" else "text/javascript")
    response.headers["Access-Control-Allow-Origin"] = "*"
    return _revalidated(response, request)


def asset(name: str, mimetype: str, request: Request) -> Response:
    """A file that is no secret, or 304 where the browser has it."""
    return _revalidated(Response(_read(name), mimetype=mimetype), request)


@cache
def _read(name: str) -> bytes:
    return (STATIC / name).read_bytes()


def _revalidated(response: Response, request: Request) -> Response:
    response.headers["Cache-Control"] = "public, no-cache"
    response.add_etag()
    response.make_conditional(request)
    return harden(response)
