"""As much of Markdown as the documentation's tests need: headings, links and fenced code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
_FENCE: Final = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK: Final = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_HEADING: Final = re.compile(r"^(#+) (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class CodeBlock:
    """A fenced block and the language named at its fence."""

    language: str
    text: str


def pages() -> list[Path]:
    """Return every Markdown file of the project, the README first."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def code_blocks(page: Path) -> Iterator[CodeBlock]:
    """Yield the fenced blocks in order."""
    for language, text in _FENCE.findall(page.read_text()):
        yield CodeBlock(language, text)


def headings(page: Path) -> list[tuple[int, str]]:
    """Return (level, text) of every heading outside code."""
    return [(len(marks), text) for marks, text in _HEADING.findall(_prose(page))]


def links(page: Path) -> list[str]:
    """Return the targets of links and pictures outside code."""
    return _LINK.findall(_prose(page))


def anchor(heading: str) -> str:
    """Return the name under which a heading can be linked."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _prose(page: Path) -> str:
    return _FENCE.sub("", page.read_text())
