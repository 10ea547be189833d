"""The files in `example/deploy`, as their programs read them."""

from __future__ import annotations

import json
import re
import shlex
from typing import Any

from .server import ROOT

FOLDER = ROOT / "example/deploy"


def of_unit(key: str) -> list[str]:
    """The values of a key in the systemd unit."""
    return re.findall(rf"^{key}=(.*)$", (FOLDER / "app@.service").read_text(), re.MULTILINE)


def settings() -> dict[str, Any]:
    """The settings in `app.env`, as Flask's `from_prefixed_env` reads them."""
    lines = re.findall(r"^FLASK_(\w+)=(.*)$", (FOLDER / "app.env").read_text(), re.MULTILINE)
    return {key: json.loads(text) if text in ("true", "false") or text.isdigit() else text for key, text in lines}


_, *_arguments, MODULE = shlex.split(of_unit("ExecStart")[0])
_bind = _arguments.index("--bind")
ARGUMENTS = (*_arguments[:_bind], *_arguments[_bind + 2 :])
"""What the systemd unit gives gunicorn, but for the address and `MODULE`, the app."""
