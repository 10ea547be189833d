"""Runs the tests with the oldest, or with the newest, dependencies that `setup.cfg` allows.

    python -m tests.dependencies lowest
    python -m tests.dependencies newest --python python3.13 -n 2

It makes a virtual environment, `.venv-lowest` or `.venv-newest`, with the tools in `requirements.txt`, and leaves out
the tests of browsers, of types and of the repository. Arguments that it does not know go to pytest.
"""

from __future__ import annotations

import argparse
import configparser
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
LEFT_OUT = [
    "--ignore=tests/client",
    "--ignore=tests/pusher/test_real_clients.py",
    "--ignore=tests/repository",
    "--ignore=tests/server_api/test_types.py",
    "--ignore=tests/stats/test_stats_page.py",
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("which", choices=("lowest", "newest"))
    parser.add_argument("--python", default=sys.executable, help="the interpreter (default: this one)")
    options, given = parser.parse_known_args()
    python = make_environment(options.which, options.python)
    arguments = [*LEFT_OUT, *(given or ["-nauto"])]
    sys.exit(subprocess.run([python, "-m", "pytest", "-q", *arguments], cwd=ROOT, check=False).returncode)


def make_environment(which: str, interpreter: str) -> str:
    """Make the virtual environment anew, and print what is in it. Returns the path of its interpreter."""
    folder = ROOT / f".venv-{which}"
    python = str(folder / "bin/python")
    subprocess.run([interpreter, "-m", "venv", "--clear", str(folder)], check=True)
    dependencies, extras = declared()
    bounds = [lowest(one) for one in dependencies] if which == "lowest" else []
    with tempfile.TemporaryDirectory() as temporary:
        constraints = Path(temporary, "constraints.txt")
        constraints.write_text("\n".join(bounds), encoding="utf-8")
        package = ["--editable", f"{ROOT}[{','.join(extras)}]"]
        install = [python, "-m", "pip", "install", "--quiet", "--constraint", str(constraints)]
        subprocess.run([*install, *package, *tools({one.name for one in dependencies})], check=True)
    subprocess.run([python, "-m", "pip", "list"], check=True)
    return python


def declared() -> tuple[list[Requirement], list[str]]:
    """The dependencies in `setup.cfg`, those of its extras too, and the names of the extras."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    extras = dict(config["options.extras_require"])
    lines = "\n".join([config["options"]["install_requires"], *extras.values()]).split("\n")
    return [Requirement(line) for line in lines if line.strip()], list(extras)


def lowest(requirement: Requirement) -> str:
    """The pin of the lower bound."""
    bounds = [one.version for one in requirement.specifier if one.operator == ">="]
    if len(bounds) != 1:
        raise SystemExit(f"{requirement} must have one lower bound in setup.cfg")
    return f"{requirement.name}=={bounds[0]}"


def tools(dependencies: set[str]) -> list[str]:
    """The tools in `requirements.txt`, without their pins: an older Python may need older versions."""
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if re.match(r"\w", line) and Requirement(line).name not in dependencies]
    return [pin.partition("==")[0] for pin in pins]


if __name__ == "__main__":
    main()
