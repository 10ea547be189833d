"""The example app behind one proxy: `example.deploy.wsgi:app`.

For your own app, import its `create_app`, and name its secret: `FLASK_SECRET_KEY` if it has sessions.
"""

from __future__ import annotations

import os

from werkzeug.middleware.proxy_fix import ProxyFix

from ..app import create_app

if not os.environ.get("FLASK_JWT_SECRET_KEY"):
    raise SystemExit("set FLASK_JWT_SECRET_KEY, which all workers and hosts share")
for name in ("KEY", "SECRET"):
    os.environ.setdefault(f"FLASK_PRESENCE_PUSHER_{name}", "null")  # everybody can read the example's own

app = create_app()
if app.config.get("PRESENCE_BACKEND", "memory://").startswith("memory"):
    raise SystemExit(
        "PRESENCE_BACKEND is 'memory://', so each gunicorn would have its own list of members: set "
        "FLASK_PRESENCE_BACKEND to the URL of a Redis, and let the app call app.config.from_prefixed_env()"
    )
app.wsgi_app = ProxyFix(app.wsgi_app, x_for=1, x_proto=1)  # type: ignore[method-assign]
