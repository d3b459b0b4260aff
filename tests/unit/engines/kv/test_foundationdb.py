"""What of the FoundationDB engine needs no library and no cluster: versions, errors, what a missing library says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from matyan.engines.kv.foundationdb_client import choose_api_version
from matyan.engines.kv.foundationdb_commits import CommitMarks
from matyan.engines.kv.foundationdb_errors import our_error
from matyan.errors import ConfigurationError, CorruptedError, TooLargeError, TooSlowError, UnavailableError

OPEN = "from matyan.engines.open import open_kv\nopen_kv('fdb://{}')"


@pytest.mark.parametrize(
    ("wanted", "bindings", "library", "chosen"),
    [
        (0, 730, 730, 730),
        (0, 730, 740, 730),
        (0, 740, 740, 730),
        (0, 710, 710, 710),
        (0, 710, 730, 710),
        (710, 730, 730, 710),
        (730, 730, 730, 730),
    ],
)
def test_the_api_version_is_the_newest_that_all_know_or_the_one_asked_for(
    wanted: int, bindings: int, library: int, chosen: int
) -> None:
    assert choose_api_version(wanted, bindings=bindings, library=library) == chosen


@pytest.mark.parametrize(
    ("wanted", "bindings", "library", "message"),
    [
        (0, 800, 730, r"the package foundationdb is newer \(API 800\) .* `pip install 'foundationdb==7.3.\*'`"),
        (0, 730, 710, r"`pip install 'foundationdb==7.1.\*'`"),
        (730, 710, 730, r"fdb.api_version is 730, must be between 710 and 710"),
        (700, 730, 730, r"fdb.api_version is 700, must be between 710 and 730"),
        (0, 630, 630, r"fdb.api_version is 630, must be between 710 and 710: .* library API 630"),
    ],
)
def test_versions_that_do_not_fit_say_what_to_do(wanted: int, bindings: int, library: int, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        choose_api_version(wanted, bindings=bindings, library=library)


@pytest.mark.parametrize(
    ("code", "kind", "message"),
    [
        (1007, TooSlowError, "five seconds"),
        (1020, UnavailableError, "others changed"),
        (1021, UnavailableError, "may have been kept"),
        (1031, UnavailableError, "no end within 7.5 s: see by `fdbcli"),
        (1213, UnavailableError, r"text \(1213\)$"),
        (2101, TooLargeError, r"\(2101\)"),
        (2102, TooLargeError, r"\(2102\)"),
        (2103, TooLargeError, r"\(2103\)"),
        (1036, RuntimeError, "put_versionstamped"),
        (2004, RuntimeError, r"\(2004\)"),
        (2017, RuntimeError, r"\(2017\)"),
        (1515, ConfigurationError, "check the cluster file"),
        (2104, ConfigurationError, "check the cluster file"),
        (1520, CorruptedError, r"\(1520\)"),
    ],
)
def test_each_error_is_told_by_its_kind_with_its_number(code: int, kind: type[Exception], message: str) -> None:
    error = our_error(code, "text", place="the store", seconds=7.5)

    assert type(error) is kind
    with pytest.raises(kind, match=message):
        raise error


@pytest.mark.parametrize(("code", "kind"), [(1031, TooSlowError), (1020, UnavailableError)])
def test_a_deadline_that_comes_while_transactions_become_too_old_is_told_as_that(
    code: int, kind: type[Exception]
) -> None:
    error = our_error(code, "text", place="the store", seconds=7.5, is_after_too_old=True)

    assert type(error) is kind
    assert ("five seconds" in str(error)) is (kind is TooSlowError)


def test_a_missing_client_library_says_what_to_install() -> None:
    """Also where it is installed: the call that loads libraries is taken away."""
    script = f"import ctypes\nctypes.CDLL = None\n{OPEN.format('')}"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)

    assert "ConfigurationError: fdb:// needs the client library of FoundationDB" in done.stderr
    assert "install the package foundationdb-clients" in done.stderr
    assert "LD_LIBRARY_PATH" in done.stderr


def test_a_cluster_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=f"there is no cluster file {tmp_path}/no.cluster"):
        exec(OPEN.format(tmp_path / "no.cluster"))


def test_no_two_calls_have_the_same_mark_and_keys_are_used_again() -> None:
    marks, others = CommitMarks(b"p/"), CommitMarks(b"p/")
    with marks.lend() as first, marks.lend() as meanwhile, others.lend() as elsewhere:
        pass
    with marks.lend() as later:
        pass

    assert len({first, meanwhile, elsewhere, later}) == 4
    assert len({first.key, meanwhile.key, elsewhere.key}) == 3
    assert later.key in {first.key, meanwhile.key}
    assert first.key.startswith(b"p/\xff/matyan/commits/")


@pytest.mark.parametrize(
    ("error", "is_used_again"),
    [(TooLargeError("x"), True), (KeyError("x"), True), (UnavailableError("x"), False), (KeyboardInterrupt(), False)],
)
def test_the_key_of_a_call_that_ended_in_doubt_is_not_used_again(error: BaseException, is_used_again: bool) -> None:
    marks = CommitMarks(b"p/")
    with pytest.raises(type(error)), marks.lend() as first:
        raise error
    with marks.lend() as later:
        pass

    assert (later.key == first.key) is is_used_again
