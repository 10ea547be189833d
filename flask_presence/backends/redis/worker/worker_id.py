"""Which process a node is, so that others on its host can see that it is gone.

Law: a node counts as gone only where that is certain: same host, same namespace of process ids, and no such process
that began at that time. Where that cannot be seen (no `/proc`, or one that hides others' processes), only the lease
tells.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from pathlib import Path

_PROC = Path("/proc")
_HIDDEN = "hidden"


def new_node() -> str:
    """An id for this process that nobody had before: `host.pid.start.random`."""
    return f"{_host()}.{os.getpid()}.{_start(os.getpid()) or 0}.{secrets.token_hex(6)}"


def is_gone(node: str) -> bool:
    """Whether the process of `node` was on this host and is no more."""
    host, pid, start, *_ = [*node.split("."), "", "", ""]
    if not host or host != _host() or not pid.isdigit() or start in ("", "0"):
        return False
    return _start(int(pid)) not in (start, _HIDDEN)


def _host() -> str:
    """This boot of this host, as its processes see it; empty where that cannot be told."""
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text()
        namespace = (_PROC / "self/ns/pid").readlink()
    except OSError:
        return ""
    return hashlib.sha256(f"{boot}{namespace}".encode()).hexdigest()[:12]


def _start(pid: int) -> str | None:
    """When a running process began, in ticks since the boot, or `_HIDDEN`; `None` where there is none, or only its
    remains."""
    try:
        fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return _HIDDEN if _exists(pid) else None
    return None if fields[0] in ("Z", "X") else fields[19]


def _exists(pid: int) -> bool:
    """Whether there is such a process, whosever it is."""
    try:
        os.kill(pid, 0)
    except OSError as problem:
        return not isinstance(problem, ProcessLookupError)
    return True
