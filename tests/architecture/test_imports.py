from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
SERVER_LIBRARIES: Final = ("litestar", "granian", "lmdb", "RestrictedPython", "numpy", "kafka", "minio", "fdb")


def modules_after(statement: str) -> set[str]:
    script = f"{statement}\nimport sys\nprint(*sys.modules)"
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(answer.stdout.split())


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [
        str(Path(sys.executable).with_name("lint-imports")),
        "--no-cache",
        "--config",
        str(ROOT / "pyproject.toml"),
    ]
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_imports_run_downwards() -> None:
    answer = lint_imports(ROOT)

    assert answer.returncode == 0, answer.stdout


def test_importing_matyan_loads_no_server_library() -> None:
    assert modules_after("import matyan").isdisjoint(SERVER_LIBRARIES)


def test_the_ground_knows_nothing_but_itself() -> None:
    loaded = modules_after("import matyan.errors, matyan.limits, matyan.ids, matyan.clock")

    ours = {name for name in loaded if name.startswith("matyan")}
    assert ours == {"matyan", "matyan.errors", "matyan.limits", "matyan.ids", "matyan.clock"}
    assert loaded.isdisjoint(SERVER_LIBRARIES)


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("matyan/errors.py", "import matyan.wire.codec"),
        ("matyan/runs/model.py", "import matyan.runs.repository"),
        ("matyan/store/records.py", "import lmdb"),
        ("matyan/runs/repository.py", "import litestar"),
        ("matyan/engines/kv/protocol.py", "import matyan.engines.log.protocol"),
    ],
)
def test_the_import_check_sees_a_forbidden_import(tmp_path: Path, module: str, line: str) -> None:
    """The contracts themselves can rot; each is shown one import that it must refuse."""
    package = tmp_path / "matyan"
    subprocess.run(["cp", "-r", str(ROOT / "matyan"), str(package)], check=True)
    with (tmp_path / module).open("a") as file:
        file.write(f"\n{line}\n")

    answer = lint_imports(tmp_path)

    assert answer.returncode != 0, "the check took it"
    assert "BROKEN" in answer.stdout, answer.stdout + answer.stderr
