"""Clients of an S3 store: whose keys, which certificates, how long to wait and how often to try again."""

from __future__ import annotations

from typing import Final

import urllib3
from minio import Minio
from minio.credentials.credentials import Credentials
from minio.credentials.providers import (
    AWSConfigProvider,
    ChainedProvider,
    EnvAWSProvider,
    IamAwsProvider,
    Provider,
    StaticProvider,
)
from urllib3.util import Retry, Timeout

from matyan.errors import ConfigurationError, UnavailableError
from matyan.settings import S3Settings

CONNECT_SECONDS: Final = 5.0
SILENCE_SECONDS: Final = 30.0
"""How long an answer, or the next piece of one, may take."""
ATTEMPTS: Final = 4
CONNECTIONS: Final = 64
"""Kept open; more are opened when more threads call at once, and closed after."""


class S3Credentials(Provider):
    """The settings' keys; without them the environment's, the AWS credentials file's, or the machine's role."""

    def __init__(self, settings: S3Settings) -> None:
        self._provider: Provider
        if settings.access_key:
            self._provider = StaticProvider(settings.access_key, settings.secret_key.reveal())
        else:
            roles = [IamAwsProvider(http_client=make_pool(""))] if settings.machine_role else []
            self._provider = ChainedProvider([EnvAWSProvider(), AWSConfigProvider(), *roles])

    def retrieve(self) -> Credentials:
        """Return what signs the next request.

        Raises:
            UnavailableError: there is nothing.
        """
        try:
            return self._provider.retrieve()
        except ValueError as error:
            raise UnavailableError(
                "there is no key for the object store: set s3.access_key and s3.secret_key, or AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY; or s3.machine_role on a machine with a role"
            ) from error


def make_pool(ca_file: str) -> urllib3.PoolManager:
    """Return connections for all threads; `ca_file` holds the certificates to trust, empty: the system's.

    Every request is tried again, also a POST: deleting twice is harmless, and so is what an upload begun twice leaves.
    """
    retries = Retry(
        total=ATTEMPTS - 1,
        redirect=False,  # a signature is for one address
        allowed_methods=None,
        status_forcelist=(429, 500, 502, 503, 504),
        backoff_factor=0.2,
        backoff_jitter=0.2,
        respect_retry_after_header=False,  # it may ask for hours
    )
    timeout = Timeout(connect=CONNECT_SECONDS, read=SILENCE_SECONDS)
    return urllib3.PoolManager(
        maxsize=CONNECTIONS,
        timeout=timeout,
        retries=retries,
        cert_reqs="CERT_REQUIRED",
        ca_certs=ca_file or None,
    )


def make_client(endpoint: str, settings: S3Settings, credentials: Provider, pool: urllib3.PoolManager) -> Minio:
    """Return a client of one address of the store; nothing is sent yet.

    Raises:
        ConfigurationError: the address or the region cannot be right.
    """
    scheme, _, host = endpoint.partition("://")
    try:
        return Minio(
            host.rstrip("/"),
            secure=scheme == "https",
            region=settings.region,
            credentials=credentials,
            http_client=pool,
        )
    except ValueError as error:
        raise ConfigurationError(f"s3.endpoint {endpoint} with s3.region {settings.region!r}: {error}") from error
