"""What the S3 store and the network say, in words for who can put it right."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Final

from minio.error import InvalidResponseError, MinioException, S3Error, ServerError
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    MaxRetryError,
    NameResolutionError,
    NewConnectionError,
    ReadTimeoutError,
    ResponseError,
    SSLError,
)

from matyan.errors import UnavailableError

NO_SUCH_KEY: Final = "NoSuchKey"
NO_SUCH_BUCKET: Final = "NoSuchBucket"
BUCKET_IS_THERE: Final = frozenset({"BucketAlreadyExists", "BucketAlreadyOwnedByYou"})
"""What the second of two who make a bucket is told; stores do not agree on which."""
CHANGED: Final = frozenset({NO_SUCH_KEY, "PreconditionFailed"})
"""What a conditional read gives when the object is no longer the one that was asked for."""

_REGION: Final = "the bucket lies in another region; set s3.region"
_ADVICE: Final = {
    NO_SUCH_BUCKET: "there is no such bucket; create it, or set s3.create_bucket",
    "AccessDenied": (
        "the key may not do this; it needs ListBucket on the bucket, and GetObject, PutObject, DeleteObject and "
        "AbortMultipartUpload on what is in it"
    ),
    "InvalidAccessKeyId": "the access key is not known there; check s3.access_key",
    "SignatureDoesNotMatch": "the secret key is wrong; check s3.secret_key",
    "RequestTimeTooSkewed": "its clock and that of this machine differ by minutes; set the clocks",
    "ExpiredToken": "the temporary credentials have expired; bring new ones",
    "InvalidToken": "the session token is not valid; bring new credentials",
    "AuthorizationHeaderMalformed": _REGION,
    "PermanentRedirect": _REGION,
    "SlowDown": "it is asked too much at once; try again later",
    "XMinioStorageFull": "its disks are full; free space there and try again",
    "QuotaExceeded": "the quota of the bucket is used up; free space there and try again",
}
_NETWORK: Final[tuple[tuple[type[Exception], str], ...]] = (  # the first that fits: some are kinds of others
    (NameResolutionError, "the name of its host is not known; check s3.endpoint"),
    (NewConnectionError, "nothing listens there; check s3.endpoint and that it runs"),
    (ConnectTimeoutError, "it does not answer; check s3.endpoint and the network"),
    (SSLError, "no secure connection to it is possible; check s3.endpoint and s3.ca_file"),
    (ReadTimeoutError, "it began no answer in time; try again later"),
    (ResponseError, "it answers that it cannot serve now; try again later"),
)
_CODE: Final = re.compile(r"<Code>(\w+)</Code>")
_STATUS_CODES: Final = {403: "AccessDenied", 404: NO_SUCH_KEY, 412: "PreconditionFailed"}
_SAID_MAX: Final = 200


def code_of(error: MinioException) -> str:
    """Return the code that the store gave, such as NoSuchKey; empty when it gave none.

    The SDK reads it from application/xml only; several stores answer with text/xml.
    """
    if isinstance(error, S3Error):
        return error.code or ""
    if isinstance(error, InvalidResponseError):
        found = _CODE.search(str(error))
        return found[1] if found else ""
    return _STATUS_CODES.get(error.status_code, "") if isinstance(error, ServerError) else ""


def explain(error: MinioException | HTTPError, where: str) -> str:
    """Return what happened at the store, and what to do; `where` names it."""
    if isinstance(error, MinioException):
        advice = _ADVICE.get(code_of(error)) or f"it refuses: {_said(error)}"
    else:
        reason = error.reason if isinstance(error, MaxRetryError) and error.reason else error
        advice = next((text for kind, text in _NETWORK if isinstance(reason, kind)), "the connection broke; try again")
    return f"the blob store {where} fails: {advice}"


@contextlib.contextmanager
def reporting(where: str) -> Iterator[None]:
    """Turn an error of the store or the network inside into the UnavailableError that users see."""
    try:
        yield
    except (MinioException, HTTPError) as error:
        raise UnavailableError(explain(error, where)) from error


def _said(error: MinioException) -> str:
    said = f"{error.code}: {error.message}" if isinstance(error, S3Error) else str(error)
    return " ".join(said.split())[:_SAID_MAX]
