"""Every benchmark still runs; what it measures is nothing that a test could assert."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.bench.run import PARTS, main

TINY = ["--runs", "20", "--ui-runs", "20", "--frames", "1", "--seconds", "1", "--points", "6000", "--share", "0.01"]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.mark.parametrize("part", PARTS)
def test_a_part_puts_its_tables_into_a_page(
    part: str, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for peer in ("AIM", "MLFLOW"):
        monkeypatch.delenv(f"MATYAN_BENCH_{peer}_PYTHON", raising=False)
    if part == "kafka":
        monkeypatch.setitem(sys.modules, "aim", None)  # it cannot be imported: `one` measures it in the same way
    if part == "soak":
        monkeypatch.setenv("PATH", str(tmp_path))  # there is no java: `kafka` starts the roles apart in the same way
    page = tmp_path / "performance.md"
    page.write_text(f"before\n<!-- bench {part} -->\n<!-- end of {part} -->\nafter\n")

    main(["--part", part, "--folder", str(tmp_path), "--cache", str(cache), "--write", str(page), *TINY])

    text = page.read_text()
    assert "\n### " in text
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
