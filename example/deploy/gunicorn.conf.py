"""gunicorn's settings for production: `gunicorn -c example/deploy/gunicorn.conf.py --bind ADDRESS MODULE:APP`.

The number of workers comes from the environment variable `WEB_CONCURRENCY`, 1 by default.
"""

from typing import Any

from gunicorn.glogging import Logger


class LoggerWithoutQuery(Logger):
    """Leaves the query string out of the access log, because it may hold a token.

    `access_log_format = '... %(m)s %(U)s'` would too, but `%(U)s` is decoded: a client that requests `/%0A...` could
    forge lines.
    """

    def atoms(self, resp: Any, req: Any, environ: dict[str, Any], request_time: Any) -> dict[str, Any]:
        path = environ["RAW_URI"].partition("?")[0]
        return super().atoms(resp, req, environ | {"RAW_URI": path, "QUERY_STRING": ""}, request_time)


worker_class = "gevent"
logger_class = LoggerWithoutQuery
accesslog = "-"
access_log_format = '%({x-forwarded-for}i)s %(t)s "%(r)s" %(s)s %(b)s %(L)s "%(a)s"'
graceful_timeout = 30  # seconds; at least five more than PRESENCE_DRAIN
worker_tmp_dir = "/dev/shm"  # noqa: S108  # the heartbeat of a worker never waits for a disk
control_socket_disable = True
