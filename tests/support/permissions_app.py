"""An app whose guards and logins give the answers that a test plans, at the time that it chooses.

`/plan?user=ann&steps=[…]` plans the answers of the guards about a user: one step for each call, and the last step for
all later calls. A step is `{"answer": …, "gate": "name"}`; with a gate it answers when the gate is open. The answer
"role" gives the member the role that the user's login has: `/role?user=ann&role=admin` sets it.
`/gate?name=…` opens a gate, `/asked` counts the calls, and `/revoke?user=…` revokes a user's tokens.
`/slow_login?user=…&gate=…` delays the next check of the user's login: it looks at once, and answers when the gate is
open.
"""

from __future__ import annotations

import json
import threading
from collections import Counter, defaultdict
from typing import Any

from flask import Flask, request
from flask_jwt_extended import JWTManager, create_access_token

from flask_presence import Presence, User, allow

Step = dict[str, Any]


class NoTruth:
    """A value without a truth value, like a column of an ORM."""

    def __bool__(self) -> bool:
        raise TypeError("this has no truth value")


def create_app() -> Flask:
    app = Flask("permissions")
    app.config["JWT_SECRET_KEY"] = "a secret of thirty-two characters"
    app.config.from_prefixed_env()
    jwt = JWTManager(app)
    presence = Presence(app)
    plans: dict[str, list[Step]] = defaultdict(list)
    gates: dict[str, threading.Event] = defaultdict(threading.Event)
    login_gates: dict[str, list[str]] = defaultdict(list)
    revoked: set[str] = set()
    roles: dict[str, str | None] = {}
    asked: Counter[str] = Counter()

    if app.config.get("LOADER"):

        @presence.user_loader
        def load() -> User | None:
            name = request.headers.get("X-User")
            if name is None:
                return None
            role = roles.get(name)
            wait_for_login(name)
            return User(name, claims={"role": role})

    @presence.guard("presence-planned-*")
    def planned(user: User) -> Any:
        asked[user.id] += 1
        steps = plans[user.id] or [{"answer": True}]
        step = steps.pop(0) if len(steps) > 1 else steps[0]
        if "gate" in step:
            gates[step["gate"]].wait()
        if step["answer"] == "role":
            return allow({"role": user.claims["role"]})
        return NoTruth() if step["answer"] == "no truth" else step["answer"]

    @jwt.token_in_blocklist_loader
    def is_revoked(_header: Any, claims: dict[str, Any]) -> bool:
        user, found = claims["sub"], claims["sub"] in revoked
        wait_for_login(user)
        return found

    def wait_for_login(user: str) -> None:
        if login_gates[user]:
            asked[f"login of {user}"] += 1
            gates[login_gates[user].pop(0)].wait()

    @app.get("/token")
    def token() -> str:
        return json.dumps(create_access_token(request.args["user"]))

    @app.get("/plan")
    def plan() -> str:
        plans[request.args["user"]] = json.loads(request.args["steps"])
        return ""

    @app.get("/gate")
    def gate() -> str:
        gates[request.args["name"]].set()
        return ""

    @app.get("/slow_login")
    def slow_login() -> str:
        login_gates[request.args["user"]].append(request.args["gate"])
        return ""

    @app.get("/revoke")
    def revoke() -> str:
        revoked.add(request.args["user"])
        return ""

    @app.get("/role")
    def role() -> str:
        roles[request.args["user"]] = request.args.get("role")
        return ""

    @app.get("/asked")
    def count() -> dict[str, int]:
        return dict(asked)

    @app.get("/call/<method>")
    def call(method: str) -> Any:
        return json.dumps(getattr(presence, method)(**json.loads(request.args["arguments"])))

    return app
