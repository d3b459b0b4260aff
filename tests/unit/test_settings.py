"""Defaults < file < environment < flags; all faults at once."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from matyan.configuration import as_toml, differences, load
from matyan.errors import ConfigurationError
from matyan.settings import SECTIONS, Secret, Settings, describe, items


def write(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "settings.toml"
    file.write_text(text)
    return file


def test_nothing_given_gives_the_defaults() -> None:
    assert load(environ={}) == Settings()


def test_flags_win_over_the_environment_which_wins_over_the_file(tmp_path: Path) -> None:
    file = write(tmp_path, "[http]\nport = 1\nhost = 'localhost'\nread_only = true\n")
    settings = load(file=file, environ={"MATYAN_HTTP_PORT": "2", "MATYAN_HTTP_HOST": "::1"}, flags={"http.port": 3})

    assert (settings.http.port, settings.http.host, settings.http.read_only) == (3, "::1", True)


def test_the_environment_gives_lists_booleans_and_the_home() -> None:
    environ = {"MATYAN_HTTP_EXTRA_PORTS": "1, 2", "MATYAN_HTTP_READ_ONLY": "true", "MATYAN_HOME": "/data"}
    settings = load(environ=environ)

    assert settings.http.extra_ports == [1, 2]
    assert settings.http.read_only
    assert settings.kv_uri == "lmdb:///data/kv"


def test_variables_of_the_clients_are_left_alone() -> None:
    assert load(environ={"MATYAN_BACKEND_URL": "x", "MATYAN_WS_VERBOSE": "1", "OTHER": "x"}) == Settings()


def test_every_fault_is_reported_at_once_with_its_path(tmp_path: Path) -> None:
    file = write(tmp_path, "[kv]\nurl = 'x'\n[nope]\na = 1\n[log]\npartitions = -1\n")
    with pytest.raises(ConfigurationError) as error:
        load(file=file, environ={"MATYAN_HTTP_PORT": "x", "MATYAN_KV_URL": "y"}, flags={"http.extra_ports": [70000]})

    lines = error.value.message.splitlines()
    assert "Object contains unknown field `url` - at `$.kv`" in lines
    assert "Object contains unknown field `nope` - at `$`" in lines
    assert "Expected `int` >= 0 - at `$.log.partitions`" in lines
    assert "Expected `int`, got `str` - at `$.http.port`" in lines
    assert "Expected `int` <= 65535 - at `$.http.extra_ports[0]`" in lines
    assert "unknown setting MATYAN_KV_URL: kv has uri" in lines
    assert len(lines) == 6


@pytest.mark.parametrize("text", ["port = ", "\xff"])
def test_a_file_that_is_no_toml_is_named(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"settings\.toml is no TOML"):
        load(file=write(tmp_path, text), environ={})


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot read"):
        load(file=tmp_path / "nope.toml", environ={})


def test_an_address_that_others_reach_needs_a_flag_that_says_so() -> None:
    with pytest.raises(ConfigurationError, match=r"no login yet.*--insecure-allow-remote"):
        load(environ={}, flags={"http.host": "0.0.0.0"})

    settings = load(environ={}, flags={"http.host": "0.0.0.0", "http.allow_remote": True})
    assert settings.http.host == "0.0.0.0"


def test_a_port_twice_is_a_fault() -> None:
    with pytest.raises(ConfigurationError, match="name a port twice"):
        load(environ={}, flags={"http.port": 5, "http.extra_ports": [5]})


@pytest.mark.parametrize("path", ["no-slash", "/a/", "/a b", "/<script>"])
def test_a_base_path_is_a_plain_path(path: str) -> None:
    with pytest.raises(ConfigurationError, match=r"http\.base_path"):
        load(environ={}, flags={"http.base_path": path})


def test_differences_are_what_is_not_default() -> None:
    settings = load(environ={}, flags={"query.threads": 8, "http.host": "127.0.0.1"})

    assert differences(settings) == {"query.threads": 8}


def test_a_written_settings_file_reads_back(tmp_path: Path) -> None:
    settings = load(environ={}, flags={"http.cors_origins": ["https://a", "b'\"\\"], "query.seconds": 1.5})
    text = as_toml(settings)

    assert load(file=write(tmp_path, text), environ={}) == settings
    assert set(tomllib.loads(text)) == set(SECTIONS)


def test_a_secret_is_read_from_anywhere_and_printed_nowhere(tmp_path: Path) -> None:
    file = write(tmp_path, "[s3]\naccess_key = 'me'\nsecret_key = 'in the file'\n")
    read = load(file=file, environ={})
    settings = load(file=file, environ={"MATYAN_S3_SECRET_KEY": "hush hush"})

    assert (read.s3.secret_key.reveal(), settings.s3.secret_key.reveal()) == ("in the file", "hush hush")
    assert differences(settings) == {"s3.access_key": "me", "s3.secret_key": Secret("hush hush")}
    assert repr(differences(settings)["s3.secret_key"]) == "'***'"
    for printed in (repr(settings), str(differences(settings)), as_toml(settings)):
        assert "hush" not in printed
        assert "***" in printed


def test_a_secret_that_is_no_text_is_a_fault_that_does_not_tell_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"^Expected `str`, got `int` - at `\$\.s3\.secret_key`$") as error:
        load(file=write(tmp_path, "[s3]\nsecret_key = 12345\n"), environ={})

    assert "12345" not in error.value.message


@pytest.mark.parametrize("given", [{"s3.access_key": "me"}, {"s3.secret_key": "hush"}])
def test_one_half_of_a_key_pair_is_a_fault(given: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match=r"s3\.access_key and s3\.secret_key belong together"):
        load(environ={}, flags=given)


@pytest.mark.parametrize("endpoint", ["store:9000", "ftp://store", "http://store/path", "http://me:key@store", ""])
def test_an_s3_endpoint_is_scheme_and_host(endpoint: str) -> None:
    with pytest.raises(ConfigurationError, match=r"s3\.endpoint"):
        load(environ={}, flags={"s3.endpoint": endpoint})


def test_every_setting_has_a_description() -> None:
    for path, _ in items(Settings()):
        section, _, field = path.partition(".")
        assert len(describe(SECTIONS[section], field)) > 5, path
