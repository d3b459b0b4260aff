from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Final

import pytest

from tests.support.markdown import ROOT, anchor, code_blocks, headings, links, pages
from tests.support.reference import PAGES, REFERENCE

PAGE_NAMES: Final = [str(page.relative_to(ROOT)) for page in pages()]
README_PARTS: Final = (
    "When to use it, and when not",
    "Run modes",
    "Documentation",
    "Compatibility and status",
    "Licence",
)
KINDS: Final = ("tutorials", "how-to", "reference", "explanation", "decisions", "changes")


@pytest.mark.parametrize("name", PAGE_NAMES)
def test_links_lead_somewhere(name: str) -> None:
    page = ROOT / name
    dead = [target for target in links(page) if not leads_somewhere(page, target)]

    assert dead == []


def leads_somewhere(page: Path, target: str) -> bool:
    if re.match(r"https?://", target):
        return True  # the network is no part of the tests
    path, _, fragment = target.partition("#")
    found = (page.parent / path).resolve() if path else page
    if not found.exists() or not found.is_relative_to(ROOT):
        return False
    return not fragment or fragment in [anchor(text) for _, text in headings(found)]


@pytest.mark.parametrize("name", [name for name in PAGE_NAMES if "docs/changes/" not in name or "README" in name])
def test_a_page_has_one_title_and_skips_no_level(name: str) -> None:
    levels = [level for level, _ in headings(ROOT / name)]

    assert levels[:1] == [1]
    assert levels.count(1) == 1
    assert all(following <= level + 1 for level, following in itertools.pairwise(levels))


@pytest.mark.parametrize("name", PAGE_NAMES)
def test_python_in_pages_is_python(name: str) -> None:
    for block in code_blocks(ROOT / name):
        if block.language == "python":
            compile(block.text, name, "exec")


@pytest.mark.parametrize("name", PAGE_NAMES)
def test_make_targets_in_pages_exist(name: str) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    text = (ROOT / name).read_text()

    used = set(re.findall(r"(?:^|`)make ([a-z-]+)", text, re.MULTILINE))
    assert used <= targets


def test_the_readme_has_its_parts_and_fits_the_eye() -> None:
    text = (ROOT / "README.md").read_text()
    found = [heading for _, heading in headings(ROOT / "README.md")]

    assert [part for part in README_PARTS if part not in found] == []
    assert len(text.splitlines()) <= 110
    script = next(block.text for block in code_blocks(ROOT / "README.md") if block.language == "python")
    assert len([line for line in script.splitlines() if line]) == 6


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_page_is_there(kind: str) -> None:
    assert list((ROOT / "docs" / kind).glob("*.md"))


@pytest.mark.parametrize("name", PAGES)
def test_reference_pages_are_those_that_the_code_makes(name: str) -> None:
    assert (REFERENCE / name).read_text() == PAGES[name](), "run `make docs`"


def test_decisions_are_numbered_once() -> None:
    numbers = [path.name[:4] for path in (ROOT / "docs" / "decisions").glob("*.md")]

    assert all(number.isdigit() for number in numbers)
    assert len(numbers) == len(set(numbers))


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-dev.lock"])
def test_locks_pin_by_hash_and_name_no_index(name: str) -> None:
    text = (ROOT / name).read_text()

    pinned = re.findall(r"^[\w.-]+==\S+", text, re.MULTILINE)
    assert len(pinned) > 30
    assert len(re.findall(r"^[\w.-]+==[^\n]*\\\n    --hash=sha256:", text, re.MULTILINE)) == len(pinned)
    assert "://" not in text
    assert "--index" not in text


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached: set[Path] = set()
    ahead = [ROOT / "README.md"]
    while ahead:
        page = ahead.pop()
        if page in reached:
            continue
        reached.add(page)
        targets = [(page.parent / target.partition("#")[0]).resolve() for target in links(page) if "://" not in target]
        for target in targets:
            ahead += sorted(target.glob("*.md")) if target.is_dir() else [target] if target.suffix == ".md" else []

    assert set(pages()) - reached - set((ROOT / "docs" / "changes").glob("*.md")) == set()
