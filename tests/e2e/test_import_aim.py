"""`matyan import aim` as a process: killed at any moment, beside a running server, and what it says."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

import pytest

from tests.golden import expand
from tests.support.aim_repository import golden_aim_repository, needs_aim
from tests.support.dataset import GOLDEN
from tests.support.imported import opened
from tests.support.rest import Rest
from tests.support.server import MATYAN, matyan, matyan_here, started

KILLS: Final = 6
KILL_SECONDS_MAX: Final = 0.5
"""After the store was opened; an import of the golden dataset takes about as long."""
START_SECONDS_MAX: Final = 30.0
DATASET: Final = expand.load(GOLDEN / "dataset.json")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return golden_aim_repository(tmp_path / "aim")


def kill_an_import(source: Path, home: Path, after_seconds: float) -> int:
    """Start an import, kill it so long after it opened the store, and return its exit code."""
    opened_at = home / "writers"
    opened_at.unlink(missing_ok=True)
    with subprocess.Popen(
        [MATYAN, "import", "aim", str(source), "--home", str(home)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        deadline = time.monotonic() + START_SECONDS_MAX
        while not opened_at.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(after_seconds)
        process.kill()
        return process.wait()


@needs_aim
@pytest.mark.slow
def test_an_import_killed_at_any_moment_and_repeated_leaves_the_same_store(source: Path, tmp_path: Path) -> None:
    matyan("import", "aim", str(source), "--home", str(tmp_path / "undisturbed"))
    chance = random.Random(12)

    codes = [kill_an_import(source, tmp_path / "killed", chance.uniform(0, KILL_SECONDS_MAX)) for _ in range(KILLS)]
    matyan("import", "aim", str(source), "--home", str(tmp_path / "killed"))

    assert -signal.SIGKILL in codes
    with opened(tmp_path / "undisturbed") as one:
        wanted_rows, wanted_blobs = one.everything()
    with opened(tmp_path / "killed") as other:
        rows, blobs = other.everything()
    assert rows == wanted_rows
    assert blobs == wanted_blobs


@needs_aim
def test_a_running_server_shows_what_is_imported(source: Path, tmp_path: Path) -> None:
    with started(tmp_path / "home") as server, Rest(server.url) as rest:
        done = matyan("import", "aim", str(source), "--home", str(tmp_path / "home"))

        assert "24 of 24 runs equal" in done.stdout
        for run in DATASET["runs"]:
            assert rest.info(run["hash"])["props"]["name"] == (run["name"] or f"Run: {run['hash']}")


@needs_aim
def test_progress_and_the_result_are_told(source: Path, tmp_path: Path) -> None:
    done = matyan("import", "aim", str(source), "--home", str(tmp_path / "home"))

    assert "imported 24/24 runs, 3,753 points, " in done.stderr
    assert "verified 24/24 runs, 3,753 points, " in done.stderr
    assert done.stdout.splitlines()[1] == (
        "compared with the source, row by row: 24 of 24 runs equal, 3,753 points and objects"
    )


@needs_aim
def test_a_run_that_did_not_arrive_makes_the_command_fail(source: Path, tmp_path: Path) -> None:
    shutil.rmtree(source / ".aim" / "meta" / "chunks" / DATASET["runs"][0]["hash"])

    done = matyan("import", "aim", str(source), "--home", str(tmp_path / "home"), check=False)

    assert done.returncode == 1
    assert f"wrong: run {DATASET['runs'][0]['hash']}: cannot open " in done.stdout


@needs_aim
def test_an_empty_repository_is_no_failure(tmp_path: Path) -> None:
    (tmp_path / "aim" / ".aim" / "meta").mkdir(parents=True)

    done = matyan_here("import", "aim", str(tmp_path / "aim"), "--home", str(tmp_path / "home"))

    assert done.stdout == "no runs to import\n"


def test_a_path_without_a_repository_is_told(tmp_path: Path) -> None:
    done = matyan_here("import", "aim", str(tmp_path / "nowhere"), "--home", str(tmp_path / "home"), check=False)

    assert done.returncode == 2
    assert done.stderr == (
        f"matyan: there is no Aim repository at {tmp_path / 'nowhere'}: name the directory that holds .aim\n"
    )


def test_a_repository_of_another_generation_is_told(tmp_path: Path) -> None:
    (tmp_path / ".aim" / "meta").mkdir(parents=True)
    (tmp_path / ".aim" / "VERSION").write_text("2.0\n")

    done = matyan_here("import", "aim", str(tmp_path), "--home", str(tmp_path / "home"), check=False)

    assert done.returncode == 2
    assert "has Aim's data version 2.0, this release reads version 1" in done.stderr


def test_a_date_that_is_none_is_told(tmp_path: Path) -> None:
    done = matyan("import", "aim", str(tmp_path), "--since", "yesterday", check=False)

    assert done.returncode == 2
    assert "'yesterday' is no date; write it as 2025-01-31 or 2025-01-31T18:00" in done.stderr


def test_without_the_library_the_command_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / ".aim" / "meta").mkdir(parents=True)
    code = "import sys; sys.modules['aimrocks'] = None; from matyan.cli import main; sys.exit(main(sys.argv[1:]))"

    done = subprocess.run(
        [sys.executable, "-c", code, "import", "aim", str(tmp_path), "--home", str(tmp_path / "home")],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 2
    assert "pip install 'matyan-tracker[aim]'" in done.stderr
    assert not (tmp_path / "home").exists()
