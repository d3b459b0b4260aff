"""What users read when the store or the network refuses."""

from __future__ import annotations

import pytest
from minio.error import InvalidResponseError, MinioException, S3Error, ServerError
from urllib3 import HTTPConnectionPool, HTTPResponse
from urllib3.connection import HTTPConnection
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    MaxRetryError,
    NewConnectionError,
    ProtocolError,
    ReadTimeoutError,
    ResponseError,
    SSLError,
)

from matyan.engines.blob.s3_errors import code_of, explain, reporting
from matyan.errors import UnavailableError

POOL = HTTPConnectionPool("store")
XML = "<?xml version='1.0'?>\n<Error>\n  <Code>{}</Code><Message>no\nway</Message></Error>"


def refusal(code: str, message: str = "no way") -> S3Error:
    return S3Error(HTTPResponse(status=403), code, message, None, None, None)


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (refusal("RequestTimeTooSkewed"), "its clock and that of this machine differ by minutes; set the clocks"),
        (refusal("AccessDenied"), "it needs ListBucket on the bucket, and GetObject, PutObject"),
        (refusal("AuthorizationHeaderMalformed"), "the bucket lies in another region; set s3.region"),
        (refusal("PermanentRedirect"), "the bucket lies in another region; set s3.region"),
        (refusal("ExpiredToken"), "the temporary credentials have expired"),
        (refusal("XMinioStorageFull"), "its disks are full"),
        (refusal("Odd", "because\nof  that"), "it refuses: Odd: because of that"),
        (InvalidResponseError(403, "text/xml", XML.format("SignatureDoesNotMatch")), "the secret key is wrong"),
        (InvalidResponseError(403, "text/html", "<p>a proxy's page"), "it refuses: non-XML response from server"),
        (ServerError("server failed", 418), "it refuses: server failed"),
        (MaxRetryError(POOL, "/x", ConnectTimeoutError()), "it does not answer; check s3.endpoint and the network"),
        (MaxRetryError(POOL, "/x", SSLError("x")), "no secure connection to it is possible"),
        (MaxRetryError(POOL, "/x", ResponseError("too many 503")), "it cannot serve now; try again later"),
        (MaxRetryError(POOL, "/x", ReadTimeoutError(POOL, "/x", "")), "it began no answer in time"),
        (NewConnectionError(HTTPConnection("store"), "refused"), "nothing listens there"),
        (ProtocolError("x"), "the connection broke; try again"),
    ],
    ids=range(16),
)
def test_an_error_says_what_to_do(error: MinioException | HTTPError, advice: str) -> None:
    text = explain(error, "s3://bucket at http://store")

    assert text.startswith("the blob store s3://bucket at http://store fails: ")
    assert advice in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (refusal("NoSuchKey"), "NoSuchKey"),
        (InvalidResponseError(404, "text/xml", XML.format("NoSuchBucket")), "NoSuchBucket"),
        (InvalidResponseError(502, "text/html", None), ""),
        (ServerError("server failed", 412), "PreconditionFailed"),
        (ServerError("server failed", 500), ""),
        (MinioException("x"), ""),
    ],
    ids=range(6),
)
def test_the_code_is_found_however_the_store_sends_it(error: MinioException, code: str) -> None:
    assert code_of(error) == code


def test_only_errors_of_the_store_are_reported_as_its_own() -> None:
    with pytest.raises(UnavailableError, match="no such bucket") as caught, reporting("s3://bucket"):
        raise refusal("NoSuchBucket")
    assert isinstance(caught.value.__cause__, S3Error)
    with pytest.raises(ConnectionResetError), reporting("s3://bucket"):
        raise ConnectionResetError("the sender's")
