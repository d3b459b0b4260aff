from __future__ import annotations

import ast
import importlib.metadata
import os
import re
import subprocess
import sys
import tomllib
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


def declared_distributions() -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    lines = [*project["dependencies"], *extras["distributed"], *extras["demo"], *extras["aim"]]
    return {normalized(re.split(r"[\s\[<>=!~;]", line, maxsplit=1)[0]) for line in lines}


def normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def imported_packages() -> set[str]:
    nodes = [node for path in (ROOT / "matyan").rglob("*.py") for node in ast.walk(ast.parse(path.read_text()))]
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    named = {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module and not node.level}
    return {name.split(".")[0] for name in plain | named} - sys.stdlib_module_names - {"matyan"}


def test_every_library_that_is_imported_is_declared() -> None:
    distributions = importlib.metadata.packages_distributions()
    comes_with = {"loguru": "matyan-client"}
    wanted = {
        name: comes_with.get(name) or normalized(distributions.get(name, [name])[0]) for name in imported_packages()
    }

    undeclared = {name for name, distribution in wanted.items() if distribution not in declared_distributions()}
    assert undeclared == set()
