"""The data directory: one user at a time, and its secrets."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from matyan.blobs.uris import BlobUris
from matyan.errors import ConfigurationError, InvalidArgumentError
from matyan.roles.home import KEY_BYTES, KEYS_KEPT, keys, locked_home, rotate_keys, writing_home


def test_a_second_user_is_refused_and_told_who_holds_it(tmp_path: Path) -> None:
    with (
        locked_home(tmp_path / "home"),
        pytest.raises(ConfigurationError, match=f"in use by another matyan, process {os.getpid()};.*--home"),
        locked_home(tmp_path / "home"),
    ):
        pass


def test_the_lock_ends_with_its_block(tmp_path: Path) -> None:
    with locked_home(tmp_path):
        pass
    with locked_home(tmp_path):
        assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"


def test_a_killed_holder_leaves_no_lock_behind(tmp_path: Path) -> None:
    code = (
        "import os, sys, signal; from pathlib import Path; from matyan.roles.home import locked_home\n"
        "with locked_home(Path(sys.argv[1])): os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)

    assert killed.returncode == -9
    with locked_home(tmp_path):
        assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"


def test_a_home_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="cannot use the data directory"), locked_home(tmp_path / "file" / "x"):
        pass


def test_a_key_is_made_once_and_is_the_owners_alone(tmp_path: Path) -> None:
    (first,) = keys(tmp_path, "uploads")

    assert len(first) == KEY_BYTES
    assert keys(tmp_path, "uploads") == [first]
    assert keys(tmp_path, "blob-uris") != [first]
    assert (tmp_path / "secrets" / "uploads").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "secrets").stat().st_mode & 0o777 == 0o700


def test_a_damaged_key_is_refused_not_replaced(tmp_path: Path) -> None:
    keys(tmp_path, "uploads")
    (tmp_path / "secrets" / "uploads").write_bytes(b"short")

    with pytest.raises(ConfigurationError, match="has 5 bytes, not 32 a key"):
        keys(tmp_path, "uploads")


def test_what_an_older_key_made_is_good_until_that_key_goes(tmp_path: Path) -> None:
    uri = BlobUris(keys(tmp_path, "blob-uris")).seal("default", "run", "a.png")
    opened = []
    for _ in range(KEYS_KEPT):
        rotate_keys(tmp_path)
        try:
            opened.append(BlobUris(keys(tmp_path, "blob-uris")).open(uri).path)
        except InvalidArgumentError:
            opened.append("refused")

    assert opened == ["a.png", "a.png", "refused"]
    assert (tmp_path / "secrets" / "blob-uris").stat().st_mode & 0o777 == 0o600


def test_a_home_without_secrets_has_nothing_to_rotate(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="holds no secrets yet"):
        rotate_keys(tmp_path)


def test_any_number_may_write_to_a_store_but_nobody_while_its_files_are_replaced(tmp_path: Path) -> None:
    with (
        writing_home(tmp_path),
        writing_home(tmp_path),
        pytest.raises(ConfigurationError, match="an import writes to it"),
        writing_home(tmp_path, alone=True),
    ):
        pass
    with (
        writing_home(tmp_path, alone=True),
        pytest.raises(ConfigurationError, match="`matyan compact` rewrites it"),
        writing_home(tmp_path),
    ):
        pass
