"""The wheel and the source distribution, built from the files that git knows: what is in them, and that they work."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple

import pytest
from packaging.metadata import Metadata
from packaging.version import Version
from readme_renderer import markdown

import flask_presence
from flask_presence.backends.redis.store.scripts import all_scripts

from ..conftest import missing
from ..support.documents import ROOT, blocks_of, read

FILES_FOR_USERS = {
    "flask_presence/py.typed",
    "flask_presence/backends/redis/store/lua/channel/join.lua",
    "flask_presence/web/static/presence.d.ts",
    "flask_presence/web/static/presence.js",
    "flask_presence/web/templates/presence/stats.html",
    "pytest_flask_presence.py",
}
PATHS = ("/", "/health", "/stats.css", "/stats.js", "/presence.js", "/presence.mjs", "/presence.d.ts")
USE = f"""
import importlib.metadata, json
from flask import Flask
import flask_presence
from flask_presence.backends.redis.store.scripts import all_scripts

app = Flask("app")
flask_presence.Presence(app, stats_public=True)
http = app.test_client()
print(json.dumps({{
    "file": flask_presence.__file__,
    "version": importlib.metadata.version("flask-presence"),
    "plugins": [one.value for one in importlib.metadata.entry_points(group="pytest11") if one.name == "flask_presence"],
    "scripts": len(all_scripts()),
    "statuses": [http.get("/presence" + path).status_code for path in {PATHS}],
}}))
"""


class Distributions(NamedTuple):
    files: set[str]
    """What git knows."""
    sdist: Path
    wheel: Path


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Distributions:
    """Both distributions: the wheel is built from the sdist, as an installer that finds no wheel does it."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        missing("A git checkout")
    files = {name for name in listed.stdout.split("\0") if name and (ROOT / name).exists()}
    checkout, output = tmp_path_factory.mktemp("checkout"), tmp_path_factory.mktemp("dist")
    for name in files:
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, checkout / name)
    (checkout / "flask_presence/left_over.pyc").touch()
    command = [sys.executable, "-m", "build", "--outdir", str(output), str(checkout)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    if "No matching distribution found" in done.stdout + done.stderr:
        missing("A package index")
    assert done.returncode == 0, done.stdout + done.stderr
    return Distributions(files, next(output.glob("*.tar.gz")), next(output.glob("*.whl")))


@pytest.fixture(scope="module")
def metadata(built: Distributions) -> Metadata:
    """The metadata of the wheel. Parsing it raises if an index would refuse it."""
    with zipfile.ZipFile(built.wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return Metadata.from_email(archive.read(name), validate=True)


def test_the_source_distribution_is_the_repository(built: Distributions) -> None:
    """Beside the files that git knows it has only what describes it."""
    with tarfile.open(built.sdist) as archive:
        names = {one.name.partition("/")[2] for one in archive.getmembers() if one.isfile()}
    generated = {name for name in names if name == "PKG-INFO" or name.startswith("flask_presence.egg-info/")}
    assert names - generated == built.files


def test_the_wheel_has_every_file_of_the_package_and_no_other(built: Distributions) -> None:
    with zipfile.ZipFile(built.wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        described = {name.partition(".dist-info/")[2] for name in archive.namelist()} - {""}
    assert names == {name for name in built.files if name.startswith(("flask_presence/", "pytest_flask_presence"))}
    assert names >= FILES_FOR_USERS
    assert described >= {"METADATA", "RECORD", "entry_points.txt", "licenses/LICENSE"}


def test_the_metadata_says_what_an_index_needs(metadata: Metadata) -> None:
    assert metadata.version == Version(flask_presence.__version__)
    assert metadata.license_expression == "MIT"
    assert metadata.requires_python is not None
    tested = {
        match[1] for one in metadata.classifiers or () if (match := re.fullmatch(r".*:: Python :: (3\.\d+)", one))
    }
    assert tested == {"3.10", "3.11", "3.12", "3.13", "3.14"}
    assert all(version in metadata.requires_python for version in tested)
    assert "3.9" not in metadata.requires_python
    assert "Typing :: Typed" in (metadata.classifiers or ())
    assert metadata.keywords is not None
    assert metadata.provides_extra == ["redis", "server", "gevent-websocket"]


class Page(HTMLParser):
    """The targets of a page's links and images, the ids that it has, and the number of its blocks of code."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.ids: set[str] = set()
        self.blocks = 0
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.targets += [value or "" for name, value in attrs if name in ("href", "src")]
        self.ids |= {value or "" for name, value in attrs if name == "id"}
        self.blocks += tag == "pre"


def test_the_page_on_an_index_has_no_broken_image_or_link(metadata: Metadata) -> None:
    """An index shows the README alone: relative targets would lead nowhere. Nothing else of it is lost."""
    assert metadata.description_content_type == "text/markdown"
    html = markdown.render(metadata.description or "")
    assert html is not None
    page = Page(html)
    own = {f"#{one}" for one in page.ids}
    assert [target for target in page.targets if target not in own and not re.match(r"https?://", target)] == []
    blocks = list(blocks_of(ROOT / "README.md"))
    assert page.blocks == len(blocks)
    assert all(block.text in (metadata.description or "") for block in blocks)
    headings = re.findall(r"^##? .+$", read(ROOT / "README.md"), re.MULTILINE)
    assert [heading for heading in headings if heading not in (metadata.description or "")] == []


def test_the_wheel_works_where_it_is_installed(built: Distributions, tmp_path: Path) -> None:
    """It finds its data files, and its pytest plugin is registered."""
    target = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(target)]
    subprocess.run([*install, str(built.wheel)], check=True, timeout=300)
    environment = os.environ | {"PYTHONPATH": str(target)}
    done = subprocess.run([sys.executable, "-c", USE], cwd=tmp_path, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    found = json.loads(done.stdout)
    assert found["file"] == str(target / "flask_presence/__init__.py")
    assert found["version"] == flask_presence.__version__
    assert "pytest_flask_presence" in found["plugins"]
    assert found["scripts"] == len(all_scripts())
    assert dict(zip(PATHS, found["statuses"], strict=True)) == dict.fromkeys(PATHS, 200)
