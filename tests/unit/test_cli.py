"""The command line: what it prints, what it returns, what it imports."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from pathlib import Path

import pytest

from matyan.cli import EXIT_CONFIGURATION, main
from matyan.roles.home import locked_home
from matyan.roles.table import APART, ROLES, start_order


def test_help_imports_nothing_of_the_server() -> None:
    code = (
        "import contextlib, io, json, sys; from matyan.cli import main\n"
        "with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()): main(['--help'])\n"
        "print(json.dumps(sorted(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in json.loads(done.stdout)}

    assert "matyan" in loaded
    assert loaded & {"litestar", "granian", "lmdb", "msgspec", "numpy", "prometheus_client", "cryptography"} == set()


def test_roles_prints_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["roles"]) == 0

    lines = capsys.readouterr().out.splitlines()
    assert lines == [f"{role:10} {' '.join(start_order(role))}" for role in ROLES]
    assert "frontier   kv log blob ops follow gateway http" in lines


def test_config_show_prints_what_differs(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["config", "show", "--home", str(tmp_path)]) == 0

    assert capsys.readouterr().out == f"data.home = {str(tmp_path)!r}\n"


@pytest.mark.parametrize("name", APART)
def test_a_role_apart_says_everything_that_it_must_be_told(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str
) -> None:
    assert main([name, "--home", str(tmp_path / "home")]) == EXIT_CONFIGURATION

    complaints = capsys.readouterr().err.splitlines()
    assert [line.split()[1] for line in complaints] == ["kv.uri", "log.uri", "blob.uri", "secrets.keys"]
    assert not (tmp_path / "home").exists()


def test_up_refuses_an_address_that_others_reach(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["up", "--home", str(tmp_path), "--host", "0.0.0.0"]) == EXIT_CONFIGURATION

    assert "there is no login yet" in capsys.readouterr().err


def test_up_refuses_a_web_ui_that_is_not_there_and_says_how_to_get_it(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    arguments = ["up", "--home", str(tmp_path / "home"), "--port", "0", "--ui", "matyan", "--ui-path", str(tmp_path)]
    assert main(arguments) == EXIT_CONFIGURATION

    complaint = capsys.readouterr().err
    assert f"http.ui_path is {tmp_path}, which holds no unpacked wheel of matyan-ui" in complaint
    assert "pip install --no-deps --ignore-requires-python --target matyan-ui matyan-ui==0.3.2" in complaint


def test_up_takes_one_word_about_the_web_ui(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["up", "--ui", "aim", "--no-ui"])

    assert "--no-ui: not allowed with argument --ui" in capsys.readouterr().err


def test_every_fault_has_a_line_of_its_own(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text("[kv]\nurl = 'x'\n[log]\npartitions = -1\n")
    assert main(["config", "show", "--config", str(file)]) == EXIT_CONFIGURATION

    assert [line[:8] for line in capsys.readouterr().err.splitlines()] == ["matyan: ", "matyan: "]


@pytest.mark.parametrize("command", [["up", "--port", "0"], ["compact"]])
def test_data_in_use_is_refused_with_its_holder(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, command: list[str]
) -> None:
    with locked_home(tmp_path):
        assert main([*command, "--home", str(tmp_path)]) == EXIT_CONFIGURATION

    assert "is in use by another matyan, process" in capsys.readouterr().err


def test_compact_says_what_it_gave_back(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["compact", "--home", str(tmp_path)]) == 0

    assert capsys.readouterr().out.startswith("the store took ")
    assert not (tmp_path / "kv.compact").exists()


def test_a_start_that_fails_leaves_garbage_collections_on(tmp_path: Path) -> None:
    assert main(["up", "--home", str(tmp_path), "--host", "0.0.0.0"]) == EXIT_CONFIGURATION

    assert gc.isenabled()
