"""A frontend with tools from npm, for the tests that compile or bundle."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from flask import Flask
from flask_jwt_extended import JWTManager

from flask_presence import Presence

from ..conftest import missing

PACKAGES = ["typescript@7", "esbuild@0", "react@19", "react-dom@19", "@types/react@19", "@types/react-dom@19", "vue@3"]


@pytest.fixture(scope="session")
def frontend(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the client's package and with frontend tools in `node_modules`, one for all workers of a run.

    The client is there as the documents say: written by `flask presence client`, installed by `npm install ./…`.
    """
    if shutil.which("npm") is None:
        missing("npm")
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "frontend"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "installed").exists():
            install(folder)
            (folder / "installed").touch()
    return folder


def install(folder: Path) -> None:
    app = Flask("client")
    app.config["JWT_SECRET_KEY"] = "a secret of thirty-two characters"
    JWTManager(app)
    Presence(app)
    written = app.test_cli_runner().invoke(args=["presence", "client", str(folder / "presence-client")])
    assert written.exit_code == 0, written.output
    (folder / "package.json").write_text(json.dumps({"private": True, "type": "module"}))
    command = ["npm", "install", "--no-audit", "--no-fund", "--prefer-offline", "./presence-client", *PACKAGES]
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=240)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as problem:
        print((problem.stderr or b"").decode())
        missing("npm's registry")


def run_in(folder: Path, *command: str) -> str:
    """The output of a program, which must succeed."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
