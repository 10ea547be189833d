"""Install the peers: `python -m benchmarks.peers [NAME …]`, each into a folder of its own below `.peers/`."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).parent
HOME = HERE.parent / ".peers"

PYTHON_PEERS = {
    "flask-sock": ["flask", "flask-sock", "gunicorn[gevent]"],
    "flask-socketio": ["flask", "flask-socketio", "gunicorn[gevent]", "gevent-websocket"],
}


def install(name: str) -> None:
    """Install one peer, from PyPI, npm or with the C compiler."""
    folder = HOME / name
    folder.mkdir(parents=True, exist_ok=True)
    if name in PYTHON_PEERS:
        venv.create(folder, with_pip=True, clear=True)
        run([str(folder / "bin" / "pip"), "install", "-q", *PYTHON_PEERS[name]])
    elif name == "node-ws":
        run(["npm", "install", "--silent", "--prefix", str(folder), "ws@8"])
    elif name == "bare":
        run(["cc", "-O2", "-o", str(folder / "bare"), str(HERE / "bare.c")])
    elif name == "wsload":
        run(["cc", "-O2", "-o", str(folder / "wsload"), str(HERE.parent / "wsload.c")])
    else:
        sys.exit(f"no peer is called {name}; there are {', '.join(NAMES)}")


NAMES = [*PYTHON_PEERS, "node-ws", "bare", "wsload"]


def run(command: list[str]) -> None:
    print("+", " ".join(command), flush=True)
    subprocess.run(command, check=True)


if __name__ == "__main__":
    for wanted in sys.argv[1:] or NAMES:
        install(wanted)
