"""Keys for a purpose: the same wherever the same secrets are given, kept in the data directory where none are."""

from __future__ import annotations

from pathlib import Path

from matyan.configuration import load
from matyan.roles.home import KEY_BYTES, keys
from matyan.roles.secrets import keys_of
from matyan.settings import Settings

OLD, NEW = "an-older-secret-of-forty-characters-or-so", "the-newest-secret-of-forty-characters-too"


def settings(home: Path, *secrets: str) -> Settings:
    return load(environ={"MATYAN_SECRETS_KEYS": ",".join(secrets)} if secrets else {}, flags={"data.home": str(home)})


def test_given_secrets_make_the_same_keys_everywhere_and_leave_no_file(tmp_path: Path) -> None:
    here, there = (keys_of(settings(tmp_path / name, NEW, OLD), "uploads") for name in ("here", "there"))

    assert here == there
    assert [len(key) for key in here] == [KEY_BYTES, KEY_BYTES]
    assert list(tmp_path.iterdir()) == []


def test_each_purpose_has_keys_of_its_own(tmp_path: Path) -> None:
    assert keys_of(settings(tmp_path, NEW), "uploads") != keys_of(settings(tmp_path, NEW), "blob-uris")


def test_a_secret_put_in_front_keeps_what_the_older_one_made(tmp_path: Path) -> None:
    (before,) = keys_of(settings(tmp_path, OLD), "uploads")

    newest, older = keys_of(settings(tmp_path, NEW, OLD), "uploads")

    assert older == before
    assert newest != before


def test_without_secrets_the_data_directory_keeps_the_keys(tmp_path: Path) -> None:
    assert keys_of(settings(tmp_path), "uploads") == keys(tmp_path, "uploads")
