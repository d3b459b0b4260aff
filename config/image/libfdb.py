"""Download FoundationDB's client library from its official release, check it, unpack it. Runs while an image is built.

    python libfdb.py VERSION MACHINE SHA256 TARGET [RELEASES]

MACHINE is Docker's name (amd64, arm64), SHA256 that of the release's package `foundationdb-clients_..._.deb`, TARGET
where libfdb_c.so goes, RELEASES a mirror of the releases. Python has TLS and the base image has dpkg-deb: so nothing
needs to be installed for this.
"""

# ruff: noqa: INP001 (a script, run by its path)

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

RELEASES = "https://github.com/apple/foundationdb/releases/download"
MACHINES = {"amd64": "amd64", "arm64": "aarch64"}
"""Docker's name -> FoundationDB's."""


def main(arguments: list[str]) -> int:
    """Do it; return the exit code."""
    if len(arguments) not in (4, 5):
        return complain("usage: libfdb.py VERSION MACHINE SHA256 TARGET [RELEASES]")
    version, machine, expected, target, releases = (*arguments, RELEASES)[:5]
    if machine not in MACHINES:
        return complain(f"FoundationDB is built for {' and '.join(MACHINES)}, not for {machine}")
    url = package_url(version, machine, releases)
    if not expected:
        return complain(f"no checksum is known for {url}: give it as a build argument, it stands beside it as .sha256")
    with tempfile.TemporaryDirectory() as name:
        package = Path(name) / "clients.deb"
        download(url, package)
        found = hashlib.sha256(package.read_bytes()).hexdigest()
        if found != expected:
            return complain(f"{url} has the SHA-256 {found}, expected {expected}")
        unpack(package, Path(target))
    return 0


def package_url(version: str, machine: str, releases: str) -> str:
    """Return where the release has the package with the library."""
    return f"{releases}/{version}/foundationdb-clients_{version}-1_{MACHINES[machine]}.deb"


def download(url: str, path: Path) -> None:
    """Fetch what lies at a URL into a file."""
    with urllib.request.urlopen(url, timeout=60) as answer, path.open("wb") as file:  # noqa: S310 - ours, or the caller's mirror
        shutil.copyfileobj(answer, file)


def unpack(package: Path, target: Path) -> None:
    """Take the library, and nothing else, out of the package; its install scripts do not run."""
    with tempfile.TemporaryDirectory() as name:
        subprocess.run(["dpkg-deb", "--extract", package, name], check=True)  # noqa: S603, S607 - ours, in the base image
        (library,) = Path(name).rglob("libfdb_c.so")
        shutil.copyfile(library, target)
    target.chmod(0o755)


def complain(text: str) -> int:
    """Say what is wrong."""
    print(f"libfdb.py: {text}", file=sys.stderr)  # noqa: T201 - its output
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
