"""Figures in a page of the documentation: each part between marks of its own, so that one command renews it."""

from __future__ import annotations

from pathlib import Path


def put_part(page: Path, name: str, text: str) -> None:
    """Replace what stands between the marks of a part.

    Raises:
        ValueError: the page has no such marks.
    """
    begin, end = f"<!-- bench {name} -->", f"<!-- end of {name} -->"
    content = page.read_text()
    before, found, rest = content.partition(begin)
    _, ended, after = rest.partition(end)
    if not found or not ended:
        raise ValueError(f"{page} has no place for the part {name}: {begin} ... {end}")
    page.write_text(f"{before}{begin}\n\n{text.strip()}\n\n{end}{after}")
