"""The Python in README and tutorials must work as written.

All blocks of one page run in order in one process, against a real server found through the environment.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.support.markdown import ROOT, code_blocks
from tests.support.rest import Rest, eventually
from tests.support.server import MatyanServer

PAGES: Final = [ROOT / "README.md", *sorted((ROOT / "docs" / "tutorials").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_python_of_a_page_works(server: MatyanServer, rest: Rest, page: Path) -> None:
    pytest.importorskip("matyan_client", reason="matyan-client is not installed")
    before = set(rest.runs())
    script = "\n".join(block.text for block in code_blocks(page) if block.language == "python")
    environment = {**os.environ, "MATYAN_BACKEND_URL": server.url, "MATYAN_FRONTIER_URL": server.url}

    subprocess.run([sys.executable, "-c", script], env=environment, check=True, timeout=60, capture_output=True)

    new = eventually(lambda: set(rest.runs()) - before, bool)
    assert new, "the page's script logged no run"
