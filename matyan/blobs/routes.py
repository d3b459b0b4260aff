"""Presigned uploads, and batches of blobs by URI."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any, Final

import msgspec
from litestar import Request, Response, post, put
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody

from matyan.blobs.receiving import Uploads
from matyan.blobs.service import BlobService
from matyan.engines.blob.protocol import BlobStream
from matyan.engines.blob.uploads import UPLOAD_ROUTE
from matyan.http.answers import json_response
from matyan.http.openapi import TakesBytes, answers, streams
from matyan.http.streaming import stream
from matyan.observe.metrics import Metrics
from matyan.threads import download_pool, run_blocking
from matyan.wire.trees import BLOB_BYTES_MAX, begin_blob

logger = logging.getLogger(__name__)

_uploads: Final = Uploads()
"""Those of this process, as its threads are."""


class PresignRequest(msgspec.Struct, frozen=True):
    """The file that a client wants to upload."""

    run_id: str
    artifact_path: str
    content_type: str = "application/octet-stream"


class PresignAnswer(msgspec.Struct, frozen=True):
    """Where to PUT it, with which headers besides its Content-Type."""

    upload_url: str
    s3_key: str
    headers: dict[str, str] | None


class Uploaded(msgspec.Struct, frozen=True):
    """What was stored."""

    size_bytes: int


@post(
    "/artifacts/presign",
    status_code=200,
    operation_id="presignUpload",
    responses=answers(PresignAnswer, "Where to send it."),
)
async def presign(
    request: Request[Any, Any, Any], data: JSONBody[PresignRequest], blobs: NamedDependency[BlobService]
) -> Response[bytes]:
    """Say where a file of a run may be uploaded."""
    signed = await run_blocking(
        blobs.presign,
        data.run_id,
        data.artifact_path,
        content_type=data.content_type,
        origin=_origin(request),
    )
    answer = PresignAnswer(signed.url, f"{data.run_id}/{data.artifact_path}", dict(signed.headers) or None)
    return json_response(answer)


@put(
    f"{UPLOAD_ROUTE}/{{token:str}}",
    request_max_body_size=None,
    operation_class=TakesBytes,
    operation_id="upload",
    responses=answers(Uploaded, "It is stored."),
)
async def upload(
    request: Request[Any, Any, Any],
    token: FromPath[str],
    blobs: NamedDependency[BlobService],
    metrics: NamedDependency[Metrics],
) -> Response[bytes]:
    """Take one upload, of any content type and size, and hand it to the engine part by part."""
    try:
        stored = await _uploads.receive(partial(blobs.begin_upload, token), request.stream())
    except BaseException:  # the client's leaving too: it cancels this
        metrics.uploads.labels("failed").inc()
        raise
    metrics.uploads.labels("stored").inc()
    metrics.upload_bytes.inc(stored.size_bytes)
    return json_response(Uploaded(stored.size_bytes))


@post("/runs/images/get-batch", status_code=200, operation_id="readImages", responses=streams("Trees `{uri: bytes}`."))
async def images_batch(data: JSONBody[list[str]], blobs: NamedDependency[BlobService]) -> Response[Any]:
    """Stream `{uri: bytes}` for images."""
    return _batch(blobs, data)


@post("/runs/audios/get-batch", status_code=200, operation_id="readAudios", responses=streams("Trees `{uri: bytes}`."))
async def audios_batch(data: JSONBody[list[str]], blobs: NamedDependency[BlobService]) -> Response[Any]:
    """Stream `{uri: bytes}` for audio."""
    return _batch(blobs, data)


def _batch(blobs: BlobService, uris: list[str]) -> Response[Any]:
    return stream(lambda: _trees(blobs.open_uris(uris)), pool=download_pool())


def _trees(files: Iterable[tuple[str, BlobStream]]) -> Iterator[bytes]:
    """Yield `{uri: bytes}` of each file, piece by piece: a file of any size takes the memory of one piece."""
    for uri, (info, chunks) in files:
        if info.size_bytes > BLOB_BYTES_MAX:
            logger.warning("blob is too large for a tree stream", extra={"key": info.key, "bytes": info.size_bytes})
            continue
        yield begin_blob((uri,), info.size_bytes)
        yield from chunks


def _origin(request: Request[Any, Any, Any]) -> str:
    """Return scheme, host and port as the client sees them; a proxy that ends TLS says so in X-Forwarded-Proto."""
    base = request.base_url
    forwarded = request.headers.get("x-forwarded-proto", "")
    scheme = forwarded if forwarded in ("http", "https") else base.scheme
    return f"{scheme}://{base.netloc}"


ROUTES: Final = (presign,)
"""For the gateway, under the prefix of every dialect."""
READ_ROUTES: Final = (images_batch, audios_batch)
"""For the readers, likewise."""
ROOT_ROUTES: Final = (upload,)
"""Absolute paths."""
