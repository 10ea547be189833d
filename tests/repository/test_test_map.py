"""The table in `tests/README.md` names every file with tests."""

from __future__ import annotations

from ..support.documents import ROOT, rows_of

TESTS = ROOT / "tests"


def test_the_map_has_every_test_file_and_no_other() -> None:
    listed = [row[1].strip("`") for row in rows_of(TESTS / "README.md")[1:] if row[1]]
    existing = [str(path.relative_to(TESTS)) for path in TESTS.rglob("test_*.py")]
    assert sorted(listed) == sorted(existing)
