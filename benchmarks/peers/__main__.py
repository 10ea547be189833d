"""Install peers: `python -m benchmarks.peers install [name ...]`, or all of them if no name is given."""

from __future__ import annotations

import argparse
import subprocess
import sys

from . import PEERS, REDIS_PEERS, install_peer

ALL = PEERS | REDIS_PEERS


def main() -> int:
    """Return 0 if everything was installed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("command", choices=["install", "list"])
    parser.add_argument("names", nargs="*", metavar="name", help=", ".join(ALL))
    arguments = parser.parse_args()
    unknown = [name for name in arguments.names if name not in ALL]
    if unknown:
        parser.error(f"no peer {', '.join(unknown)}; there are {', '.join(ALL)}")
    chosen = [ALL[name] for name in arguments.names or ALL]
    if arguments.command == "list":
        for peer in chosen:
            print(f"{peer.name:16} {'installed' if peer.installed else 'not installed':14} {peer.title}")
        return 0
    failed = []
    for peer in chosen:
        print(f"installing {peer.name} into {peer.environment}", flush=True)
        try:
            install_peer(peer)
        except (OSError, subprocess.CalledProcessError) as problem:
            print(f"{peer.name}: {problem}", file=sys.stderr)
            failed.append(peer.name)
    if failed:
        print(f"not installed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
