"""Parts of the documents: blocks of code, tables, sections and anchors."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Block:
    """A fenced block of code: `role` is what follows the language, `line` the number of its first line."""

    document: Path
    line: int
    language: str
    role: str
    text: str

    @property
    def name(self) -> str:
        return f"{self.document.name}:{self.line}"


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def blocks_of(document: Path) -> Iterator[Block]:
    text = read(document)
    for found in re.finditer(r"^```([^\n]*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        language, _, role = found[1].partition(" ")
        yield Block(document, text[: found.start(2)].count("\n") + 1, language, role, found[2])


def prose_of(document: Path) -> str:
    """The text without its blocks of code."""
    return re.sub(r"^```[^\n]*\n.*?^```$", "", read(document), flags=re.DOTALL | re.MULTILINE)


def rows_of(document: Path) -> list[list[str]]:
    """The cells of every row of every table."""
    lines = [line for line in read(document).splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def section_of(document: Path, heading: str) -> str:
    """The text from a heading to the next section."""
    return read(document).partition(f"\n{heading}\n")[2].partition("\n## ")[0]


def names_of(documents: list[Path]) -> list[str]:
    """The documents' paths within the repository."""
    return [str(document.relative_to(ROOT)) for document in documents]


def anchors_of(document: Path) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose_of(document), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
