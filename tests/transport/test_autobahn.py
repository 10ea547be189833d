"""Autobahn's fuzzing client against the transport: RFC 6455 conformance, cases 1 to 7 and 10.

The suite needs Python 2.7. Without it, only `test_frame_codec.py` checks the frames.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from ..conftest import KeptFolder
from ..support.server import ROOT, wait_until

SUITE = "autobahntestsuite==25.10.1"
RUN = "from autobahntestsuite.wstest import run; run()"


def find_python2() -> str | None:
    """A Python 2.7 that runs; the shim of a version manager alone does not."""
    candidates = [*map(str, Path.home().glob(".pyenv/versions/2.7*/bin/python")), shutil.which("python2.7")]
    for candidate in candidates:
        if candidate and subprocess.run([candidate, "-c", ""], capture_output=True, check=False).returncode == 0:
            return candidate
    return None


def accepts(port: int) -> bool:
    """Whether a server listens on the port."""
    with socket.create_connection(("127.0.0.1", port), 5):
        return True


@pytest.fixture(scope="module")
def suite(kept_folder: KeptFolder) -> tuple[str, dict[str, str]]:
    """The path of a Python 2.7, and the environment in which it finds the suite."""
    python = find_python2()
    if python is None:
        pytest.skip("Autobahn's test suite needs a Python 2.7")
    folder = kept_folder("autobahn")
    target = folder / SUITE
    if not target.exists():
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            fresh = Path(temporary, "suite")
            install = [python, "-m", "pip", "install", "-q", "--no-compile", "--target", str(fresh), SUITE]
            done = subprocess.run(install, capture_output=True, text=True, check=False)
            if done.returncode:
                pytest.skip(f"Autobahn's test suite could not be installed: {done.stderr[-300:]}")
            (fresh / "zope" / "__init__.py").touch()
            fresh.rename(target)
    return python, os.environ | {"PYTHONPATH": str(target)}


def test_no_case_of_the_autobahn_suite_fails(suite: tuple[str, dict[str, str]], tmp_path: Path) -> None:
    """This covers the cases 1 to 7 and 10."""
    python, environ = suite
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
        server = subprocess.Popen(
            [sys.executable, "-m", "tests.support.echo", str(listener.fileno())], cwd=ROOT, pass_fds=[listener.fileno()]
        )
        try:
            port = listener.getsockname()[1]
            wait_until(lambda: accepts(port))
            specification = {
                "outdir": str(tmp_path / "reports"),
                "servers": [{"agent": "flask_presence", "url": f"ws://127.0.0.1:{port}"}],
                "cases": ["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "10.*"],
                "exclude-cases": [],
                "exclude-agent-cases": {},
            }
            (tmp_path / "spec.json").write_text(json.dumps(specification))
            command = [python, "-c", RUN, "-m", "fuzzingclient", "-s", str(tmp_path / "spec.json")]
            subprocess.run(command, env=environ, cwd=tmp_path, check=True, capture_output=True, timeout=300)
        finally:
            server.terminate()
            server.wait(20)
    results = json.loads((tmp_path / "reports" / "index.json").read_text())["flask_presence"]
    assert len(results) >= 240
    bad = {
        case: outcome
        for case, outcome in results.items()
        if "FAILED" in (outcome["behavior"], outcome["behaviorClose"])
        or outcome["behavior"] == "UNIMPLEMENTED"
        or outcome["behaviorClose"] in ("WRONG CODE", "UNCLEAN")
    }
    assert bad == {}
    strict = sum(outcome["behavior"] in ("OK", "INFORMATIONAL") for outcome in results.values())
    print(f"{strict} of {len(results)} cases OK, the others non-strict")
