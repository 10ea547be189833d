"""Finds the gunicorn worker of this process, if gunicorn runs it.

Rule: this module only reads the worker. A request has no reference to it, so it is found through its signal handlers,
which are methods of it.
"""

from __future__ import annotations

import signal
import sys
from typing import Any, Final

_HANDLED_SIGNALS: Final = (signal.SIGTERM, signal.SIGQUIT, signal.SIGABRT, signal.SIGUSR1, signal.SIGWINCH)


def find_worker() -> Any | None:
    """The `gunicorn.workers.base.Worker`, or `None`.

    Its `alive` is false as soon as it is told to end, whatever the reason: a signal, `--max-requests`, `--reload`.
    """
    base = sys.modules.get("gunicorn.workers.base")
    if base is None:
        return None
    # Look at several signals, because other code may have replaced some of the handlers.
    owners = (getattr(signal.getsignal(number), "__self__", None) for number in _HANDLED_SIGNALS)
    return next((owner for owner in owners if isinstance(owner, base.Worker)), None)


def worker_threads() -> int | None:
    """How many threads this process has for requests, if it is a gthread worker. `None` for other workers."""
    gthread = sys.modules.get("gunicorn.workers.gthread")
    if gthread is None:
        return None  # at once, because every upgrade asks
    worker = find_worker()
    return int(worker.cfg.threads) if isinstance(worker, gthread.ThreadWorker) else None
