"""`flask presence client`: the npm package, and the directory that the command writes it into."""

from __future__ import annotations

import json
import re
from importlib.metadata import version
from pathlib import Path

import pytest
from click.testing import Result
from flask import Flask
from flask_jwt_extended import JWTManager

from flask_presence import Presence
from flask_presence.web.npm_package import npm_version

WRITTEN = {
    "package.json",
    "presence.mjs",
    "presence.d.mts",
    "presence-rooms.mjs",
    "presence-react.mjs",
    "presence-react.d.mts",
    "presence-vue.mjs",
    "presence-vue.d.mts",
}


def run(directory: Path, *options: str) -> Result:
    app = Flask("cli")
    app.config["JWT_SECRET_KEY"] = "a secret of thirty-two characters"
    JWTManager(app)
    Presence(app)
    return app.test_cli_runner().invoke(args=["presence", "client", str(directory), *options])


def contents(directory: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in directory.iterdir() if path.is_file()}


@pytest.mark.parametrize(
    ("directory", "frontend", "path"),
    [
        ("frontend/presence-client", "frontend", "./presence-client"),
        ("frontend/lib/presence-client", "frontend", "./lib/presence-client"),
        ("frontend/presence-client", None, "./presence-client"),
        ("frontend/presence client", "frontend", "'./presence client'"),
    ],
)
def test_the_command_says_what_to_run_in_the_folder_of_the_frontend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, directory: str, frontend: str | None, path: str
) -> None:
    """That is the folder with the `package.json` or, if there is none yet, the one that holds the directory."""
    monkeypatch.chdir(tmp_path)
    if frontend:
        (tmp_path / frontend).mkdir()
        (tmp_path / frontend / "package.json").write_text("{}")
    result = run(Path(directory))
    assert result.output.splitlines()[-1] == f"In your frontend's folder: npm install {path}"
    assert run(Path(directory)).output.splitlines()[-1] == result.output.splitlines()[-1]


def test_the_package_has_the_installed_version_and_names_only_its_files(tmp_path: Path) -> None:
    result = run(tmp_path / "new" / "presence-client")
    assert result.exit_code == 0, result.output
    assert "npm install" in result.output
    files = contents(tmp_path / "new" / "presence-client")
    assert files.keys() == WRITTEN
    manifest = json.loads(files["package.json"])
    assert (manifest["name"], manifest["type"]) == ("flask-presence", "module")
    assert manifest["version"] == npm_version(version("flask-presence"))
    assert {*manifest["files"], "package.json"} == WRITTEN
    targets = re.findall(
        r'"\./([^"]+)"', json.dumps([*manifest["exports"].values(), manifest["main"], manifest["types"]])
    )
    assert len(targets) > 8
    assert set(targets) <= WRITTEN
    assert manifest["peerDependenciesMeta"].keys() == manifest["peerDependencies"].keys() == {"react", "vue"}
    assert "window.Presence" not in files["presence.d.mts"]
    assert "interface Window" not in files["presence.d.mts"]


def test_the_command_updates_its_own_files(tmp_path: Path) -> None:
    """It leaves the files beside them alone, and removes those of an earlier version."""
    run(tmp_path)
    first = contents(tmp_path)
    again = run(tmp_path, "--json")
    assert json.loads(again.output) == {
        "directory": str(tmp_path),
        "version": json.loads(first["package.json"])["version"],
        "changed": [],
    }
    manifest = json.loads(first["package.json"])
    manifest |= {"version": "0.0.1", "files": [*manifest["files"], "old.mjs", "../outside.mjs", "missing.mjs"]}
    (tmp_path / "package.json").write_text(json.dumps(manifest))
    (tmp_path / "presence.mjs").write_text("old")
    for name in ("old.mjs", "LICENSE", "../outside.mjs"):
        (tmp_path / name).write_text("text")
    (tmp_path / "node_modules").mkdir()
    changed = json.loads(run(tmp_path, "--json").output)["changed"]
    assert changed == ["package.json", "presence.mjs", "old.mjs"]
    assert contents(tmp_path) == first | {"LICENSE": "text"}
    assert (tmp_path / "../outside.mjs").read_text() == "text"
    (tmp_path / "../outside.mjs").unlink()


def test_the_command_says_how_many_files_it_changed(tmp_path: Path) -> None:
    assert f": {len(WRITTEN)} files changed." in run(tmp_path).output
    (tmp_path / "presence.mjs").write_text("old")
    assert ": 1 file changed." in run(tmp_path).output
    assert ": no files changed." in run(tmp_path).output


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("index.html", "mine"),
        ("presence.mjs", "mine"),
        ("package.json", '{"name": "my-app"}'),
        ("package.json", "[1]"),
        ("package.json", "no JSON"),
    ],
)
def test_a_directory_that_holds_something_else_is_refused(tmp_path: Path, name: str, text: str) -> None:
    """The error names what is there and what to do."""
    (tmp_path / name).write_text(text)
    result = run(tmp_path)
    assert result.exit_code == 1
    assert f"holds something else ({name})" in result.output
    assert f"for example {tmp_path / 'presence-client'}" in result.output
    assert contents(tmp_path) == {name: text}


def test_a_path_that_cannot_be_a_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    result = run(tmp_path / "file")
    assert (result.exit_code, "is a file" in result.output) == (1, True)
    result = run(tmp_path / "file" / "below")
    assert (result.exit_code, result.output.count("\n")) == (1, 1)
    assert "Cannot write to" in result.output


@pytest.mark.parametrize(
    ("python", "npm"),
    [
        ("0.1.0", "0.1.0"),
        ("1.2", "1.2.0"),
        ("1", "1.0.0"),
        ("1.2.3.4", "1.2.3"),
        ("1.2rc1", "1.2.0-rc.1"),
        ("1.2.0a3.dev4", "1.2.0-alpha.3.dev.4"),
        ("1.2.0.dev4+g12ab.d2026", "1.2.0-dev.4+g12ab.d2026"),
        ("1!2.0.0.post1", "2.0.0+post.1"),
        ("unknown", "0.0.0"),
    ],
)
def test_a_version_is_translated_for_npm(python: str, npm: str) -> None:
    assert npm_version(python) == npm
