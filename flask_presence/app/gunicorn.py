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


def threads_of(worker: Any) -> int | None:
    """How many threads a gthread worker has for requests. `None` for other workers."""
    gthread = sys.modules.get("gunicorn.workers.gthread")
    if gthread is not None and isinstance(worker, gthread.ThreadWorker):
        return int(worker.cfg.threads)
    return None
