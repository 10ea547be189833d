"""The example app behind one proxy: `example.deploy.wsgi:app`."""

from __future__ import annotations

import os

from werkzeug.middleware.proxy_fix import ProxyFix

from ..app import create_app

if not os.environ.get("FLASK_JWT_SECRET_KEY"):
    raise SystemExit("set FLASK_JWT_SECRET_KEY, which all workers and hosts share")

app = create_app()
app.wsgi_app = ProxyFix(app.wsgi_app, x_for=1, x_proto=1)  # type: ignore[method-assign]
