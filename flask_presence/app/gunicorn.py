"""The gunicorn worker that this process is, if it is one.

Law: it is only read. Nothing that a request can see leads to it, but its signal handlers are its own methods.
"""

from __future__ import annotations

import signal
import sys
from typing import Any, Final

_HANDLED: Final = (signal.SIGTERM, signal.SIGQUIT, signal.SIGABRT, signal.SIGUSR1, signal.SIGWINCH)


def find_worker() -> Any | None:
    """The `gunicorn.workers.base.Worker`, or `None`. Its `alive` is false once it has been told to end, for whatever
    reason: a signal, `--max-requests`, `--reload`. Other code may have put its own handler in place of some."""
    base = sys.modules.get("gunicorn.workers.base")
    if base is None:
        return None
    owners = (getattr(signal.getsignal(number), "__self__", None) for number in _HANDLED)
    return next((owner for owner in owners if isinstance(owner, base.Worker)), None)


def threads_of(worker: Any) -> int | None:
    """How many requests a threaded worker can hold at once; `None` where no thread is held, or they have no limit."""
    gthread = sys.modules.get("gunicorn.workers.gthread")
    if gthread is not None and isinstance(worker, gthread.ThreadWorker):
        return int(worker.cfg.threads)
    return None
