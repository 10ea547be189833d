"""The files in `example/deploy` that no test can start here, checked by the programs that read them or lint them."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from flask_presence.settings import Settings, load_settings

from ..conftest import missing
from ..support.deployment import ARGUMENTS, FOLDER, MODULE, of_unit, settings
from ..support.documents import ROOT, blocks_of, read

if TYPE_CHECKING:
    from compose_spec.models import ComposeSpecification

DOCKERFILE = FOLDER / "Dockerfile"
COMPOSE = FOLDER / "compose.yaml"


def of_dockerfile(instruction: str) -> list[str]:
    """The arguments of each such instruction."""
    text = read(DOCKERFILE).replace("\\\n", " ")
    return re.findall(rf"^{instruction} +(.*)$", text, re.MULTILINE)


def compose() -> ComposeSpecification:
    """The compose file, with its anchors resolved."""
    from compose_spec import PyOptions  # which takes long, and every worker of pytest imports this module

    parsed = PyOptions(apply_merge=True).from_yaml(read(COMPOSE))
    parsed.validate()
    return parsed.to_spec()


def run(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit, with this environment's gunicorn in place of the one in `/srv/app`."""
    program = shutil.which("systemd-analyze")
    if program is None or int(run(program, "--version").split()[1]) < 250:
        missing("systemd-analyze 250 or newer")
    gunicorn = Path(sys.executable).with_name("gunicorn")
    path = tmp_path / "app@.service"
    path.write_text(read(FOLDER / "app@.service").replace("/srv/app/.venv/bin/gunicorn", str(gunicorn)))
    return path


def test_systemd_finds_no_mistake_in_the_unit(unit: Path) -> None:
    assert run("systemd-analyze", "verify", unit) == ""


def test_the_unit_is_hardened(unit: Path) -> None:
    """systemd's own measure of exposure goes from 0 to 100, and is above 90 for a unit without any protection."""
    run("systemd-analyze", "security", "--offline=true", "--threshold=20", "--no-pager", unit)


def test_systemd_and_docker_wait_for_gunicorn_to_drain() -> None:
    config: dict[str, object] = {}
    exec(read(FOLDER / "gunicorn.conf.py"), config)
    graceful_timeout = config["graceful_timeout"]
    assert isinstance(graceful_timeout, int)
    assert graceful_timeout >= Settings().drain + 5
    assert int(of_unit("TimeoutStopSec")[0]) > graceful_timeout
    for name in ("app1", "app2"):
        assert int(str((compose().services or {})[name].stop_grace_period).removesuffix("s")) > graceful_timeout


def test_nginx_waits_longer_than_the_pings_of_the_server() -> None:
    locations = read(FOLDER / "nginx/locations.conf")
    timeouts = re.findall(r"^ +proxy_(?:read|send)_timeout (\d+)s;$", locations, re.MULTILINE)
    assert len(timeouts) == 2
    assert min(map(int, timeouts)) > Settings().ping_interval + Settings().ping_timeout


def test_hadolint_finds_nothing_to_improve_in_the_dockerfile() -> None:
    program = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
    if program is None:
        missing("hadolint")
    assert run(program or "", "--failure-threshold", "style", DOCKERFILE) == ""


def test_the_dockerfile_copies_what_the_repository_has() -> None:
    """What the image builds and runs is there."""
    sources = [source for line in of_dockerfile("COPY") if "--from" not in line for source in line.split()[:-1]]
    assert {"flask_presence", "example", "setup.cfg"} <= set(sources)
    assert [source for source in sources if not (ROOT / source).exists()] == []
    needed = set(re.findall(r"^py_modules = (\w+)$", read(ROOT / "setup.cfg"), re.MULTILINE))
    assert {f"{module}.py" for module in needed} <= set(sources)


def test_docker_and_systemd_start_the_same_gunicorn() -> None:
    """Its arguments are those with which `test_nginx.py` starts gunicorn, except for the address."""
    command = shlex.split(of_dockerfile("CMD")[0].strip("[]").replace(",", " "))
    assert command == ["gunicorn", *ARGUMENTS, "--bind", "0.0.0.0:8000", MODULE]


def test_the_compose_file_mounts_and_starts_what_the_repository_has() -> None:
    services = compose().services or {}
    assert services.keys() == {"app1", "app2", "redis", "nginx"}
    mounts = [str(mount).split(":") for mount in services["nginx"].volumes or []]
    mounted = {target: (FOLDER / source).resolve() for source, target, _ in mounts}
    assert [source for source in mounted.values() if not source.exists()] == []
    included = re.findall(r"include ([\w-]+\.conf);", read(mounted["/etc/nginx/nginx.conf"]))
    included += re.findall(r"include ([\w-]+\.conf);", read(mounted["/etc/nginx/site-http.conf"]))
    assert {f"/etc/nginx/{name}" for name in included} <= mounted.keys()
    addresses = re.findall(
        r"^server (\w+):(\d+) fail_timeout=1s;$", read(mounted["/etc/nginx/hosts.conf"]), re.MULTILINE
    )
    assert addresses == [("app1", "8000"), ("app2", "8000")]
    for name, _ in addresses:
        assert services[name].env_file == "app.env"


def test_every_setting_of_the_app_is_valid() -> None:
    """The secret is empty, so that nobody runs with the secret of an example."""
    values = settings()
    assert values.pop("JWT_SECRET_KEY") == ""
    assert all(key.startswith("PRESENCE_") for key in values)
    assert not load_settings(values, {}).in_memory


def test_the_app_does_not_start_without_a_secret() -> None:
    """Every worker would make up its own, and refuse the tokens of the others."""
    assert "set FLASK_JWT_SECRET_KEY" in refusal()


@pytest.mark.parametrize("backend", [None, "memory", "memory://"])
def test_the_app_does_not_start_without_redis(backend: str | None) -> None:
    """Each gunicorn would have its own list of members, without an error."""
    environ = {"FLASK_JWT_SECRET_KEY": "a secret of thirty-two characters"}
    if backend is not None:
        environ["FLASK_PRESENCE_BACKEND"] = backend
    assert "set FLASK_PRESENCE_BACKEND" in refusal(**environ)


def refusal(**environ: str) -> str:
    """What the app says when it does not start with these environment variables."""
    done = subprocess.run(
        [sys.executable, "-c", f"import {MODULE.partition(':')[0]}"],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    return done.stderr


def test_the_guide_shows_the_configuration_that_the_tests_run() -> None:
    """Every block of nginx in `docs/deployment.md` is a part of a file."""
    files = [read(path) for path in (FOLDER / "nginx").glob("*.conf")]
    blocks = [block for block in blocks_of(ROOT / "docs/deployment.md") if block.language == "nginx"]
    assert blocks
    for block in blocks:
        assert any(block.text.strip() in text for text in files), block.name
