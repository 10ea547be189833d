"""Worker ids. Each names the worker's process, so that other workers on the same host can see that it has ended.

Rule: a worker counts as gone only if that is certain: it ran on the same host, in the same namespace of process ids,
and there is no process with its id and start time. If that cannot be seen (no `/proc`, or one that hides other users'
processes), only the lease decides.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterable
from pathlib import Path

_PROC = Path("/proc")
_HIDDEN = "hidden"


def new_worker_id() -> str:
    """A new id for this process: `host.pid.start.random`."""
    return f"{_host()}.{os.getpid()}.{_start(os.getpid()) or 0}.{secrets.token_hex(6)}"


def host_of(worker_id: str) -> str:
    """The host that the worker runs on; empty if that is not known."""
    return worker_id.partition(".")[0]


def on_this_host(worker_ids: Iterable[str]) -> list[str]:
    """Those of some workers that run on this host, or did; none if it is not known which host this is."""
    here = _host()
    return [worker_id for worker_id in worker_ids if here and host_of(worker_id) == here]


def gone_among(worker_ids: Iterable[str]) -> list[str]:
    """Those of some workers whose process ran on this host and has ended."""
    return [worker_id for worker_id in on_this_host(worker_ids) if has_ended(worker_id)]


def has_ended(worker_id: str) -> bool:
    """Whether the process of a worker on this host has ended."""
    _, pid, start, *_ = [*worker_id.split("."), "", "", ""]
    if not pid.isdigit() or start in ("", "0"):
        return False
    return _start(int(pid)) not in (start, _HIDDEN)


def _host() -> str:
    """Identifies this boot of this host, and the namespace of process ids; empty if that is not known."""
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text()
        namespace = (_PROC / "self/ns/pid").readlink()
    except OSError:
        return ""
    return hashlib.sha256(f"{boot}{namespace}".encode()).hexdigest()[:12]


def _start(pid: int) -> str | None:
    """When a running process started, in ticks since the boot, or `_HIDDEN`; `None` if it does not run."""
    try:
        fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return _HIDDEN if _exists(pid) else None
    return None if fields[0] in ("Z", "X") else fields[19]


def _exists(pid: int) -> bool:
    """Whether there is such a process, of any user."""
    try:
        os.kill(pid, 0)
    except OSError as problem:
        return not isinstance(problem, ProcessLookupError)
    return True
