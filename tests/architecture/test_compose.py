"""config/compose.yaml, without a Docker engine: its schema, its secrets, and that every command and setting holds."""

from __future__ import annotations

import importlib.resources
import json
import re
import stat
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import jsonschema_rs
import pytest

from matyan.cli import make_parser
from matyan.configuration import load
from matyan.engines.log.kafka_client import servers_of
from matyan.http.server import DRAIN_SECONDS_MAX
from matyan.ingestion.gateway import DRAIN_SECONDS_MAX as GATEWAY_SECONDS_MAX
from matyan.roles.process import check_shared
from matyan.roles.runner import POOLS_SECONDS_MAX
from matyan.roles.table import APART
from matyan.settings import Settings
from matyan.workers.lifecycle import JOIN_SECONDS
from tests.support.compose import COMPOSE, NEW_ENV, filled_compose, make_env, raw_compose, required_variables
from tests.support.dockerfile import read_dockerfile
from tests.support.kafka import VERSION as KAFKA_VERSION
from tests.support.markdown import ROOT

SECRET: Final = re.compile(r"(KEY|KEYS|PASSWORD|SECRET|TOKEN)$")


@pytest.fixture(scope="module")
def variables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return make_env(tmp_path_factory.mktemp("env") / ".env")


@pytest.fixture(scope="module")
def compose(variables: dict[str, str]) -> dict[str, Any]:
    return filled_compose(variables)


def environment_of(service: Mapping[str, Any]) -> dict[str, str]:
    """Return what a process of ours finds in its environment: the image's, and the service's on top."""
    return {**read_dockerfile(ROOT / "Dockerfile").final.environment, **service["environment"]}


def settings_of(compose: Mapping[str, Any], role: str) -> Settings:
    return load(environ=environment_of(compose["services"][role]), role=role)


# ---- the file


def test_it_keeps_to_the_schema_of_compose(compose: dict[str, Any]) -> None:
    schemas = importlib.resources.files("check_jsonschema") / "builtin_schemas" / "vendor"
    validator = jsonschema_rs.validator_for(json.loads((schemas / "compose-spec.json").read_text()))

    assert [f"{error.instance_path}: {error.message}" for error in validator.iter_errors(compose)] == []


def test_every_image_is_an_exact_version() -> None:
    for name, service in raw_compose()["services"].items():
        tag = service["image"].partition(":")[2]
        assert re.search(r"\d+\.\d+\.\d+", tag), name


def test_images_are_the_versions_that_are_tested_and_built_for() -> None:
    services = raw_compose()["services"]
    library = read_dockerfile(ROOT / "Dockerfile").arguments["FDB_VERSION"]

    assert services["kafka"]["image"] == f"apache/kafka:{KAFKA_VERSION}"
    assert {services[name]["image"] for name in ("fdb", "fdb-init")} == {f"foundationdb/foundationdb:{library}"}


def test_ports_are_published_on_loopback_only(compose: dict[str, Any]) -> None:
    published = [port for service in compose["services"].values() for port in service.get("ports", ())]

    assert published
    assert [port for port in published if not port.startswith("127.0.0.1:")] == []


def test_what_services_rest_on_is_there(compose: dict[str, Any]) -> None:
    services = compose["services"]

    for service in services.values():
        needs = service.get("depends_on", {})
        for name, need in needs.items() if isinstance(needs, dict) else ((one, {}) for one in needs):
            assert name in services
            assert need.get("condition") != "service_healthy" or "healthcheck" in services[name]
        for volume in service.get("volumes", ()):
            assert volume.partition(":")[0] in compose["volumes"]
        for config in service.get("configs", ()):
            assert config["source"] in compose["configs"]
    for config in compose["configs"].values():
        assert "content" in config or (COMPOSE.parent / config["file"]).is_file()


def test_everything_declared_is_used(compose: dict[str, Any]) -> None:
    services = compose["services"].values()

    assert set(compose["volumes"]) == {
        one.partition(":")[0] for service in services for one in service.get("volumes", ())
    }
    assert set(compose["configs"]) == {one["source"] for service in services for one in service.get("configs", ())}


# ---- secrets


def secrets_in(tree: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for service in tree["services"].values():
        yield from ((name, value) for name, value in service.get("environment", {}).items() if SECRET.search(name))


def test_no_secret_stands_in_the_file() -> None:
    found = list(secrets_in(raw_compose()))

    assert len(found) > 4
    for name, value in found:
        assert re.fullmatch(r"\$\{\w+:\?run config/new-env.sh first\}", value), name


def test_it_does_not_start_without_secrets() -> None:
    with pytest.raises(LookupError, match=r"run config/new-env\.sh first"):
        filled_compose({})


def test_the_script_makes_every_secret_anew_and_for_its_owner_alone(tmp_path: Path, variables: dict[str, str]) -> None:
    again = make_env(tmp_path / ".env")

    assert set(again) == required_variables()
    assert all(again[name] != variables[name] for name in again)
    assert min(len(value) for value in again.values()) >= len("matyan-00000000")
    assert stat.S_IMODE((tmp_path / ".env").stat().st_mode) == 0o600


def test_the_script_overwrites_nothing(tmp_path: Path) -> None:
    kept = make_env(tmp_path / ".env")

    done = subprocess.run(["sh", NEW_ENV, tmp_path / ".env"], capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert "is there already" in done.stderr
    assert all(f"{name}={value}" in (tmp_path / ".env").read_text() for name, value in kept.items())


def test_the_secrets_never_reach_the_repository_or_the_image() -> None:
    assert "config/.env" in (ROOT / ".gitignore").read_text().splitlines()
    assert "!config/.env" not in (ROOT / ".dockerignore").read_text()


# ---- our roles


@pytest.mark.parametrize("role", APART)
def test_the_settings_of_a_role_are_complete_and_without_fault(compose: dict[str, Any], role: str) -> None:
    settings = settings_of(compose, role)

    check_shared(settings)
    assert settings.http.host == "0.0.0.0"
    assert len(settings.secrets.keys) == 1


@pytest.mark.parametrize("role", APART)
def test_a_role_is_started_and_asked_by_commands_that_exist(compose: dict[str, Any], role: str) -> None:
    service = compose["services"][role]
    probe = service["healthcheck"]["test"]

    assert make_parser().parse_args(service["command"]).name == role
    assert probe[:2] == ["CMD", "matyan"]
    assert make_parser().parse_args(probe[2:]).role == role


@pytest.mark.parametrize("role", ["serve", "frontier"])
def test_the_port_published_is_the_one_listened_on(compose: dict[str, Any], role: str) -> None:
    (published,) = compose["services"][role]["ports"]
    port = settings_of(compose, role).http.port

    assert published == f"127.0.0.1:{port}:{port}"


def test_roles_are_the_same_but_for_what_they_do(compose: dict[str, Any]) -> None:
    own = {"command", "healthcheck", "ports", "volumes"}
    shared = [{k: v for k, v in compose["services"][role].items() if k not in own} for role in APART]

    assert [one for one in shared if one != shared[0]] == []
    assert shared[0]["cap_drop"] == ["ALL"]
    assert shared[0]["read_only"]


def test_roles_lead_to_the_services_beside_them(compose: dict[str, Any]) -> None:
    settings, services = settings_of(compose, "frontier"), compose["services"]
    written = services["fdb-init"]["environment"]

    assert settings.kv_uri == f"fdb://{written['FDB_CLUSTER_FILE']}"
    assert written["CLUSTER"] == services["fdb"]["environment"]["FDB_CLUSTER_FILE_CONTENTS"]
    assert written["CLUSTER"].endswith("@fdb:4500")
    for name in (*APART, "fdb-init"):
        assert f"fdb-cluster:{Path(written['FDB_CLUSTER_FILE']).parent}" in services[name]["volumes"]
    assert (
        f"PLAINTEXT://{servers_of(settings.log_uri)[0]}"
        == (services["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"])
    )
    assert settings.s3.endpoint == "http://s3:9000"
    assert services["s3"]["environment"]["RUSTFS_ACCESS_KEY"] == settings.s3.access_key
    assert services["s3"]["environment"]["RUSTFS_SECRET_KEY"] == settings.s3.secret_key.reveal()


def test_clients_reach_the_store_where_the_frontier_sends_them(compose: dict[str, Any]) -> None:
    (published,) = compose["services"]["s3"]["ports"]

    assert settings_of(compose, "frontier").s3.public_endpoint == f"http://{published.rpartition(':')[0]}"


def test_the_frontier_keeps_what_it_spills(compose: dict[str, Any]) -> None:
    volumes = dict(one.split(":") for one in compose["services"]["frontier"]["volumes"])
    settings = settings_of(compose, "frontier")

    assert str(settings.home) == volumes["frontier"]
    assert settings.spill.path == ""  # which is a directory of the home


def test_a_role_has_the_time_that_its_stop_may_take(compose: dict[str, Any]) -> None:
    needed = JOIN_SECONDS + 2 * DRAIN_SECONDS_MAX + GATEWAY_SECONDS_MAX + POOLS_SECONDS_MAX

    for role in APART:
        assert int(compose["services"][role]["stop_grace_period"].removesuffix("s")) > needed


CHOWN: Final = """#!/bin/sh
echo "$*" >>"$STATE/calls"
"""
FDBCLI: Final = r"""#!/bin/sh
# Answers as FoundationDB's tool: `configure new` makes the database, `status minimal` says whether there is one.
echo "$*" >>"$STATE/calls"
case "$*" in
    *"configure new single ssd"*) touch "$STATE/database" ;;
    *"status minimal"*) if [ -e "$STATE/database" ]; then echo "The database is available."; else
        echo "The database is unavailable; type \`status' for more information."; exit 1; fi ;;
esac
"""


@pytest.mark.parametrize("is_there", [False, True])
def test_the_database_is_made_only_where_none_answers(
    compose: dict[str, Any], tmp_path: Path, *, is_there: bool
) -> None:
    service = compose["services"]["fdb-init"]
    tools, state, cluster_file = tmp_path / "bin", tmp_path / "state", tmp_path / "etc" / "fdb.cluster"
    for folder in (tools, state, cluster_file.parent):
        folder.mkdir()
    for name, script in (("fdbcli", FDBCLI), ("chown", CHOWN)):
        (tools / name).write_text(script)
        (tools / name).chmod(0o755)
    if is_there:
        (state / "database").touch()
        cluster_file.write_text("matyan:compose@moved:4500\n")

    environment = {
        **service["environment"],
        "FDB_CLUSTER_FILE": str(cluster_file),
        "PATH": f"{tools}:/usr/bin:/bin",
        "STATE": str(state),
    }
    subprocess.run([*service["entrypoint"], *service["command"]], check=True, timeout=20, env=environment)

    calls = (state / "calls").read_text().splitlines()
    assert calls[0] == f"-R {owner_of_our_processes()} {cluster_file.parent}"
    assert [("configure" in call) for call in calls[1:]] == ([False] if is_there else [False, True, False])
    assert cluster_file.read_text() == f"matyan:compose@{'moved' if is_there else 'fdb'}:4500\n"


def owner_of_our_processes() -> str:
    return read_dockerfile(ROOT / "Dockerfile").final.last("USER").rest
